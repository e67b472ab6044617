"""The HTML pages' templates: self-contained (no network, no script), light and dark, readable on a phone.

Every value is escaped. What a model said is untrusted, and so are names and questions from files; as a second line, the
pages' own policy (default-src 'none') forbids scripts and requests even if a tag slipped through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2  # torch requires it


def render(template: str, filters: Mapping[str, Callable], values: Mapping[str, Any]) -> str:
    """A page from templates/<template>. Raises UndefinedError for a value that the template names and nobody gave."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(template).render(values)
