"""A `View` of samples as one self-contained HTML page: no network, no script, light and dark, readable on a phone.

Every text goes through `_text`: what a model said is untrusted, and so are names and questions from files. As a second
line, the page's own policy (default-src 'none') forbids scripts and requests even if a tag slipped through.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from Verl.analysis.samples.view import Entry, Sample, StepSummary, View, facts, heading, visible

_LONG = 1500  # characters; a longer response is folded, so that a page of them can be scanned

_STYLE = """
:root { color-scheme: light dark; --line: #c9ccd1; --soft: #f3f4f6; --right: #1a7f37; --almost: #9a6700; --wrong: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3c4148; --soft: #1f2328; --right: #4ac26b; --almost: #d4a72c; --wrong: #ff7b72; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 75rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.25rem; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
table { border-collapse: collapse; }
th, td { padding: .15rem .75rem .15rem 0; text-align: right; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
.question { background: var(--soft); margin: 1rem 0; padding: .5rem .75rem; border-radius: .4rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .75rem; }
@media (max-width: 48rem) { .pair { grid-template-columns: 1fr; } }
article { border: 1px solid var(--line); border-left: .3rem solid var(--wrong); border-radius: .4rem; padding: .5rem .75rem;
  margin: .5rem 0; min-width: 0; }
article.right { border-left-color: var(--right); }
article.almost { border-left-color: var(--almost); }
.facts { margin: 0 0 .25rem; font-size: .875rem; }
.text { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font: .875rem/1.45 ui-monospace, monospace; }
summary { cursor: pointer; overflow-wrap: anywhere; }
"""


def page(view: View) -> str:
    """The whole page."""
    title = _text(heading(view))
    parts = [f"<h1>{title}</h1>"]
    parts += [_history(run, history) for run, history in zip(view.runs, view.history)]
    last = None
    for entry in view.entries:
        question = (entry.sample["data_source"], entry.sample["index"])
        if question != last and question in view.questions:
            parts.append(_question(*view.questions[question]))
        last = question
        parts.append(_entry(entry, view))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    """Text that is only ever text in HTML, quotes included, with its control characters made visible."""
    return html.escape(visible(text), quote=True)


def _history(run: str, history: Sequence[StepSummary]) -> str:
    rows = "".join(
        f"<tr><td>{row.step}</td><td>{row.responses}</td><td>{row.reward:.2f}</td><td>{row.length:.0f}</td></tr>"
        for row in history
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("step", "responses", "mean reward", "mean tokens"))
    return (
        f'<h2>{_text(run)}: over the steps</h2>\n<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _question(question: str, truth: str) -> str:
    return (
        f'<div class="question"><p class="text">{_text(question)}</p>'
        f'<p class="facts">true answer: <strong>{_text(truth)}</strong></p></div>'
    )


def _entry(entry: Entry, view: View) -> str:
    sample = entry.sample
    place = f"step {sample['step']}, question {sample['index']} of {sample['data_source']}, rollout {sample['rollout']}"
    if entry.other is None:
        body = _answer(sample, "")
    else:
        answers = "".join(_answer(one, f"{run}: ") for run, one in zip(view.runs, (sample, entry.other)))
        body = f'<div class="pair">{answers}</div>'
    return f"<section>\n<h2>{_text(place)}</h2>\n{body}\n</section>"


def _answer(sample: Sample, run: str) -> str:
    kind = "right" if sample["strict"] else "almost" if sample["flexible"] > 0 else "wrong"
    text = _text(sample["text"]) if sample["text"] else "(empty)"
    body = f'<p class="text" dir="auto">{text}</p>'
    if len(sample["text"]) > _LONG:
        start = _text(sample["text"][:100])
        body = f"<details><summary>{len(sample['text']):,} characters: {start} ...</summary>{body}</details>"
    return f'<article class="{kind}"><p class="facts">{_text(run + facts(sample))}</p>{body}</article>'
