r"""One spelling for the answers of MATH that mean the same, after Hendrycks et al. 2021 (arXiv 2103.03874): the lenient rule.

The published description, in its order: no line breaks, no `\!`, `\\` becomes `\`, `\tfrac` and `\dfrac` become
`\frac`, no `\left` and `\right`, no degrees, no dollar signs, no unit `\text{ ...}` on the right, no percent signs,
`.5` becomes `0.5`, "k = " in front goes, `\sqrt3` becomes `\sqrt{3}`, no spaces, `\frac12` becomes `\frac{1}{2}`,
`0.5` becomes `\frac{1}{2}`, and a whole answer `a/b` of integers becomes `\frac{a}{b}`.

Nothing else is judged: `1,000` and `1000`, `7.0` and `7`, `2+x` and `x+2` stay different (that is for the flexible
score).
Where the published code and its description part, we follow the description:

- a unit is dropped only where it ends the answer (the code also cuts "5\text{ or }6" down to "5");
- arguments of `\frac` and `\sqrt` may be commands (`\frac\pi2`), and `\frac{72}1` has a one-character denominator;
- a name in front is letters (the code makes "5" of "x<=5");
- `\left` and `\right` are whole commands (the code makes "arrow" of `\leftarrow`);
- a bare `%` or `$` goes like an escaped one, and "°" like `^\circ`; `.5` gets its zero wherever it stands.
"""

import re
from functools import lru_cache

# An answer that is longer is compared as it is: no true answer of MATH is a quarter as long, and this bounds the work.
MAX_CHARS = 1000

_DELETE = re.compile(r"\n|\\!|\\(?:left|right)(?![a-zA-Z])|\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![a-zA-Z])|°|\\?[$%]")
_UNIT_ON_THE_RIGHT = re.compile(r"\\text\{ [^{}]*\}(?:\^(?:\{[^{}]*\}|[0-9]))?[\s.]*$")
_BARE_POINT = re.compile(r"(?<![0-9.])\.(?=[0-9])")
_NAME_IN_FRONT = re.compile(r"^(?:[A-Za-z][A-Za-z0-9]?)? ?=(?=[^=]*$)")
_SPACE_BEFORE_ARGUMENT = re.compile(r"(?<=\\frac) +|(?<=\\sqrt) +|(?<=\}) +(?=\{)")
_TOKEN = r"(\\[a-zA-Z]+|[^{}\\\[])"
_SQRT_OF_TOKEN = re.compile(rf"\\sqrt{_TOKEN}")
_FRAC_OF_TOKEN = re.compile(rf"\\frac{_TOKEN}")
_LEADING_TOKEN = re.compile(f" *{_TOKEN}")
_INTEGER_RATIO = re.compile(r"(0|-?[1-9][0-9]*)/(0|-?[1-9][0-9]*)")


@lru_cache(maxsize=4096)
def normalise(answer: str) -> str:
    r"""The normal spelling of an answer; two answers are the same under the lenient rule if these are the same text.

    Example:
        >>> normalise(r"x = \dfrac12\text{ cm}")
        '\\frac{1}{2}'
    """
    if len(answer) > MAX_CHARS:
        return answer
    text = _DELETE.sub("", answer).replace("\\\\", "\\")
    text = text.replace("\\tfrac", "\\frac").replace("\\dfrac", "\\frac")
    text = _UNIT_ON_THE_RIGHT.sub("", text)
    text = _BARE_POINT.sub("0.", text)
    text = _NAME_IN_FRONT.sub("", text.strip())
    # Arguments are read while other spaces still part the words: "\frac\pi x" is not "\frac\pix".
    text = _SPACE_BEFORE_ARGUMENT.sub("", text)
    text = _SQRT_OF_TOKEN.sub(r"\\sqrt{\1}", text)
    text = _brace_fractions(_FRAC_OF_TOKEN.sub(r"\\frac{\1}", text)).replace(" ", "")
    if text == "0.5":
        return "\\frac{1}{2}"
    return _INTEGER_RATIO.sub(r"\\frac{\1}{\2}", text) if _INTEGER_RATIO.fullmatch(text) else text


def _brace_fractions(text: str) -> str:
    r"""Braces around the second argument of every `\frac{...}`: `\frac{1}2` becomes `\frac{1}{2}`."""
    start = text.find("\\frac{")
    while start >= 0:
        end = _closing(text, start + len("\\frac"))
        token = _LEADING_TOKEN.match(text, end + 1) if end is not None else None
        if token:
            text = f"{text[: token.start()]}{{{token.group(1)}}}{text[token.end() :]}"
        start = text.find("\\frac{", start + 1)
    return text


def _closing(text: str, start: int) -> int | None:
    """Where the brace that opens at `start` closes."""
    depth = 0
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position
    return None
