"""The explorer as a page: one small file without network, usable on a phone, by keyboard and with a screen reader."""

import re

import pytest

from envs.world import InputError
from figures.explorer.page import PANELS, SCRIPTS, explorer_page
from figures.explorer.study import study_numbers
from tests.figures.explorer.browser import PHONE, ask, needs_browser, probe
from tests.figures.explorer.runs_folder import runs_folder

MOST_BYTES = 1_500_000
# elements that reach beyond the window, but for those that only a screen reader meets
WIDE = """
  const edge = page.documentElement.clientWidth;
  const reach = element => element.getBoundingClientRect().right;
  const seen = [...page.querySelectorAll("body *")].filter(element => !element.closest(".hidden, .skip"));
  const wide = seen.filter(e => reach(e) > edge + 1).map(e => `${e.tagName}.${e.className}`);
  return { edge, scroll: page.documentElement.scrollWidth, count: seen.length, wide };
"""
# a slider is moved, a number chosen, a button pressed, as by a hand
MOVED = """
  const one = selector => page.querySelector(selector), picture = () => one("#groups .picture").getAttribute("aria-label");
  const cell = () => one("#groups .numbers tbody").rows[5].cells[1].textContent, before = [cell(), picture()];
  const slider = one("#groups-g");
  slider.value = 32;
  slider.dispatchEvent(new inner.Event("input", { bubbles: true }));
  await frame();
  const moved = [cell(), picture(), one('output[for="groups-g"]').textContent, slider.getAttribute("aria-valuetext")];
  [...page.querySelectorAll("#groups .numbers button")].find(button => button.textContent === "RLOO").click();
  await frame();
  const chosen = [one("#groups code").textContent, page.querySelectorAll('#groups .numbers [aria-pressed="true"]').length];
  one("#linear-cut").click();
  await frame();
  const cut = [one("#linear-cut").getAttribute("aria-pressed"), one("#linear .sentence").textContent];
  const colour = () => inner.getComputedStyle(page.body).backgroundColor, light = colour();
  one("#theme").click();
  const dark = [light, colour()];
  one("#reset").click();
  await frame();
  return { before, moved, chosen, cut, dark, after: [cell(), picture()] };
"""
NAMES = """
  const labels = element => Array.from(element.labels || [], label => label.textContent).join(" ");
  const label = element => element.getAttribute("aria-label") || labels(element) || element.textContent;
  const all = selector => [...page.querySelectorAll(selector)];
  return {
    nameless: all("input, select, button").filter(e => !label(e).trim()).map(e => e.outerHTML),
    outputs: all('input[type="range"]').map(e => page.querySelector(`output[for="${e.id}"]`) !== null),
    sliders: all('input[type="range"]').map(e => e.getAttribute("aria-valuetext")),
    pictures: all('[role="img"]').map(e => e.getAttribute("aria-label")),
    drawn: all(".picture svg").map(e => e.getAttribute("aria-hidden")),
    live: all('[aria-live="polite"]').length,
    ids: all("[id]").map(e => e.id),
    focus: all('[tabindex]:not([tabindex="0"]):not([tabindex="-1"])').length,
  };
"""


@pytest.fixture(scope="module")
def text(folder):
    return explorer_page(folder)


def asks_for_more(text):
    """What in a page would be fetched from elsewhere."""
    return re.findall(
        r'https?://(?!www\.w3\.org/2000/svg)[^\s"<]*|\b(?:src|srcset)\s*=|@import|\burl\(|\bfetch\(|\bimport\(', text
    )


def test_the_page_is_one_small_file_that_fetches_nothing(text):
    assert len(text.encode()) <= MOST_BYTES
    assert asks_for_more(text) == []
    assert "default-src 'none'" in text
    assert asks_for_more(text + '<script src="more.js"></script>') != []
    assert text.count("<script") == text.count("</script>") == 3
    assert [text.index(f'id="{name}"') for name in PANELS] == sorted(text.index(f'id="{name}"') for name in PANELS)


def test_every_script_of_the_folder_is_in_the_page(text):
    from figures.explorer import page

    files = {path.stem for path in page._JS.glob("*.js")}
    assert files == set(SCRIPTS)
    assert text.count('"use strict";') == 2 + len(files)  # of the head, and of what all pages share


def test_without_records_the_page_says_how_to_make_them(tmp_path, text):
    empty = explorer_page(tmp_path)
    assert "costate check impact_inverted_u" in empty
    assert "costate check impact_inverted_u" not in text
    assert '"checkpoints": null' in empty


def test_of_the_study_means_over_trajectories_are_shown(folder):
    rows = runs_folder(folder)
    known = rows[(rows["kind"] == "checkpoint") & (rows["quality"] == 0.5)].groupby("checkpoint")["snr"].mean()
    gains = rows[(rows["recipe"] == "GRPO") & (rows["group"] == 8) & (rows["budget"] == rows["budget"].max())]
    gain = gains[gains["quality"] == 0.5].groupby("checkpoint")["gain"].mean()
    (half,) = [corpus for corpus in study_numbers(folder)["corpora"] if corpus["name"] == "quality 0.5"]
    assert half["snr"] == pytest.approx(known.tolist(), rel=1e-12)
    assert half["gain"] == pytest.approx(gain.tolist(), rel=1e-12)
    assert half["gain"] != pytest.approx(known.tolist(), rel=1e-3)


def test_a_study_with_too_few_checkpoints_is_refused_in_one_line(tmp_path):
    runs_folder(tmp_path, most=2)
    with pytest.raises(
        InputError, match=r"^--runs .* has 2 checkpoints of pretraining, and the page needs 3: run"
    ) as caught:
        explorer_page(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_name_in_the_records_cannot_end_the_script(tmp_path):
    out = tmp_path / "</script><b>"
    runs_folder(out)
    text = explorer_page(out)
    assert text.count("</script>") == 3
    assert "</script><b>" not in text


@needs_browser
def test_nothing_is_wider_than_a_phone(text, tmp_path):
    answer = ask(text, WIDE, tmp_path).answer
    assert (answer["wide"], answer["edge"], answer["scroll"]) == ([], PHONE, PHONE)
    assert answer["count"] > 300
    broad = text.replace('<main id="main">', '<main id="main"><div style="width: 30rem">x</div>')
    assert ask(broad, WIDE, tmp_path).answer["wide"] != []


@needs_browser
def test_a_moved_slider_moves_numbers_pictures_and_python(text, tmp_path):
    seen = ask(text, MOVED, tmp_path)
    answer = seen.answer
    assert answer["moved"][2:] == ["32", "32"]
    assert all(old != new for old, new in zip(answer["before"], answer["moved"], strict=False))
    assert "G = 32" in answer["moved"][1]
    assert (
        answer["chosen"][0].splitlines()[-1]
        == "costate.expected_update(world, policy, costate.rloo(), group=32).alignment.scale"
    )
    assert answer["chosen"][1] == 1
    assert answer["cut"][0] == "true"
    assert "cut" in answer["cut"][1]
    assert answer["dark"][0] != answer["dark"][1]
    assert answer["after"] == answer["before"]
    assert seen.console == []


@needs_browser
def test_every_control_has_a_name_and_every_picture_its_text(text, tmp_path):
    answer = ask(text, NAMES, tmp_path).answer
    assert answer["nameless"] == []
    assert len(answer["sliders"]) == 11
    assert all(answer["sliders"])
    assert all(answer["outputs"])
    assert len(answer["pictures"]) == len(answer["drawn"]) == 9
    assert all(re.search(r"\d", said) for said in answer["pictures"])
    assert set(answer["drawn"]) == {"true"}
    assert answer["live"] == len(PANELS)
    assert len(set(answer["ids"])) == len(answer["ids"])
    assert answer["focus"] == 0


@needs_browser
def test_an_error_in_a_script_is_seen_and_odd_addresses_do_no_harm(text, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        text.replace("panels.forEach(buildPanel);", 'console.error("planted"); panels.forEach(buildPanel);')
    )
    odd = ["g=1e99&p=-3", "g=NaN&p=x", "tau=0&alpha=7&r=1,2", "t=2.7&k=", "beta=99&steps=0", "corpus=5&at=-1"]
    seen = probe(page, odd)
    assert any("planted" in line for line in seen.console)
    assert seen.answer["errors"] == []
    shown = {
        number["name"]: number["shown"]
        for position in seen.answer["found"]
        for e in position
        for number in e["numbers"]
    }
    assert "undefined" not in shown.values()
