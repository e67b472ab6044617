"""A user's reward function is looked for before Ray starts, without running the user's file."""

import pytest

from Verl.errors import UserError
from Verl.trainer.reward_checks import check_custom_function

FILE = """
import only_in_the_workers as away
from scorers import exact as exact_match
raise RuntimeError("never run here")
if away:
    async def compute_score(data_source, solution_str, ground_truth, extra_info=None): ...
else:
    compute_score = None
other: object = print
def outer():
    def inner(): ...
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rewards.py"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize("name", ["compute_score", "exact_match", "other", "outer"])
def test_what_the_file_defines_or_imports_is_found(file, name):
    check_custom_function(str(file), name)


@pytest.mark.parametrize("name", ["compute_scores", "inner", "exact"])
def test_a_name_that_is_not_there_is_reported_with_the_nearest(file, name):
    with pytest.raises(UserError) as caught:
        check_custom_function(str(file), name)
    message = str(caught.value)
    assert message.startswith(f"reward.custom_reward_function.name={name} is not in {file}")
    assert ("did you mean compute_score?" in message) == (name == "compute_scores")


def test_an_import_of_everything_may_bring_any_name(file):
    file.write_text("from scorers import *")
    check_custom_function(str(file), "whatever")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"def f(:", "invalid syntax in line 1"), (b"\xff = 1", "is not Python"), (b"a\0", "not Python")],
)
def test_a_file_that_is_not_python_is_reported(file, content, words):
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"custom_reward_function.path={file} .*{words}"):
        check_custom_function(str(file), "compute_score")


def test_a_package_is_left_to_verl():
    check_custom_function("pkg://some.package", "compute_score")
