"""The drawing of the claim about greedy value-gradient learning: how far the weight is from rest, sweep by sweep."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from figures.drawing.panels import legend_above, no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT

_LOOKS = {  # (rule, weight) -> colour, marker, size, filled
    ("VGL(0)", "I"): ("score", "o", 5, True),
    ("VGL(0)", "Omega*"): ("control", "s", 10, False),
    ("VGL(1)", "I"): ("score_value", "^", 5, True),
    ("VGL(1)", "Omega*"): ("costate", "D", 10, False),
}
_EVERY = 10  # sweeps between marks


def draw_sweeps(figure: Any, rows: pd.DataFrame, problems: Sequence[str]) -> None:
    """A panel for each problem, a line for each rule.

    Args:
        figure: where to draw.
        rows: distances from the fixed point over the first one, with the columns problem, rule, weight and sweep.
        problems: those that are drawn.
    """
    axes = figure.subplots(1, len(problems))
    rows = with_columns(rows, "problem", "rule", "weight", "sweep")
    for number, (axis, problem) in enumerate(zip(axes, problems, strict=True), 1):
        sweeps_panel(axis, rows[rows["problem"] == problem], f"problem {number}")
    axes[0].set_ylabel("distance of p from rest / first")
    legend_above(figure, *axes)


def sweeps_panel(axis: Any, rows: pd.DataFrame, title: str = "") -> Any:
    """Distances of one problem on a log scale: marks on paths, exact rates dashed, and which rules rise."""
    if rows.empty:
        return no_rows(axis, title)
    rising = []
    for (rule, weight), (colour, marker, size, filled) in _LOOKS.items():
        own = rows[(rows["rule"] == rule) & (rows["weight"] == weight)].sort_values("sweep")
        shown, name = own[own["sweep"] % _EVERY == 0], f"{rule}, Omega = {weight}".replace("Omega = Omega*", "Omega*")
        look: dict[str, Any] = {"ms": size, "mew": 1.6, "mfc": COLOURS[colour] if filled else "none", "zorder": 3}
        axis.plot(shown["sweep"], shown["measured"], marker, color=COLOURS[colour], label=name, **look)
        axis.plot(own["sweep"], own["target"], **EXACT)
        rising += [name] if len(own) and own["measured"].iloc[-1] > 1 else []
    axis.plot([], [], label="exact", **EXACT)
    axis.set(yscale="log", xlabel="sweeps", title=f"{title}: {_told(rising)}")
    return axis


def _told(rising: list[str]) -> str:
    """Which rules diverge: one of them by its full name, both weights of one lambda by that lambda."""
    lams = sorted({name.split(",")[0] for name in rising})
    if len(rising) == 1:
        return f"{rising[0].replace(',', ' with')} diverges"
    return f"{' and '.join(lams)} diverges, with either Omega" if rising else "all converge"
