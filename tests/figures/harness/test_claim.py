import pandas as pd
import pytest

from envs.world import InputError
from figures.harness.claim import ASSUMPTIONS, CLAIM_NAMES, Claim, compare, judge, load_claim, load_claims


def toy(parts, expected="holds"):
    return Claim("toy", "s", "x", "source", ("A1",), "here", "there", "read", parts, lambda p: [], lambda s, r, d: [],
                 lambda r, f: None, expected)  # fmt: skip


TRUE, FALSE = {"measured": 0.0}, {"measured": 5.0}
BLURRED = {"measured": 0.0, "standard_error": 9.0}


def rows(**parts):
    made = []
    for part, row in parts.items():
        made += compare(part, **{"target": 0.0, "standard_error": 0.001, "samples": 10_000, **row})
    return pd.DataFrame(made)


PARTS = {"own": ("claim", "holds"), "control": ("control", "fails")}


@pytest.mark.parametrize(
    ("own", "control", "outcome", "documented"),
    [
        (TRUE, FALSE, "holds", True),
        (FALSE, FALSE, "fails", False),
        (BLURRED, FALSE, "undecided", False),
        (TRUE, TRUE, "undecided", False),  # the control did not fail: the check is blind
        (FALSE, TRUE, "fails", False),
    ],
)
def test_a_claim_holds_only_if_its_own_parts_hold_and_its_control_fails(own, control, outcome, documented):
    verdict = judge(toy(PARTS), rows(own=own, control=control))
    assert (verdict.outcome, verdict.as_documented) == (outcome, documented)


def test_a_claim_documented_to_fail_is_as_documented_only_when_each_part_fails():
    parts = {"a": ("claim", "fails"), "b": ("claim", "fails"), "remedy": ("control", "holds")}
    claim = toy(parts, "fails")
    assert judge(claim, rows(a=FALSE, b=FALSE, remedy=TRUE)).as_documented
    assert not judge(claim, rows(a=FALSE, b=TRUE, remedy=TRUE)).as_documented
    assert not judge(claim, rows(a=FALSE, b=FALSE, remedy=FALSE)).as_documented


def test_the_headline_is_the_most_telling_row_of_the_claims_own_parts():
    verdict = judge(toy(PARTS), rows(own={"measured": 0.002}, control=FALSE))
    assert verdict.headline["measured"] == 0.002


def test_reported_rows_do_not_decide():
    frame = pd.concat([rows(own=TRUE, control=FALSE), pd.DataFrame(compare("own", 99.0, 0.0, relation="report"))])
    assert judge(toy(PARTS), frame).outcome == "holds"


def test_an_unknown_claim_is_refused_with_the_near_names():
    with pytest.raises(InputError, match="costate_mean"):
        load_claim("costat_mean")


def test_claims_come_once_and_in_order():
    assert [c.name for c in load_claims(["chaos", "costate_mean", "chaos"])] == ["costate_mean", "chaos"]
    assert [c.name for c in load_claims([])] == list(CLAIM_NAMES)


@pytest.mark.parametrize("name", CLAIM_NAMES)
def test_every_claim_is_documented_whole(name):
    claim = load_claim(name)
    assert claim.name == name
    assert set(claim.assumptions) <= set(ASSUMPTIONS)
    assert any(expected == "fails" for _, expected in claim.parts.values()), "no negative control"
    assert any(role == "control" for role, _ in claim.parts.values())
    assert claim.how_to_read.count(". ") + claim.how_to_read.endswith(".") >= 2
    for text in (claim.statement, claim.formula, claim.source, claim.must_hold, claim.must_fail):
        assert text


def work(settings):
    """Samples, or random policies, or points."""
    return sum(getattr(s, "samples", getattr(s, "seeds", 1)) for s in settings)


@pytest.mark.parametrize("preset", ["quick", "full"])
@pytest.mark.parametrize("name", CLAIM_NAMES)
def test_settings_are_distinct_and_the_full_preset_does_more(name, preset):
    claim = load_claim(name)
    settings = claim.settings(preset)
    assert len(set(settings)) == len(settings)
    assert work(claim.settings("full")) > work(claim.settings("quick"))


@pytest.mark.parametrize("left", ["own", "control"])
def test_a_part_without_a_comparison_leaves_the_claim_undecided(left):
    given = {"own": TRUE, "control": FALSE}
    verdict = judge(toy(PARTS | {"more": ("claim", "holds")}), rows(**{left: given[left]}, more=TRUE))
    assert (verdict.outcome, verdict.as_documented) == ("undecided", False)
    absent = ({"own", "control"} - {left}).pop()
    assert f"'{absent}' undecided" in verdict.reason
