"""Three roads to one costate: their values along a path, and their largest gaps over the limits of rounding."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from figures.drawing.panels import legend_above, no_rows, with_columns
from figures.drawing.scales import log_with_zero
from figures.drawing.style import COLOURS, EXACT

_LEAST = 1e-19  # smaller gaps are drawn as 0


class Road(NamedTuple):
    """How a road is drawn: name, colour, marker, size, and whether it must agree."""

    name: str
    colour: str
    marker: str
    size: float
    agrees: bool


def draw_roads(figure: Any, rows: pd.DataFrame, shown: str, roads: Mapping[str, Road]) -> None:
    """Costates along one path of two systems on autograd's (dashed); for all systems the gap over its limit.

    Args:
        figure: where to draw.
        rows: gaps, a row for each time; of the part `shown` values, with autograd's as `target` and a key of `roads` in the
            column shown.
        shown: part of the values.
        roads: part of the gaps -> how it is drawn.
    """
    rows = with_columns(rows, "system", "t", "shown")
    values, gaps = rows[rows["part"] == shown], rows[rows["part"].isin(list(roads))]
    *paths, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    for axis, system in zip(paths, _two(values, roads), strict=True):
        path_panel(axis, values[values["system"] == system], gaps[gaps["system"] == system], roads)
    paths[0].set_ylabel("costate of one path")
    limits_panel(right, gaps, roads)
    legend_above(figure, *paths)


def _two(values: pd.DataFrame, roads: Mapping[str, Road]) -> list[str]:
    """The system whose control is furthest from autograd's costate, and the last of the others."""
    systems = list(dict.fromkeys(values["system"]))
    control = values[values["shown"].isin([part for part, road in roads.items() if not road.agrees])]
    off = ((control["measured"] - control["target"]).abs() / control["scale"]).groupby(control["system"]).max()
    first = str(off.idxmax()) if len(off) else "".join(systems[:1])
    return [first, next((system for system in reversed(systems) if system != first), "")]


def path_panel(axis: Any, values: pd.DataFrame, gaps: pd.DataFrame, roads: Mapping[str, Road]) -> Any:
    """All roads along one path against autograd's costate (dashed); the title says which agree on all paths."""
    if values.empty:
        return no_rows(axis)
    exact = values.drop_duplicates("t").sort_values("t")
    axis.plot(exact["t"], exact["target"], label="autograd", zorder=5, **EXACT)
    for part, road in roads.items():
        own = values[values["shown"] == part]
        if len(own):
            look: dict[str, Any] = {"color": COLOURS[road.colour], "ms": road.size, "mfc": "none", "mew": 1.4}
            axis.plot(own["t"], own["measured"], road.marker, label=road.name, **look)
    axis.set(xlabel="time t", title=f"{values['system'].iloc[0]}:\n{_told(gaps, roads)}")
    axis.xaxis.get_major_locator().set_params(integer=True)
    return axis


def _told(gaps: pd.DataFrame, roads: Mapping[str, Road]) -> str:
    """Which roads end at autograd's costate up to rounding, and which do not."""
    worst = (gaps["measured"] / gaps["tolerance"]).groupby(gaps["part"]).max()
    off = [road.name for part, road in roads.items() if worst.get(part, 0.0) > 1]
    return f"{' and '.join(off)} off" if off else "all agree"


def limits_panel(axis: Any, gaps: pd.DataFrame, roads: Mapping[str, Road]) -> Any:
    """The largest gap of every road and system over its limit; what agrees lies left of the dashed 1."""
    if gaps.empty:
        return no_rows(axis)
    systems = list(dict.fromkeys(gaps["system"]))
    worst = (gaps["measured"] / gaps["tolerance"]).groupby([gaps["part"], gaps["system"]]).max()
    for part, road in roads.items():
        own = worst[worst.index.get_level_values(0) == part]
        at = [len(systems) - 1 - systems.index(system) for _, system in own.index]
        axis.plot(own, at, road.marker, color=COLOURS[road.colour], ms=road.size, mfc="none", mew=1.4)
    axis.axvline(1, **EXACT)
    log_with_zero(axis, [1.0, *worst], "x", rounding=_LEAST)
    axis.set_yticks(range(len(systems)), reversed(systems), fontsize="small")
    axis.set(ylim=(-0.6, len(systems) - 0.4), xlabel="largest gap / its rounding limit", title=_count(worst, roads))
    return axis


def _count(worst: pd.Series, roads: Mapping[str, Road]) -> str:
    """How many largest gaps lie under their limit, of the roads that must agree and of the control."""
    parts, told = worst.index.get_level_values(0), []
    for agrees, name in ((True, "agree"), (False, "control agrees")):
        own = worst[parts.isin([part for part, road in roads.items() if road.agrees is agrees])]
        told += [f"{name}: {int((own <= 1).sum())} of {len(own)}"] if len(own) else []
    return "\n".join(told)
