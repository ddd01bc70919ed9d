"""The pages of the lessons as a browser shows them, wide and narrow, light and dark. Skipped without Chromium."""

import pytest

pytest.importorskip("jupytext")

from figures.lessons.catalogue import LESSONS
from figures.lessons.pages import write_index, write_lesson
from figures.lessons.running import Executed, read_lesson
from tests.figures.browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
WIDER = "document.documentElement.scrollWidth - innerWidth"
CUT = "[...document.querySelectorAll('pre')].filter(e => e.scrollWidth > e.clientWidth + 1).length"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """All pages; the lessons are not executed, so that they show no outputs."""
    out = tmp_path_factory.mktemp("pages")
    for lesson in LESSONS:
        write_lesson(Executed(lesson, read_lesson(lesson.path), 0.0), out)
    write_index({lesson.number: 1.0 for lesson in LESSONS}, {lesson.number: 1 for lesson in LESSONS}, out)
    return sorted(out.glob("*.html"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    there = Browser(tmp_path_factory.mktemp("profile"))
    yield there
    there.close()


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_scrolls_sideways_and_code_wraps(browser, pages, width, colours):
    assert len(pages) == len(LESSONS) + 4  # index, questions, claims, glossary
    for path in pages:
        browser.open(path, width, colours=colours)
        assert (browser.ask(WIDER), browser.ask(CUT), browser.messages) == (0, 0, []), path.name
    browser.open(pages[0], 390)
    browser.ask("document.querySelectorAll('.lesson pre').forEach(e => { e.style.whiteSpace = 'pre'; })")
    assert browser.ask(CUT) > 0, "the control"
