r"""MATH: the answer stands in `\boxed{...}` (Hendrycks et al. 2021, arXiv 2103.03874).

Strict: verl 0.9.1's rule to the letter (`Verl.reward.verl_math`), so that numbers compare with published ones.

Lenient: strict, or the content of the last box, after `normalise`, is the same text as the truth after `normalise`. It reads
the description of that rule as it was meant: `\boxed {5}`, `\fbox{5}`, `198%` and `90°` count. The *last* `\boxed` counts
(`\fbox` only where there is no `\boxed`), and where its braces do not balance there is no answer, though an earlier box may be
sound. `\boxed 5` reads to the next `$` or the end of the line. The few answers that only verl's rule takes (an earlier
`\boxed 5` before another box) are right here too, since the scores are nested.

Flexible: lenient, or math-verify (github huggingface/Math-Verify) calls the two equivalent. It is given the content of
the last box or, where there is none, the end of the text, from which it takes the last formula or number. math-verify
is generous: it drops units and the base of 52_8, takes "x=5" for 5 and (1,2) for {1,2}.

Format: there is a box that the lenient rule can read, or the answer is strictly right.
"""

import re

from Verl.reward import verl_math
from Verl.reward.guard import MathVerifyGuard, ScoringOutcome, shared_guard
from Verl.reward.normalise import MAX_CHARS, normalise
from Verl.reward.result import Scores, scores

TAIL_CHARS = 1000
_BOX = re.compile(r"\\boxed(?![a-zA-Z])")
_FBOX = re.compile(r"\\fbox(?![a-zA-Z])")
_SHORT_INTEGER = re.compile(r"-?[0-9]{1,15}")
# math-verify reads numbers, and formulas that start with one of these; a text without any of them holds no answer.
_READABLE = re.compile(r"[\d$\\\[]")


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed` (or else `\fbox`), or None where there is none or its braces don't balance."""
    boxes = list(_BOX.finditer(text)) or list(_FBOX.finditer(text))
    if not boxes:
        return None
    rest = text[boxes[-1].end() :]
    content = rest.lstrip(" ")
    if content.startswith("{"):
        return _braced(content)
    if content == rest:
        return None
    return re.split(r"[$\n]", content, maxsplit=1)[0].strip() or None


def _braced(text: str) -> str | None:
    r"""What stands between the brace that opens `text` and its partner. Escaped braces (`\{`) are content."""
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if match.group() == "{":
            depth += 1
        elif match.group() == "}":
            depth -= 1
            if depth == 0:
                return text[1 : match.start()]
    return None


def _tail(text: str) -> str:
    """The end of a long text, from the start of a line if it has one: half a formula would pair the wrong `$` signs."""
    tail = text[-TAIL_CHARS:]
    if len(text) > TAIL_CHARS:
        tail = tail.partition("\n")[2].strip() or tail
    return tail


def _certainly_different(answer: str, truth: str) -> bool:
    """Two different integers (so are most wrong answers), or an answer too long to be one: math-verify isn't called."""
    if len(answer) > MAX_CHARS:
        return True
    if _SHORT_INTEGER.fullmatch(answer) and _SHORT_INTEGER.fullmatch(truth):
        return int(answer) != int(truth)
    return False


def ask_math_verify(text: str, content: str | None, truth: str, guard: MathVerifyGuard | None) -> ScoringOutcome:
    """Whether math-verify calls the answer equivalent to `truth`, asking only where the outcome is open.

    Args:
        text: the response.
        content: what `boxed(text)` found.
        truth: the true answer, as LaTeX without a box.
        guard: None for the one that this process shares.
    """
    truth = truth.strip()
    if content is None:
        answer = _tail(text)
        if not _READABLE.search(answer):
            return ScoringOutcome.DIFFERENT
    else:
        content = content.strip()
        if not content or _certainly_different(content, truth):
            return ScoringOutcome.DIFFERENT
        answer = rf"\boxed{{{content}}}"
    return (guard or shared_guard()).check(rf"\boxed{{{truth}}}", answer)


def score(text: str, truth: str, guard: MathVerifyGuard | None = None) -> Scores:
    """Score one answer to a MATH problem whose true answer is the LaTeX `truth` (the content of its reference's box).

    Raises:
        ValueError: `truth` is empty.
    """
    if not truth.strip():
        raise ValueError("the ground truth of a MATH problem is empty")
    content = boxed(text)
    strict = verl_math.is_right(text, truth)
    lenient = content is not None and normalise(content) == normalise(truth)
    if strict or lenient:
        return scores(strict, flexible=True, well_formed=content is not None, lenient=lenient)
    outcome = ask_math_verify(text, content, truth, guard)
    return Scores(
        strict=0.0,
        flexible=float(outcome is ScoringOutcome.EQUAL),
        format=float(content is not None),
        failure=float(outcome is ScoringOutcome.FAILURE),
        timeout=float(outcome is ScoringOutcome.TIMEOUT),
    )
