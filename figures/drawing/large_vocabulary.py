"""Error and bounds against the size of the vocabulary: data and a figure in, panels out."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import NullFormatter

from figures.drawing.line_names import LineEnd, name_lines
from figures.drawing.panels import no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT
from figures.measures.state_readers import POLICIES, REWARDS

_COLOUR_OF = dict(zip(POLICIES, ("costate", "score", "attention"), strict=True))
_MARKER_OF = dict(zip(POLICIES, ("o", "D", "v"), strict=True))
_ROUNDING = 1e-9
_LARGEST = 0.25  # of D osc(Q)
_DEALT = dict(zip(REWARDS, ("by embedding", "at random"), strict=True))  # how the rewards are dealt to the tokens


def draw_large_vocabulary(figure: Any, bounds: pd.DataFrame, spectral: pd.DataFrame, attained: pd.DataFrame) -> None:
    """Errors of one law of the tokens under two rewards; their ratio for every law; what bounds the error at every V.

    Args:
        figure: where to draw.
        bounds: rows with the error as `measured` and the bound of the column `bound` as `target`.
        spectral: rows with ||J|| in the place of the bound's factor as `target`.
        attained: rows of the two clusters, which attain tier 2.
    """
    left, middle, right = figure.subplots(1, 3)
    bounds = with_columns(bounds, "bound", "policy", "rewards")
    error = bounds[bounds["bound"] == "tier 1"]
    shown = [kind for kind in POLICIES if kind in set(error["policy"])]
    for axis in (left, middle, right):
        axis.set(xscale="log", yscale="log", xlabel="vocabulary size V")
        axis.xaxis.set_minor_formatter(NullFormatter())
    if shown:
        _draw_rewards(left, error[error["policy"] == shown[0]], shown[0])
        _draw_ratios(middle, error, shown)
    else:
        no_rows(left)
        no_rows(middle)
    _draw_bounds(right, bounds[bounds["bound"] == "naive product"], spectral, attained)


def _draw_rewards(axis: Any, rows: pd.DataFrame, kind: str) -> None:
    """The error of one law of the tokens under both rewards."""
    ends = []
    for rewards, line in zip(REWARDS, ("-", ":"), strict=True):
        ends += _draw_line(axis, _mean(rows[rows["rewards"] == rewards], "measured"), kind, line, _DEALT[rewards])
    axis.axhline(_LARGEST, **EXACT)
    axis.set(title=f"{kind}:\nsame probabilities, other rewards", ylabel="error / D osc(Q)")
    where = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": "top", "fontsize": "small"}
    axis.text(0.98, 0.9 * _LARGEST, "at most 1/4", **where)
    name_lines(axis, ends, room=0.55)


def _draw_ratios(axis: Any, error: pd.DataFrame, kinds: list[str]) -> None:
    """How many times larger the error is where rewards follow the embeddings; 1 if the probabilities alone fixed it."""
    ends, ratios = [], []
    axis.axhline(1, **EXACT)
    for kind in kinds:
        own = error[error["policy"] == kind]
        related, unrelated = (_mean(own[own["rewards"] == rewards], "measured") for rewards in REWARDS)
        ratios.append((related / unrelated).dropna())
        ends += _draw_line(axis, ratios[-1], kind, "-", kind)
    axis.set(title=_told(ratios, kinds), ylabel="error by embedding / at random")
    _plain_ticks(axis)
    name_lines(axis, ends)


def _told(ratios: list[pd.Series], kinds: list[str]) -> str:
    """The law of the tokens whose error changes most with the rewards, and how many times."""
    most = [float(np.exp(np.abs(np.log(ratio)).max())) for ratio in ratios if len(ratio)]
    if not most:
        return "both rewards are needed"
    return f"{kinds[int(np.argmax(most))]}:\nother rewards, up to {max(most):.2g} times the error"


def _plain_ticks(axis: Any) -> None:
    """Ticks 1, 2, 5, 10, ... within the limits, as plain numbers."""
    low, high = axis.get_ylim()
    ticks = [x * 10.0**k for k in range(-4, 7) for x in (1, 2, 5) if low <= x * 10.0**k <= high]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()


def _draw_line(axis: Any, mean: pd.Series, kind: str, line: str, name: str) -> list[LineEnd]:
    """A line in the colour of a kind of policy; where it ends."""
    colour = COLOURS[_COLOUR_OF[kind]]
    axis.plot(mean.index, mean, _MARKER_OF[kind] + line, color=colour, ms=5, lw=1.6)
    return [LineEnd(mean.index[-1], mean.iloc[-1], name, colour)] if len(mean) else []


def _draw_bounds(axis: Any, naive: pd.DataFrame, spectral: pd.DataFrame, attained: pd.DataFrame) -> None:
    """The error of two clusters of tokens on its bound 1/4; below it ||J||, which is none; far above the naive product."""
    clusters, ends = with_columns(spectral, "policy"), []
    clusters = clusters[clusters["policy"] == "two clusters"]
    exceeded = bool((clusters["measured"] > (1 + _ROUNDING) * clusters["target"]).any())
    for rows, marker, key, name in (
        (naive, "^-", "reference", "norm product"),
        (clusters, "x-", "control", "||J||: " + ("no bound" if exceeded else "a bound")),
    ):
        mean, colour = _mean(rows, "target"), COLOURS[key]
        axis.plot(mean.index, mean, marker, color=colour, ms=6)
        ends += [LineEnd(mean.index[-1], mean.iloc[-1], name, colour)] if len(mean) else []
    axis.axhline(_LARGEST, **EXACT)
    look = {"color": COLOURS["exact"], "ms": 9}
    axis.plot(attained["V"], attained["measured"], "*", **look)
    if len(attained):
        ends.append(LineEnd(attained["V"].max(), _LARGEST, "two clusters", COLOURS["exact"]))
    off = float((attained["measured"] / _LARGEST - 1).abs().max()) if len(attained) else float("nan")
    reached = "no two clusters" if off != off else f"1/4 is {'' if off < _ROUNDING else 'not '}reached"
    axis.set(title=f"what bounds the error:\n{reached}", ylabel="in units of D osc(Q)")
    name_lines(axis, ends, room=0.6)


def _mean(rows: pd.DataFrame, column: str) -> pd.Series:
    """Geometric mean over networks, ways of tying and all else, by V."""
    return np.exp(np.log(rows[column]).groupby(rows["V"]).mean())
