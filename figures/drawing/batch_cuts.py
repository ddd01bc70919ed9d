"""Gradients of a batch that is cut into parts, against the whole batch's: a matrix of cuts, and the token mean."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm

from figures.drawing.panels import no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT

_SMALL = 1e-3  # smaller differences have the darkest colour


def draw_cuts(
    figure: Any, rows: pd.DataFrame, families: Mapping[str, Sequence[str]], limit: float, parts: Mapping[str, str]
) -> None:
    """The matrix of normalisers and cuts; beside it the token mean, by the number of parts and of groups.

    Args:
        figure: where to draw.
        rows: of the claim.
        families: of cuts, by what they have in common.
        limit: of rounding.
        parts: of the rows that the small panels show: "ratio", "cosine", "bias".
    """
    places = [["matrix", "top"], ["matrix", "bottom"]]
    matrix, top, bottom = figure.subplot_mosaic(places, width_ratios=(2.5, 1)).values()
    cut_matrix(matrix, rows, families, limit)
    ratio, cosine, bias = (rows[rows["part"] == parts[name]] for name in ("ratio", "cosine", "bias"))
    parts_panel(top, ratio, cosine)
    bias_panel(bottom, bias)


def cut_matrix(axis: Any, rows: pd.DataFrame, families: Mapping[str, Sequence[str]], limit: float) -> Any:
    """Cuts x normalisers: the median relative difference of each cell, as colour and number; "0" below `limit`."""
    rows, cuts = with_columns(rows, "cut"), [cut for family in families.values() for cut in family]
    if rows["cut"].isna().all():
        return no_rows(axis, "|accumulated - whole| / |whole|")
    table = rows.pivot_table(index="cut", columns="normaliser", values="measured", aggfunc="median", sort=False)
    table = table.reindex(index=cuts)
    cells = table.to_numpy()
    axis.imshow(cells, norm=LogNorm(_SMALL, 1, clip=True), cmap="cividis", aspect="auto")
    for (i, j), value in np.ndenumerate(cells):
        if np.isfinite(value):
            text = "0" if value < limit else f"{value:.0%}" if value > 0.1 else f"{value:.1%}"
            axis.text(j, i, text, ha="center", va="center", color="black" if value > 0.03 else "white")
    for family in list(np.cumsum([len(family) for family in families.values()]))[:-1]:
        axis.axhline(family - 0.5, color="white", lw=4)
    axis.grid(visible=False)
    axis.set_xticks(range(table.shape[1]), [name.replace(" ", "\n") for name in table], fontsize="small")
    axis.set_yticks(range(len(cuts)), [" ".join(cut.split()) for cut in cuts], fontsize="small")
    axis.set_title(_told(table.loc[list(next(iter(families.values())))], next(iter(families)), limit))
    return axis


def _told(table: pd.DataFrame, family: str, limit: float) -> str:
    """The normalisers under which a family of cuts gives the whole batch's gradient, and the largest error of the others."""
    worst = table.dropna(axis=1, how="all").max()
    exact, off = worst[worst < limit], worst[worst >= limit]
    told = [f"exact with {', '.join(exact.index)}"] if len(exact) else []
    told += [f"up to {off.max():.0%} off with {', '.join(off.index)}"] if len(off) else []
    return f"{family}: " + ";\n".join(told) if told else "parts against the whole batch"


def parts_panel(axis: Any, ratio: pd.DataFrame, cosine: pd.DataFrame) -> Any:
    """Size and direction of the token mean's accumulated gradient against the number of parts."""
    if ratio.empty and cosine.empty:
        return no_rows(axis, "token mean: parts / whole")
    ratio, cosine = with_columns(ratio, "parts"), with_columns(cosine, "parts")
    for group, colour, mark, name in ((ratio, "score", "o", "size"), (cosine, "costate", "^", "cosine")):
        axis.plot(group["parts"], group["measured"], mark, color=COLOURS[colour], ms=5, alpha=0.6, label=name)
    axis.axhline(1, **EXACT)
    axis.legend(fontsize="small", loc="best")
    least = ratio.loc[ratio["parts"] == ratio["parts"].max(), "measured"].min()
    said = f"size >= {least:.0%}" if len(ratio) else "direction"
    axis.set(xscale="log", xlabel="parts of one batch", ylabel="parts / whole", title=f"token mean: {said}")
    counts = sorted({int(n) for n in [*ratio["parts"], *cosine["parts"]]})
    axis.set_xticks(counts, [str(n) for n in counts])
    axis.set_xticks((), minor=True)
    return axis


def bias_panel(axis: Any, rows: pd.DataFrame) -> Any:
    """Exact bias of the token mean against the number of groups, one line for each policy; slope -1 dashed."""
    if rows.empty:
        return no_rows(axis, "token mean: exact bias")
    for _, group in rows.groupby("seed"):
        axis.plot(group["groups"], group["measured"], "o-", color=COLOURS["control"], ms=4, lw=1, alpha=0.7)
    counts = np.unique(rows["groups"])
    line = rows["measured"].min() * counts.max() / counts / 2
    axis.plot(counts, line, **EXACT)
    middle, place = len(counts) // 2, {"textcoords": "offset points", "ha": "right", "va": "top", "fontsize": "small"}
    axis.annotate("1 / groups", (counts[middle], line[middle]), (-3, -3), **place)
    axis.set(xscale="log", yscale="log", xlabel="groups in the batch", ylabel="bias / scale")
    axis.set_title(f"its bias: {rows.loc[rows['groups'] == counts[0], 'measured'].max():.0%} to {_last(rows):.1%}")
    return axis


def _last(rows: pd.DataFrame) -> float:
    """The largest bias with the most groups."""
    return float(rows.loc[rows["groups"] == rows["groups"].max(), "measured"].max())
