"""Is RL worth most in mid-pretraining? The exact gain from every checkpoint, peak and ends."""

from typing import Any

import numpy as np
import pandas as pd

from figures.harness.claim import Row, compare
from figures.harness.statistics import estimate
from figures.impact.runs import EXACT_ADAM, EXACT_SGD, MAIN, UNBIASED, claim_on_runs
from figures.impact.tables import CLEAN, Runs, aligned, peak_of_the_others, teaches_all, was_run

RISES, FALLS = "the first draw gains less than half", "the last checkpoint gains less than half"
LATE, _WORSE = "the last one of a half-wrong corpus gains less than half", "quality 0.5"
_KNOWN = ("J", "pass_at_k", "H", "reader")
_RECIPES = (MAIN, UNBIASED, EXACT_ADAM, EXACT_SGD)


def derive(rows: pd.DataFrame) -> list[Row]:
    """Gain at both ends less half of that at the peak, which all *other* trajectories place; and the curves."""
    found: list[Row] = []
    for recipe in was_run(rows, *_RECIPES):
        budgets = sorted(rows.loc[rows["recipe"] == recipe, "budget"].dropna().unique())
        for budget in budgets:
            runs, last = aligned(rows, recipe, budget=budget), budget == budgets[-1]
            for corpus in dict.fromkeys(runs.corpus):
                labels = {"corpus": corpus, "recipe": recipe, "budget": int(budget)}
                found += _ends(runs.of(corpus), labels, last)
                if last or recipe == MAIN:
                    found += _curve(runs.of(corpus), labels)
    runs = aligned(rows, MAIN, known=_KNOWN)
    for corpus in dict.fromkeys(runs.corpus):
        found += _known(runs.of(corpus), corpus)
    return found


def _ends(runs: Runs, labels: Row, last: bool) -> list[Row]:
    """Judged at the largest budget, whose gains stand out of the noise of a run; reported at the others."""
    peak = runs.gain[np.arange(len(runs.gain)), peak_of_the_others(runs.gain)]
    found: list[Row] = []
    for end, part in ((0, RISES), (-1, FALLS)):
        excess = estimate(runs.gain[:, end] - peak / 2)
        judged = last and teaches_all(labels["corpus"])
        if labels["corpus"] == _WORSE and end == -1 and labels["recipe"] == MAIN:
            part, judged = LATE, True
        found += compare(part, excess.mean, 0.0, excess.standard_error, excess.samples, labels=labels,
                         relation="<=" if judged else "report")  # fmt: skip
    return found


def _curve(runs: Runs, labels: Row) -> list[Row]:
    found: list[Row] = []
    for tokens, column in zip(runs.tokens.mean(0), runs.gain.T, strict=True):
        mean = estimate(column)
        found += compare("curve", mean.mean, 0.0, mean.standard_error, mean.samples, relation="report",
                         labels={**labels, "tokens": int(tokens)})  # fmt: skip
    return found


def _known(runs: Runs, corpus: str) -> list[Row]:
    """What pretraining does: mean J, pass@k, entropy, and the J of a perfect reader."""
    found: list[Row] = []
    for name in _KNOWN:
        for tokens, column in zip(runs.tokens.mean(0), runs.known[name].T, strict=True):
            found += compare(name, column.mean(), relation="report", target=0.0, samples=len(column),
                             labels={"corpus": corpus, "tokens": int(tokens)})  # fmt: skip
    return found


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Pretraining itself, gains of GRPO for every budget, gains of every recipe at the largest; two corpora."""
    from figures.drawing.impact import gain_lines, known_panel
    from figures.drawing.panels import legend_above

    corpora = list(dict.fromkeys(rows["corpus"].dropna()))
    shown = [name for name in (CLEAN, _WORSE) if name in corpora] or corpora[:2]
    axes = figure.subplots(len(shown), 3, squeeze=False)
    curves = rows[rows["part"] == "curve"]
    for line, corpus in zip(axes, shown, strict=True):
        here = curves[curves["corpus"] == corpus]
        known_panel(line[0], rows[rows["corpus"] == corpus], f"pretraining, corpus: {corpus}")
        main = here[here["recipe"] == MAIN]
        gain_lines(line[1], main, "budget", f"{MAIN}, by RL updates")
        last = here[here["budget"] == here["budget"].max()]
        gain_lines(line[2], last, "recipe", f"after {last['budget'].max():.0f} updates")
        line[1].sharey(line[2])
    legend_above(figure, axes[0, 0])
    for axis in axes[0, 1:]:
        axis.legend(fontsize=8)


CLAIM = claim_on_runs(
    name="impact_inverted_u",
    statement="RL gains most in mid-pretraining, where the corpus teaches all that is asked",
    formula=r"\Delta J(\theta_0),\ \Delta J(\theta_{N}) \le \tfrac12 \max_n \Delta J(\theta_n)",
    source="the claim's inverted U of RL's impact over pretraining; the factor one half is ours",
    must_hold="clean corpus: after the same RL budget (the largest; GRPO, RLOO, exact gradient with Adam and with "
    "SGD) the gain from the first draw and from the last checkpoint is at most half of that at the peak, exact J; the "
    "peak of a trajectory is placed by all others",
    must_fail="a corpus in which half of the answers are guesses: the gain from the last checkpoint is at most half "
    "of the peak's",
    how_to_read="Left, what pretraining does by itself; middle and right, the exact gain after RL from every "
    "checkpoint (bars are two standard errors over trajectories). On a clean corpus (above) the gain peaks before "
    "half is known and goes to 0, or below, as nothing is left to learn. With half of the answers guessed (below) the "
    "gain is large from late checkpoints, long after that of the clean corpus has vanished: where the peak lies is a "
    "matter of the corpus. Dashed, ascent on the exact gradient.",
    parts=(
        Part(RISES, "claim", "holds"),
        Part(FALLS, "claim", "holds"),
        Part(LATE, "control", "fails", every="budget"),
    ),
    draw=draw,
    height=7.5,
    derive=derive,
)
