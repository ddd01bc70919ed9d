"""The page of audits names every finding; its pictures can be read; the auditor's README says what there is."""

import html
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest

import costate
from envs.world import InputError
from figures.audit.adapters import adapter
from figures.audit.auditor import PROPERTIES
from figures.audit.brief import UNIVERSAL
from figures.audit.contract import NAMES
from figures.audit.declared import DECLARATIONS
from figures.report.audit_page import audit_page, out_of_reach
from tests.documents import blocks
from tests.figures.audit.made_up import record
from tests.figures.browser import CHROMIUM, Browser

README = Path(costate.__file__).parents[1] / "figures" / "audit" / "README.md"
RECORDS = [record("suite:grpo"), record("a:shouting one", silent=1.0, bias=0.0), record("third <loss>", shown=None)]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return audit_page(RECORDS, tmp_path_factory.mktemp("page") / "audit.html", "GRPO in three libraries")


def test_the_page_has_every_finding_of_every_loss(page):
    text = html.unescape(re.sub(r"<[^>]*>", "", page.read_text()))
    assert text.count("GRPO in three libraries") == 2
    assert "1 of 3 losses breaks a property that no loss may break." in text
    for one in RECORDS:
        assert one.name in text
        for finding in one.findings:
            assert finding.words in text, finding
    assert str(RECORDS[1]["silent groups"].example) in text
    assert out_of_reach() in text
    assert "second division by an outer trainer" in out_of_reach()
    assert "off its direction by 0.7" not in text, "the control"


def test_a_cell_leads_to_its_finding_and_has_sign_and_word(page):
    text = page.read_text()
    links = re.findall(r'href="#([\w-]+)"', text)
    assert len(links) >= len(RECORDS) * (1 + len(RECORDS[0].findings))
    assert set(links) - set(re.findall(r'id="([\w-]+)"', text)) <= {"main"}
    cells = re.findall(r'<td role="cell" class="(holds|choice|defect)"[^>]*>(.*?)</td>', text)
    assert len(cells) == len(RECORDS) * len(RECORDS[0].findings)
    signs = {"holds": "\N{CHECK MARK}", "choice": "\N{EN DASH}", "defect": "\N{BALLOT X}"}
    for status, cell in cells:
        assert [s for s in signs.values() if s in cell] == [signs[status]]
        assert re.search(r"[a-z0-9]", re.sub(r"<[^>]*>", "", cell))
    assert [status for status, _ in cells].count("defect") == 1


def test_every_picture_is_an_image_and_a_loss_without_numbers_has_none(page):
    sources = re.findall(r'src="(data:image/svg\+xml,[^"]*)"', page.read_text())
    assert len(sources) == 6
    for source in sources:
        root = ET.fromstring(unquote(html.unescape(source).partition(",")[2]))
        assert root.tag.endswith("svg")
    assert any("A < 0" in unquote(html.unescape(source)).replace("&lt;", "<") for source in sources)
    with pytest.raises(ET.ParseError):  # the control: what a browser makes of a sign that is not escaped
        ET.fromstring(html.unescape(unquote(next(s for s in sources if "%26lt;" in s)).partition(",")[2]))


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_in_a_browser_nothing_is_wider_than_the_window_and_all_pictures_show(page, tmp_path):
    browser = Browser(tmp_path)
    try:
        for width, colours in ((1280, "light"), (390, "dark")):
            browser.open(page, width, colours=colours)
            browser.ask("document.querySelectorAll('details').forEach(d => { d.open = true; })")
            assert browser.ask("document.documentElement.scrollWidth") <= width
            shown = browser.ask("[...document.images].map(i => [i.complete && i.naturalWidth, i.clientWidth])")
            assert len(shown) == 6
            assert all(natural > 200 and 200 < wide < width for natural, wide in shown)
            assert browser.messages == []
    finally:
        browser.close()


def test_what_is_no_record_is_refused(tmp_path):
    for wrong in ([], ["suite:grpo"], [RECORDS[0], None]):
        with pytest.raises(InputError, match=r"records must be what costate\.audit returned"):
            audit_page(wrong, tmp_path / "no.html")
    assert not list(tmp_path.iterdir())


def table(heading):
    """The rows of the table below a heading of the README: first cell without quotes, and the last."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", README.read_text(), re.M | re.S)[1]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip(" `"): [cell.strip().replace("\\|", "|") for cell in row[1:]] for row in rows}


def test_the_tables_of_the_readme_are_those_of_the_code():
    assert list(table("Properties")) == list(PROPERTIES)
    assert {name for name, cells in table("Properties").items() if cells[0] == "always"} == set(UNIVERSAL)
    assert {name: cells[-1] for name, cells in table("Declarations").items()} == {
        name: declaration.text for name, declaration in DECLARATIONS.items()
    }
    assert sorted(table("How a loss is called")) == sorted(NAMES)
    for name in ("PACKAGE", "TRIED", "names", "OPTIONS", "build"):
        assert name in str(list(table("An adapter for another library")))
        assert hasattr(adapter("suite"), name)


def example(change=("", "")):
    """The README's test of a loss, run as pytest would."""
    text = next(block.text for block in blocks(README) if "def test_my_loss" in block.text)
    assert change[0] in text
    names = {}
    exec(compile(text.replace(*change), "README", "exec"), names)
    names["test_my_loss"]()


def test_the_test_of_the_readme_passes_and_fails_where_the_loss_is_wrong():
    example()
    with pytest.raises(AssertionError, match=r"(?s)mean update.*recipe"):
        example((".sum() / len(mask)", ".sum() / mask.sum()"))


def test_findings_of_equal_rows_are_printed_once():
    batch = RECORDS[1]["silent groups"].example
    twice = replace(batch, **{name: [x for row in getattr(batch, name) for x in (row, row)] for name in vars(batch)})
    assert str(twice).count("(2 rows)") == len(str(twice).splitlines()) - 1 == 2
    assert "rows)" not in str(batch)
