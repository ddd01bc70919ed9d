"""How rows become a verdict, and what every claim must have."""

import dataclasses
import json

import pandas as pd
import pytest

from envs.world import InputError
from figures.harness.claim import ASSUMPTIONS, Claim, Part
from figures.harness.judge import Run, Subset, Verdict, judge
from figures.harness.registry import CLAIM_NAMES, CLAIMS, load_claim, load_claims, measure_of, module_name
from figures.harness.rows import at_least, at_most, equals, report, vanishes
from figures.harness.statistics import Estimate
from figures.harness.verdicts import OWN as OWN_SYSTEM
from figures.harness.verdicts import _own_outcomes

OWN, CONTROL = Part("own", "claim", "holds"), Part("control", "control", "fails")
TRUE, FALSE = Estimate(0.0, 0.001, 10_000), Estimate(5.0, 0.001, 10_000)
BLURRED = Estimate(0.0, 9.0, 10_000)


def toy(*parts):
    texts = ("toy", "s", "x", "source", ("A1",), "here", "there", "read")
    return Claim(*texts, parts, lambda p: [], lambda s, r, d: [], lambda r, f: None)


def rows(**parts):
    return pd.DataFrame([row for part, measured in parts.items() for row in equals(part, measured, 0.0)])


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
    verdict = judge(toy(OWN, CONTROL), rows(own=own, control=control))
    assert (verdict.outcome, verdict.as_documented) == (outcome, documented)


def test_a_claim_documented_to_fail_is_as_documented_only_when_each_part_fails():
    claim = toy(Part("a", "claim", "fails"), Part("b", "claim", "fails"), Part("remedy", "control", "holds"))
    assert claim.documented == "fails"
    assert judge(claim, rows(a=FALSE, b=FALSE, remedy=TRUE)).as_documented
    assert not judge(claim, rows(a=FALSE, b=TRUE, remedy=TRUE)).as_documented
    assert not judge(claim, rows(a=FALSE, b=FALSE, remedy=FALSE)).as_documented


def test_the_documented_outcome_follows_from_the_parts():
    assert toy(OWN, CONTROL).documented == "holds"
    assert toy(OWN, dataclasses.replace(OWN, name="b", documented="fails")).documented == "fails"
    assert toy(OWN, dataclasses.replace(CONTROL, role="control")).documented == "holds"


def test_the_headline_is_the_most_extreme_row_of_the_claims_own_parts():
    verdict = judge(toy(OWN, CONTROL), rows(own=Estimate(0.002, 0.001, 10_000), control=FALSE))
    assert verdict.headline["measured"] == 0.002


def test_the_headline_is_a_row_that_decided_the_outcome():
    """A part that holds, just within its limit, is more extreme than one that saw too little; it decided nothing."""
    near = Estimate(0.003, 0.001, 10_000)
    verdict = judge(
        toy(OWN, Part("blurred", "claim", "holds"), CONTROL), rows(own=near, blurred=BLURRED, control=FALSE)
    )
    assert verdict.parts["own"].result.outcome == "holds"
    assert verdict.parts["own"].result.of_limit > 0.5 > verdict.parts["blurred"].result.of_limit
    assert (verdict.outcome, verdict.headline["standard_error"]) == ("undecided", 9.0)


def test_reported_rows_do_not_decide():
    frame = pd.concat([rows(own=TRUE, control=FALSE), pd.DataFrame(report("own", 99.0))])
    frame = pd.concat([frame, pd.DataFrame(equals("own", 99.0, 0.0, judged=False))])
    assert judge(toy(OWN, CONTROL), frame).outcome == "holds"


def test_a_control_must_fail_in_every_group():
    every = dataclasses.replace(CONTROL, every="world")
    for spared, outcome in ((0.0, "undecided"), (5.0, "holds")):
        frame = rows(own=TRUE).to_dict("records")
        for world, measured in (("a", 5.0), ("b", spared)):
            frame += equals("control", Estimate(measured, 0.001, 100), 0.0, labels={"world": world})
        verdict = judge(toy(OWN, every), pd.DataFrame(frame))
        assert verdict.outcome == outcome
        assert ("world b" in verdict.reason) == (outcome == "undecided")


@pytest.mark.parametrize("left", ["own", "control"])
def test_a_part_without_a_comparison_leaves_the_claim_undecided(left):
    made = {"own": TRUE, "control": FALSE}
    verdict = judge(toy(OWN, CONTROL, Part("more", "claim", "holds")), rows(**{left: made[left]}, more=TRUE))
    assert (verdict.outcome, verdict.as_documented) == ("undecided", False)
    absent = ({"own", "control"} - {left}).pop()
    assert f"'{absent}' undecided" in verdict.reason


@dataclasses.dataclass(frozen=True)
class InWorld:
    world: str
    tau: float = 1.0


WHOLE = [InWorld(world, tau) for world in ("a", "b") for tau in (1.0, 2.0)]
MORE = InWorld("a", 9.0)  # a setting that the preset does not have
EVERY = dataclasses.replace(CONTROL, every="world")


def of_worlds(own=TRUE, **control):
    """Rows of the part "own", and of the control in the worlds that are named."""
    frame = rows(own=own).to_dict("records")
    for world, measured in control.items():
        frame += equals("control", measured, 0.0, labels={"world": world})
    return pd.DataFrame(frame)


@pytest.mark.parametrize(
    ("parts", "frame", "kept", "outcome", "mark", "told"),
    [
        ((OWN, EVERY), of_worlds(a=FALSE), WHOLE[:2], "holds", "yes", "on a subset: 2 of 2 parts"),
        ((OWN, EVERY), of_worlds(a=TRUE), WHOLE[:2], "undecided", "NO", "'control' holds, documented: fails"),
        ((OWN, EVERY), of_worlds(a=TRUE, b=FALSE), WHOLE[:3], "undecided", "NO", "does not fail for world a"),
        ((OWN, EVERY), of_worlds(a=FALSE, b=TRUE), WHOLE[:3], "not judged", "-", "'control' does not fail here"),
        ((OWN, EVERY), of_worlds(a=TRUE), WHOLE[:1], "not judged", "-", "'control' does not fail here"),
        ((OWN, EVERY), of_worlds(a=TRUE), [InWorld("a", 9.0)], "not judged", "-", "'control' does not fail here"),
        ((OWN, EVERY), of_worlds(a=TRUE), [*WHOLE[:2], MORE], "not judged", "-", "'control' does not fail here"),
        ((OWN, EVERY), of_worlds(a=TRUE, b=FALSE), [*WHOLE, MORE], "not judged", "-", "'control' does not fail here"),
        ((OWN, CONTROL), of_worlds(a=TRUE), WHOLE[:2], "not judged", "-", "'control' does not fail here"),
        ((OWN, CONTROL), of_worlds(), WHOLE[:2], "not judged", "-", "'control' is left out"),
        ((OWN, CONTROL), of_worlds(FALSE, a=TRUE), WHOLE[:2], "fails", "NO", "'own' fails, documented: holds"),
        ((OWN, CONTROL), rows(control=FALSE), WHOLE[:2], "not judged", "-", "no part of the claim is left"),
        ((OWN, CONTROL), pd.DataFrame(), WHOLE[:2], "not judged", "-", "no part of the claim is left"),
        ((OWN, CONTROL), rows(own=TRUE, control=TRUE), WHOLE, "undecided", "NO", "'control' holds"),
        ((OWN, CONTROL), pd.DataFrame(), WHOLE, "undecided", "NO", "'own' undecided"),
    ],
)
def test_on_a_subset_only_what_can_be_judged_there_is_judged(parts, frame, kept, outcome, mark, told):
    verdict = judge(toy(*parts), frame, Subset.of(kept, WHOLE))
    assert (verdict.outcome, verdict.mark, verdict.subset) == (outcome, mark, kept != WHOLE)
    assert told in verdict.reason
    assert verdict.unexpected == (mark == "NO")
    run = Run("quick", "cpu", 3, [{"x": 1}], ["records/toy/a.json"], {"torch": "2"}, "abc")
    given = json.loads(json.dumps(dataclasses.replace(verdict, run=run).to_json(), allow_nan=False))
    assert Verdict.from_json(given).to_json() == given


def test_a_world_is_found_under_the_name_that_its_rows_show():
    """Rows show "two words" for a setting `two_words`: what was left out of it must be found."""
    whole = [InWorld(world, tau) for world in ("two_words", "b") for tau in (1.0, 2.0)]
    frame = of_worlds(b=FALSE, **{"two words": TRUE})
    assert judge(toy(OWN, EVERY), frame, Subset.of(whole[1:], whole)).outcome == "not judged"
    assert judge(toy(OWN, EVERY), frame, Subset.of(whole[:3], whole)).outcome == "undecided"


def test_a_verdict_comes_back_from_json_as_it_was():
    run = Run("quick", "cpu", 3, [{"x": 1}], ["records/toy/a.json"], {"torch": "2"}, "abc")
    verdict = dataclasses.replace(judge(toy(OWN, CONTROL), rows(own=TRUE, control=FALSE)), run=run)
    given = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert Verdict.from_json(given).to_json() == given
    assert (given["measured"], given["samples"]) == (0.0, 10_000)
    assert given["parts"]["control"]["documented"] == "fails"
    del given["parts"]["control"]["role"]
    with pytest.raises(KeyError):
        Verdict.from_json(given)


def test_row_makers_spell_out_what_they_say():
    made = equals(
        "p", Estimate([1.0, 2.0], [0.1, 0.2], 7), [1.5, 2.5], 3.0, tolerance=0.01, labels={"w": "a"}, axes=("i",)
    )
    numbers = {"measured": 2.0, "target": 2.5, "standard_error": 0.2, "scale": 3.0, "tolerance": 0.01}
    assert made[1] == {"part": "p", "relation": "==", "margin": 0.1, "samples": 7, "w": "a", "i": 1} | numbers
    assert [maker("p", 1.0, 2.0)[0]["relation"] for maker in (equals, at_most, at_least, report)] == [
        "==",
        "<=",
        ">=",
        "report",
    ]
    assert [maker("p", 1.0, 2.0, judged=False)[0]["relation"] for maker in (equals, at_most, at_least)] == [
        "report"
    ] * 3
    assert vanishes("p", 0.5, 1e-9)[0] == equals("p", 0.5, 0.0, tolerance=1e-9)[0]
    with pytest.raises(InputError, match=r"'p' of \{'w': 1\} is not finite"):
        equals("p", float("nan"), 0.0, labels={"w": 1})


def test_an_unknown_claim_is_refused_with_the_near_names():
    with pytest.raises(InputError, match="costate_mean"):
        load_claim("costat_mean")


def test_claims_come_once_and_in_order():
    assert [c.name for c in load_claims(["chaos", "costate_mean", "chaos"])] == ["costate_mean", "chaos"]
    assert [c.name for c in load_claims([])] == list(CLAIM_NAMES)
    assert len(set(CLAIM_NAMES)) == len(CLAIM_NAMES) == sum(map(len, CLAIMS.values()))


def test_points_are_measured_by_the_claim_or_by_its_study():
    assert module_name("chaos") == "figures.claims.continuous.chaos"
    assert module_name("impact_runs") == "figures.impact.runs"
    assert measure_of("chaos") is load_claim("chaos").measure
    assert measure_of("impact_runs") is load_claim("signal_cap").measure


@pytest.mark.parametrize("name", CLAIM_NAMES)
def test_every_claim_is_documented_whole(name):
    claim = load_claim(name)
    assert claim.name == name
    assert set(claim.assumptions) <= set(ASSUMPTIONS)
    assert any(part.documented == "fails" for part in claim.parts), "no negative control"
    assert any(part.role == "control" for part in claim.parts)
    assert len({part.name for part in claim.parts}) == len(claim.parts)
    assert claim.how_to_read.count(". ") + claim.how_to_read.endswith(".") >= 2
    for text in (claim.statement, claim.formula, claim.source, claim.must_hold, claim.must_fail):
        assert text


def work(settings):
    """Samples, or random policies, or points."""
    return sum(getattr(s, "samples", getattr(s, "seeds", 1)) for s in settings)


@pytest.mark.parametrize("name", CLAIM_NAMES)
def test_settings_are_distinct_and_a_larger_preset_does_more(name):
    claim = load_claim(name)
    sizes = []
    for preset in ("tiny", "quick", "full"):
        settings = claim.settings(preset)
        assert settings
        assert len(set(settings)) == len(settings)
        sizes.append(work(settings))
    assert sizes[0] <= sizes[1] < sizes[2]


@pytest.mark.parametrize(("own", "others"), [(0.0, 1.0), (1.0, 0.0)])
def test_a_users_own_system_is_judged_on_its_own_rows_alone(own, others):
    rows = [
        row for name, x in ((OWN_SYSTEM, own), ("ours", others)) for row in equals("p", x, 0.0, labels={"system": name})
    ]
    outcome = {0.0: "holds", 1.0: "fails"}
    assert _own_outcomes(pd.DataFrame(rows)) == {"p": outcome[own]}
    assert _own_outcomes(pd.DataFrame(equals("p", own, 0.0))) == {}
