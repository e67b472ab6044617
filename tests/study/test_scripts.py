"""The scripts are those of the design, a researcher's own are left alone, and a slip in one is an error at once."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from Verl.design import declared as design
from Verl.errors import UserError
from Verl.study import scripts, shipped


def run(command, **more):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)


def test_no_script_has_drifted(study):
    assert scripts.drift(study, design.BASH) == {}, "run: python Running-Bash/generate_scripts.py"
    assert all(os.access(design.BASH / name, os.X_OK) for name in study.scripts)


def test_drift_is_found_and_corrected(study, bash_folder):
    own, ours = bash_folder / "run_my_idea_tiny_arith.sh", bash_folder / "run_grpo_0032_9_tiny_arith.sh"
    own.write_text("algorithm=grpo\n")
    ours.write_text(f"{scripts.MARK}\nalgorithm=grpo\n")
    edited = bash_folder / "run_grpo_0032_8_tiny_arith.sh"
    edited.write_text(edited.read_text().replace("rollout_n=8", "rollout_n=16"))
    (bash_folder / "run_grpo_0032_1_tiny_arith.sh").unlink()
    plots = bash_folder.parent / "Running-Results"
    (plots / "plot_rollouts.py").unlink()
    (plots / "plot_gone.py").write_text(f"# {scripts.PLOT_MARK}\n")
    found = {edited.name: "differs", "run_grpo_0032_1_tiny_arith.sh": "missing", ours.name: "not declared",
             "plot_rollouts.py": "missing", "plot_gone.py": "not declared"}  # fmt: skip
    assert scripts.drift(study, bash_folder) == found
    assert scripts.write(study, bash_folder) == found
    assert scripts.drift(study, bash_folder) == {}
    assert own.is_file() and not ours.is_file()
    assert (plots / "plot_table.py").is_file() and not (plots / "plot_gone.py").is_file()  # the table is no factor's


def test_a_script_stays_as_it_is_when_an_arm_and_a_factor_are_added(study):
    """Whatever else is declared, on this pair or another: a script depends on its own arm alone."""
    arm, pair = study.split_script("grpo_0032_8_tiny_arith")
    before = scripts.text(study, arm, pair)
    more = design.Arm("grpo_0032_4", "grpo", 32, 4)
    factor = replace(study.factors["rollouts"], name="few", arms=("grpo_0032_8", "grpo_0032_4"), published="nothing changes")
    wider = replace(pair, arms=(*pair.arms, more.name), stands_for={**pair.stands_for, "few": {arm.name: "grpo_0064_8"}})
    larger = replace(
        study, arms={**study.arms, more.name: more}, factors={**study.factors, "few": factor},
        pairs={**study.pairs, pair.name: wider},
    )  # fmt: skip
    assert scripts.text(larger, arm, wider) == before
    assert "4 rollouts per query instead of 1" in scripts.text(larger, more, wider)


def test_the_generator_says_by_its_status_whether_scripts_differ(bash_folder, root):
    command = [sys.executable, root / "Running-Bash/generate_scripts.py", "--folder", bash_folder]
    assert run([*command, "--check"]).returncode == 0
    (bash_folder / "run_grpo_0032_1_tiny_arith.sh").write_text(f"{scripts.MARK}\n")
    checked = run([*command, "--check"])
    assert checked.returncode == 1 and "run_grpo_0032_1_tiny_arith.sh: differs" in checked.stdout
    assert run(command).returncode == 0 and run([*command, "--check"]).returncode == 0


def test_a_header_says_what_changes(study):
    def of(name):
        return scripts.text(study, *study.split_script(name))

    assert "8 rollouts per query instead of 1" in of("grpo_0032_8_qwen0.5b_gsm")
    assert "The base line" in of("grpo_0032_1_olmo1b_math") and "Against" not in of("grpo_0032_1_olmo1b_math")
    assert "its query's last 8 rewards" in of("asyttgrpo_0064_4_8_llama1b_math")
    control = of("grpo_0032_8_control_lr0_tiny_arith")
    assert "Against run_grpo_0032_8_tiny_arith.sh: learning rate 0." in control and "Expect: Pass@1 moves" in control


def test_every_line_of_a_header_fits_the_page(study):
    texts = (scripts.text(study, arm, pair) for arm, pair in study.scripts.values())
    assert max(len(line) for text in texts for line in text.splitlines()) <= 120


SCRIPT = "run_grpo_0032_8_tiny_arith.sh"


@pytest.mark.parametrize(
    ("script", "old", "new", "said"),
    [
        (SCRIPT, "rollout_n=8", "rolout_n=8", "it sets rolout_n, which nothing reads"),
        (SCRIPT, "rollout_n=8", "", "it must set rollout_n"),
        (SCRIPT, "rollout_n=8", "rollout_n=8\nFOO=bar", "it sets FOO, which nothing reads"),
        (SCRIPT, "algorithm=grpo", "algorithm=gropo", "algorithm=gropo is unknown"),
        (SCRIPT, 'run "$@"', "", 'it must end with: run "$@"'),
    ],
)
def test_a_slip_in_a_script_is_one_sentence_and_status_2(bash_folder, script, old, new, said):
    done = run(["bash", changed(bash_folder / script, old, new), "--print-args"])
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("script", "old", "new", "said"),
    [
        (SCRIPT, "rollout_n=8", "rollout_n=8x", "actor_rollout_ref.rollout.n=8x .* must be a whole number"),
        (SCRIPT, "model=tiny", "model=tinny", "model=tinny is unknown: choose .*tiny"),
        (SCRIPT, "data=arith", "data=arit", "data=arit is unknown: choose arith"),
        ("run_onerpo_0032_1_7_tiny_arith.sh", "extra_sampling_size=7", "", "the script must set extra_sampling_size"),
        ("run_asyttgrpo_0064_4_8_tiny_arith.sh", "window_size=8", "", "the script must set window_size"),
    ],
)
def test_a_wrong_value_in_a_script_is_one_sentence(bash_folder, script, old, new, said):
    changed(bash_folder / script, old, new)
    with pytest.raises(UserError, match=said) as caught:
        shipped.prepare(script, folder=bash_folder)
    assert "\n" not in str(caught.value)


def changed(path, old, new):
    assert path.read_text().count(f"\n{old}\n") == 1
    path.write_text(path.read_text().replace(f"\n{old}\n", f"\n{new}\n"))
    return path


@pytest.mark.parametrize("typed", [["--dri-run"], ["--where"]])
def test_an_unknown_option_is_one_sentence(bash_folder, typed):
    done = run(["bash", bash_folder / SCRIPT, *typed])
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and "error: " in done.stderr


def test_the_caller_s_environment_is_no_setting(bash_folder):
    environment = {**os.environ, "window_size": "3", "variant": "x", "extra_sampling_size": "7", "own_arguments": "y"}
    clean = run(["bash", bash_folder / SCRIPT, "--print-args"])
    assert run(["bash", bash_folder / SCRIPT, "--print-args"], env=environment).stdout == clean.stdout
    assert "window_size" not in clean.stdout
