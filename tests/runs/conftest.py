"""The mini pair, once per session."""

import pytest

from tests.runs.harness import Mini


@pytest.fixture(scope="session")
def mini(tmp_path_factory):
    mini = Mini(tmp_path_factory.mktemp("mini"))
    yield mini
    assert not mini.wait_until_clean(), "Ray processes were left behind"
    mini.close()


@pytest.fixture(scope="session")
def base_line(mini):
    """GRPO with one rollout, ten steps, seed 0: what other runs are compared with."""
    result = mini.hosted("grpo", "base")
    assert result.status == 0, result.output
    return result


@pytest.fixture(scope="session")
def base_alone(mini):
    """The same in processes of its own."""
    result = mini.run("grpo", "base-alone")
    assert result.status == 0, result.output
    return result
