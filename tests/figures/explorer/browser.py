"""A browser without a window, in which the explorer runs: what it leaves in the page, and what goes wrong there."""

import html
import json
import re
import shutil
import subprocess
import tempfile
from typing import NamedTuple
from urllib.parse import quote

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
PHONE = 390
# what a page in a frame of a phone's width is asked; the answer goes into the outer document
_OUTER = """<iframe id="inner" style="border:0;width:{width}px;height:9000px" srcdoc="{page}"></iframe><script>
addEventListener("load", async () => {{
  const inner = document.getElementById("inner").contentWindow, page = inner.document;
  inner.requestAnimationFrame = draw => inner.setTimeout(draw, 16); // without a window no frame is drawn by itself
  const frame = () => new Promise(done => inner.setTimeout(done, 100));
  let answer;
  try {{ answer = await (async () => {{ {script} }})(); }} catch (error) {{ answer = {{ failed: String(error) }}; }}
  const place = document.createElement("pre");
  place.id = "probe";
  place.textContent = JSON.stringify(answer);
  document.body.replaceChildren(place);
}});
</script></body>"""


class Seen(NamedTuple):
    """What the page left behind.

    Attributes:
        answer: from JSON.
        console: lines that the page wrote to the console, errors among them.
    """

    answer: dict
    console: list


def _run(address):
    with tempfile.TemporaryDirectory() as profile:
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            "--window-size=1280,900",
        ]
        said = ["--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", address]
        done = subprocess.run([CHROMIUM, *options, *said], capture_output=True, text=True, timeout=240)
    found = re.search(r'<pre id="probe"[^>]*>(.*?)</pre>', done.stdout, re.S)
    assert found, done.stdout[-500:] + done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(json.loads(html.unescape(found[1])), console)


def probe(page, addresses):
    """The page goes through a list of slider positions in one start of the browser.

    Args:
        page: path of the file.
        addresses: positions, as they stand in the address.
    """
    return _run(f"{page.resolve().as_uri()}#probe={quote(json.dumps(addresses))}")


def ask(page, script, folder, width=PHONE):
    """The answer of a script that sees the page in a frame of some width as `inner` and `page`.

    Args:
        page: the page's text.
        script: JavaScript that returns the answer; `await frame()` waits until the page has drawn.
        folder: for a file.
        width: of the frame.
    """
    outer = folder / "outer.html"
    outer.write_text(_OUTER.format(width=width, page=html.escape(page), script=script), encoding="utf-8")
    return _run(outer.resolve().as_uri())
