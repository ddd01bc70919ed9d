"""All predictors of the gain side by side: their scores as rows, and their predictions along pretraining."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from figures.harness.rows import Row, report
from figures.harness.statistics import estimate
from figures.impact.numbers import PREDICTORS, PRODUCTS
from figures.impact.predictors import SCORES, Scored, left_out_prediction, resamples, score_all
from figures.impact.tables import Runs, aligned

SPREADS = ("sqrt_spread", "spread")  # null models: the spread of the reward alone
ONE_SIDED = ("J", "H", "entropy_law", "rest")  # nulls that rise or fall all along pretraining: they cannot place a peak
CRITERION, POWER = "snr x best_of", "power"  # the product that is judged, and the headroom that it is reported beside
# parts that are reported and not judged
POWER_GAP, COUNT = (
    "left-out error less that of power-sampling headroom alone",
    "products that beat their factors and all nulls",
)
OPTIMISER = "rank correlation with gains of SGD less that with gains of Adam"
RESAMPLES = 500
_SEED = 0


def score_runs(runs: Runs, score: str) -> Scored:
    """One score of every predictor. Every score and recipe gets the same resamples, so that their differences are paired."""
    corpora = np.unique(runs.corpus, return_inverse=True)[1]
    draws = resamples(corpora, RESAMPLES, np.random.default_rng(_SEED))
    return score_all({name: runs.known[name] for name in PREDICTORS}, runs.gain, draws, SCORES[score])


def score_study(
    study: pd.DataFrame, recipe: str, budget: float, scores: Iterable[str]
) -> tuple[Runs, dict[str, Scored]]:
    """The runs of a recipe after so many updates, and the scores of all predictors on them."""
    runs = aligned(study, recipe, budget=budget, known=list(PREDICTORS))
    return runs, {score: score_runs(runs, score) for score in scores}


def score_rows(scored: Mapping[str, Scored], labels: Row) -> list[Row]:
    """Every score of every predictor, reported."""
    return [
        row
        for score, table in scored.items()
        for name in PREDICTORS
        for row in report(score, table.of(name), labels={"predictor": name, **labels})
    ]


def count_winners(error: Mapping[str, float]) -> int:
    """How many of the products have a smaller left-out error than both of their factors and every null model."""
    rivals = {name: (*name.split(" x "), *SPREADS, *ONE_SIDED) for name in PRODUCTS}
    return sum(error[name] < min(error[rival] for rival in rivals[name]) for name in PRODUCTS)


def prediction_rows(runs: Runs, shown: Iterable[str], scattered: str) -> list[Row]:
    """What the picture shows: mean gains along pretraining beside left-out predictions, and one prediction against each gain.

    Args:
        runs: gains, and what was known before.
        shown: predictors whose mean predictions are drawn along pretraining (part "curve", with the gains as "measured").
        scattered: the predictor of which every single prediction is drawn (part "point").
    """
    predicted = {name: left_out_prediction(runs.known[name], runs.gain) for name in shown}
    rows: list[Row] = []
    for corpus in runs.corpora:
        keep, tokens = runs.corpus == corpus, runs.of(corpus).tokens.mean(0)
        for name, values in {"measured": runs.gain, **predicted}.items():
            for at, column in zip(tokens, values[keep].T, strict=True):
                labels = {"corpus": corpus, "predictor": name, "tokens": int(at)}
                rows += report("curve", estimate(column), labels=labels)
        rows += report("point", runs.gain[keep], predicted[scattered][keep], labels={"corpus": corpus})
    return rows
