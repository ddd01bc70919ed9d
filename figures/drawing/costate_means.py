"""Mean costates on the value gradient: along the mean path from one start, and every moment in standard errors."""

from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.panels import legend_above, no_rows, standardised, with_columns
from figures.drawing.style import COLOURS, EXACT
from figures.harness.statistics import critical_value


def draw_means(figure: Any, rows: pd.DataFrame, shown: str, whole: str, cut: str) -> None:
    """Mean costates from one start on the value gradient in two systems; the deviations of all moments in every system.

    Args:
        figure: where to draw.
        rows: of the claim; those of the part `shown` have mean costates as `measured`, the value gradient as `target`, and the
            column shown, which is `whole` or `cut`.
        shown: part of the rows for the first panels.
        whole: part of the deviations of the total derivative.
        cut: part of the deviations of the control.
    """
    rows = with_columns(rows, "system", "t", "shown")
    values, moments = rows[rows["part"] == shown], rows[rows["part"].isin((whole, cut))]
    *axes, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
    for axis, system in zip(axes, _two(values, cut), strict=True):
        means_panel(axis, values[values["system"] == system], {whole: ("costate", "o"), cut: ("control", "x")})
        axis.set_title(system)
    axes[0].set_ylabel("mean costate")
    moments_panel(right, moments, whole, cut)
    legend_above(figure, *axes)


def _two(values: pd.DataFrame, cut: str) -> list[str]:
    """The system in which the control is furthest from the value gradient, and the last of the others."""
    systems = list(dict.fromkeys(values["system"]))
    own = values[values["shown"] == cut]
    size = values["target"].abs().groupby(values["system"]).max()
    off = (own["measured"] - own["target"]).abs().groupby(own["system"]).max() / size
    first = str(off.idxmax()) if off.notna().any() else "".join(systems[:1])
    return [first, next((system for system in reversed(systems) if system != first), "")]


def means_panel(axis: Any, rows: pd.DataFrame, looks: dict[str, tuple[str, str]]) -> Any:
    """The value gradient (dashed) against time, and mean costates with two standard errors.

    Args:
        axis: where to draw.
        rows: with the columns t and shown, a key of `looks`.
        looks: kind -> (name of its colour, marker).
    """
    if rows.empty:
        return no_rows(axis)
    exact = rows.drop_duplicates("t").sort_values("t")
    axis.plot(exact["t"], exact["target"], label="exact grad V", zorder=5, **EXACT)
    axis.set_xlabel("time t")
    for i, (kind, (colour, marker)) in enumerate(looks.items()):
        own = rows[rows["shown"] == kind]
        if len(own):
            look: dict[str, Any] = {"color": COLOURS[colour], "ms": 5, "mew": 1.2, "capsize": 1.5, "lw": 1}
            bars = 2 * own["standard_error"]
            axis.errorbar(
                own["t"],
                own["measured"],
                bars,
                fmt=marker,
                alpha=0.85,
                label=kind,
                zorder=4 - i,
                **look,
            )
    return axis


def moments_panel(axis: Any, rows: pd.DataFrame, whole: str, cut: str) -> Any:
    """Every moment of the gap in standard errors, a strip for each system and part; grey, what chance allows."""
    if rows.empty:
        return no_rows(axis)
    systems, bands = list(dict.fromkeys(rows["system"])), []
    for i, system in enumerate(systems):
        own = rows[rows["system"] == system]
        bands.append(_band(own[own["part"] == whole]))
        axis.fill_between((i - 0.45, i + 0.45), -bands[-1], bands[-1], color="0.85", lw=0, zorder=0)
        for part, colour, marker, shift in ((whole, "costate", ".", -0.2), (cut, "control", "x", 0.2)):
            strip = own[own["part"] == part]
            at = i + shift + 0.3 * (strip["t"] / max(own["t"].max(), 1) - 0.5)  # the times of a strip beside each other
            axis.plot(at, standardised(strip), marker, color=COLOURS[colour], ms=4.5, mew=0.9, alpha=0.7)
    axis.axhline(0, **EXACT)
    axis.set_yscale("symlog", linthresh=max([1.0, *bands]))
    low, high = axis.get_ylim()
    axis.set_ylim(min(1.4 * low, low), max(1.4 * high, high))  # room for marks at the rim
    axis.set_xticks(range(len(systems)), [name.replace(" ", "\n") for name in systems], fontsize="small")
    axis.set(ylabel="gap / standard error", title=_told(rows, whole, cut))
    return axis


def _band(judged: pd.DataFrame) -> float:
    """The deviation that chance allows all of the judged moments of a system together; 0 where none is judged."""
    return float(np.max(critical_value(len(judged), judged["samples"]))) if len(judged) else 0.0


def _told(rows: pd.DataFrame, whole: str, cut: str) -> str:
    """How many of the moments lie outside the band of their system, of both parts."""
    judged = rows[rows["part"] == whole]
    bands = {system: _band(own) for system, own in judged.groupby("system")}
    told = []
    for part, name in ((whole, "total derivative"), (cut, "path cut")):
        own = rows[rows["part"] == part]
        off = np.abs(standardised(own)) > own["system"].map(bands).fillna(np.inf).to_numpy()
        told += [f"{name}: {int(off.sum())} of {len(own)} off"] if len(own) else []
    return "\n".join(told)
