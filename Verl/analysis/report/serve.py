"""The report in a browser while runs go on: ``report.sh --serve``. Only this machine can ask for it.

``/`` is a frame that asks ``/version`` every few seconds and loads ``/report`` again once it was made anew, at the place
where the reader was. The report itself stays as it is written to a file: no script, no request.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from markupsafe import escape  # jinja2's

from Verl.analysis.runs import packed
from Verl.errors import UserError, last_line

HOST, PORT = "127.0.0.1", 8321
ASK_SECONDS = 2  # how often the browser asks
_NAMES = ("127.0.0.1", "localhost")  # by which a browser here calls us; any other name is a page that borrowed our address
_FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Report, live</title>
<style>html,body,iframe{margin:0;padding:0;border:0;width:100%;height:100%}body{display:flex;flex-direction:column}
p{margin:0;padding:.2rem 1rem;font:13px sans-serif;background:#eee;color:#333}iframe{flex:1}</style></head>
<body><p id="said">looking ...</p><iframe id="page" title="The report" src="report"></iframe>
<script>
const page = document.getElementById("page"), said = document.getElementById("said");
let seen = null;
async function ask() {
  try {
    const now = await (await fetch("version", {cache: "no-store"})).json();
    said.textContent = now.said;
    if (seen !== null && seen !== now.version) {
      const view = page.contentWindow, place = view.scrollY;
      const open = [...view.document.querySelectorAll("details")].map(one => one.open);
      page.onload = () => {
        const anew = page.contentWindow.document.querySelectorAll("details");
        anew.forEach((one, i) => { if (i < open.length) one.open = open[i]; });
        page.contentWindow.scrollTo(0, place);
      };
      view.location.reload();
    }
    seen = now.version;
  } catch (error) {
    said.textContent = "report.sh --serve has stopped: this is the last report that it made";
  }
  setTimeout(ask, ASK_MS);
}
ask();
</script></body></html>
""".replace("ASK_MS", str(1000 * ASK_SECONDS))


class Live:
    """The page as it was made last, and its number.

    Args:
        result_dir: looked at for changes.
        build: makes the page; a UserError of it is shown in its place.
    """

    def __init__(self, result_dir: Path, build: Callable[[], str]):
        self.result_dir, self._build = Path(result_dir), build
        self.version, self.page, self.said = 0, _plain("the report is being made ..."), "the report is being made ..."
        self._seen: tuple | None = None
        self.seconds = 0.0  # that the last one took

    def stamp(self) -> tuple:
        """What changes when a run writes something."""
        patterns = ("*.jsonl", "*.log", "*/run.json", "frozen.yaml", packed.RUNS, packed.EVALUATIONS)
        found = []
        for path in sorted(path for pattern in patterns for path in self.result_dir.glob(pattern)):
            try:
                now = path.stat()
            except OSError:  # gone in between
                continue
            found.append((str(path), now.st_size, now.st_mtime_ns))
        return tuple(found)

    def refresh(self) -> bool:
        """Make the page anew if anything has changed; whether it was."""
        stamp = self.stamp()
        if stamp == self._seen:
            return False
        began = time.monotonic()
        try:
            page, how = self._build(), "made"
        except UserError as error:
            page, how = _plain(str(error)), "waiting for a run, looked"
        except Exception as error:  # a file that a run was just writing: the next look reads it whole
            page, how = self.page, f"could not be made anew ({last_line(error)}), tried"
        self.seconds = time.monotonic() - began
        self._seen, self.page = stamp, page
        self.said = f"live, {how} at {time.strftime('%H:%M:%S')} in {self.seconds:.1f} s, from the runs in {self.result_dir}"
        self.version += 1
        return True


def _plain(text: str) -> str:
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Report</title><p>{escape(text)}</p></html>'


def _handler(live: Live) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.headers.get("Host", "").rsplit(":", 1)[0] not in _NAMES:
                return self._send(403, "text/plain", "this server answers to 127.0.0.1 and localhost only")
            path = self.path.split("?")[0]
            if path == "/":
                return self._send(200, "text/html", _FRAME)
            if path == "/report":
                return self._send(200, "text/html", live.page)
            if path == "/version":
                return self._send(200, "application/json", json.dumps({"version": live.version, "said": live.said}))
            return self._send(404, "text/plain", "there is / alone")

        def _send(self, status: int, kind: str, text: str) -> None:
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Nothing: a line per request would bury the address."""

    return Handler


def _say(text: str) -> None:
    print(text, flush=True)


def serve(live: Live, port: int = PORT, every: float = 5.0, say: Callable[[str], None] | None = None) -> None:
    """Show the report until KeyboardInterrupt.

    Args:
        port: 0 takes any free one.
        every: seconds between two looks at the runs; a report that takes longer to make is made less often.

    Raises:
        UserError: the port is taken.
    """
    try:
        server = ThreadingHTTPServer((HOST, port), _handler(live))
    except OSError as error:
        raise UserError(f"--serve {port}: the port can't be had ({error.strerror}): give another one, or 0 for any") from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        (say or _say)(f"http://{HOST}:{server.server_port} shows {live.result_dir} until Ctrl-C")
        while True:
            live.refresh()
            time.sleep(max(every, 2 * live.seconds))  # at most a third of a core
    finally:
        server.shutdown()
        server.server_close()
