"""verl's own validation of a config. It imports verl, and so torch: seconds, which our checks (config_checks.py) do without."""

import contextlib
import io
import warnings

from hydra.errors import HydraException
from omegaconf import DictConfig

from Verl.errors import UserError, last_line


def check_with_verl(config: DictConfig) -> None:
    """What verl 0.9.1 validates before it starts, in silence.

    Raises:
        UserError: with verl's own sentence.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # it warns that there is no critic, which is meant
        from verl.trainer.ppo.utils import need_critic, need_reference_policy
        from verl.utils.config import validate_config

        try:
            validate_config(config, need_reference_policy(config), need_critic(config))
        except (AssertionError, ValueError, TypeError, HydraException) as error:
            reason = error.__cause__ or error  # Hydra wraps what verl's own classes raise
            raise UserError(f"verl rejects the settings: {last_line(reason) or type(reason).__name__}") from error
