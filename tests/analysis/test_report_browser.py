"""The report in a real browser: laptop and phone, light and dark. Skipped where there is no Chromium."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from simulated_runs import write_study

from Verl.analysis.report.build import build

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (Debian: apt install chromium)")
SCREENS = {"laptop": (1280, 900), "phone": (390, 844)}
_REACH = {"laptop": 12000, "phone": 18000}  # pixels from the top down to where three arms' curves stand
# Run in a copy of the page without its policy, which forbids scripts: what only a laid-out page can tell. The copy lies in
# a frame as wide as the screen, because Chromium's own window is never narrower than 500 pixels.
_MEASURE = """<script>
const root = document.documentElement, body = getComputedStyle(document.body);
const box = element => { const b = element.getBoundingClientRect(); return [b.left, b.right, b.width, b.height]; };
document.querySelectorAll("details").forEach(element => element.open = true);
const shown = {
  width: innerWidth, scroll: root.scrollWidth, background: body.backgroundColor, text: body.color,
  soft: getComputedStyle(document.querySelector(".soft")).color, link: getComputedStyle(document.querySelector("main a")).color,
  panel: getComputedStyle(document.querySelector(".verdict")).backgroundColor,
  drawings: [...document.querySelectorAll("svg:not([aria-hidden])")].map(svg => ({box: box(svg),
    lines: [...svg.querySelectorAll("path, use")].filter(part => box(part)[2] + box(part)[3] > 0).length,
    ink: getComputedStyle(svg).fill})),
  tables: [...document.querySelectorAll(".scroll")].map(box), headings: document.querySelectorAll("h2").length,
  hidden: [...document.querySelectorAll("p, dd, li")].filter(part => box(part)[1] > innerWidth + 1).length,
};
parent.postMessage(JSON.stringify(shown), "*");
</script></body>"""
_FRAME = """<!doctype html><body><pre id="measured"></pre><script>
addEventListener("message", event => {{ document.getElementById("measured").textContent = event.data; }});
</script><iframe src="measured.html" width="{}" height="{}" style="border: 0"></iframe></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    gains = {"grpo_0032_1": 0.1, "onerpo_0032_1_7": 0.2, "grpo_0032_8": 0.3, "grpo_0032_16": 0.3, "grpo_0032_64": 0.3}
    write_study(folder, gains, range(3), questions=64, steps=(0, 50, 100), full=True)
    write_study(folder, gains, range(2), questions=64, steps=(0, 50, 100), pair="qwen0.5b_gsm")
    path = folder / "report.html"
    path.write_text(build(folder))
    return path


def _chromium(page, tmp_path, screen, dark, *what):
    width, height = SCREENS[screen]
    command = [
        *(
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--hide-scrollbars",
        ),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},{height}"),
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
    ]
    done = subprocess.run([*command, *what, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def _measured(page, tmp_path, screen, dark):
    text = re.sub(r"<meta http-equiv=[^\n]*\n", "", page.read_text())
    (tmp_path / "measured.html").write_text(text.replace("</body>", _MEASURE))
    frame = tmp_path / "frame.html"
    frame.write_text(_FRAME.format(*SCREENS[screen]))
    shown = _chromium(frame, tmp_path, screen, dark, "--dump-dom", "--virtual-time-budget=5000")
    return json.loads(html.unescape(re.search(r'<pre id="measured">(.*?)</pre>', shown, re.DOTALL)[1]))


def _luminance(colour):
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one, other):
    """Of the Web Content Accessibility Guidelines: 1 to 21; 4.5 is asked for texts."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_the_page_can_be_read(page, tmp_path, screen, dark):
    shown = _measured(page, tmp_path, screen, dark)
    assert shown["width"] == SCREENS[screen][0]
    assert shown["scroll"] <= shown["width"] and shown["hidden"] == 0  # only tables and figures scroll, on their own
    assert all(left >= 0 and right <= shown["width"] and width > 100 for left, right, width, _ in shown["tables"])
    for colour in ("text", "soft", "link"):
        assert _contrast(shown[colour], shown["background"]) >= 4.5, colour
    assert _contrast(shown["text"], shown["panel"]) >= 4.5
    assert (_luminance(shown["background"]) < 0.1) == dark
    assert len(shown["drawings"]) >= 6 and shown["headings"] >= 12
    for drawing in shown["drawings"]:
        _, _, width, height = drawing["box"]
        assert width >= 280 and height >= 100 and drawing["lines"] > 30
        assert _contrast(drawing["ink"], shown["background"]) >= 4.5


@pytest.mark.parametrize("screen, dark", [("laptop", False), ("phone", True)], ids=["laptop-light", "phone-dark"])
def test_the_screenshot_shows_text_and_curves(page, tmp_path, screen, dark):
    picture = tmp_path / "screen.png"
    _chromium(
        page,
        tmp_path,
        screen,
        dark,
        f"--screenshot={picture}",
        f"--window-size={SCREENS[screen][0]},{_REACH[screen]}",
    )
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(np.int16)
    background = np.array([20, 23, 27] if dark else [255, 255, 255])
    assert (np.abs(pixels - background).max(axis=2) < 40).mean() > 0.6
    colours = {"base line": (228, 231, 235) if dark else (27, 31, 36), "One-RPO": (213, 94, 0)}
    for name, colour in (colours | {"GRPO 32x8": (61, 147, 208) if dark else (0, 114, 178)}).items():
        assert (np.abs(pixels - np.array(colour)).max(axis=2) < 12).sum() > 200, name
