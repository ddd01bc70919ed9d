"""Error and bounds against the size of the vocabulary: data and a figure in, panels out."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import NullFormatter

from figures.drawing.line_names import LineEnd, name_lines
from figures.drawing.panels import legend_above, no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT
from figures.measures.state_readers import POLICIES, REWARDS

_COLOUR_OF = dict(zip(POLICIES, ("costate", "score", "attention"), strict=True))
_MARKER_OF = dict(zip(POLICIES, ("o", "D", "v"), strict=True))
_LARGEST = 0.25  # of D osc(Q)


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
    legend_above(figure, left, right)


def _draw_rewards(axis: Any, rows: pd.DataFrame, kind: str) -> None:
    """The error of one law of the tokens under both rewards."""
    ends = []
    for rewards, line in zip(REWARDS, ("-", ":"), strict=True):
        ends += _draw_line(axis, _mean(rows[rows["rewards"] == rewards], "measured"), kind, line, rewards)
    axis.axhline(_LARGEST, label="theory: error at most 1/4; ratio 1 if probabilities fixed the error", **EXACT)
    axis.set(title=f"{kind}: same probabilities, other rewards", ylabel="error / D osc(Q)")
    name_lines(axis, ends)


def _draw_ratios(axis: Any, error: pd.DataFrame, kinds: list[str]) -> None:
    """How many times larger the error is where rewards follow the embeddings; 1 if the probabilities alone fixed it."""
    ends = []
    for kind in kinds:
        own = error[error["policy"] == kind]
        related, unrelated = (_mean(own[own["rewards"] == rewards], "measured") for rewards in REWARDS)
        ends += _draw_line(axis, related / unrelated, kind, "-", kind)
    axis.axhline(1, **EXACT)
    axis.set(title="error with related over unrelated rewards", ylabel="ratio")
    name_lines(axis, ends)


def _draw_line(axis: Any, mean: pd.Series, kind: str, line: str, name: str) -> list[LineEnd]:
    """A line in the colour of a kind of policy; where it ends."""
    colour = COLOURS[_COLOUR_OF[kind]]
    axis.plot(mean.index, mean, _MARKER_OF[kind] + line, color=colour, ms=5, lw=1.6)
    return [LineEnd(mean.index[-1], mean.iloc[-1], name, colour)] if len(mean) else []


def _draw_bounds(axis: Any, naive: pd.DataFrame, spectral: pd.DataFrame, attained: pd.DataFrame) -> None:
    """The error of two clusters of tokens on its bound 1/4; below it ||J||, which is none; far above the naive product."""
    clusters, ends = with_columns(spectral, "policy"), []
    clusters = clusters[clusters["policy"] == "two clusters"]
    for rows, marker, key, name in (
        (naive, "^-", "reference", "norm product"),
        (clusters, "x-", "control", "||J||: no bound"),
    ):
        mean, colour = _mean(rows, "target"), COLOURS[key]
        axis.plot(mean.index, mean, marker, color=colour, ms=6)
        ends += [LineEnd(mean.index[-1], mean.iloc[-1], name, colour)] if len(mean) else []
    axis.axhline(_LARGEST, **EXACT)
    axis.plot(
        attained["V"], attained["measured"], "*", color=COLOURS["exact"], ms=9, label="error of two token clusters"
    )
    axis.set(title="what bounds the error", ylabel="in units of D osc(Q)")
    name_lines(axis, ends)


def _mean(rows: pd.DataFrame, column: str) -> pd.Series:
    """Geometric mean over networks, ways of tying and all else, by V."""
    return np.exp(np.log(rows[column]).groupby(rows["V"]).mean())
