"""The table of predictors as a picture: one score of every predictor, the best on top."""

from typing import Any

import pandas as pd
from matplotlib.font_manager import FontProperties

from envs.world import InputError, unknown
from figures.drawing.one_panel import check_width, inches, lay_out, panel
from figures.drawing.style import COLOURS, EXACT, MARKERS
from figures.impact.contest import CRITERION
from figures.impact.numbers import HEADROOMS, NULLS, OURS, PREDICTORS, PRODUCTS, SIGNALS
from figures.impact.predictors import ERROR, RANK
from figures.impact.runs import MAIN

# kind -> its predictors, and the name of its colour
KINDS = {
    "signal x headroom": (PRODUCTS, "score_value"),
    "signal": (SIGNALS, "costate"),
    "headroom": (HEADROOMS, "score"),
    "null model": (NULLS, "control"),
    "ours": (OURS, "score_best"),
}
_REFERENCE = {ERROR: (1.0, "the mean gain alone"), RANK: (0.0, "no relation")}
_LABEL = {ERROR: "left-out error (of the mean gain's)", RANK: "rank correlation with the gain"}
_BAND = "0.88"  # behind the predictor that is judged
_LINE = 1.25  # height of a line over the size of its type


def draw_predictors(rows: Any, ax: Any = None, *, score: str = ERROR, width: float = 6.0) -> Any:
    """One score of every predictor of the gain of RL, best on top, with two standard errors; the judged one on grey.

    Axes that are too low for all of them show the best ones that fit. The title says the rank of the predictor that is judged.

    Args:
        rows: of the claim `impact_product`, as `costate.table` returns them.
        ax: axes to draw on; None for a figure of its own, which is `.figure` of the answer.
        score: "left-out error" (the smaller, the better; 1 for the mean gain alone) or "rank correlation".
        width: of a figure of its own, in inches.

    Returns:
        The axes.

    Raises:
        InputError: the score is unknown, or the rows are of another claim.
    """
    if score not in _REFERENCE:
        raise unknown("score", str(score), _REFERENCE)
    check_width(width)
    table = scores_of(pd.DataFrame(rows), score)
    if table.empty:
        raise InputError(f"rows hold no {score} of {MAIN}: give the rows of claim impact_product")
    with panel(ax, width, 0.19 * len(table) + 1.2) as axis:
        lay_out(axis)
        size = FontProperties(size="x-small").get_size_in_points()
        shown = table.iloc[: max(1, int(72 * inches(axis)[1] / (_LINE * size)))].iloc[::-1]
        for kind, marker in zip(KINDS, MARKERS, strict=False):
            _draw_kind(axis, shown, kind, marker)
        at, name = _REFERENCE[score]
        axis.axvline(at, label=name, **EXACT)
        _mark_judged(axis, list(shown.index))
        axis.set(ylim=(-0.7, len(shown) - 0.3), xlabel=_LABEL[score])
        axis.set_yticks(range(len(shown)), [PREDICTORS[name] for name in shown.index], fontsize="x-small")
        axis.set_title(_message(table, len(shown)))
        axis.legend(loc="best", fontsize="x-small")
    return axis


def scores_of(rows: pd.DataFrame, score: str) -> pd.DataFrame:
    """The rows of one score of every predictor, of the main recipe after its largest budget, by predictor, best first.

    Args:
        rows: of the claim; without such rows the answer is empty.
        score: the part.
    """
    if not {"part", "recipe", "largest", "predictor"} <= set(rows):
        return rows.iloc[:0]
    own = rows[(rows["part"] == score) & (rows["recipe"] == MAIN) & rows["largest"].eq(True)]
    return own.set_index("predictor").sort_values("measured", ascending=score == ERROR, kind="stable")


def kind_of(predictor: str) -> str:
    """The kind of a predictor."""
    return next(kind for kind, (names, _) in KINDS.items() if predictor in names)


def _draw_kind(axis: Any, shown: pd.DataFrame, kind: str, marker: str) -> None:
    at = [i for i, name in enumerate(shown.index) if kind_of(str(name)) == kind]
    if at:
        dots, colour = shown.iloc[at], COLOURS[KINDS[kind][1]]
        look: dict[str, Any] = {"fmt": marker, "color": colour, "ms": 4.5, "capsize": 1.5, "lw": 1}
        axis.errorbar(dots["measured"], at, xerr=2 * dots["standard_error"], label=kind, **look)


def _mark_judged(axis: Any, order: list[Any]) -> None:
    if CRITERION in order:
        at = order.index(CRITERION)
        axis.axhspan(at - 0.5, at + 0.5, color=_BAND, zorder=0)


def _message(table: pd.DataFrame, shown: int) -> str:
    """The rank of the predictor that is judged, and of how many the best are shown."""
    some = f"; the best {shown}" if shown < len(table) else ""
    if CRITERION not in table.index:
        return f"{len(table)} predictors{some}"
    return f"the judged product is number {list(table.index).index(CRITERION) + 1} of {len(table)}{some}"
