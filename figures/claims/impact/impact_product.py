"""Does signal times headroom predict from which checkpoint RL gains most? All products against factors and null models."""

import itertools
from collections.abc import Callable
from typing import Any

import pandas as pd

from figures.drawing.impact import curves_panel, left_out_panel, peak_told
from figures.drawing.impact_advice import advice
from figures.drawing.panels import legend_above, with_columns
from figures.harness.claim import Part
from figures.harness.rows import Row, at_least, at_most, report
from figures.impact.contest import (
    COUNT,
    CRITERION,
    ONE_SIDED,
    OPTIMISER,
    POWER,
    POWER_GAP,
    SPREADS,
    count_winners,
    prediction_rows,
    score_rows,
    score_runs,
    score_study,
)
from figures.impact.numbers import HEADROOMS, PREDICTORS, PRODUCTS
from figures.impact.predictors import ERROR, RANK, SCORES, Scored
from figures.impact.runs import EXACT_ADAM, EXACT_SGD, MAIN, UNBIASED, claim_on_runs
from figures.impact.tables import CLEAN, aligned, budgets_of, two_corpora, was_run

_NORMS = tuple(f"costate x {headroom}" for headroom in HEADROOMS)
FACTORS, NULL_MODELS = "signal-to-noise x pass@k: beats its factors", "signal-to-noise x pass@k: beats the null models"
RANKS, SGD = "signal-to-noise x pass@k: ranks no worse", "exact gradient, plain SGD: ranks better than P(1-P)"
NORM, FLAT = "norm of the costate x each headroom: predicts as well", "J, H or 1 - J alone foretell it"
NORM_GAP = "norm of the costate x each headroom: left-out error less that of P(1-P)"  # reported
# maker of the rows, part, scores, predictors, the rivals of each, target of the difference
_Difference = tuple[Callable[..., list[Row]], str, Scored, tuple[str, ...], tuple[str, ...], float]
# predictor -> name of its colour; all are in the rows, and the first and the null model in the picture
SHOWN = {CRITERION: "score_value", "costate x ball": "control", "spread": "score", POWER: "score_best"}


def derive(study: pd.DataFrame) -> list[Row]:
    """All scores of all predictors for every recipe and budget, the differences that are judged, what the picture shows."""
    rows: list[Row] = []
    for recipe in was_run(study, MAIN, UNBIASED, EXACT_ADAM, EXACT_SGD):
        budgets = budgets_of(study, recipe)
        for budget in budgets:
            largest = budget == budgets[-1]
            runs, scored = score_study(study, recipe, budget, SCORES if largest else (ERROR, RANK))
            rows += score_rows(scored, {"recipe": recipe, "budget": int(budget), "largest": largest})
            if recipe == MAIN and largest:
                rows += _judged(scored[ERROR], scored[RANK]) + prediction_rows(runs, SHOWN, CRITERION)
    return rows + _by_optimiser(study)


def _judged(error: Scored, rank: Scored) -> list[Row]:
    """Differences between predictors, and the errors of those that cannot place a peak."""
    nulls = (*SPREADS, *ONE_SIDED)
    differences: tuple[_Difference, ...] = (
        (at_most, FACTORS, error, (CRITERION,), ("snr", "best_of"), -0.02),
        (at_most, NULL_MODELS, error, (CRITERION,), nulls, -0.02),
        (at_least, RANKS, rank, (CRITERION,), ("snr", "best_of", *nulls), -0.1),
        (at_most, NORM, error, _NORMS, (CRITERION,), 0.02),
        (report, NORM_GAP, error, _NORMS, ("spread",), 0.0),
        (report, POWER_GAP, error, (CRITERION,), (POWER,), 0.0),
    )
    rows: list[Row] = []
    for make_rows, part, scored, predictors, rivals, target in differences:
        for predictor, rival in itertools.product(predictors, rivals):
            labels = {"predictor": predictor, "against": rival, "recipe": MAIN}
            rows += make_rows(part, scored.difference(predictor, rival), target, labels=labels)
    for name in ONE_SIDED:
        rows += at_most(FLAT, error.of(name), 0.9, labels={"predictor": name, "recipe": MAIN})
    return rows + report(COUNT, count_winners(error.value), len(PRODUCTS), labels={"recipe": MAIN})


def _by_optimiser(study: pd.DataFrame) -> list[Row]:
    """Ascent on the exact gradient from the same checkpoints of the clean corpus, with plain SGD and with Adam."""
    recipes = was_run(study, EXACT_SGD, EXACT_ADAM)
    clean = [aligned(study, recipe, known=list(PREDICTORS)).of(CLEAN) for recipe in recipes]
    if len(clean) < 2 or not len(clean[0].gain):
        return []
    sgd, adam = (score_runs(runs, RANK) for runs in clean)
    labels = {"predictor": CRITERION, "against": "spread", "recipe": EXACT_SGD}
    rows = at_least(SGD, sgd.difference(CRITERION, "spread"), 0.0, labels=labels)
    for name in ("costate", "gradient"):
        rows += report(OPTIMISER, sgd.against(adam, name), labels={"predictor": name})
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """The law: gains along pretraining with their prediction, and each gain against it. The page has the predictors' table."""
    rows = with_columns(rows, "corpus", "largest", "predictor")
    curves = rows[rows["part"] == "curve"]
    shown = two_corpora(list(dict.fromkeys(rows["corpus"].dropna()))) or [CLEAN]
    *axes, left_out = figure.subplots(1, len(shown) + 1)
    for axis, corpus in zip(axes, shown, strict=True):
        predictors, own = {CRITERION: SHOWN[CRITERION], "spread": "control"}, curves[curves["corpus"] == corpus]
        curves_panel(axis, own, predictors, f"corpus {corpus}:\n{peak_told(own, CRITERION)}")
    error = rows[(rows["part"] == ERROR) & rows["largest"].eq(True) & (rows["recipe"] == MAIN)]
    left_out_panel(
        left_out, rows[rows["part"] == "point"], dict(zip(error["predictor"], error["measured"], strict=True))
    )
    legend_above(figure, axes[0])


CLAIM = claim_on_runs(
    name="impact_product",
    statement="Signal-to-noise x (pass@k - pass@1) predicts the gain of GRPO better than its factors",
    formula=r"\Delta J \approx a\,\frac{\|E\lambda\|}{\mathrm{sd}\,\lambda}\,(\mathrm{pass@}k-\mathrm{pass@}1) + b,\qquad"
    r"\text{error on a trajectory left out} < \text{that of each factor, of } P(1-P), J, H",
    source="the paper promises a criterion, but its own formula could not be read: all twelve products are our "
    "definitions",
    must_hold="GRPO with Adam, the largest budget: signal-to-noise x (pass@k - pass@1) has a left-out error smaller "
    "by 0.02 than that of both factors and the null models P(1-P), its root, J, H, 1 - J and the entropy law, and "
    "ranks no worse than any of them by 0.1",
    must_fail="with the costate's norm in the place of signal-to-noise each of the four products predicts as well (to "
    "0.02); with the exact gradient and plain SGD the product ranks better than P(1-P) (clean corpus); J, H, 1 - J or "
    "the entropy law alone predict a tenth of the spread of the gain",
    how_to_read="Points are the gain of GRPO from each checkpoint (bars: two standard errors). Green is its prediction, a "
    "line a x + b in signal-to-noise x (pass@k - pass@1) that was fitted to all other trajectories; red is that of P(1-P) "
    "alone. Right, every gain against the green prediction (dashed: equal); an error of 1 is that of the mean gain. The table "
    "of all predictors stands below the picture in the report; costate.draw_predictors draws it.",
    parts=(
        Part(FACTORS, "claim", "holds"),
        Part(NULL_MODELS, "claim", "holds"),
        Part(RANKS, "claim", "holds"),
        Part(NORM, "control", "fails"),
        Part(SGD, "control", "fails"),
        Part(FLAT, "control", "fails", every="predictor"),
    ),
    draw=draw,
    height=5.2,
    advice=advice,
    derive=derive,
)
