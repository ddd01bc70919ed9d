"""Is RL worth most in mid-pretraining? The exact gain from every checkpoint, peak and ends."""

from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.impact import gain_panel, known_panel
from figures.drawing.panels import legend_above, value_of, with_columns
from figures.harness.claim import Part
from figures.harness.rows import Row, at_most, report
from figures.harness.statistics import Estimate, estimate
from figures.impact.runs import EXACT_ADAM, EXACT_SGD, MAIN, UNBIASED, claim_on_runs
from figures.impact.tables import (
    CLEAN,
    HALF_GUESSED,
    Runs,
    aligned,
    budgets_of,
    peak_of_the_others,
    teaches_all,
    two_corpora,
    was_run,
)

RISES, FALLS = "the first draw gains less than half", "the last checkpoint gains less than half"
LATE = "the last one of a half-wrong corpus gains less than half"
_KNOWN = ("J", "pass_at_k", "H", "reader")


def derive(study: pd.DataFrame) -> list[Row]:
    """Gain at both ends less half of that at the peak; and the curves."""
    rows: list[Row] = []
    for recipe in was_run(study, MAIN, UNBIASED, EXACT_ADAM, EXACT_SGD):
        budgets = budgets_of(study, recipe)
        for budget in budgets:
            runs, largest = aligned(study, recipe, budget=budget), budget == budgets[-1]
            for corpus in runs.corpora:
                labels = {"corpus": corpus, "recipe": recipe, "budget": int(budget)}
                rows += _ends(runs.of(corpus), labels, largest)
                if largest or recipe == MAIN:
                    rows += _curve(runs.of(corpus), labels)
    runs = aligned(study, MAIN, known=_KNOWN)
    for corpus in runs.corpora:
        rows += _before_rl(runs.of(corpus), corpus)
    return rows


def _ends(runs: Runs, labels: Row, largest: bool) -> list[Row]:
    """Judged at the largest budget, whose gains stand out of the noise of a run; reported at the others.

    The peak of a trajectory is where the mean gain of all other trajectories is largest.
    """
    peak = runs.gain[np.arange(len(runs.gain)), peak_of_the_others(runs.gain)]
    first, last = (estimate(runs.gain[:, end] - peak / 2) for end in (0, -1))
    judged = largest and teaches_all(labels["corpus"])
    late = labels["corpus"] == HALF_GUESSED and labels["recipe"] == MAIN
    return at_most(RISES, first, 0.0, judged=judged, labels=labels) + at_most(
        LATE if late else FALLS, last, 0.0, judged=judged or late, labels=labels
    )


def _curve(runs: Runs, labels: Row) -> list[Row]:
    rows: list[Row] = []
    for tokens, column in zip(runs.tokens.mean(0), runs.gain.T, strict=True):
        rows += report("curve", estimate(column), labels={**labels, "tokens": int(tokens)})
    return rows


def _before_rl(runs: Runs, corpus: str) -> list[Row]:
    """What pretraining does by itself: mean J, pass@k, entropy, and the J of a perfect reader."""
    rows: list[Row] = []
    for name in _KNOWN:
        for tokens, column in zip(runs.tokens.mean(0), runs.known[name].T, strict=True):
            mean = Estimate(column.mean(), np.zeros(()), len(column))
            rows += report(name, mean, labels={"corpus": corpus, "tokens": int(tokens)})
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Pretraining itself, gains of GRPO for every budget, gains of every recipe at the largest; two corpora."""
    rows = with_columns(rows, "tokens", "budget", "recipe", "corpus")
    shown = two_corpora(list(dict.fromkeys(rows["corpus"].dropna()))) or [CLEAN]
    axes = figure.subplots(len(shown), 3, squeeze=False)
    curves = rows[rows["part"] == "curve"]
    for line, corpus in zip(axes, shown, strict=True):
        here = curves[curves["corpus"] == corpus]
        known_panel(line[0], rows[rows["corpus"] == corpus], f"corpus: {corpus}")
        gain_panel(line[1], here[here["recipe"] == MAIN], "budget", f"{MAIN}, by RL updates")
        largest = here[here["budget"] == here["budget"].max()]
        gain_panel(line[2], largest, "recipe", f"after {value_of(largest, 'budget', 0):.0f} updates")
        line[1].sharey(line[2])
    legend_above(figure, axes[0, 0])
    for axis in axes[0, 1:]:
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize="small")


CLAIM = claim_on_runs(
    name="impact_inverted_u",
    statement="RL gains most in mid-pretraining, where the corpus teaches all that is asked",
    formula=r"\Delta J(\theta_0),\ \Delta J(\theta_{N}) \le \tfrac12 \max_n \Delta J(\theta_n)",
    source="the paper's inverted U of RL's impact over pretraining; the factor one half is ours",
    must_hold="clean corpus: after the same RL budget (the largest; GRPO, RLOO, exact gradient with Adam and with "
    "SGD) the gain from the first draw and the gain from the last checkpoint are at most half of that at the peak, in "
    "exact J; the peak of a trajectory is placed by all others",
    must_fail="a corpus in which half of the answers are guesses: the gain from the last checkpoint is at most half "
    "of the peak's",
    how_to_read="Left, what pretraining does by itself; middle and right, the exact gain after RL from every "
    "checkpoint (bars are two standard errors over trajectories). On a clean corpus (above) the gain peaks on the way "
    "and vanishes when nothing is left to learn. With half of the answers guessed (below) the gain is still large from "
    "late checkpoints, long after that of the clean corpus has vanished: where the peak lies depends on the corpus. "
    "Dashed, ascent on the exact gradient.",
    parts=(
        Part(RISES, "claim", "holds"),
        Part(FALLS, "claim", "holds"),
        Part(LATE, "control", "fails", every="budget"),
    ),
    draw=draw,
    height=7.5,
    derive=derive,
)
