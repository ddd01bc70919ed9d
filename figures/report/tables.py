"""Tables that the page has beside a claim's picture, computed from its rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from figures.drawing.predictors import kind_of, scores_of
from figures.impact.contest import CRITERION
from figures.impact.numbers import PREDICTORS
from figures.impact.predictors import ERROR, RANK


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        caption: what stands above it.
        columns: names of the columns; the first column names the lines.
        lines: one text for each column.
        numbers: index of the first column of numbers.
        marked: index of a line that stands out, or None.
    """

    caption: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    numbers: int
    marked: int | None


def predictor_table(rows: pd.DataFrame) -> Table | None:
    """All predictors of the gain with both scores, best left-out error first; None where the main recipe was not run."""
    errors, ranks = scores_of(rows, ERROR), scores_of(rows, RANK)
    if errors.empty:
        return None
    names = [str(name) for name in errors.index]
    marked = names.index(CRITERION) if CRITERION in names else None
    lines = tuple((PREDICTORS[n], kind_of(n), _number(errors, n), _number(ranks, n)) for n in names)
    place = "" if marked is None else f"; the one that is judged is number {marked + 1}"
    caption = (
        f"All {len(names)} predictors, best left-out error first (1: no better than the mean gain){place}. "
        "Each ± two bootstrap standard errors"
    )
    return Table(caption, ("predictor", "kind", ERROR, f"{RANK} with the gain"), lines, 2, marked)


def _number(scores: pd.DataFrame, name: str) -> str:
    if name not in scores.index:
        return ""
    row = scores.loc[name]
    return f"{row['measured']:.2f} ± {2 * row['standard_error']:.2f}"


TABLES: Mapping[str, Callable[[pd.DataFrame], Table | None]] = {"impact_product": predictor_table}
