"""Gradients of a batch that is cut into parts, against the whole batch's: a matrix of cuts, and the token mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm

from figures.drawing.panels import no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT

_SMALL = 1e-3  # smaller differences have the darkest colour


def cut_matrix(axis: Any, rows: pd.DataFrame, cuts: Sequence[str], limit: float) -> Any:
    """Normalisers x cuts: the median relative difference of each cell, as colour and number; "0" below `limit`."""
    rows = with_columns(rows, "cut")
    if rows["cut"].isna().all():
        return no_rows(axis, "|accumulated - whole| / |whole|")
    table = rows.pivot_table(index="normaliser", columns="cut", values="measured", aggfunc="median", sort=False)
    table = table.reindex(columns=list(cuts))
    cells = table.to_numpy()
    axis.imshow(cells, norm=LogNorm(_SMALL, 1, clip=True), cmap="cividis", aspect="auto")
    for (i, j), value in np.ndenumerate(cells):
        text = "0" if value < limit else f"{value:.0%}" if value > 0.1 else f"{value:.1%}"
        axis.text(j, i, text, ha="center", va="center", fontsize="medium", color="black" if value > 0.03 else "white")
    axis.grid(visible=False)
    axis.set_xticks(range(len(cuts)), cuts, fontsize="small")
    axis.set_yticks(range(len(table)), [name.replace(" ", "\n") for name in table.index], fontsize="small")
    axis.set_title("|accumulated - whole| / |whole|, median over batches")
    return axis


def parts_panel(axis: Any, ratio: pd.DataFrame, cosine: pd.DataFrame) -> Any:
    """Size and direction of the token mean's accumulated gradient against the number of parts."""
    if ratio.empty and cosine.empty:
        return no_rows(axis, "token mean: parts / whole")
    ratio, cosine = with_columns(ratio, "parts"), with_columns(cosine, "parts")
    for group, colour, mark, name in ((ratio, "score", "o", "ratio"), (cosine, "costate", "^", "cosine")):
        axis.plot(group["parts"], group["measured"], mark, color=COLOURS[colour], ms=5, alpha=0.6, label=name)
    axis.axhline(1, **EXACT)
    axis.legend(fontsize="small", loc="best")
    axis.set(xscale="log", xlabel="parts of one batch", title="token mean: parts / whole")
    axis.set_xticks((1, 2, 4, 8), ("1", "2", "4", "8"))
    axis.set_xticks((), minor=True)
    return axis


def bias_panel(axis: Any, rows: pd.DataFrame) -> Any:
    """Exact bias of the token mean against the number of groups, one line for each policy; slope -1 dashed."""
    if rows.empty:
        return no_rows(axis, "token mean: exact bias")
    for _, group in rows.groupby("seed"):
        axis.plot(group["groups"], group["measured"], "o-", color=COLOURS["control"], ms=4, lw=1, alpha=0.7)
    counts = np.unique(rows["groups"])
    axis.plot(counts, rows["measured"].min() * counts.max() / counts / 2, label="slope 1 / groups", **EXACT)
    axis.legend(fontsize="small", loc="best")
    axis.set(xscale="log", yscale="log", xlabel="groups in the batch", title="token mean: exact bias")
    return axis
