"""Fails loudly when a new verl moves one of the names that we extend, generated from the tables in Verl/adapter/interface.py,
and when our sources use one that is missing there."""

import ast
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import types

import pytest

import Verl
from Verl.adapter import interface
from Verl.adapter.interface import REGISTERED, RELIED_ON, RELIED_ON_WITH_VLLM, REPLACED, names, replaced, resolve

PRIVATE = ("verl", "transfer_queue", "vllm")  # nothing in them is declared stable
OTHERS = ("torch", "transformers", "ray", "datasets")  # of these, what begins with _
PUBLIC_OF_VLLM = {"vllm:LLM", "vllm:SamplingParams", "vllm:TokensPrompt", "vllm:__version__"}
FOREIGN_OBJECTS = ("adapter", "cpu", "reward", "trainer/ppo")  # folders whose code handles objects of theirs
NOT_THEIRS = {"_asdict", "_replace", "_fields", "_exit"}


def has(target: str) -> object:
    """What a target names. An attribute that only instances have must be set by their constructor."""
    try:
        return resolve(target)
    except AttributeError:
        owner, name = resolve(target, parent=True), target.rsplit(".", 1)[1]
        assert inspect.isclass(owner) and name in owner.__init__.__code__.co_names, f"{target} is gone"
        return None


@pytest.mark.parametrize("package, version", interface.VERSIONS.items())
def test_the_pinned_versions_are_installed(package, version):
    assert importlib.metadata.version({"transfer_queue": "TransferQueue"}.get(package, package)) == version


@pytest.mark.parametrize("target, parameters, why", names(RELIED_ON))
def test_verl_still_has(target, parameters, why):
    found = has(target)
    if parameters:
        given = list(inspect.signature(found).parameters)
        assert given[: len(parameters)] == list(parameters), f"{target}{given}: {why}"


@pytest.mark.parametrize("name", [name for name, row in REPLACED.items() if not row.targets[0].startswith("vllm")])
def test_what_is_replaced_is_there_and_comes_back(name):
    for target in REPLACED[name].targets:
        assert target.replace(":", ".").endswith(f".{name}")
        has(target)
        if name in ("_attn_implementation", "compute_entropy_from_logits"):  # attributes of instances
            owner = types.SimpleNamespace(**{name: "before"})
            before, context = "before", replaced(owner, **{name: "ours"})
        else:
            owner = resolve(target, parent=True)
            before, context = has(target), replaced(**{name: "ours"})
        with pytest.raises(KeyboardInterrupt), context:
            assert getattr(owner, name) == "ours"
            raise KeyboardInterrupt
        assert getattr(owner, name) is before


def test_only_what_is_in_the_table_can_be_replaced():
    with pytest.raises(KeyError), replaced(RayResourcePool=None):
        pass


@pytest.mark.parametrize("target", [target for target in REGISTERED if ":" in target])
def test_plug_in_points_are_there(target):
    resolve(target)


# ---- what our sources use is in the tables --------------------------------------------------------------------------

SOURCES = {path: ast.parse(path.read_text()) for path in sorted(Verl.REPO_ROOT.joinpath("Verl").rglob("*.py"))}


def listed() -> set[str]:
    found = {target for table in (RELIED_ON, RELIED_ON_WITH_VLLM) for target, _, _ in names(table)}
    return found | {target for row in REPLACED.values() for target in row.targets} | set(REGISTERED)


def imported(tree: ast.AST) -> dict[str, str]:
    """Name in the file: "module:name" of what it was imported as."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {one.asname or one.name: f"{node.module}:{one.name}" for one in node.names}
        elif isinstance(node, ast.Import):
            for one in node.names:
                found[one.asname or one.name.split(".")[0]] = f"{one.name if one.asname else one.name.split('.')[0]}:"
    return found


def chains(tree: ast.AST) -> set[str]:
    """Everything imported, and every attribute path that begins at something imported."""
    known = imported(tree)
    found = {target for target in known.values() if not target.endswith(":")}
    for node in ast.walk(tree):
        path, parts = node, []
        while isinstance(path, ast.Attribute):
            path, parts = path.value, [path.attr, *parts]
        if parts and isinstance(path, ast.Name) and path.id in known:
            found.add(re.sub(":\\.", ":", f"{known[path.id]}.{'.'.join(parts)}"))
    return found


def is_private(target: str) -> bool:
    package = re.split(r"[.:]", target)[0]
    hidden = any(part.startswith("_") and not part.startswith("__") for part in re.split(r"[.:]", target))
    return (package in PRIVATE and target not in PUBLIC_OF_VLLM) or (package in OTHERS and hidden)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(Verl.REPO_ROOT)))
def test_every_private_name_that_is_imported_is_listed(path):
    known = listed()
    for target in filter(is_private, chains(SOURCES[path])):
        # A class counts as listed with one of its names, a module's alias with what is used of it.
        assert any(one == target or one.startswith(f"{target}.") for one in known) or any(
            target.startswith(f"{one}.") for one in known
        ), f"{target} is not in Verl/adapter/interface.py"


def test_every_private_attribute_of_their_objects_is_listed():
    ours = set(NOT_THEIRS)
    for tree in SOURCES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                ours.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                ours.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                ours.add(node.id)
    last = {re.split(r"[.:]", target)[-1] for target in listed()}
    for path, tree in SOURCES.items():
        if not str(path.relative_to(Verl.REPO_ROOT / "Verl")).startswith(FOREIGN_OBJECTS):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr) and node.attr not in ours:
                assert node.attr in last, f"{path}: {node.attr} is not in Verl/adapter/interface.py"


def _modules() -> list[types.ModuleType]:
    found = [one.name for one in pkgutil.walk_packages(Verl.__path__, "Verl.")]
    skipped = () if importlib.util.find_spec("vllm") else ("Verl.cpu.vllm_server", "Verl.cpu.vllm_worker")
    return [importlib.import_module(name) for name in found if name.startswith(("Verl.adapter.", "Verl.cpu.", "Verl.reward.",
            "Verl.trainer.ppo.")) and name not in skipped]  # fmt: skip


def test_every_method_of_verl_that_is_overridden_is_listed():
    known = listed()
    for module in _modules():
        for _, ours in inspect.getmembers(module, inspect.isclass):
            if ours.__module__ != module.__name__:
                continue
            for name in [name for name, value in vars(ours).items() if inspect.isroutine(value) or isinstance(value, property)]:
                bases = (base for base in ours.__mro__ if base.__module__.startswith("verl."))
                theirs = next((base for base in bases if name in vars(base)), None)
                if theirs is None or name.startswith("__") or theirs.__name__ == "PlatformBase":
                    continue
                assert any(one.endswith(f".{name}") and one.startswith(f"{theirs.__module__}:") for one in known), (
                    f"{theirs.__module__}:{theirs.__qualname__}.{name} is overridden by {ours.__name__} and not listed"
                )


def test_nothing_is_replaced_past_the_table():
    """An assignment to an attribute of something imported is a patch."""
    for path, tree in SOURCES.items():
        theirs = {name for name, target in imported(tree).items() if re.split(r"[.:]", target)[0] in (*PRIVATE, *OTHERS)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
                assert node.value.id not in theirs, f"{path}:{node.lineno} replaces {node.value.id}.{node.attr}"
