"""The explorer in a browser: what it leaves in the page, and what goes wrong there."""

import json
import tempfile
from contextlib import closing
from typing import NamedTuple
from urllib.parse import quote

import pytest

from tests.figures.browser import CHROMIUM, Browser

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
PHONE = 390
_ASKED = """(async () => {{
  const inner = window, page = document;
  const frame = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())));
  {script}
}})()"""


class Seen(NamedTuple):
    """What the page left behind.

    Attributes:
        answer: from JSON.
        console: errors and warnings of the page, and what it could not load.
    """

    answer: dict
    console: list


def _seen(path, expression, width=1280, fragment=""):
    with tempfile.TemporaryDirectory() as profile, closing(Browser(profile)) as browser:
        browser.open(path, width=width, fragment=fragment)
        return Seen(browser.ask(expression), list(browser.messages))


def probe(page, addresses):
    """The page goes through a list of slider positions in one start of the browser.

    Args:
        page: path of the file.
        addresses: positions, as they stand in the address.
    """
    left = "JSON.parse(document.getElementById('probe').textContent)"
    return _seen(page, left, fragment=f"#probe={quote(json.dumps(addresses))}")


def ask(page, script, folder, width=PHONE):
    """The answer of a script that sees the page in a window of some width as `inner` and `page`.

    Args:
        page: the page's text.
        script: JavaScript that returns the answer; `await frame()` waits until the page has drawn.
        folder: for a file.
        width: of the window.
    """
    path = folder / "asked.html"
    path.write_text(page, encoding="utf-8")
    return _seen(path, _ASKED.format(script=script), width)
