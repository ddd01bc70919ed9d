"""Updates on rows of another policy: the angle to the gradient, learner by learner, at inner steps and on stale rows."""

from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.panels import no_rows, with_columns
from figures.drawing.style import heatmap

LEARNERS = ("whole row", "reinforce", "importance", "cispo", "dapo", "dr_grpo", "grpo", "gspo")
_EXACT = 1e-5  # degrees: smaller angles are rounding


def draw_off_policy(figure: Any, inner: pd.DataFrame, stale: pd.DataFrame) -> None:
    """Two tables of angles: a row for each learner, a column for each inner step, or for each age of the rows.

    Args:
        figure: where to draw.
        inner: rows of inner steps, with the columns learner, step, cosine and silenced.
        stale: rows of older policies, with the columns learner, age and cosine.
    """
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    inner, stale = with_columns(inner, "step", "silenced"), with_columns(stale, "age").assign(silenced=0.0)
    angle_table(left, inner.assign(at=inner["step"] + 1), "at")
    left.set(title="angle to grad J in degrees (*: a clip acts)", xlabel="inner step on the same rows", ylabel="")
    angle_table(right, stale, "age")
    right.set(title="the same on stale rows", xlabel="age of the rows (steps of ascent)", ylabel="")


def angle_table(axis: Any, rows: pd.DataFrame, x: str) -> Any:
    """Angles between mean update and gradient in degrees, blue along it and red against it; a star where a clip acts.

    Args:
        axis: where to draw.
        rows: with the columns learner, cosine, silenced (share of tokens that a clip has silenced) and x.
        x: the column whose values stand side by side.
    """
    if rows.empty:
        return no_rows(axis)
    learners = [name for name in LEARNERS if name in set(rows["learner"])]
    tables = (rows.pivot_table(index="learner", columns=x, values=of, dropna=False) for of in ("cosine", "silenced"))
    cosines, silenced = (table.reindex(index=learners) for table in tables)
    angles = cosines.clip(-1, 1).map(lambda cosine: float(np.degrees(np.arccos(cosine))))
    texts = angles.map(_in_words) + silenced.reindex(columns=angles.columns).gt(0).map({True: "*", False: ""}.get)
    angles.columns = [f"{value:g}" for value in angles.columns]
    look = {"annot_kws": {"fontsize": "small"}, "cbar": False, "linewidths": 1}
    heatmap(angles, axis, annot=texts, fmt="", cmap="RdBu_r", vmin=0, vmax=180, **look)
    axis.tick_params(axis="y", rotation=0)
    return axis


def _in_words(angle: float) -> str:
    """0 for rounding, two digits otherwise; "" where there is none."""
    if np.isnan(angle):
        return ""
    return (
        "0" if angle < _EXACT else f"{angle:.1g}" if angle < 0.1 else f"{angle:.1f}" if angle < 10 else f"{angle:.0f}"
    )
