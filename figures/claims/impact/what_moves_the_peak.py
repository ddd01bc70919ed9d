"""What moves the checkpoint from which RL gains most: the corpus, the budget, the size of the groups."""

from typing import Any

import numpy as np
import pandas as pd

from figures.harness.claim import Row, compare
from figures.harness.statistics import Estimate, estimate
from figures.impact.runs import EXACT_ADAM, MAIN, claim_on_runs
from figures.impact.tables import CLEAN, aligned, centre, was_run

CORPUS, BUDGET, GROUPS = (
    "a half-wrong corpus: later",
    "a larger budget: earlier",
    "sixteen times the group: earlier by a doubling",
)
BIGGER = "a larger budget: earlier by two doublings"
_WORSE = "quality 0.5"


Centres = dict[tuple[str, str, int, int], np.ndarray]


def derive(rows: pd.DataFrame) -> list[Row]:
    """Shifts of the centre of the gains, in doublings of pretraining tokens; and the centres themselves."""
    centres, found = _centres(rows), list[Row]()
    for (corpus, recipe, group, budget), x in centres.items():
        mean = _estimate(x)
        if mean is None:
            continue
        found += compare("centre", mean.mean, 0.0, mean.standard_error, mean.samples, relation="report",
                         labels={"corpus": corpus, "recipe": recipe, "group": group, "budget": budget,
                                 "without a centre": int(np.isnan(x).sum())})  # fmt: skip
    for recipe in was_run(rows, MAIN, EXACT_ADAM):
        found += _by_corpus(centres, recipe) + _by_budget(centres, recipe)
    return found + _by_group(centres)


def _centres(rows: pd.DataFrame) -> Centres:
    """(corpus, recipe, group, budget) -> centre of every trajectory; a recipe's own group size comes first."""
    gains, found = rows[rows["kind"] == "gain"], Centres()
    for recipe, group, budget in gains[["recipe", "group", "budget"]].drop_duplicates().itertuples(index=False):
        runs = aligned(rows, recipe, group, budget)
        for corpus in dict.fromkeys(runs.corpus):
            one = runs.of(corpus)
            found[corpus, recipe, int(group), int(budget)] = centre(one.gain, one.tokens)
    return found


def _estimate(x: np.ndarray) -> Estimate | None:
    """Over the trajectories that have a centre; None for fewer than two."""
    x = x[np.isfinite(x)]
    return estimate(x) if len(x) > 1 else None


def _own_group(centres: Centres, recipe: str) -> int:
    return next(key[2] for key in centres if key[1] == recipe)


def _by_corpus(centres: Centres, recipe: str) -> list[Row]:
    """Every corpus against the clean one; trajectories are others on each, so the errors add in squares."""
    found, group = list[Row](), _own_group(centres, recipe)
    for corpus, name, g, budget in centres:
        if (name, g) != (recipe, group) or corpus == CLEAN or (CLEAN, recipe, group, budget) not in centres:
            continue
        one, other = (_estimate(centres[which, recipe, group, budget]) for which in (corpus, CLEAN))
        if one is None or other is None:
            continue
        error, samples = np.hypot(one.standard_error, other.standard_error), min(one.samples, other.samples)
        found += compare(CORPUS, one.mean - other.mean, 0.0, error, samples, relation=">=" if corpus == _WORSE else "report",
                         labels={"corpus": corpus, "recipe": recipe, "budget": budget})  # fmt: skip
    return found


def _by_budget(centres: Centres, recipe: str) -> list[Row]:
    """The same trajectories, the largest budget against the smallest; both corpora together."""
    group, budgets = _own_group(centres, recipe), sorted({key[3] for key in centres})
    corpora = [corpus for corpus in dict.fromkeys(key[0] for key in centres) if corpus in (CLEAN, _WORSE)]
    if not corpora:
        return []
    few, many = (np.concatenate([centres[c, recipe, group, budgets[i]] for c in corpora]) for i in (0, -1))
    shift, found = _estimate(many - few), list[Row]()
    if shift is None:
        return []
    for part, target in ((BUDGET, 0.0), (BIGGER, -2.0)):
        found += compare(part, shift.mean, target, shift.standard_error, shift.samples, relation="<=",
                         labels={"recipe": recipe, "budget": budgets[-1]})  # fmt: skip
    return found


def _by_group(centres: Centres) -> list[Row]:
    """The same trajectories and as many rows an update, cut into fewer, larger groups."""
    groups, found = sorted({key[2] for key in centres if key[:2] == (CLEAN, MAIN)}), list[Row]()
    for budget in sorted({key[3] for key in centres}) if len(groups) > 1 else []:
        shift = _estimate(centres[CLEAN, MAIN, groups[-1], budget] - centres[CLEAN, MAIN, groups[0], budget])
        if shift is None:
            continue
        found += compare(GROUPS, shift.mean, -1.0, shift.standard_error, shift.samples, relation="<=",
                         labels={"corpus": CLEAN, "recipe": MAIN, "budget": budget})  # fmt: skip
    return found


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Centres of the gains: by corpus and budget, and by group size."""
    from figures.drawing.style import COLOURS, MARKERS

    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.6, 1))
    centres = rows[rows["part"] == "centre"]
    corpora, budgets = list(dict.fromkeys(centres["corpus"])), sorted(centres["budget"].unique())
    for i, recipe in enumerate((MAIN, EXACT_ADAM)):
        one = centres[centres["recipe"] == recipe]
        one = one[one["group"] == one["group"].iloc[0]]
        for j, budget in enumerate(budgets):
            here = one[one["budget"] == budget].set_index("corpus").loc[corpora]
            at = [k + 0.13 * (j - (len(budgets) - 1) / 2) + 0.4 * (i - 0.5) for k in range(len(corpora))]
            left.errorbar(at, here["measured"], 2 * here["standard_error"], fmt=MARKERS[j], ms=5, capsize=2,
                          color=COLOURS[("costate", "exact")[i]], label=f"{recipe}, {int(budget)} updates")  # fmt: skip
    left.set_xticks(range(len(corpora)), corpora)
    left.set(xlabel="corpus", ylabel="centre of the gain, log2 tokens", title="corpus and budget")
    groups = centres[(centres["recipe"] == MAIN) & (centres["corpus"] == CLEAN)]
    for j, budget in enumerate(budgets):
        here = groups[groups["budget"] == budget].sort_values("group")
        right.errorbar(here["group"] * 1.05 ** (j - 1), here["measured"], 2 * here["standard_error"], fmt=MARKERS[j] + "-",
                       color=COLOURS["costate"], ms=5, lw=1, capsize=2)  # fmt: skip
    right.set_xscale("log", base=2)
    right.set(xlabel="rows in a group, as many rows an update", title=f"group size ({MAIN}, clean corpus)")
    left.legend(fontsize=8)


CLAIM = claim_on_runs(
    name="what_moves_the_peak",
    statement="A worse corpus moves the peak of RL's gain later, a larger budget earlier",
    formula=r"c = \frac{\sum_n \Delta J_n^{+}\,\log_2 n}{\sum_n \Delta J_n^{+}},\qquad n\text{ tokens of pretraining}",
    source="the claim's peak of impact; the centre of the gains over log2 tokens is our measure of where it is",
    must_hold="centre of the positive gains, in doublings of tokens: later with a corpus half of guesses than with a "
    "clean one (GRPO and exact gradient, every budget); earlier with the largest budget than with the smallest (both "
    "corpora together)",
    must_fail="groups sixteen times as large, with as many rows an update, move it a doubling earlier; the larger "
    "budget moves it two doublings earlier",
    how_to_read="Where the gain of RL is centred along pretraining, in doublings of tokens (bars are two standard "
    "errors over trajectories). Left, a corpus half of guesses moves it later (by at least as much as is seen: its "
    "gain is still large at the last checkpoint), a budget four times as large earlier. Right, groups sixteen times "
    "as large, with as many rows an update, move it by less than half a doubling: where success is rare what counts "
    "is how many rows are drawn, more than how they are grouped.",
    parts=(
        Part(CORPUS, "claim", "holds"),
        Part(BUDGET, "claim", "holds"),
        Part(GROUPS, "control", "fails", every="budget"),
        Part(BIGGER, "control", "fails", every="recipe"),
    ),
    draw=draw,
    height=5.5,
    derive=derive,
)
