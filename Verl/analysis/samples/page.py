"""A `View` of samples as one self-contained HTML page (`Verl.analysis.pages`)."""

from __future__ import annotations

from itertools import groupby

from Verl.analysis.pages import render
from Verl.analysis.samples.view import Entry, Sample, View, facts, heading, visible

_LONG = 1500  # characters; a longer response is folded, so that a page of them can be scanned


def page(view: View) -> str:
    """The whole page; control characters of every text are made visible."""

    def key(entry: Entry) -> tuple[str, int]:
        return entry.sample["data_source"], entry.sample["index"]

    groups = [(view.questions.get(question), list(entries)) for question, entries in groupby(view.entries, key)]
    values = {"title": heading(view), "histories": list(zip(view.runs, view.history)), "groups": groups}
    filters = {"visible": visible, "facts": facts, "kind": _kind}
    return render("samples.html.j2", filters, values | {"runs": view.runs, "long": _LONG}) + "\n"


def _kind(sample: Sample) -> str:
    return "right" if sample["strict"] else "almost" if sample["flexible"] > 0 else "wrong"
