"""What moves the checkpoint from which RL gains most: the corpus, the budget, the size of the groups."""

from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.impact import centres_by_corpus_panel, centres_by_group_panel
from figures.drawing.panels import with_columns
from figures.harness.claim import Part
from figures.harness.rows import Row, at_least, at_most, report
from figures.harness.statistics import Estimate
from figures.impact.centres import Centres, centres_of, mean_centre, own_group
from figures.impact.runs import EXACT_ADAM, MAIN, claim_on_runs
from figures.impact.tables import CLEAN, HALF_GUESSED, was_run

CORPUS, BUDGET, GROUPS = (
    "a half-wrong corpus: later",
    "a larger budget: earlier",
    "sixteen times the group: earlier by a doubling",
)
BIGGER = "a larger budget: earlier by two doublings"
BY_BUDGET = "shift with sixteen times the group"  # of every budget: reported


def derive(study: pd.DataFrame) -> list[Row]:
    """Shifts of the centre of the gains, in doublings of pretraining tokens; and the centres themselves."""
    centres = centres_of(study)
    rows = _centres(centres)
    for recipe in was_run(study, MAIN, EXACT_ADAM):
        rows += _by_corpus(centres, recipe) + _by_budget(centres, recipe)
    return rows + _by_group(centres)


def _centres(centres: Centres) -> list[Row]:
    """Mean centres, and how many trajectories have none."""
    rows: list[Row] = []
    for run, values in centres.items():
        mean = mean_centre(values)
        if mean is not None:
            labels = {**run._asdict(), "without a centre": int(np.isnan(values).sum())}
            rows += report("centre", mean, labels=labels)
    return rows


def _by_corpus(centres: Centres, recipe: str) -> list[Row]:
    """Every corpus against the clean one. Their trajectories differ, so the squares of the standard errors add."""
    rows, group = list[Row](), own_group(centres, recipe)
    for run in centres:
        clean = run._replace(corpus=CLEAN)
        if (run.recipe, run.group) != (recipe, group) or run.corpus == CLEAN or clean not in centres:
            continue
        one, other = mean_centre(centres[run]), mean_centre(centres[clean])
        if one is None or other is None:
            continue
        error, samples = np.hypot(one.standard_error, other.standard_error), min(one.samples, other.samples)
        shift = Estimate(one.mean - other.mean, error, samples)
        labels = {"corpus": run.corpus, "recipe": recipe, "budget": run.budget}
        rows += at_least(CORPUS, shift, 0.0, judged=run.corpus == HALF_GUESSED, labels=labels)
    return rows


def _by_budget(centres: Centres, recipe: str) -> list[Row]:
    """The same trajectories, the largest budget against the smallest; both corpora together."""
    group, budgets = own_group(centres, recipe), sorted({run.budget for run in centres})
    own = [run for run in centres if run.corpus in (CLEAN, HALF_GUESSED) and run[1:3] == (recipe, group)]
    few, many = ([centres[run] for run in own if run.budget == budget] for budget in (budgets[0], budgets[-1]))
    shift = mean_centre(np.concatenate(many) - np.concatenate(few)) if own else None
    if shift is None:
        return []
    labels = {"recipe": recipe, "budget": budgets[-1]}
    return at_most(BUDGET, shift, 0.0, labels=labels) + at_most(BIGGER, shift, -2.0, labels=labels)


def _by_group(centres: Centres) -> list[Row]:
    """The same trajectories and as many rows in an update, cut into fewer, larger groups; the mean over budgets is judged."""
    clean = [run for run in centres if (run.corpus, run.recipe) == (CLEAN, MAIN)]
    groups, labels = sorted({run.group for run in clean}), {"corpus": CLEAN, "recipe": MAIN}
    if len(groups) < 2:
        return []
    shifts = {
        budget: centres[clean[0]._replace(group=groups[-1], budget=budget)]
        - centres[clean[0]._replace(group=groups[0], budget=budget)]
        for budget in sorted({run.budget for run in clean})
    }
    rows: list[Row] = []
    for budget, values in shifts.items():
        shift = mean_centre(values)
        rows += report(BY_BUDGET, shift, -1.0, labels={**labels, "budget": budget}) if shift else []
    mean = mean_centre(np.mean(list(shifts.values()), 0))
    return rows + (at_most(GROUPS, mean, -1.0, labels=labels) if mean else [])


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Centres of the gains: by corpus and budget, and by group size."""
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.6, 1))
    rows = with_columns(
        rows, "part", "recipe", "corpus", "group", "budget"
    )  # where nothing gained there is no row at all
    centres = rows[rows["part"] == "centre"]
    centres_by_corpus_panel(left, centres, (MAIN, EXACT_ADAM))
    groups = centres[(centres["recipe"] == MAIN) & (centres["corpus"] == CLEAN)]
    centres_by_group_panel(right, groups, f"group size ({MAIN}, clean corpus)")


CLAIM = claim_on_runs(
    name="what_moves_the_peak",
    statement="A worse corpus moves the peak of RL's gain later, a larger budget earlier",
    formula=r"c = \frac{\sum_n \Delta J_n^{+}\,\log_2 n}{\sum_n \Delta J_n^{+}},\qquad n\text{ tokens of pretraining}",
    source="the paper's peak of impact; the centre of the gains over log2 tokens is our measure of where it is",
    must_hold="centre of the positive gains, in doublings of tokens: later with a corpus half of guesses than with a "
    "clean one (GRPO and exact gradient, every budget); earlier with the largest budget than with the smallest (both "
    "corpora together)",
    must_fail="groups sixteen times as large, with as many rows in an update, move it a doubling earlier (mean over "
    "budgets); the larger budget moves it two doublings earlier",
    how_to_read="Where the gain of RL is centred along pretraining, in doublings of tokens (bars are two standard "
    "errors over trajectories). Left, a corpus half of guesses moves it later (by at least as much as is seen: its "
    "gain is still large at the last checkpoint), a larger budget earlier. Right, larger groups, with as many rows in "
    "an update, move it little: where success is rare, how many rows are drawn counts more than how they are grouped.",
    parts=(
        Part(CORPUS, "claim", "holds"),
        Part(BUDGET, "claim", "holds"),
        Part(GROUPS, "control", "fails"),
        Part(BIGGER, "control", "fails", every="recipe"),
    ),
    draw=draw,
    height=5.5,
    derive=derive,
)
