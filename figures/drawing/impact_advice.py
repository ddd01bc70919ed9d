"""The scores of the impact study in words: which checkpoint a practitioner should take. Every number comes from the rows."""

from collections.abc import Callable

import pandas as pd

from figures.impact.contest import COUNT, CRITERION, ONE_SIDED, OPTIMISER, POWER, POWER_GAP
from figures.impact.numbers import HEADROOMS, PREDICTORS
from figures.impact.predictors import CHOICE, ERROR, RANK, SCORES
from figures.impact.runs import EXACT_ADAM, EXACT_SGD, MAIN, UNBIASED
from figures.impact.tables import budgets_of, was_run

_NORMS = [f"costate x {headroom}" for headroom in HEADROOMS]
_SPREAD = "spread"
_CLOSING = (
    "Power sampling and pass@k can be estimated from samples alone, without any gradient. The product that is judged was "
    "chosen among all products on earlier runs of this study, with other checkpoints and budgets."
)


def advice(rows: pd.DataFrame) -> str:
    """What follows from the scores for a practitioner.

    Args:
        rows: of the claim `impact_product`, or of a part of the study; a sentence whose rows are missing is left out.

    Returns:
        A paragraph; "" where the main recipe was not run.
    """
    if not was_run(rows, MAIN):
        return ""
    scores = _scores(rows, MAIN)
    sentences: tuple[Callable[[], str], ...] = (
        lambda: _origin(rows),
        lambda: _best(scores),
        lambda: _judged(rows, scores),
        lambda: _spread(scores),
        lambda: _winners(rows),
        lambda: _norms(scores),
        lambda: _one_sided(scores),
        lambda: _optimisers(rows),
        lambda: _where_no_better(rows),
    )
    return " ".join([*filter(None, (sentence() for sentence in sentences)), _CLOSING])


def _scores(rows: pd.DataFrame, recipe: str, budget: float | None = None) -> pd.DataFrame:
    """Predictors by scores, of one recipe after so many updates (default: its largest budget)."""
    own = rows[rows["part"].isin(list(SCORES)) & (rows["recipe"] == recipe)]
    own = own[own["budget"] == (own["budget"].max() if budget is None else budget)]
    return own.pivot(index="predictor", columns="part", values="measured")


def _origin(rows: pd.DataFrame) -> str:
    own = rows[(rows["part"] == ERROR) & (rows["recipe"] == MAIN)]
    budget = own["budget"].max()
    count = own.loc[own["budget"] == budget, "samples"].iloc[0]
    corpora = list(dict.fromkeys(rows.loc[rows["part"] == "curve", "corpus"]))
    where = f"{'the corpus' if len(corpora) == 1 else 'the corpora'} {_listed(corpora)}"
    return f"These numbers come from {count:.0f} trajectories on {where}, after {budget:.0f} updates of {MAIN}."


def _best(scores: pd.DataFrame) -> str:
    best = scores[ERROR].idxmin()
    return (
        f"Take the checkpoint with the largest {_name(best)}. Of all predictors it is the closest to the gain on trajectories "
        f"left out: its error is {scores.loc[best, ERROR]:.2f} of the error of the mean gain alone, and the checkpoints that "
        f"it chooses give {_percent(scores.loc[best, CHOICE])} of the best gain."
    )


def _judged(rows: pd.DataFrame, scores: pd.DataFrame) -> str:
    gap = rows[rows["part"] == POWER_GAP].iloc[0]
    larger = "larger" if gap["measured"] > 0 else "smaller"
    return (
        f"For {_name(CRITERION)}, which this claim judges, {_error_and_choice(scores, CRITERION)}. Its error is {larger} than "
        f"that of {_name(POWER)} by {_with_error(gap)} (reported, not judged)."
    )


def _spread(scores: pd.DataFrame) -> str:
    return f"For {_name(_SPREAD)}, which needs only the success rate, {_error_and_choice(scores, _SPREAD)}."


def _winners(rows: pd.DataFrame) -> str:
    count = rows[rows["part"] == COUNT].iloc[0]
    return (
        f"Of the {count['target']:.0f} products {count['measured']:.0f} have a smaller error than both of their factors and "
        "all null models."
    )


def _norms(scores: pd.DataFrame) -> str:
    """Whether the size of the costate, not divided by its noise, is a criterion."""
    errors = scores.loc[_NORMS, ERROR]
    better = int((errors < scores.loc[_SPREAD, ERROR]).sum())
    verdict = f"{better} of these {len(_NORMS)} products have a smaller error than {_name(_SPREAD)}"
    if not better:
        verdict = f"no such product has a smaller error than {_name(_SPREAD)}"
        verdict += ", so for GRPO with Adam the signal counts in units of its noise"
    return (
        f"The norm of the costate alone has an error of {scores.loc['costate', ERROR]:.2f}, and times a headroom of "
        f"{errors.min():.2f} to {errors.max():.2f}; {verdict}."
    )


def _one_sided(scores: pd.DataFrame) -> str:
    own = scores.loc[list(ONE_SIDED)]
    return (
        f"{_listed([_name(name) for name in ONE_SIDED])} only rise or fall along pretraining, so alone they cannot place a "
        f"peak: their errors are {own[ERROR].min():.2f} to {own[ERROR].max():.2f}, and their choices give "
        f"{_percent(own[CHOICE].min())} to {_percent(own[CHOICE].max())} of the best gain."
    )


def _optimisers(rows: pd.DataFrame) -> str:
    """Gains of the exact gradient with plain SGD, against those with Adam."""
    shifts = rows[rows["part"] == OPTIMISER].set_index("predictor")
    if shifts.empty:
        return ""
    ranks, shift = _scores(rows, EXACT_SGD)[RANK], shifts.loc["costate"]
    higher = "higher" if shift["measured"] > 0 else "lower"
    return (
        "The optimiser matters: with the exact gradient and plain SGD the rank correlation with the gain is "
        f"{ranks[CRITERION]:.2f} for {_name(CRITERION)} and {ranks[_SPREAD]:.2f} for {_name(_SPREAD)}; that of the costate's "
        f"norm is {higher} than with Adam by {_with_error(shift)} (reported, not judged)."
    )


def _where_no_better(rows: pd.DataFrame) -> str:
    """Recipes and budgets at which the spread of the reward has as small an error as the product that is judged."""
    places = []
    for recipe in was_run(rows, MAIN, UNBIASED, EXACT_ADAM, EXACT_SGD):
        errors = {budget: _scores(rows, recipe, budget)[ERROR] for budget in budgets_of(rows, recipe)}
        budgets = [f"{budget:.0f}" for budget, error in errors.items() if error[CRITERION] >= error[_SPREAD]]
        places += [f"{recipe} ({_listed(budgets)} updates)"] if budgets else []
    if not places:
        return f"With every recipe and budget the product that is judged has a smaller error than {_name(_SPREAD)}."
    return (
        f"The error of the product that is judged is no smaller than that of {_name(_SPREAD)} with {'; '.join(places)}."
    )


def _name(predictor: str) -> str:
    special = {POWER: "power-sampling headroom", "entropy_law": "the entropy law"}
    return special.get(predictor, PREDICTORS[predictor])


def _error_and_choice(scores: pd.DataFrame, predictor: str) -> str:
    error, choice = scores.loc[predictor, [ERROR, CHOICE]]
    return f"the error is {error:.2f} and the choices give {_percent(choice)}"


def _with_error(row: pd.Series) -> str:
    """Size of a difference with its standard error."""
    return f"{abs(row['measured']):.2f} +- {row['standard_error']:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
