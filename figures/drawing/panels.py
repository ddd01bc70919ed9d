"""Drawings that several claims share: data and axes in, axes out."""

from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.style import COLOURS, EXACT, LEGEND_DROP, MARKERS
from figures.harness.statistics import critical_value

_CLIP = 1e4


def standardised(rows: pd.DataFrame) -> np.ndarray:
    """(measured - target) in standard errors, clipped for drawing; rows known to rounding count as zero or huge."""
    gap = rows["measured"] - rows["target"]
    errors = (rows["standard_error"] + rows["tolerance"]).clip(lower=1e-300)
    return np.asarray(np.clip(gap / errors, -_CLIP, _CLIP))


def deviations_panel(axis: Any, rows: pd.DataFrame, x: str, judged: pd.DataFrame, jitter: float = 0.15) -> Any:
    """Deviations of every part against `x` on a symlog scale, with the band in which all `judged` rows must lie."""
    names = list(rows["part"].unique())
    for i, name in enumerate(names):
        part = rows[rows["part"] == name]
        at = part[x] + jitter * (i - (len(names) - 1) / 2) * max(1.0, (rows[x].max() - rows[x].min()) / 30)
        colour = COLOURS["costate"] if i == 0 else COLOURS["control"]
        axis.plot(at, standardised(part), "." if i == 0 else "x", color=colour, ms=6 if i == 0 else 4.5, mew=1,
                  alpha=0.7, label=name, zorder=3 - i)  # fmt: skip
    band = float(np.max(critical_value(len(judged), judged["samples"])))
    axis.axhspan(-band, band, color="0.85", zorder=0)
    axis.axhline(0, label="exact", **EXACT)
    axis.set_yscale("symlog", linthresh=band)
    return axis


def points_with_curve(
    axis: Any, rows: pd.DataFrame, x: str, colour: str, name: str, curve: tuple[Any, Any], marker: str = MARKERS[0],
    line: dict[str, Any] = EXACT,
) -> Any:  # fmt: skip
    """Measured points with two-standard-error bars over the exact answer, a dashed curve (x, y) on a fine grid."""
    axis.errorbar(rows[x], rows["measured"], 2 * rows["standard_error"], fmt=marker, color=COLOURS[colour], ms=5,
                  capsize=2, label=name, zorder=3)  # fmt: skip
    axis.plot(*curve, **line, zorder=2)
    return axis


def legend_above(figure: Any, *axes: Any) -> None:
    """One legend for the whole figure, on a line of its own under the title, where it covers no data."""
    entries: dict[str, Any] = {}
    for axis in axes:
        handles, names = axis.get_legend_handles_labels()
        entries |= {name: handle for name, handle in zip(names, handles, strict=True) if name not in entries}
    top = 1 - LEGEND_DROP / figure.get_figheight()
    figure.legend(entries.values(), entries.keys(), loc="upper left", bbox_to_anchor=(0.0, top), ncols=len(entries),
                  frameon=False, columnspacing=1.3, handletextpad=0.4)  # fmt: skip
