"""Figures as SVG within a page: they take its text colour, so that they can be read in light and dark, and need no file.

A page has dozens of them, so they are kept small: letters are stored once for all (``share_letters``), coordinates have two
decimals, lines are written as steps, styles that stand often are named once, markers of one look are set along a path.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
from collections import Counter

import matplotlib
from matplotlib.figure import Figure

# letters as paths: the same picture whatever fonts a reader has; a fixed salt: the same names of clip paths every time
_SVG = {"svg.fonttype": "path", "svg.hashsalt": "bandit", "path.simplify": True}
_COLOURS = {"#000000": "currentColor", "#dddddd": "var(--grid)", "#777777": "var(--grey)", "#555555": "currentColor",
            "#0072b2": "var(--blue)"}  # fmt: skip
_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(xlink:href="#|url\(#)([^")]+)')
_PLACES = re.compile(r'\b(?:d|x|y)="[^"]*"|translate\([^)]*\)')
_DIGITS = re.compile(r"(\.\d\d)\d+")  # hundredths of a point are enough
_LETTER = re.compile(r'<path id="(gB?[0-9a-f]+)"[^>]*/>')
_MOVED = re.compile(r'(<use href="#g\w+") transform="translate\((-?\d+)[.\d]* 0\)"')  # in hundredths of a letter's height
_STROKES = re.compile(r"\s*([MLQCz])\s*")
_LINE = re.compile(r'\bd="((?:M[-\d.\s]+(?:L[-\d.\s]+)+z?\s*)+)"')
_STROKE = re.compile(r"([MLz])([^MLz]*)")
_AT = r' x="([-\d.]+)" y="([-\d.]+)"'
_MARKERS = re.compile(rf'<use href="#([\w-]+)"{_AT}( [^>]*)/>(?:<use href="#\1"{_AT}\4/>){{3,}}')
_GROUP = re.compile(r"<g\s*>|<g\s[^>]*>|</g>")
_STYLE = re.compile(r' style="([^"]*)"')
_OFTEN = 4


def _ungrouped(text: str) -> str:
    """Without the groups that say nothing of what is in them."""
    kept, opened, end = [], [], 0
    for match in _GROUP.finditer(text):
        tag = match[0]
        if tag == "</g>":
            keep = opened.pop()
        else:
            keep = tag[2:-1].strip() != ""
            opened.append(keep)
        kept += [text[end : match.start()], tag if keep else ""]
        end = match.end()
    return "".join([*kept, text[end:]])


def _letter_name(name: str) -> str:
    """The short name of a letter's outline: DejaVuSans-Bold-4b is gB4b."""
    return f"g{'B' if 'Bold' in name else ''}{name.rsplit('-', 1)[1]}"


def _number(hundredths: int) -> str:
    """A number as short as SVG reads it: -0.50 is -.5."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{hundredths / 100:.2f}".rstrip("0").rstrip("."))


def _steps(path: str) -> str:
    """A path of straight lines with each place given from the one before, in fewer digits; the places themselves stay."""
    written, before, last = [], "", (0, 0)
    for stroke, place in _STROKE.findall(path):
        if stroke == "z":  # a new line begins after it, with an M
            written.append(stroke)
        else:
            here = tuple(round(100 * float(value)) for value in place.split())
            step = here if stroke == "M" else (here[0] - last[0], here[1] - last[1])
            pair = f"{_number(step[0])} {_number(step[1])}".replace(" -", "-")
            sign = stroke if stroke == "M" else "l" if before != "L" else "" if pair[0] == "-" else " "
            written.append(sign + pair)
            last = here
        before = stroke
    return "".join(written)


def _set_along(match: re.Match, number: int) -> str:
    """Markers of one look as one path that nobody sees, with a marker at each of its places."""
    outline, look = match[1], match[4]
    name = f"{outline}m{number}"
    places = _steps("M" + "L".join(f"{x} {y}" for x, y in re.findall(_AT, match[0])))
    attributes = f'id="{name}" overflow="visible" markerUnits="userSpaceOnUse"'
    marker = f'<marker {attributes}><use href="#{outline}"{look}/></marker>'
    return f'{marker}<path d="{places}" style="fill: none; marker: url(#{name})"/>'


def _small(text: str, key: str) -> str:
    """The same picture in fewer bytes. ``key``: makes the classes of styles its own."""
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = _PLACES.sub(lambda match: _STROKES.sub(r"\1", _DIGITS.sub(r"\1", match[0])), text)
    text = _LINE.sub(lambda match: f'd="{_steps(match[1])}"', text)
    text = _ungrouped(re.sub(r">\s+<", "><", text))
    text = _MOVED.sub(r'\1 x="\2"', text.replace("xlink:href", "href"))
    styles = Counter(_STYLE.findall(text))
    often = [style for style, count in styles.items() if count >= _OFTEN]
    names = {style: f"{key}s{number}" for number, style in enumerate(often)}
    text = _STYLE.sub(lambda match: f' class="{names[match[1]]}"' if match[1] in names else match[0], text)
    numbers = itertools.count()
    text = _MARKERS.sub(lambda match: _set_along(match, next(numbers)), text)
    rules = "".join(f".{name}{{{style}}}" for style, name in names.items())
    return re.sub(r"(<svg[^>]*>)", lambda match: f"{match[1]}<style>{rules}</style>", text, count=1)


def to_svg(figure: Figure, key: str, description: str) -> str:
    """The figure as an svg element; ``key`` makes its ids unique within the page, but for its letters'."""
    sink = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context(_SVG):
        figure.savefig(sink, format="svg", transparent=True, metadata=metadata)
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    for colour, variable in _COLOURS.items():
        text = text.replace(f": {colour}", f": {variable}")
    prefix = f"f{hashlib.sha256(key.encode()).hexdigest()[:6]}"
    used = dict.fromkeys(match[2] for match in _REFERENCE.finditer(text))
    names = {old: f"{prefix}-{number}" for number, old in enumerate(used)}
    names |= {old: _letter_name(old) for old in used if old.startswith("DejaVu")}
    text = _ID.sub(lambda match: f'id="{names[match[1]]}"' if match[1] in names else "", text)
    text = _small(_REFERENCE.sub(lambda match: f"{match[1]}{names[match[2]]}", text), prefix)
    width, height = figure.get_size_inches()
    escaped = description.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    box = f"0 0 {width * 72:g} {height * 72:g}"
    opening = f'<svg role="img" aria-label="{escaped}" xmlns="http://www.w3.org/2000/svg" viewBox="{box}">'
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1).strip()


def share_letters(page: str) -> str:
    """A page whose figures have each letter's outline once, in a picture that nobody sees at its beginning."""
    letters = {match[1]: match[0] for match in _LETTER.finditer(page)}
    if not letters:
        return page
    page = re.sub(r"<defs></defs>", "", _LETTER.sub("", page))
    attributes = 'width="0" height="0" aria-hidden="true" aria-label="letters" style="position:absolute"'
    hidden = f"<svg {attributes}><defs>{''.join(letters[name] for name in sorted(letters))}</defs></svg>"
    return page.replace("<body>", f"<body>\n{hidden}", 1)
