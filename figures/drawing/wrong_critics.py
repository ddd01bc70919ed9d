"""The drawing of the claim about wrong critics: mean and spread of two estimators against lambda, and the bias of tokens."""

import itertools
from typing import Any

import pandas as pd

from figures.drawing.panels import legend_above, no_rows
from figures.drawing.style import COLOURS, EXACT

_CRITICS = {"exact": "costate", "40 % too large": "control", "40 % too small": "score_value"}
_ESTIMATORS = {"GAE": ("o", "-"), "VGL": ("s", ":")}  # marker, and the line of its spread
_ERRORS = {  # (kind of error, lengths of completions) -> its name, colour and line
    ("error at each prefix", ("one", "several")): ("error at each prefix", "score", "^-"),
    ("error of time alone", ("several",)): ("of time alone, end token", "critic", "v-"),
    ("error of time alone", ("one",)): ("of time alone, one length", "costate", "o-"),
}


def draw_wrong_critics(
    figure: Any, gains: pd.DataFrame, curves: pd.DataFrame, spreads: pd.DataFrame, tokens: pd.DataFrame
) -> None:
    """Three panels against lambda.

    Args:
        figure: where to draw.
        gains: what the mean of each estimator keeps along the gradient, by system, critic and lambda.
        curves: the closed form of the same on a fine grid.
        spreads: of one path, in the gradient's length; those of token worlds have no estimator and are left out.
        tokens: relative bias of GAE in token worlds, by world and kind of error.
    """
    left, middle, right = figure.subplots(1, 3)
    system = "" if gains.empty else gains["world"].iloc[0]
    _draw_gains(left, *(x if x.empty else x[x["world"] == system] for x in (gains, curves)))
    _draw_spreads(middle, spreads if gains.empty else spreads[spreads["world"] == system])
    _draw_tokens(right, tokens)
    legend_above(figure, left, middle)


def _draw_gains(axis: Any, rows: pd.DataFrame, curves: pd.DataFrame) -> None:
    if rows.empty:
        no_rows(axis)
        return
    for critic in _CRITICS:
        curve = curves[curves["critic"] == critic]
        name = {"label": "closed form of both"} if critic == "exact" else {}
        axis.plot(curve["lam"], curve["measured"], **EXACT, **name)
        for estimator, (marker, _) in _ESTIMATORS.items():
            own = rows[(rows["critic"] == critic) & (rows["estimator"] == estimator)]
            look = _look(critic, estimator) | {"ms": 10 if estimator == "VGL" else 6, "capsize": 2}
            axis.errorbar(own["lam"], own["measured"], 2 * own["standard_error"], fmt=marker, **look)
    for estimator, (marker, _) in _ESTIMATORS.items():
        axis.plot([], [], marker, color="0.3", mfc="none" if estimator == "VGL" else "0.3", label=estimator)
    axis.set(xlabel="lambda", ylabel="mean along the gradient", title="one mean")


def _draw_spreads(axis: Any, rows: pd.DataFrame) -> None:
    rows = rows[rows["estimator"].notna()] if "estimator" in rows else rows[:0]
    if rows.empty:
        no_rows(axis)
        return
    for critic, (estimator, (marker, line)) in itertools.product(_CRITICS, _ESTIMATORS.items()):
        own = rows[(rows["critic"] == critic) & (rows["estimator"] == estimator)]
        name = {"label": f"{critic} critic"} if estimator == "GAE" else {}
        axis.plot(own["lam"], own["measured"], marker + line, ms=6, **_look(critic, estimator), **name)
    axis.set(xlabel="lambda", ylabel="spread of one path", title="two spreads", ylim=(0, None))


def _look(critic: str, estimator: str) -> dict[str, Any]:
    """Filled marks for GAE, open ones for VGL."""
    colour = COLOURS[_CRITICS[critic]]
    return {"color": colour, "mfc": "none" if estimator == "VGL" else colour}


def _draw_tokens(axis: Any, rows: pd.DataFrame) -> None:
    """A line for every world; errors of time alone apart by whether completions have one length."""
    if rows.empty:
        no_rows(axis)
        return
    for (kind, lengths), (name, colour, fmt) in _ERRORS.items():
        own = rows[(rows["kind"] == kind) & (rows["lengths"].isin(lengths))]
        for i, world in enumerate(dict.fromkeys(own["world"])):
            line = own[own["world"] == world].groupby("lam")["measured"].median()
            axis.plot(line.index, line, fmt, color=COLOURS[colour], lw=1.5, ms=5, **({} if i else {"label": name}))
    axis.axhline(0, **EXACT)
    axis.set(xlabel="lambda", ylabel="|bias| / |gradient|", title="tokens: bias of GAE")
    axis.set_ylim(top=1.3 * max(float(rows["measured"].max()), 0.1))  # room for the legend
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper right")
