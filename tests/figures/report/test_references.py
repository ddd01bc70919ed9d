"""The table of works: numbers in order, claims that exist or are planned, and a page that links to what was judged."""

from dataclasses import replace

from figures.harness.registry import CLAIM_NAMES, CLAIMS
from figures.report import references
from figures.report.references import WORKS, reference_rows
from tests.figures.report.made_up_results import verdict


def test_every_work_is_there_once_and_every_claim_on_a_system_belongs_to_one():
    assert [work.number for work in WORKS] == list(range(1, 18))
    named = {name for work in WORKS for name in work.claims}
    assert set(CLAIMS["systems"]) <= named
    assert all(work.claims or work.note for work in WORKS)


def test_outcomes_are_those_of_the_run_and_what_is_not_written_is_said(monkeypatch):
    made = [replace(WORKS[0], claims=("kl_optimum", "no_such_claim")), replace(WORKS[1], claims=("no_such_claim",))]
    monkeypatch.setattr(references, "WORKS", made)
    first, second = reference_rows([verdict("kl_optimum")])
    assert first["claims"] == [("kl_optimum", verdict("kl_optimum").outcome)]
    assert second["claims"] == []
    assert second["note"] == "No claim runs it yet."
    assert reference_rows([])[0]["claims"] == [("kl_optimum", "not checked")]
    assert "kl_optimum" in CLAIM_NAMES
