"""A title is true of what came out, whatever came out."""

import pytest

from figures.harness.registry import CLAIM_NAMES, load_claim
from figures.report.found import FOUND
from figures.report.titles import heading, more, relation, title
from tests.figures.report.made_up_results import made_wrong, not_judged, verdict

HOLDS, FAILS = "error_split", "attention_costate_biased"  # as documented
STATEMENT = load_claim(HOLDS).statement


@pytest.mark.parametrize("name", CLAIM_NAMES)
def test_where_all_is_as_documented_the_title_is_the_finding(name):
    documented = verdict(name)
    assert documented.as_documented
    assert title(documented) + "." == FOUND[name].says
    assert more(documented) == FOUND[name].more


@pytest.mark.parametrize("name", CLAIM_NAMES)
def test_no_statement_that_fails_stands_as_a_sentence_of_its_own(name):
    statement = load_claim(name).statement
    for judged in (verdict(name), made_wrong(name)):
        if judged.outcome != "holds":
            for text in (title(judged), heading(judged)):
                assert not text.startswith(statement), text
                assert statement not in text.replace(f'"{statement}"', ""), text


@pytest.mark.parametrize(
    ("judged", "said"),
    [
        (made_wrong(HOLDS), f'The statement "{STATEMENT}" fails'),
        (not_judged(HOLDS), f'The statement "{STATEMENT}" was not judged on these settings'),
        (verdict(HOLDS, outcome="undecided", as_documented=False), f'The statement "{STATEMENT}" is undecided'),
        (verdict(FAILS, outcome="holds", as_documented=False), load_claim(FAILS).statement),
    ],
    ids=["fails", "not judged", "undecided", "holds where failure is documented"],
)
def test_what_is_not_as_documented_is_told_of_the_statement(judged, said):
    assert title(judged) == said
    assert more(judged) == ""


def test_a_claim_without_a_finding_is_told_by_its_statement(monkeypatch):
    for name in (HOLDS, FAILS):
        monkeypatch.delitem(FOUND, name)
    assert title(verdict(HOLDS)) == STATEMENT
    assert title(verdict(FAILS)) == f'The statement "{load_claim(FAILS).statement}" fails'


def test_what_stands_above_a_figure():
    assert heading(verdict(HOLDS)) == f"{STATEMENT}: holds"
    assert heading(verdict(HOLDS), "system scalar") == f"{STATEMENT}: system scalar, holds in all"
    assert heading(verdict(HOLDS), told=False) == STATEMENT
    assert heading(verdict(FAILS)) == FOUND[FAILS].says.rstrip(".")
    assert heading(verdict(FAILS), "world lock") == FOUND[FAILS].says.rstrip(".") + ": world lock"
    assert heading(made_wrong(HOLDS)) == f'"{STATEMENT}": fails'


@pytest.mark.parametrize("word", ["equals", "at most", "at least"])
def test_the_relation_is_the_one_that_the_row_was_judged_by(word):
    assert relation(verdict(HOLDS, word).headline) == word
