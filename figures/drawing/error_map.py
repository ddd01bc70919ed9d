"""The drawing of the error map: data and a figure in, panels out."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from figures.drawing.panels import legend_above
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
    """One row of panels per way to change the entropy: error, tier 2, their ratio, and the falsifiers; cells hold medians."""
    points, judged = rows[rows["part"] == tier3], rows[rows["part"] == alone]
    families = [name for name in _NAMES if name in set(points["family"])]
    axes = figure.subplots(len(families), 4, squeeze=False, sharex="col", width_ratios=(3, 3, 3, 3.4))
    for line, family in zip(axes, families, strict=True):
        group, held = points[points["family"] == family], judged[judged["family"] == family]
        first = _heat(line[0], group, group["error"], _ERRORS, "viridis")
        _mark_excess(line[0], held[held["measured"] > 1])
        _heat(line[1], group, group["tier2"], _ERRORS, "viridis")
        last = _heat(line[2], group, group["error"] / group["tier2"], _RATIOS, "cividis")
        _falsifiers(line[3], group, held)
        line[0].set_ylabel(f"{_NAMES[family]}\nsampling gap", fontsize=9)
        for axis in line[1:3]:
            axis.tick_params(labelleft=False)
    for axis, title in zip(axes[0], _TITLES, strict=True):
        axis.set_title(title, fontsize=10)
    for axis, name in zip(axes[-1], (*["entropy (nats)"] * 3, "bound of the reading"), strict=True):
        axis.set_xlabel(name, fontsize=9)
    bars = {"fraction": 0.06, "pad": 0.01, "location": "bottom"}
    figure.colorbar(first, ax=axes[:, :2], shrink=0.6, aspect=40, **bars).set_label("error, bound", fontsize=9)
    figure.colorbar(last, ax=axes[:, 2], shrink=0.9, aspect=18, **bars).set_label("1: bound attained", fontsize=9)
    legend_above(figure, axes[0, 3])


def _bins(group: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Row (gap) and column (entropy) of every point."""
    edges = (("gap", _GAP), ("H", _H))
    row, column = (np.digitize(group[name].clip(e[0], e[-1] * 0.999), e) - 1 for name, e in edges)
    return row, column


def _heat(axis: Any, group: pd.DataFrame, values: pd.Series, norm: Any, colours: str) -> Any:
    """Medians of `values` in bins of entropy and gap; the dashed line is the largest gap that an entropy allows."""
    cells = np.full((len(_GAP) - 1, len(_H) - 1), np.nan)
    for (i, j), inside in values.groupby(list(_bins(group))):
        cells[i, j] = inside.median()
    mesh = axis.pcolormesh(_H, _GAP, cells, norm=norm, cmap=colours, rasterized=True)
    axis.plot(_H, np.minimum(_H / (2 * np.log(2)), -np.expm1(-_H)), **EXACT)
    axis.set(xscale="log", yscale="log", xlim=_H[[0, -1]], ylim=_GAP[[0, -1]])
    axis.tick_params(labelsize=8)
    axis.grid(visible=False)
    return mesh


def _mark_excess(axis: Any, excess: pd.DataFrame) -> None:
    """A cross in every cell that holds a policy beyond the one-constant bound."""
    cells = sorted(set(zip(*_bins(excess), strict=True)))
    x, y = (np.array([np.sqrt(e[c[k]] * e[c[k] + 1]) for c in cells]) for k, e in ((1, _H), (0, _GAP)))
    axis.plot(x, y, "x", color="white", ms=6, mew=2.6)
    axis.plot(x, y, "x", color="black", ms=5, mew=1.2)


def _falsifiers(axis: Any, group: pd.DataFrame, judged: pd.DataFrame) -> None:
    """Error against the bound of either reading; what lies above the dashed line refutes the reading."""
    random = group[group["value"] == group["value"].iloc[0]]
    series = (
        ("tier 3 (a theorem)", group["tier3"], group["error"], "+", "0.6"),
        ("one constant, random policies", random["C"] * random["alone"], random["error"], ".", COLOURS["costate"]),
        ("one constant, changed policies", judged["C"] * judged["alone"], judged["error"], "x", COLOURS["control"]),
    )
    for name, x, y, marker, colour in series:
        axis.plot(
            x.clip(lower=_LEAST),
            y.clip(lower=_LEAST),
            marker,
            ms=4,
            mew=0.9,
            color=colour,
            alpha=0.8 if len(x) < 300 else 0.25,
            label=name,
        )
    axis.plot([_LEAST, 1e2], [_LEAST, 1e2], label="error = bound", **EXACT)
    excess, share = judged["measured"].max(), (judged["measured"] > 1).mean()
    told = f"one constant: error up to\n{excess:.2g} x bound, {100 * share:.2g} % exceed"
    axis.text(0.97, 0.04, told, transform=axis.transAxes, ha="right", va="bottom", fontsize=7.5,
              bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})  # fmt: skip
    axis.set(xscale="log", yscale="log", xlim=(1e-4, 30), ylim=(_LEAST, 10))
    axis.tick_params(labelsize=8)
