"""Updates on rows of another policy: cosines, silenced tokens, and the angle against the distance between the policies."""

from typing import Any

import pandas as pd

from figures.drawing.panels import legend_above, no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT

_LOOKS = {
    "reinforce": ("reference", "o"),
    "importance": ("costate", "s"),
    "dr_grpo": ("score_value", "^"),
    "grpo": ("score", "D"),
    "dapo": ("score_best", "v"),
    "gspo": ("control", "P"),
    "cispo": ("critic", "X"),
}


def draw_off_policy(figure: Any, inner: pd.DataFrame, stale: pd.DataFrame, moved: pd.DataFrame) -> None:
    """Four panels: cosines and silenced tokens at inner steps, cosines on stale rows, angles against distance.

    Args:
        figure: where to draw.
        inner: rows of inner steps, with the columns step, cosine and silenced.
        stale: rows of older policies, with the columns age and cosine.
        moved: rows whose `measured` is a sine, with the distance TV.
    """
    (first, second), (third, fourth) = figure.subplots(2, 2)
    inner, stale = with_columns(inner, "step"), with_columns(stale, "age")
    inner_panel(first, inner)
    clip_panel(second, inner)
    stale_panel(third, stale)
    angle_panel(fourth, moved)
    legend_above(figure, first)


def _draw_learners(axis: Any, rows: pd.DataFrame, x: str, y: str, **options: Any) -> None:
    """The column y against x, one line for each learner."""
    if rows.empty:
        no_rows(axis)
    for name, (colour, marker) in _LOOKS.items():
        learner = rows[rows["learner"] == name]
        size = 10 if name == "dr_grpo" else 6
        axis.plot(
            learner[x], learner[y], marker=marker, color=COLOURS[colour], ms=size, alpha=0.85, label=name, **options
        )


def inner_panel(axis: Any, rows: pd.DataFrame) -> Any:
    """Cosine to the gradient at every inner step on the same rows."""
    _draw_learners(axis, rows.assign(at=rows["step"] + 1), "at", "cosine")
    axis.axhline(1, label="exact", **EXACT)
    axis.set_xticks(sorted(set(rows["step"] + 1)))
    axis.set(xlabel="inner step on the same rows", ylabel="cosine to grad J", title="inner steps", ylim=(None, 1.04))
    return axis


def clip_panel(axis: Any, rows: pd.DataFrame) -> Any:
    """Share of tokens whose slope the clip sets to 0, at every inner step."""
    _draw_learners(axis, rows.assign(at=rows["step"] + 1), "at", "silenced")
    axis.set_xticks(sorted(set(rows["step"] + 1)))
    title = "silenced by the clip"
    axis.set(xlabel="inner step on the same rows", ylabel="share of tokens", title=title, ylim=(-0.03, 1))
    return axis


def stale_panel(axis: Any, rows: pd.DataFrame) -> Any:
    """Cosine to the gradient against the age of the rows."""
    _draw_learners(axis, rows.sort_values("age"), "age", "cosine")
    axis.axhline(1, **EXACT)
    axis.set(
        xscale="log", xlabel="age of the rows (steps of exact ascent)", ylabel="cosine to grad J", title="stale rows"
    )
    axis.set_ylim(None, 1.04)
    return axis


def angle_panel(axis: Any, rows: pd.DataFrame) -> Any:
    """Sine of the angle to the gradient against the distance from the policy that drew the rows."""
    _draw_learners(axis, rows, "TV", "measured", linestyle="")
    axis.set(xscale="log", yscale="log", title="direction lost, all worlds")
    axis.set(xlabel="total variation between the policies", ylabel="sine of the angle to grad J")
    return axis
