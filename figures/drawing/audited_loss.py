"""One audited loss in three pictures: the weights of a batch, the slope along the ratio, the mean update by group size."""

from typing import Any

import numpy as np

from figures.audit.record import Shown
from figures.drawing.style import COLOURS, EXACT, heatmap

_SIGNS = {"A > 0": ("costate", "-", "o"), "A < 0": ("score", "-", "s")}


def draw_weights(figure: Any, shown: Shown) -> None:
    """The weights of one batch as cells, beside those of the nearest recipe.

    Args:
        figure: where to draw.
        shown: of the record.
    """
    batch = shown.batch
    mask = ~np.array(batch.mask, dtype=bool)
    tables = {"this loss": np.array(batch.found), "recipe": np.array(batch.expected)}
    if not shown.recipe:
        del tables["recipe"]
    top = max(float(np.abs(np.nan_to_num(x)[~mask]).max(initial=0.0)) for x in tables.values()) or 1.0
    grid = figure.add_gridspec(1, len(tables))  # beside each other however narrow the figure is
    axes = [figure.add_subplot(grid[0, k]) for k in range(len(tables))]
    rows = [f"group {group}, R = {reward:.3g}" for group, reward in zip(batch.group, batch.rewards, strict=True)]
    for axis, (name, table) in zip(axes, tables.items(), strict=True):
        look: dict[str, Any] = {"cmap": "PuOr", "vmin": -top, "vmax": top, "annot": True, "fmt": ".2g", "cbar": False}
        heatmap(table, axis, mask=mask, annot_kws={"fontsize": "small"}, linewidths=1.5, **look)
        axis.set_title(name if name == "this loss" else f"nearest recipe:\n{shown.recipe}", fontsize="medium")
        axis.set_xlabel("token")
        axis.set_xticks(np.arange(table.shape[1]) + 0.5, [str(k + 1) for k in range(table.shape[1])])
        axis.set_yticks(np.arange(len(rows)) + 0.5, rows if axis is axes[0] else [""] * len(rows), rotation=0)
        axis.tick_params(length=0)


def draw_slopes(figure: Any, shown: Shown) -> None:
    """The slope of a row's tokens over that at ratio 1, along the ratio, for both signs of A.

    Args:
        figure: where to draw.
        shown: of the record, with slopes.
    """
    axis, ratio = figure.subplots(), np.exp(np.array(shown.log_ratio))
    axis.plot(ratio, ratio, label="the ratio itself", **EXACT)
    for sign, slopes in shown.slopes.items():
        colour, line, marker = _SIGNS[sign]
        axis.plot(ratio, slopes, line, color=COLOURS[colour], marker=marker, ms=4, lw=1.6, label=f"rows with {sign}")
    axis.axvline(1, color="0.6", lw=0.8)
    axis.axhline(0, color="0.6", lw=0.8)
    axis.set(xscale="log", xlabel="ratio pi / pi_old of the row's tokens", ylabel="slope / slope at ratio 1")
    axis.set_xticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    axis.minorticks_off()
    axis.legend(fontsize="small", loc="upper left")
    axis.set_title(silent_where(shown), fontsize="medium")


def silent_where(shown: Shown) -> str:
    """Where rows get no slope, in words.

    Args:
        shown: of the record, with slopes.

    Returns:
        The title of the picture.
    """
    ratio = np.exp(np.array(shown.log_ratio))
    parts = []
    for sign, slopes in shown.slopes.items():
        silent = np.abs(np.array(slopes)) < 1e-7
        above, below = silent[ratio > 1.001].any(), silent[ratio < 0.999].any()
        sides = " and ".join(side for side, is_there in (("above", above), ("below", below)) if is_there)
        parts += [f"{sign} {sides} ratio 1"] if sides else []
    return f"silent: {', '.join(parts)}" if parts else "no ratio silences a row"


def draw_bias(figure: Any, shown: Shown) -> None:
    """By group size, how far the mean update is off the gradient, over its part along it, and its scale kappa.

    Args:
        figure: where to draw.
        shown: of the record, with biases.
    """
    axis = figure.subplots()
    series = {
        "bias: off the gradient, over the part along it": (shown.bias, "control", "s"),
        "kappa: scale along the gradient": (shown.kappa, "costate", "o"),
    }
    for name, (values, colour, marker) in series.items():
        sizes, numbers = [int(size) for size in values], [_finite(x) for x in values.values()]
        axis.plot(sizes, numbers, marker + "-", color=COLOURS[colour], ms=6, lw=1.6, label=name)
    axis.axhline(0, color="0.6", lw=0.8)
    axis.set(xlabel="rows of a group, G", ylabel="mean update", xticks=[int(size) for size in shown.bias])
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.35 * (high - low))
    axis.legend(fontsize="small", loc="upper left")
    worst = max(map(_finite, shown.bias.values()))
    said = "unbiased at every group size" if worst < 1e-7 else f"off the gradient by up to {worst:.2g}"
    axis.set_title(said, fontsize="medium")


def _finite(x: float) -> float:
    """NaN for what cannot be drawn."""
    return x if np.isfinite(x) else float("nan")
