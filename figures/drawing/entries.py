"""What was measured over what is exact, entry by entry: the values of states, the components of a gradient."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from figures.drawing.panels import no_rows
from figures.drawing.style import COLOURS, EXACT


class Mark(NamedTuple):
    """How one kind of rows is drawn: name of a colour, marker, name in the legend, size in points, whether it is open."""

    colour: str
    marker: str
    name: str
    size: float = 6
    open: bool = False


def entries_panel(axis: Any, rows: pd.DataFrame, entry: str, marks: Mapping[str, Mark], exact: str = "exact") -> Any:
    """Every kind of rows against the exact answer (dashed), the entries in the order of their exact values.

    Args:
        axis: where to draw.
        rows: comparison rows with the exact answer as `target`, the column `entry`, and the column "shown", a key of `marks`;
            bars are two standard errors.
        entry: the column that names an entry.
        marks: kind -> how it is drawn, the lowest first.
        exact: name of the exact answer in the legend.
    """
    if rows.empty:
        return no_rows(axis)
    truth = rows.drop_duplicates(entry).set_index(entry)["target"].sort_values(kind="stable")
    place = {name: i for i, name in enumerate(truth.index)}
    axis.plot(range(len(truth)), truth, label=exact, zorder=2.5, **EXACT)
    for kind, mark in marks.items():
        group = rows[rows["shown"] == kind]
        if len(group):
            x, bars = group[entry].map(place), 2 * group["standard_error"]
            look: dict[str, Any] = {"color": COLOURS[mark.colour], "ms": mark.size, "mew": 1.3, "capsize": 2}
            look |= {"mfc": "none"} if mark.open else {}
            axis.errorbar(x, group["measured"], bars if bars.any() else None, fmt=mark.marker, label=mark.name, **look)
    axis.set(xticks=[], xlim=(-0.6, len(truth) - 0.4))
    return axis


def first_of(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows that share the values of the first row in these columns; columns that are not there are skipped."""
    for column in columns:
        if column in rows and len(rows):
            rows = rows[rows[column] == rows[column].iloc[0]]
    return rows


def same_heights(axes: Sequence[Any]) -> None:
    """One range of y for all panels that show something; not a shared axis, for panels may stand below each other."""
    filled = [axis for axis in axes if axis.lines]
    limits = [axis.get_ylim() for axis in filled]
    for axis in filled:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
