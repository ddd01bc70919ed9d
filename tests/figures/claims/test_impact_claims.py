"""The claims on the impact study, judged on made-up rows whose truth is known, and the sharing of its points."""

import numpy as np
import pytest

from figures.claims.impact import impact_inverted_u, impact_product, signal_cap, what_moves_the_peak
from figures.drawing.style import new_figure
from figures.harness.judge import judge
from figures.harness.registry import STUDIES, load_claim, load_claims, measure_of
from figures.harness.runner import plan
from figures.impact import runs as impact_runs
from figures.impact.contest import COUNT, CRITERION, OPTIMISER
from figures.impact.numbers import HEADROOMS, PREDICTORS, PRODUCTS
from tests.figures.impact.made_up_study import (
    BUDGETS,
    TOKENS,
    at_the_largest_budget,
    bump,
    claim_rows,
    documented,
    few_resamples,
    outcomes,
    product,
    product_and_costate,
    product_with_sgd_too,
    spread,
    study,
)

__all__ = ["few_resamples"]
MODULES = [impact_inverted_u, impact_product, signal_cap, what_moves_the_peak]
EACH_CLAIM = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.CLAIM.name)


def test_a_gain_that_is_the_product_is_found_to_be_so():
    assert outcomes(impact_product, claim_rows(impact_product, product)) == documented(impact_product)


def test_a_gain_that_is_the_spread_of_rewards_is_not_called_the_product():
    parts = outcomes(impact_product, claim_rows(impact_product, spread))
    assert parts[impact_product.NULL_MODELS] == "fails"


def test_a_gain_that_is_one_factor_is_not_called_the_product():
    rows = study(lambda facts, *_: facts["snr"] + 1e-4 * facts["J"])
    parts = outcomes(impact_product, at_the_largest_budget(rows, "GRPO"))
    assert parts[impact_product.FACTORS] == "fails"


def test_a_gain_that_j_predicts_turns_the_control():
    rows = study(lambda facts, *_: facts["J"] + 1e-4 * facts["spread"])
    parts = outcomes(impact_product, at_the_largest_budget(rows, "GRPO"))
    assert parts[impact_product.FLAT] != "fails"
    assert parts[impact_product.NULL_MODELS] == "fails"


def test_where_the_product_is_the_better_one_for_sgd_too_the_control_is_blind():
    parts = outcomes(impact_product, claim_rows(impact_product, product_with_sgd_too))
    assert parts[impact_product.SGD] == "holds"


@pytest.mark.parametrize(
    ("norms", "random", "outcome"),
    [(CRITERION, (), "holds"), (CRITERION, ("costate x power",), "fails"), ("spread", (), "fails")],
    ids=["the product itself", "three of four", "a null model"],
)
def test_the_norm_of_the_costate_must_do_as_well_as_the_product_with_each_headroom(norms, random, outcome):
    """The control can pass: where the four products with the norm are put in the place of what predicts the gain."""
    rows, known = study(product), [f"costate x {headroom}" for headroom in HEADROOMS]
    for name in set(known) - set(random):
        rows[name] = rows[norms]
    own = at_the_largest_budget(rows, "GRPO")
    assert outcomes(impact_product, own)[impact_product.NORM] == outcome


def test_products_that_win_are_counted():
    count = {gain: claim_rows(impact_product, gain).set_index("part").loc[COUNT] for gain in (product, spread)}
    assert 1 <= count[product]["measured"] < count[product]["target"] == len(PRODUCTS) == 12
    assert count[spread]["measured"] == 0


def optimisers(rows):
    """The difference that is reported: of the costate's rank correlations with gains of SGD and of Adam."""
    shifts = rows[rows["part"] == OPTIMISER].set_index("predictor")
    assert set(shifts["relation"]) == {"report"}
    return float(shifts.loc["costate", "measured"]), float(shifts.loc["costate", "standard_error"])


def test_a_difference_between_optimisers_is_reported_and_has_its_sign():
    value, error = optimisers(claim_rows(impact_product, product_and_costate))
    assert value > 4 * error
    names = {"exact, SGD": "exact, Adam", "exact, Adam": "exact, SGD"}
    exchanged = at_the_largest_budget(study(product_and_costate).replace({"recipe": names}), "GRPO", *names)
    assert optimisers(impact_product.CLAIM.rows_from(exchanged))[0] == -value
    assert optimisers(claim_rows(impact_product, product_with_sgd_too)) == (0.0, 0.0)


def test_all_products_are_scored_in_the_table():
    rows = claim_rows(impact_product, product)
    table = rows[(rows["part"] == "left-out error") & rows["largest"].eq(True)]
    assert set(table["predictor"]) == set(PREDICTORS)
    samples = table.groupby("recipe")["samples"].unique().map(list).to_dict()
    assert samples == {"GRPO": [12], "RLOO": [12], "exact, Adam": [12], "exact, SGD": [6]}


def noisy_bump(clean_at, half_guessed_at):
    return lambda facts, recipe, group, budget, clean, rng: (
        bump(clean_at if clean else half_guessed_at) + 0.01 * rng.standard_normal(len(TOKENS))
    )


def test_a_peak_in_the_middle_is_an_inverted_u_and_a_plateau_is_none():
    in_the_middle = outcomes(impact_inverted_u, study(noisy_bump(4, 7)))
    assert in_the_middle == {
        impact_inverted_u.RISES: "holds",
        impact_inverted_u.FALLS: "holds",
        impact_inverted_u.LATE: "fails",
    }
    assert outcomes(impact_inverted_u, study(noisy_bump(7, 7)))[impact_inverted_u.FALLS] == "fails"
    assert outcomes(impact_inverted_u, study(noisy_bump(0, 0)))[impact_inverted_u.RISES] == "fails"
    assert outcomes(impact_inverted_u, study(noisy_bump(4, 4)))[impact_inverted_u.LATE] == "holds"


def test_the_peak_moves_as_it_was_made_to():
    def moving(facts, recipe, group, budget, clean, rng):
        where = (3 if clean else 5) - 0.1 * np.log2(budget)
        return bump(where + 0.02 * rng.standard_normal())

    def backwards(facts, recipe, group, budget, clean, rng):
        return moving(facts, recipe, group, 64 / budget, not clean, rng)

    def by_group(facts, recipe, group, budget, clean, rng):
        return bump(4 - np.log2(group) / 2 + 0.02 * rng.standard_normal())

    assert outcomes(what_moves_the_peak, study(moving)) == documented(what_moves_the_peak)
    other = outcomes(what_moves_the_peak, study(backwards))
    assert other[what_moves_the_peak.CORPUS] == other[what_moves_the_peak.BUDGET] == "fails"
    assert outcomes(what_moves_the_peak, study(by_group))[what_moves_the_peak.GROUPS] == "holds"


@pytest.mark.parametrize(
    ("shifts", "outcome"),
    [
        ((-0.5, -0.5, -0.5), "fails"),
        ((-1.5, -1.5, -1.5), "holds"),
        ((0.0, 0.0, -2.0), "fails"),
        ((-2.0, 0.0, 0.0), "fails"),
        ((0.0, -2.0, 0.0), "fails"),
        ((-3.0, -0.4, -0.4), "holds"),
        ((-0.4, -0.4, -3.0), "holds"),
    ],
)
def test_larger_groups_are_judged_by_the_mean_over_budgets(shifts, outcome):
    """A sum, one budget, a median, the smallest or the largest shift come out otherwise in at least one of these."""
    by_budget = dict(zip(BUDGETS, shifts, strict=True))

    def moved(facts, recipe, group, budget, clean, rng):
        return bump(5 + by_budget[budget] * (group == 32) + 0.02 * rng.standard_normal())

    rows = what_moves_the_peak.CLAIM.rows_from(study(moved))
    assert outcomes(what_moves_the_peak, rows)[what_moves_the_peak.GROUPS] == outcome
    each = rows[rows["part"] == what_moves_the_peak.BY_BUDGET].set_index("budget")["measured"]
    assert each.reindex(BUDGETS).to_numpy() == pytest.approx(shifts, abs=0.25)


def test_a_larger_budget_that_moves_the_peak_by_two_doublings_turns_the_control():
    def far(facts, recipe, group, budget, clean, rng):
        return bump(6 - 1.5 * np.log2(budget / 8) + 0.02 * rng.standard_normal())

    def with_grpo_alone(facts, recipe, *others):
        return far(facts, recipe, *others) if recipe == "GRPO" else bump(4 + 0.02 * others[-1].standard_normal())

    assert outcomes(what_moves_the_peak, study(far))[what_moves_the_peak.BIGGER] == "holds"
    assert outcomes(what_moves_the_peak, study(with_grpo_alone))[what_moves_the_peak.BIGGER] == "undecided"


def test_trajectories_that_gain_nothing_have_no_centre_and_are_counted():
    def sometimes(facts, recipe, group, budget, clean, rng):
        return bump(4) * (rng.uniform() < 0.8)

    rows = what_moves_the_peak.CLAIM.rows_from(study(sometimes))
    assert rows.loc[rows["part"] == "centre", "without a centre"].max() > 0
    nothing, figure = what_moves_the_peak.CLAIM.rows_from(study(lambda facts, *_: -facts["J"])), new_figure(5.5)
    assert nothing.empty
    assert judge(what_moves_the_peak.CLAIM, nothing).outcome == "undecided"
    what_moves_the_peak.CLAIM.draw(nothing, figure)
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["no rows here"] * 2


def test_a_corpus_without_a_centre_is_left_out_of_the_picture_and_the_others_are_drawn():
    def nothing_on_the_clean_corpus(facts, recipe, group, budget, clean, rng):
        return bump(4 + 0.1 * rng.standard_normal()) * (recipe == "GRPO" or not clean)

    rows, figure = what_moves_the_peak.CLAIM.rows_from(study(nothing_on_the_clean_corpus)), new_figure(5.5)
    what_moves_the_peak.CLAIM.draw(rows, figure)
    left = figure.axes[0]
    points = sum(len(line.get_xdata()) for line in left.get_lines() if line.get_marker() not in ("_", "|", "None"))
    centres = rows[(rows["part"] == "centre") & rows["recipe"].isin(["GRPO", "exact, Adam"])]
    assert points == len(centres[centres["group"].isin([8, 1])]) == 9


@pytest.mark.parametrize(
    ("column", "value", "part"),
    [("largest_alignment", 1.0 + 1e-6, signal_cap.KEPT), ("alignment", 0.3, signal_cap.MOVES)],
)
def test_a_broken_cap_and_a_still_alignment_fail(column, value, part):
    rows = study(product)
    assert outcomes(signal_cap, claim_rows(signal_cap, product)) == documented(signal_cap)
    rows.loc[rows["kind"] == "checkpoint", column] = value
    assert outcomes(signal_cap, rows)[part] == "fails"


def test_blind_controls_of_the_cap_are_seen():
    rows = study(product)
    rows.loc[rows["kind"] == "checkpoint", ["over_sd", "alignment"]] = [0.9, 0.97]
    parts = outcomes(signal_cap, rows)
    assert parts[signal_cap.BARE] == parts[signal_cap.ATTAINED] == "holds"


def test_claims_on_a_study_share_its_points_which_come_first_and_are_counted_once():
    points = plan(load_claims(["chaos", *(module.CLAIM.name for module in MODULES)]), "quick", 0, "cpu")
    of_study = [p for p in points if p.claim == "impact_runs"]
    assert points[: len(of_study)] == of_study
    assert [p.setting for p in of_study] == impact_runs.settings("quick")
    assert len({p.id for p in points}) == len(points)
    alone = plan([load_claim("signal_cap")], "quick", 0, "cpu")
    assert [p.id for p in alone] == [p.id for p in of_study]
    assert measure_of("impact_runs") is impact_runs.measure
    assert measure_of("chaos") is load_claim("chaos").measure


@EACH_CLAIM
def test_every_claim_on_the_study_takes_all_its_points(module):
    claim = load_claim(module.CLAIM.name)
    assert claim.recorded_as in STUDIES
    assert claim.settings is impact_runs.settings
    assert claim.measure is impact_runs.measure


@EACH_CLAIM
@pytest.mark.parametrize("quality", [1.0, 0.5])
def test_a_sweep_of_one_corpus_is_judged_on_what_it_has(module, quality):
    some = claim_rows(module, product, quality)
    assert set(some.loc[some["relation"] != "report", "part"]) <= set(documented(module))
    assert not some.empty
