"""The declared design: names say what arms do, and a slip in study.yaml is one sentence."""

import re

import pytest

from Verl.design import declared as design
from Verl.errors import UserError
from Verl.trainer.ppo.estimators import estimators

GPU_PAIRS = ("qwen0.5b_gsm", "qwen0.5b_math", "llama1b_gsm", "llama1b_math", "olmo1b_gsm", "olmo1b_math")


def test_six_pairs_have_the_published_22_arms(study):
    for name in GPU_PAIRS:
        assert len(study.pairs[name].arms) == 22, name
    assert len(set(study.pairs[GPU_PAIRS[0]].arms)) == 22
    assert study.base_line in study.pairs["tiny_arith"].arms


def test_the_trade_off_holds_its_product(study):
    products = {study.arms[c].queries * study.arms[c].rollouts for c in study.factors["tradeoff"].arms}
    assert products == {256} and len(study.factors["tradeoff"].arms) == 9


def test_an_arm_runs_under_the_entry_point_of_its_estimator(study):
    assert {arm.entry for arm in study.arms.values()} == {"grpo", "bandit", "replay"}
    assert all(arm.entry == estimators()[arm.estimator].entry for arm in study.arms.values())


def test_a_factor_asks_a_question_and_is_drawn_as_a_scale_where_it_is_one(study):
    assert all(factor.question.endswith((".", "?")) and factor.title for factor in study.factors.values())
    levels = {name: factor.level for name, factor in study.factors.items()}
    assert levels["rollouts"] == "rollouts" and levels["tradeoff"] == "queries" and levels["signal"] is None
    assert study.factors["tradeoff"].reference == "grpo_0032_8"  # declared
    assert study.factors["batch"].reference == study.factors["batch"].arms[0]
    assert study.factors["signal"].reference == study.factors["signal"].matched[0][1]


def test_the_arms_of_the_baseline_differ_in_nothing_else(study):
    """One number of queries and rollouts, and no arm divides by a std, so that a difference is the baseline's."""
    arms = [study.arms[name] for name in study.factors["reward_baseline"].arms]
    assert {(arm.queries, arm.rollouts) for arm in arms} == {(32, 8)}
    for arm in arms:
        divides = estimators()[arm.estimator].divides_by_std
        assert divides == ("algorithm.norm_adv_by_std_in_grpo=false" in arm.settings), arm.name


def test_only_what_goes_beyond_the_published_grid_is_optional(study):
    assert {name for name, factor in study.factors.items() if not factor.optional} >= {"baseline", "rollouts", "replay_larger"}
    assert study.factors["signal"].optional and study.factors["controls"].optional


def test_every_arm_of_the_arithmetic_pair_fits_its_questions(study):
    pair = study.pairs["tiny_arith"]
    assert max(study.arms[arm].queries for arm in pair.arms) == study.data["arith"]["train"]


def test_scaled_arms_stand_for_published_ones_at_a_quarter(study):
    pair = study.pairs["tiny_arith"]
    members = pair.members(study.factors["replay_larger"])
    assert list(members) == list(study.factors["replay_larger"].arms)
    for published, arm in members.items():
        assert study.arms[published].queries == 4 * study.arms[arm].queries
    # The mapping belongs to that factor alone: elsewhere the arm is itself.
    assert pair.members(study.factors["replay_tradeoff"])["asyttgrpo_0256_1_8"] == "asyttgrpo_0256_1_8"


def test_a_script_s_name_gives_its_arm_and_pair(study):
    for text in ("run_grpo_0032_8_tiny_arith.sh", "grpo_0032_8_tiny_arith"):
        arm, pair = study.split_script(text)
        assert (arm.name, pair.name) == ("grpo_0032_8", "tiny_arith")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("grpo_0032_16: {estimator: grpo, queries: 32", "grpo_0032_16: {estimator: grpo, queries: 33", "grpo_0033_16"),
        ("grpo_0032_16: {estimator: grpo,", "grpo_0032_16: {estimator: gropo,", "did you mean grpo"),
        ("grpo_0032_16: {estimator: grpo, queries", "grpo_0032_16: {estimator: grpo, querys", "querys"),
        ("arms: [grpo_0032_8, grpo_0064_8,", "arms: [grpo_0032_8, grpo_0065_8,", "grpo_0065_8"),
        ("model: llama1b, data: gsm", "model: llama2b, data: gsm", "llama2b"),
        ("variant: control_lr0, settings", "settings", "give it a variant"),
        (
            "banditpo_0032_8_32: {estimator: banditpo, queries: 32, rollouts: 8, window: 32",
            "banditpo_0032_8_8: {estimator: banditpo, queries: 32, rollouts: 8, window: 8",
            "nothing is replayed",
        ),
        ("onerpo_0032_1_7: {estimator: onerpo, queries: 32, rollouts: 1, extra: 7}",
         "onerpo_0032_1: {estimator: onerpo, queries: 32, rollouts: 1}", "onerpo needs extra"),
        ("grpo_0032_16: {estimator: grpo, queries: 32,", "grpo_0032_16: {estimator: grpo, window: 32, queries: 32,",
         "grpo takes no window"),
        ("grpo_0256_1: {estimator: grpo,", "rloo_vectorized_0256_1: {estimator: rloo_vectorized,", "advantage 0"),
        ("axes: [steps, tokens]", "axes: [steps, token]", "did you mean tokens"),
        ("reference: grpo_0032_8", "reference: grpo_0032_9", "did you mean grpo_0032_8"),
        ("base_line: grpo_0032_1", "base_line: grpo_0032_3", "grpo_0032_3"),
        ("more: [arpo_0032_8,", "more: [arpo_0032_9,", "did you mean arpo_0032_8"),
        ("product: 256   #", "product: 255   #", "255"),
        ("\nfactors:\n", "\nfactors: {\n", "can't be read"),
    ],
)
def test_a_slip_in_the_design_is_one_sentence(tmp_path, old, new, said):
    text = design.DESIGN_FILE.read_text()
    assert text.count(old) >= 1
    path = tmp_path / "study.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        design.load(path)
    assert "\n" not in str(caught.value)


def test_unknown_names_are_answered_with_the_nearest(study):
    pair = study.pair("tiny_arith")
    with pytest.raises(UserError, match="did you mean grpo_0032_8"):
        study.arm("grpo_0032_9", pair)
    with pytest.raises(UserError, match="not declared for tiny_arith"):
        study.arm("asyttgrpo_2048_1_8", pair)
    with pytest.raises(UserError, match="did you mean tiny_arith"):
        study.pair("tiny_arit")
    with pytest.raises(UserError, match=r"did you mean run_grpo_0032_8_tiny_arith\.sh"):
        study.split_script("grpo_032_8_tiny_arith")
