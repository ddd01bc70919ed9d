"""FINDINGS.md says what verdicts.json says: a flipped verdict changes the page, and no number is typed."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from envs.world import InputError
from figures.commands import write_report
from figures.harness.judge import Run, judge
from figures.harness.registry import CLAIM_NAMES, load_claim
from figures.harness.rows import at_most, equals, report
from figures.harness.verdicts import read_verdicts, write_verdicts
from figures.report import found_numbers
from figures.report.findings import PACKAGE, cell, headline, write_findings
from figures.report.found import FOUND
from figures.report.readings import READINGS

ROOT = Path(__file__).resolve().parents[3]
RUN = Run("quick", "cpu", 0, [{}], [], {"torch": "2"}, "abc")
TOLD = ("costate_recursion", "error_split", "costate_mean")  # findings without numbers of their own: no record is read


def verdict(name, measured=0.25, failing=True):
    """A verdict on a real claim, from one row for each of its parts."""
    claim, rows = load_claim(name), []
    for part in claim.parts:
        fails = part.documented == "fails" and failing
        labels = {part.every: "a"} if part.every else {}
        rows += at_most(part.name, 3.0 if fails else measured, 1.0, labels=labels)
    return replace(judge(claim, pd.DataFrame(rows)), run=RUN)


@pytest.fixture
def out(tmp_path):
    write_verdicts(tmp_path, [verdict(name) for name in TOLD])
    return tmp_path


def page(out):
    return write_findings(read_verdicts(out), out, out / "page.md").read_text()


def section(text, name):
    return text.split(f"### {name}: ")[1].split("\n### ")[0].split("\n## ")[0]


def test_a_claim_is_told_with_its_number_its_verdict_and_where_it_is(out):
    told = section(page(out), "costate_recursion")
    assert told.startswith("holds")
    assert FOUND["costate_recursion"].says in told
    assert "measured 0.25, at most 1" in told
    assert "| verdict | holds, documented: holds |" in told
    assert "| assumptions | A1, A5 |" in told
    assert "figures/claims/continuous/costate_recursion.py" in told
    assert "`costate check costate_recursion`" in told


def test_a_flipped_verdict_changes_the_page(out):
    before, path = page(out), out / "verdicts.json"
    entries = json.loads(path.read_text())
    (flipped,) = [entry for entry in entries if entry["claim"] == "error_split"]
    flipped.update(outcome="fails", as_documented=False, reason="'identity' fails, documented: holds")
    path.write_text(json.dumps(entries))
    after = page(out)
    assert "3 of the 3 claims judged came out as documented" in before
    assert "2 of the 3 claims judged came out as documented" in after
    assert FOUND["error_split"].says in section(before, "error_split")
    told = section(after, "error_split")
    assert told.startswith("fails")
    assert FOUND["error_split"].says not in after
    assert "**Not as documented.**" in told
    assert "'identity' fails, documented: holds" in told
    (row,) = [line for line in after.splitlines() if line.startswith("|") and "| `error_split` |" in line]
    assert "**fails**" in row
    for name in ("costate_recursion", "costate_mean"):
        assert section(before, name) == section(after, name)


def test_what_was_not_judged_is_not_called_wrong(out):
    path = out / "verdicts.json"
    entries = json.loads(path.read_text())
    (spared,) = [entry for entry in entries if entry["claim"] == "error_split"]
    spared.update(outcome="not judged", as_documented=False, subset=True, reason="no control that must fail is left")
    path.write_text(json.dumps(entries))
    told = section(page(out), "error_split")
    assert "**Not judged on these settings.**" in told
    assert "no control that must fail is left" in told
    assert "ot as documented" not in told


def test_a_page_elsewhere_has_no_dead_links_and_a_tiny_run_is_told(out):
    assert "](" not in page(out)
    assert "too few samples" not in page(out)
    tiny = [replace(v, run=replace(RUN, preset="tiny")) for v in read_verdicts(out)]
    assert "too few samples for a verdict" in write_findings(tiny, out, out / "tiny.md").read_text()


def test_another_number_changes_the_page(out):
    write_verdicts(out, [verdict("error_split", 0.75)])
    assert "measured 0.75, at most 1" in section(page(out), "error_split")
    assert "measured 0.25" not in section(page(out), "error_split")


def test_a_claim_that_was_not_checked_has_no_section_and_says_so_in_the_table(out):
    text = page(out)
    assert "### chaos" not in text
    (row,) = [line for line in text.splitlines() if "| `error_map` |" in line]
    assert "**not checked**" in row


def test_no_number_is_typed_into_the_template_or_the_sentences():
    template = (PACKAGE / "report" / "findings.md").read_text().replace("arXiv:2605.21654", "")
    assert not re.findall(r"\d", re.sub(r"{[{%].*?[%}]}", "", template))
    measured = r"\d+\.\d|\d\s*%|\b\d{2,}\b"
    for found in FOUND.values():
        assert not re.findall(measured, " ".join(found)), found
    assert all(re.findall(measured, text) for text in ("an error of 0.35", "loses 9 %")), "the control"
    source = Path(found_numbers.__file__).read_text()
    strings = re.sub(r"{[^{}]*}", "", " ".join(re.findall(r'f?"((?:[^"\\]|\\.)*)"', source)))
    assert not re.findall(measured, strings)


def test_every_claim_has_a_finding_and_every_reading_a_claim():
    assert set(FOUND) <= set(CLAIM_NAMES)
    assert len(FOUND) >= 31
    assert {reading.claim for reading in READINGS} <= set(CLAIM_NAMES)
    assert set(found_numbers.NUMBERS) <= set(CLAIM_NAMES)
    sentences = [reading.sentence for reading in READINGS]
    assert sentences == sorted(sentences, key=sentences.index), "the readings of one sentence stand together"


def test_a_claim_without_a_sentence_of_its_own_is_told_by_its_statement(out, monkeypatch):
    monkeypatch.delitem(FOUND, "error_split")
    assert f'**The statement "{load_claim("error_split").statement}" holds.**' in section(page(out), "error_split")


def test_the_headline_tells_the_place_and_the_error():
    (row,) = equals("own", 0.5, 0.0, labels={"world": "garnet", "alpha": 0.123456})
    assert headline(row) == "own (world garnet, alpha 0.1235): measured 0.5, exact 0"
    assert headline({**row, "standard_error": 0.25}).endswith("measured 0.5 +- 0.25, exact 0")


def test_numbers_come_from_the_rows():
    rows = pd.DataFrame(
        report("cap", 9.0, labels={"corpus": "clean", "tokens": 1})
        + report("alignment", 0.5, labels={"corpus": "clean", "tokens": 1})
        + report("alignment", 0.75, labels={"corpus": "clean", "tokens": 9})
    )
    told = found_numbers.signal_cap(rows)
    assert "clean 0.50 at the first draw and 0.75 at its highest" in told
    assert "9" not in told


def options(out, **given):
    return type("Options", (), {"out": out, "markdown": None, **given})()


def test_the_command_writes_into_the_results_or_into_a_file(out, capsys):
    assert write_report.run(options(out, markdown=Path())) == 0
    assert write_report.run(options(out, markdown=out / "elsewhere" / "F.md")) == 0
    written = [(out / "FINDINGS.md"), (out / "elsewhere" / "F.md")]
    assert capsys.readouterr().out.split() == [str(path) for path in written]
    assert written[0].read_text() == written[1].read_text() == page(out)
    with pytest.raises(InputError, match=r"is a folder: name a file"):
        write_report.run(options(out, markdown=out))


def test_no_verdict_is_no_page(out):
    with pytest.raises(InputError, match="no verdict"):
        write_findings([], out, out / "page.md")
    assert not (out / "page.md").exists()


def test_the_page_of_the_repository_is_the_one_that_the_code_writes():
    """Its verdicts are the documented ones, and its words those of the code; its numbers come from a run."""
    text = (PACKAGE / "FINDINGS.md").read_text()
    for name in FOUND:
        claim, told = load_claim(name), section(text, name)
        assert told.startswith(f"{claim.documented}\n")
        assert FOUND[name].says in told
        assert FOUND[name].more in told
        assert f"| statement that was judged | {cell(claim.statement)} |" in told
        assert "](claims/" in told
    for reading in READINGS:
        assert reading.reading in text
        assert reading.sentence in text
    for path in re.findall(r"\]\(([\w./]+?)(?:#[\w-]+)?\)", text):
        assert (PACKAGE / path).exists(), path
