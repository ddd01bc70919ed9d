"""The error map over entropy and sampling gap: data and a figure in, panels out."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from figures.drawing.panels import corner_text, legend_above, no_rows
from figures.drawing.style import COLOURS, EXACT

_H = np.geomspace(1e-3, 2.0, 12)  # edges of the entropy bins, nats
_GAP = np.geomspace(1e-4, 1.0, 12)  # edges of the gap bins
_NAMES = {"temperature": "temperature", "offset": "offset on one token", "trained": "trained, exact ascent"}
_TITLES = (
    "measured error\n(x: one constant exceeded)",
    "bound\n(tier 2)",
    "error / bound",
    "both readings\nof the claim",
)
_ERRORS, _RATIOS = mpl.colors.LogNorm(1e-4, 3), mpl.colors.Normalize(0, 1)
_LEAST = 1e-5  # smaller numbers are drawn here


def draw_map(rows: pd.DataFrame, figure: Any, tier3: str, alone: str) -> None:
    """One row of panels per way to change the entropy: error, tier 2, their ratio, both readings; cells hold medians.

    Args:
        rows: of the claim `error_map`.
        figure: where to draw.
        tier3: the part that holds every policy.
        alone: the part that tests one constant per world, of the changed policies only.
    """
    points, tested = rows[rows["part"] == tier3], rows[rows["part"] == alone]
    families = [name for name in _NAMES if name in set(points["family"])]
    if not families:
        no_rows(figure.subplots())
        return
    axes = figure.subplots(len(families), 4, squeeze=False, sharex="col", width_ratios=(3, 3, 3, 3.4))
    for line, family in zip(axes, families, strict=True):
        errors, ratios = _draw_family(line, points[points["family"] == family], tested[tested["family"] == family])
        line[0].set_ylabel(f"{_NAMES[family]}\nsampling gap", fontsize="small")
    for axis, title in zip(axes[0], _TITLES, strict=True):
        axis.set_title(title, fontsize="medium")
    for axis, name in zip(axes[-1], (*["entropy (nats)"] * 3, "bound of the reading"), strict=True):
        axis.set_xlabel(name, fontsize="small")
    bars = {"fraction": 0.06, "pad": 0.01, "location": "bottom"}
    figure.colorbar(errors, ax=axes[-1, :2], shrink=0.6, aspect=40, **bars).set_label("error, bound", fontsize="small")
    figure.colorbar(ratios, ax=axes[-1, 2], shrink=0.9, aspect=18, **bars).set_label(
        "1: bound attained", fontsize="small"
    )
    legend_above(figure, axes[0, 3])


def _draw_family(axes: Any, points: pd.DataFrame, tested: pd.DataFrame) -> tuple[Any, Any]:
    """The four panels of one way to change the entropy; returns a mesh of errors and one of ratios for the colour bars."""
    errors = _heat(axes[0], points, points["error"], _ERRORS, "viridis")
    _mark_excess(axes[0], tested[tested["measured"] > 1])
    _heat(axes[1], points, points["tier2"], _ERRORS, "viridis")
    ratios = _heat(axes[2], points, points["error"] / points["tier2"], _RATIOS, "cividis")
    _draw_readings(axes[3], points, tested)
    for axis in axes[1:3]:
        axis.tick_params(labelleft=False)
    return errors, ratios


def _bins(points: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Row (gap) and column (entropy) of every point."""
    row, column = (
        np.digitize(points[name].clip(edges[0], edges[-1] * 0.999), edges) - 1
        for name, edges in (("gap", _GAP), ("H", _H))
    )
    return row, column


def _heat(axis: Any, points: pd.DataFrame, values: pd.Series, norm: Any, colours: str) -> Any:
    """Medians of `values` in bins of entropy and gap; the dashed line is the largest gap that an entropy allows."""
    cells = np.full((len(_GAP) - 1, len(_H) - 1), np.nan)
    for (i, j), inside in values.groupby(list(_bins(points))):
        cells[i, j] = inside.median()
    mesh = axis.pcolormesh(_H, _GAP, cells, norm=norm, cmap=colours, rasterized=True)
    axis.plot(_H, np.minimum(_H / (2 * np.log(2)), -np.expm1(-_H)), **EXACT)
    axis.set(xscale="log", yscale="log", xlim=_H[[0, -1]], ylim=_GAP[[0, -1]])
    axis.tick_params(labelsize="small")
    axis.grid(visible=False)
    return mesh


def _mark_excess(axis: Any, excess: pd.DataFrame) -> None:
    """A cross in every cell that holds a policy beyond the one-constant bound."""
    row, column = _bins(excess)
    cells = sorted(set(zip(row.tolist(), column.tolist(), strict=True)))
    y = [np.sqrt(_GAP[i] * _GAP[i + 1]) for i, _ in cells]
    x = [np.sqrt(_H[j] * _H[j + 1]) for _, j in cells]
    axis.plot(x, y, "x", color="white", ms=6, mew=2.6)
    axis.plot(x, y, "x", color="black", ms=5, mew=1.2)


def _draw_readings(axis: Any, points: pd.DataFrame, tested: pd.DataFrame) -> None:
    """Error against the bound of either reading; what lies above the dashed line refutes the reading."""
    random = points[points["value"] == points["value"].iloc[0]]
    constants = "one constant, random policies", "one constant, changed policies"
    _draw_points(axis, points["tier3"], points["error"], "+", "0.6", "tier 3 (a theorem)")
    _draw_points(axis, random["C"] * random["alone"], random["error"], ".", COLOURS["costate"], constants[0])
    _draw_points(axis, tested["C"] * tested["alone"], tested["error"], "x", COLOURS["control"], constants[1])
    axis.plot([_LEAST, 1e2], [_LEAST, 1e2], label="error = bound", **EXACT)
    excess, share = tested["measured"].max(), (tested["measured"] > 1).mean()
    text = f"one constant: error up to\n{excess:.2g} x bound, {100 * share:.2g} % exceed"
    corner_text(axis, text, fontsize="small")
    axis.set(xscale="log", yscale="log", xlim=(1e-4, 30), ylim=(_LEAST, 10))
    axis.tick_params(labelsize="small")


def _draw_points(axis: Any, bound: pd.Series, error: pd.Series, marker: str, colour: str, name: str) -> None:
    """Error against bound, paler where points are many."""
    look = {"ms": 4, "mew": 0.9, "color": colour, "alpha": 0.8 if len(bound) < 300 else 0.25}
    axis.plot(bound.clip(lower=_LEAST), error.clip(lower=_LEAST), marker, label=name, **look)
