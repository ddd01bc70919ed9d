"""How far costates are from the value gradient, against the steps to go: medians and the middle half of the policies."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from figures.drawing.line_names import LineEnd, name_lines
from figures.drawing.panels import no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT

_SAME = 1e-9
_USELESS = {"color": "0.45", "linestyle": ":", "linewidth": 1.4}


class Drawn(NamedTuple):
    """A costate that is drawn: the parts of its gaps, its name, a colour and a marker."""

    parts: tuple[str, ...]
    name: str
    colour: str
    marker: str


def draw_errors(
    figure: Any, rows: pd.DataFrame, kinds: Sequence[str], series: Mapping[str, Drawn], rounding: float
) -> None:
    """A panel for every kind of reward: relative errors of each costate, the value gradient dashed at 0, a zero dotted at 1.

    Args:
        figure: where to draw.
        rows: gaps over the size of the value gradient, with the columns reward and steps (to go).
        kinds: of reward, in the order of the panels.
        series: costate -> how it is drawn.
        rounding: a smaller error is none.
    """
    rows, axes = with_columns(rows, "reward", "steps"), figure.subplots(1, len(kinds), squeeze=False)[0]
    by_kind = {kind: rows[rows["reward"] == kind] for kind in kinds}
    tables = [{name: _table(own, drawn.parts) for name, drawn in series.items()} for own in by_kind.values()]
    tops = [float(table["high"].max()) for panel in tables for table in panel.values() if len(table)]
    for axis, kind, panel in zip(axes, kinds, tables, strict=True):
        error_panel(axis, panel, series, f"{kind} reward", rounding)
        if axis.lines:
            axis.set_ylim(-0.08, max([1.25, *(1.08 * top for top in tops)]))
            name_lines(axis, _ends(panel, series), room=0.45)
    axes[0].set_ylabel("|E - grad V| / |grad V|")


def _table(rows: pd.DataFrame, parts: Sequence[str]) -> pd.DataFrame:
    """Median and quartiles over policies and worlds, by steps to go."""
    by = rows[rows["part"].isin(parts)].groupby("steps")["measured"]
    return pd.DataFrame({"low": by.quantile(0.25), "middle": by.median(), "high": by.quantile(0.75)})


def _ends(tables: Mapping[str, pd.DataFrame], series: Mapping[str, Drawn]) -> list[LineEnd]:
    """The names of the lines at their ends; lines that coincide have one name."""
    ends: list[LineEnd] = []
    kept: list[pd.Series] = []
    for name, table in tables.items():
        if table.empty:
            continue
        line, drawn = table["middle"], series[name]
        same = [i for i, old in enumerate(kept) if old.index.equals(line.index) and (old - line).abs().max() <= _SAME]
        if same:
            old = ends[same[0]]
            ends[same[0]] = LineEnd(old.x, old.y, f"{old.name} = {drawn.name}", COLOURS[drawn.colour])
        else:
            ends.append(LineEnd(line.index[-1], line.iloc[-1], drawn.name, COLOURS[drawn.colour]))
            kept.append(line)
    return ends


def error_panel(
    axis: Any, tables: Mapping[str, pd.DataFrame], series: Mapping[str, Drawn], kind: str, rounding: float
) -> Any:
    """One kind of reward; lines that coincide have one name.

    Args:
        axis: where to draw.
        tables: costate -> low, middle and high by steps to go.
        series: costate -> how it is drawn.
        kind: what the title begins with.
        rounding: as in `draw_errors`.
    """
    if all(table.empty for table in tables.values()):
        return no_rows(axis, kind)
    for name, table in tables.items():
        drawn = series[name]
        colour, bars = COLOURS[drawn.colour], [table["middle"] - table["low"], table["high"] - table["middle"]]
        look: dict[str, Any] = {"fmt": drawn.marker + "-", "color": colour, "ms": 6, "capsize": 3, "gid": name}
        axis.errorbar(table.index, table["middle"], [bar.clip(lower=0) for bar in bars], **look)
    axis.axhline(0, **EXACT)
    axis.axhline(1, **_USELESS)
    where = {"fontsize": "small", "ha": "right"}
    axis.text(0.98, 0.01, "grad V", va="bottom", transform=axis.get_yaxis_transform(), **where)
    axis.text(0.98, 0.98, "dotted: no better than 0", va="top", transform=axis.transAxes, **where)
    axis.set(xlabel="steps to go", title=f"{kind}:\n{_told(tables, series, rounding)}")
    axis.xaxis.get_major_locator().set_params(integer=True)
    return axis


def _told(tables: Mapping[str, pd.DataFrame], series: Mapping[str, Drawn], rounding: float) -> str:
    """The smallest and largest median of every costate; costates with the same ones are told together."""
    ranges: dict[str, list[str]] = {}
    for name, table in tables.items():
        off = table["middle"][table["middle"] > rounding]
        if len(table):
            ends = list(dict.fromkeys(f"{100 * end:.0f}" for end in (off.min(), off.max())))
            said = "exact" if off.empty else f"{'-'.join(ends)}% off"
            ranges.setdefault(said, []).append(series[name].name)
    return "; ".join(f"{' and '.join(names)} {said}" for said, names in ranges.items())
