"""What all prompts of a batch begin with."""

from Verl.adapter.stem import FEWEST, stem_length

STEM = list(range(100, 100 + FEWEST))


def test_the_stem_ends_where_two_prompts_differ():
    assert stem_length([[*STEM, 1, 2], [*STEM, 1, 3, 4], [*STEM, 1, 2, 5]]) == FEWEST + 1


def test_every_prompt_keeps_its_last_token():
    assert stem_length([[*STEM, 1], [*STEM, 1, 2]]) == FEWEST
    assert stem_length([STEM, [*STEM, 1]]) == 0  # one token less is below what pays


def test_where_there_is_nothing_to_share():
    assert stem_length([[*STEM, 1]]) == 0
    assert stem_length([[*STEM, 1], [*STEM, 1]]) == 0  # one prompt, twice
    assert stem_length([[1, *STEM], [2, *STEM]]) == 0
    assert stem_length([STEM[1:], [*STEM[1:-1], 1]]) == 0
