"""The page as a browser shows it: wide and narrow, light and dark, with and without JavaScript. Skipped without Chromium."""

import io
import re

import numpy as np
import pytest
from matplotlib.image import imread

from figures.drawing.frame import picture
from figures.drawing.style import house_style, new_figure
from figures.report.embedding import embedded
from tests.figures.browser import CHROMIUM, Browser
from tests.figures.report.made_up_results import PLAIN, made_wrong, not_judged, page_of, verdict

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
WRONG, SUBSET, WIDE, PHONE = "error_split", "costate_mean", 1280, 390
SIZES = [(width, colours) for width in (WIDE, PHONE) for colours in ("light", "dark")]
SHOWN = "[...document.querySelectorAll('article.claim')].filter(a => a.getClientRects().length).map(a => a.id)"
# Boxes that reach beyond the window, but for what scrolls inside a box of its own, or is shown to screen readers only
TOO_WIDE = """[...document.querySelectorAll('body *')].filter(e => {
  const box = e.getBoundingClientRect();
  const apart = e.closest('dialog, thead, .hidden, .skip') || e.parentElement.closest('.formulas');
  return box.width && !apart && (box.right > innerWidth + 1 || box.left < -1);
}).map(e => e.tagName + '.' + e.className)"""
# Contrast of every text that is seen with the nearest ground below it
FAINT = """(() => {
  const shade = ([r, g, b]) => [r, g, b].map(x => x / 255).map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const ground = e => { for (; e; e = e.parentElement) {
    const colour = numbers(getComputedStyle(e).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  } return [255, 255, 255]; };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), faint = [], seen = [];
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !e.getClientRects().length || e.closest('script, style')) continue;
    const [a, b] = [shade(numbers(getComputedStyle(e).color)), shade(ground(e))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    seen.push(contrast);
    if (contrast < 4.5) faint.push(`${e.tagName}.${e.className} ${contrast.toFixed(2)}: ${e.textContent.slice(0, 30)}`);
  }
  return { faint, seen: seen.length };
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    there = Browser(tmp_path_factory.mktemp("profile"))
    yield there
    there.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    odd = {WRONG: made_wrong(WRONG), SUBSET: not_judged(SUBSET)}
    verdicts = [odd.get(name) or verdict(name) for name in PLAIN]
    return page_of(verdicts, tmp_path_factory.mktemp("page"))


@pytest.fixture
def changed(path):
    """Writes another version of the page beside it."""

    def write(*changes):
        text = path.read_text()
        for before, after in changes:
            assert before in text
            text = text.replace(before, after, 1)
        other = path.with_name("changed.html")
        other.write_text(text)
        return other

    return write


@pytest.mark.parametrize(("width", "colours"), SIZES)
def test_no_message_nothing_wider_than_the_window_and_no_faint_text(browser, path, width, colours):
    browser.open(path, width, colours=colours)
    browser.ask("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask(TOO_WIDE) == []
    contrast = browser.ask(FAINT)
    assert contrast["faint"] == []
    assert contrast["seen"] > 1000
    assert browser.messages == []
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 600) == (colours == "light")


def test_a_message_a_wide_box_and_faint_text_would_be_seen(browser, changed):
    planted = '<p style="width: 700px; color: #999">planted</p><script>missing()</script><img src="gone.png" alt="">'
    browser.open(changed(("<h1>", f"{planted}<h1>")), PHONE)
    assert browser.ask(TOO_WIDE) == ["P."]
    assert any("planted" in text for text in browser.ask(FAINT)["faint"])
    assert any("missing" in text for text in browser.messages)
    assert any("ERR_FILE_NOT_FOUND" in text for text in browser.messages)


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_all_pictures_are_drawn_on_a_light_card_and_a_screenshot_shows_the_page(browser, path, width):
    browser.open(path, width, colours="dark")
    images = browser.ask("[...document.images].map(i => [i.complete && i.naturalWidth, i.clientWidth])")
    assert len(images) == len(PLAIN)
    assert all(natural > 500 and shown > 0.85 * min(width, 960) for natural, shown in images)
    assert browser.ask("getComputedStyle(document.querySelector('.picture')).backgroundColor") == "rgb(255, 255, 255)"
    dark = browser.screenshot()
    browser.open(path, width, colours="light")
    assert dark != browser.screenshot()
    assert len(dark) > 10_000


def test_the_filter_shows_what_was_asked_for_and_says_how_many(browser, path):
    browser.open(path)

    def shown(name, value):
        browser.ask(f"document.querySelector('[name={name}][value=\"{value}\"]').click()")
        return browser.ask(SHOWN), browser.ask("document.querySelector('#shown').textContent")

    everything = f"{len(PLAIN)} of {len(PLAIN)} claims shown"
    assert browser.ask(SHOWN) == list(PLAIN)
    assert shown("outcome", "unexpected") == ([WRONG], f"1 of {len(PLAIN)} claims shown")
    assert (
        browser.ask(
            "[...document.querySelectorAll('h2')].filter(h => h.id.startsWith('part-') && h.getClientRects().length).length"
        )
        == 1
    )
    assert shown("outcome", "undecided,not judged")[0] == [SUBSET]
    fails, holds = (shown("outcome", value)[0] for value in ("fails", "holds"))
    assert WRONG in fails
    assert sorted([*fails, *holds, SUBSET]) == sorted(PLAIN)
    assert shown("outcome", "")[1] == everything
    remedies = shown("control", "holds")[0]
    assert 0 < len(remedies) < len(PLAIN)
    assert shown("control", "off")[0] == []
    browser.ask(f"location.hash = '{WRONG}', new Promise(done => setTimeout(done, 300))")  # a link to what is hidden
    assert browser.ask(SHOWN) == list(PLAIN)


def test_without_javascript_all_is_shown_and_no_dead_button(browser, path):
    browser.open(path, scripts=False)
    try:
        snapshot = browser.call("DOMSnapshot.captureSnapshot", computedStyles=["display"])
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    strings, (document, *_) = snapshot["strings"], snapshot["documents"]
    nodes, laid_out = document["nodes"], set(document["layout"]["nodeIndex"])
    attributes = [dict(zip(a[::2], a[1::2], strict=True)) for a in nodes["attributes"]]
    named = [{strings[k]: strings[v] for k, v in a.items()} for a in attributes]
    seen = {a.get("id") for i, a in enumerate(named) if i in laid_out}
    assert set(PLAIN) <= seen
    assert not {"filter", "theme"} & seen
    assert {"overview", "is-this-a-bug"} <= seen


def test_a_picture_is_enlarged_by_the_keyboard_with_its_text_as_text(browser, path):
    browser.open(path, PHONE, 800)
    browser.ask(f"document.querySelector('#{WRONG} .picture').focus()")
    browser.press("Enter", 13)
    assert browser.ask("document.querySelector('#enlarged').open")
    texts = browser.ask("[...document.querySelectorAll('#enlarged-picture text')].map(t => t.textContent)")
    assert "measured" in texts
    assert browser.ask("document.querySelector('#enlarged-picture svg').clientWidth") > 900
    assert browser.ask("document.querySelector('#enlarged').getBoundingClientRect().width") <= PHONE
    browser.press("Escape", 27)
    assert not browser.ask("document.querySelector('#enlarged').open")
    assert browser.messages == []


def test_the_switch_changes_the_colours_and_back(browser, path):
    browser.open(path, colours="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    colours = [browser.ask(ground)]
    for _ in range(2):
        browser.ask("document.querySelector('#theme').click()")
        colours.append(browser.ask(ground))
    assert colours[0] == colours[2] != colours[1]
    browser.ask("localStorage.clear()")


def test_paper_shows_all_in_light_colours(browser, path):
    browser.open(path, 800, colours="dark", media="print")
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    browser.ask("dispatchEvent(new Event('beforeprint'))")
    assert browser.ask("document.querySelectorAll('details.judging:not([open])').length") == 0


def test_what_is_embedded_looks_like_the_file(browser, tmp_path):
    """Two pages, the file and what is embedded; a control with one mark moved."""
    with house_style():
        figure = new_figure(3)
        left, right = figure.subplots(1, 2)
        left.plot([1, 2, 3], [1, 4, 9], "o", alpha=0.5)
        right.set(xscale="log", ylabel="turned text", xlabel="size")
        svg = picture(figure, "svg").decode()
    moved = re.sub(r'(<use [^>]* x=")(\d+)', lambda found: found[1] + str(int(found[2]) + 9), svg, count=1)
    seen = []
    for name, source in (("file", svg), ("small", svg), ("moved", moved)):
        uri = embedded(source).uri if name == "small" else None
        (tmp_path / f"{name}.svg").write_text(source)
        page = tmp_path / f"{name}.html"
        page.write_text(f'<body style="margin: 0"><img width="960" src="{uri or f"{name}.svg"}">')
        browser.open(page, 960, 400)
        browser.ask("document.images[0].decode()")
        seen.append(browser.screenshot())
    assert differing(*seen[:2]) < 0.002
    assert differing(seen[0], seen[2]) > 0.00005


def differing(one, other):
    """Share of pixels that differ by more than rounding."""
    a, b = (imread(io.BytesIO(png)) for png in (one, other))
    return float((np.abs(a - b).max(-1) > 0.1).mean())
