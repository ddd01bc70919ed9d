"""The picture of a training run: what is exact (return, entropy, cosine) and what was sampled (clip, silent groups)."""

from pathlib import Path
from typing import Any

import pandas as pd

from figures.drawing.frame import add_frame, save
from figures.drawing.panels import legend_above
from figures.drawing.style import COLOURS, EXACT, house_style, new_figure

_HOW_TO_READ = (
    "Left, exact expected return (blue: mean over seeds; thin: each seed; grey: mean return of the drawn rows); dashed, the "
    "largest possible. Middle, cosine of each update to grad J (dashed: 1) and, where the recipe is meant to climb something "
    "else, to the exact gradient of that: noise and bias together. Right, "
)
_OF_ROWS = (
    "share of groups whose rewards are all equal and of tokens whose gradient the clip sets to 0; entropy per step, in "
    "nats."
)
_OF_CRITIC = (
    "how far the critic, a vector field, is from the gradient of a value (thin: each seed): |X - X'| / |X| of its derivatives "
    "X in the state, at most 2; dashed, 0, that of the exact value gradient."
)


@house_style()
def draw_run(table: pd.DataFrame, best: float | None, title: str, stem: Path) -> None:
    """Draw a run's log as `stem`.png and `stem`.svg; `best` is the largest possible return, where it is known.

    A run whose critic is a vector field has its curl on the right: it differentiates paths, and has no groups or clips.
    """
    figure = new_figure(4.6)
    left, middle, right = figure.subplots(1, 3, width_ratios=(4, 3, 3))
    _return_panel(left, table, best)
    _cosine_panel(middle, table)
    has_curl = "curl" in table and bool(table["curl"].notna().any())
    (_curl_panel if has_curl else _signal_panel)(right, table)
    legend_above(figure, left, right)
    add_frame(figure, title, _HOW_TO_READ + (_OF_CRITIC if has_curl else _OF_ROWS))
    save(figure, stem)


def _return_panel(axis: Any, table: pd.DataFrame, best: float | None) -> None:
    exact, drawn = table.dropna(subset="J"), table.dropna(subset="sampled")
    if len(drawn):
        mean = drawn.groupby("step")["sampled"].mean()
        axis.plot(mean.index, mean.rolling(5, min_periods=1).mean(), color="0.75", lw=1, label="drawn rows", zorder=1)
    for _, run in exact.groupby("seed"):
        axis.plot(run["step"], run["J"], color=COLOURS["costate"], lw=0.6, alpha=0.5, zorder=2)
    mean = exact.groupby("step")["J"].mean()
    axis.plot(mean.index, mean, color=COLOURS["costate"], lw=2, label="exact return", zorder=3)
    if best is not None:
        axis.axhline(best, label="best", **EXACT)
    axis.set(xlabel="update", ylabel="expected return J")


def _cosine_panel(axis: Any, table: pd.DataFrame) -> None:
    low = 0.0
    for column, colour, label in (("cosine", "score", "to grad J"), ("target_cosine", "costate", "to its own target")):
        shown = table.dropna(subset=column)
        if len(shown):
            axis.plot(shown["step"], shown[column], ".", color=COLOURS[colour], ms=3, alpha=0.5)
            mean = shown.groupby("step")[column].mean()
            axis.plot(mean.index, mean, color=COLOURS[colour], lw=1.5, label=label)
            low = min(low, float(shown[column].min()))
    if bool(table["target_cosine"].notna().any()):
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)  # above: it hides no point
    axis.axhline(1, **EXACT)
    axis.set(xlabel="update", ylabel="cosine to exact gradients", ylim=(min(-0.05, low - 0.05), 1.05))


def _signal_panel(axis: Any, table: pd.DataFrame) -> None:
    mean = table.groupby("step")[["silent", "clipped", "entropy"]].mean()
    smooth = mean[["silent", "clipped"]].rolling(5, min_periods=1).mean()
    axis.plot(smooth.index, smooth["silent"], color=COLOURS["control"], label="silent groups")
    axis.plot(smooth.index, smooth["clipped"], color=COLOURS["attention"], ls=":", lw=2, label="clipped tokens")
    axis.set(xlabel="update", ylabel="share", ylim=(-0.03, 1.03))
    other, entropy = axis.twinx(), mean["entropy"].dropna()
    other.plot(entropy.index, entropy, color=COLOURS["reference"], ls="-.")
    axis.plot([], [], color=COLOURS["reference"], ls="-.", label="entropy (right axis)")
    other.set_ylabel("entropy (nats per step)", color=COLOURS["reference"])
    other.grid(False)


def _curl_panel(axis: Any, table: pd.DataFrame) -> None:
    for _, run in table.groupby("seed"):
        axis.plot(run["step"], run["curl"], color=COLOURS["control"], lw=0.6, alpha=0.5)
    mean = table.groupby("step")["curl"].mean()
    axis.plot(mean.index, mean, color=COLOURS["control"], lw=2, label="curl of the critic")
    axis.axhline(0, **EXACT)
    axis.set(xlabel="update", ylabel="relative curl of the critic", ylim=(-0.05 * (table["curl"].max() or 1), None))
