"""Drawings that several claims share: data and axes in, axes out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.scales import log_with_zero
from figures.drawing.style import COLOURS, EXACT, MARKERS

_CLIP = 1e4


def with_columns(rows: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The rows with all of these columns: empty ones where no row has such a label, as on part of a claim's settings."""
    return rows.assign(**{name: np.nan for name in names if name not in rows})


def value_of(rows: pd.DataFrame, column: str, default: Any) -> Any:
    """The value that all rows have in a column; `default` where they were written before there was such a column."""
    values = rows[column].dropna().tolist() if column in rows else []
    return values[0] if values else default


def no_rows(axis: Any, title: str = "") -> Any:
    """A panel that has nothing to show says so."""
    axis.text(0.5, 0.5, "no rows here", transform=axis.transAxes, ha="center", va="center", color="0.4")
    axis.set(title=title, xticks=[], yticks=[])
    return axis


def standardised(rows: pd.DataFrame) -> np.ndarray:
    """(measured - target) in standard errors, clipped for drawing; rows known to rounding count as zero or huge."""
    gap = rows["measured"] - rows["target"]
    errors = (rows["standard_error"] + rows["tolerance"]).clip(lower=1e-300)
    return np.asarray(np.clip(gap / errors, -_CLIP, _CLIP))


def points_with_curve(
    axis: Any,
    rows: pd.DataFrame,
    x: str,
    colour: str,
    name: str,
    curve: tuple[Any, Any],
    marker: str = MARKERS[0],
    line: Mapping[str, Any] = EXACT,
) -> Any:
    """Measured points with two-standard-error bars over the exact answer, a dashed curve (x, y) on a fine grid."""
    rows = with_columns(rows, x)
    axis.errorbar(
        rows[x],
        rows["measured"],
        2 * rows["standard_error"],
        fmt=marker,
        color=COLOURS[colour],
        ms=5,
        capsize=2,
        label=name,
        zorder=3,
    )
    axis.plot(*curve, **line, zorder=2)
    return axis


def legend_above(figure: Any, *axes: Any) -> None:
    """One legend for the whole figure, above the panels, in as many columns as fit; `add_frame` puts it under the title."""
    entries: dict[str, Any] = {}
    for axis in axes:
        handles, names = axis.get_legend_handles_labels()
        entries |= {name: handle for name, handle in zip(names, handles, strict=True) if name not in entries}
    look: dict[str, Any] = {"frameon": False, "columnspacing": 1.3, "handletextpad": 0.4}
    for columns in range(len(entries), 0, -1):
        legend = figure.legend(entries.values(), entries.keys(), loc="upper left", ncols=columns, **look)
        if columns == 1 or legend.get_window_extent().width <= 0.98 * figure.bbox.width:
            break
        legend.remove()


@dataclass(frozen=True)
class Series:
    """One set of points of a panel: rows, the name of a colour, a marker, a name for the legend.

    `unit` is a column that both coordinates are divided by; `fill` "none" leaves the markers open.
    """

    rows: pd.DataFrame
    colour: str
    marker: str
    name: str
    unit: str | None = None
    fill: str | None = None
    size: float = 6


def gap_panel(
    axis: Any,
    rows: pd.DataFrame,
    x: str,
    parts: Mapping[str, tuple[str, str]],
    limit: float,
    *,
    names: Mapping[str, str] | None = None,
    size: float = 5,
) -> Any:
    """Relative gaps and the dashed limit of rounding, log scale with 0: what is exact stays below it, a control does not.

    Args:
        axis: where to draw.
        rows: comparison rows whose `measured` is a gap >= 0.
        x: the column along the axis; text is placed at 0, 1, 2, ... in its order.
        parts: part -> (name of its colour, marker), in the order of the legend.
        limit: the tolerance that the gaps are judged by.
        names: part -> what the legend calls it, where that is not the part's own name.
        size: of the markers, in points.
    """
    rows = with_columns(rows, x)
    rows = rows[rows[x].notna() & rows["part"].isin(list(parts))]
    if rows.empty:
        return no_rows(axis)
    places = list(dict.fromkeys(rows[x])) if rows[x].dtype == object or str(rows[x].dtype) == "str" else None
    for i, (part, (colour, marker)) in enumerate(parts.items()):
        group = rows[rows["part"] == part]
        at = group[x] if places is None else [places.index(v) + 0.15 * (i - (len(parts) - 1) / 2) for v in group[x]]
        axis.plot(
            at,
            group["measured"],
            marker,
            color=COLOURS[colour],
            ms=size,
            alpha=0.6,
            label=(names or {}).get(part, part),
        )
    axis.axhline(limit, **EXACT)
    log_with_zero(axis, [*rows["measured"], limit])
    where = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": "bottom", "fontsize": "small"}
    axis.text(0.98, limit, "rounding limit", **where)
    if places is not None:
        axis.set_xticks(range(len(places)), places)
        axis.set_xlim(-0.6, len(places) - 0.4)
    return axis


def diagonal_panel(axis: Any, series: Iterable[Series], *, label: str = "exact") -> Any:
    """Measured against exact with two-standard-error bars; what agrees lies on the dashed diagonal.

    Args:
        axis: where to draw.
        series: what is drawn, each with rows, colour, marker and a name for the legend.
        label: of the diagonal.
    """
    ends: list[float] = []
    for one in series:
        if one.rows.empty:
            continue
        rows, unit = one.rows, one.rows[one.unit] if one.unit else 1.0
        x, y, bars = rows["target"] / unit, rows["measured"] / unit, 2 * rows["standard_error"] / unit
        axis.errorbar(
            x,
            y,
            bars,
            fmt=one.marker,
            color=COLOURS[one.colour],
            ms=one.size,
            mfc=one.fill,
            mew=1.2,
            alpha=0.85,
            capsize=2,
            label=one.name,
        )
        ends += [float(x.min()), float(x.max())]
    if not ends:
        return no_rows(axis)
    axis.plot([min(ends), max(ends)], [min(ends), max(ends)], label=label, **EXACT)
    return axis


def corner_text(axis: Any, text: str, height: float = 0.04, **style: Any) -> None:
    """A remark at the right edge, `height` as a share of the axis, on white so that it is read over data."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    place = {"transform": axis.transAxes, "ha": "right", "va": "bottom", "fontsize": "small", "bbox": box}
    axis.text(0.97, height, text, **(place | style))
