"""Panels of the impact study: gains along pretraining, predictions against gains, scores of all predictors, caps, centres."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from figures.drawing.figures import columns_that_fit, width_of
from figures.drawing.panels import no_rows
from figures.drawing.style import COLOURS, EXACT, MARKERS
from figures.impact.numbers import HEADROOMS, NULLS, OURS, PREDICTORS, PRODUCTS, SIGNALS
from figures.impact.predictors import ERROR

# kind -> its predictors, and the name of its colour
_KINDS = {
    "signal x headroom": (PRODUCTS, "score_value"),
    "signal": (SIGNALS, "costate"),
    "headroom": (HEADROOMS, "score"),
    "null model": (NULLS, "control"),
    "ours": (OURS, "score_best"),
}
_REFERENCE = {ERROR: 1.0}  # the error of the mean gain alone
_BAND = "0.88"  # behind the predictor that is judged


def token_axis(axis: Any, tokens: Any) -> Any:
    """Logarithmic tokens, with the first draw (0 tokens) at the left edge."""
    first = min((n for n in tokens if n > 0), default=1.0)  # a run that diverged may have its first draw alone
    last = max([first, *tokens])
    axis.set_xscale("symlog", linthresh=first, linscale=0.5)
    decades = [10.0**k for k in range(20) if first <= 10.0**k <= 1.15 * last]
    axis.set_xticks([0, *decades])  # a decade below the first checkpoint would stand on the label of 0
    axis.set_xlim(0, 1.15 * last)
    axis.set_xlabel("tokens of pretraining")
    return axis


def _means(axis: Any, rows: pd.DataFrame, x: str = "tokens", factor: float = 1.0, **style: Any) -> None:
    """Means along a column (times a factor) with two standard errors."""
    rows = rows.sort_values(x)
    axis.errorbar(factor * rows[x], rows["measured"], 2 * rows["standard_error"], **style)


def curves_panel(axis: Any, rows: pd.DataFrame, predictors: Mapping[str, str], title: str) -> Any:
    """Measured gain with two standard errors, predictions as lines; rows of one corpus.

    `predictors` gives predictor -> name of a colour.
    """
    if rows.empty:
        return no_rows(axis, title)
    measured = rows[rows["predictor"] == "measured"]
    _means(axis, measured, fmt="o", color=COLOURS["exact"], ms=4, capsize=2, label="measured gain", zorder=3)
    for name, colour in predictors.items():
        line = rows[rows["predictor"] == name].sort_values("tokens")
        axis.plot(line["tokens"], line["measured"], color=COLOURS[colour], lw=1.5, label=PREDICTORS[name])
    axis.axhline(0, color="0.6", lw=0.8)
    axis.set(ylabel="gain of exact J", title=title)
    return token_axis(axis, rows["tokens"])


def left_out_panel(axis: Any, points: pd.DataFrame, title: str = "predicted and measured") -> Any:
    """Every measured gain against its prediction from the other trajectories; dashed, where both are equal."""
    if points.empty:
        return no_rows(axis, title)
    for i, (corpus, own) in enumerate(points.groupby("corpus", sort=False)):
        marker, fill = MARKERS[i % len(MARKERS)], ("none", None)[i % 2]
        look = {"ms": 4, "alpha": 0.7, "color": COLOURS["score_value"], "mfc": fill}
        axis.plot(own["target"], own["measured"], marker, label=corpus, **look)
    both = points[["target", "measured"]]
    ends = [both.min(axis=None), both.max(axis=None)]
    axis.plot(ends, ends, **EXACT)
    axis.set(xlabel="predicted gain", ylabel="measured gain", title=title)
    axis.legend(loc="best", fontsize="small")
    return axis


def product_places(figure: Any, curves: int) -> tuple[list[Any], Any, Any]:
    """Cells for so many panels of curves and, last, the points left out; that of all scores; a free one, or None.

    Args:
        figure: where to draw.
        curves: how many panels of curves, 1 or 2.
    """
    columns = columns_that_fit(3, width_of(figure), rows=2)
    if columns == 3:
        grid = figure.add_gridspec(2, 3, height_ratios=(1, 1.3))
        return [*(grid[0, i] for i in range(curves)), grid[0, 2]], grid[1, :], None
    grid = figure.add_gridspec(3, 2, height_ratios=(1, 1, 2.4))
    return [*(grid[0, i] for i in range(curves)), grid[1, 0]], grid[2, :], grid[1, 1]


def scores_panel(
    figure: Any, place: Any, rows: pd.DataFrame, scores: Sequence[str], judged: str, free: Any = None
) -> None:
    """A column of dots for every score, a line for every predictor, best left-out error on top; bars: two standard errors.

    Args:
        figure: where to draw.
        place: the cell of the panels.
        rows: of the scores, one for every predictor.
        scores: parts, one panel each.
        judged: the predictor whose line is marked.
        free: a cell for the legend; None for a place inside the last panel.
    """
    order = rows[rows["part"] == ERROR].sort_values("measured", ascending=False)["predictor"].tolist()
    if not order:
        no_rows(figure.add_subplot(place), "scores")
        return
    axes = place.subgridspec(1, len(scores)).subplots(sharey=True, squeeze=False)[0]
    for axis, score in zip(axes, scores, strict=True):
        _draw_scores(axis, rows[rows["part"] == score].set_index("predictor").reindex(order), order)
        if score in _REFERENCE:
            axis.axvline(_REFERENCE[score], **EXACT)
        if judged in order:
            axis.axhspan(order.index(judged) - 0.5, order.index(judged) + 0.5, color=_BAND, zorder=0)
        axis.set(title=f"all predictors: {score}", ylim=(-0.7, len(order) - 0.3))
        axis.tick_params(labelsize="small")
        axis.tick_params(axis="y", labelsize="x-small")
    axes[0].set_yticks(range(len(order)), [PREDICTORS[name] for name in order])
    _draw_kinds(axes[-1] if free is None else figure.add_subplot(free), axes[0], free is not None)


def _draw_kinds(axis: Any, dots: Any, alone: bool) -> None:
    """What the colours of the dots mean, in a free corner of the last panel or in a place of its own."""
    place = {"loc": "center", "fontsize": "small"} if alone else {"loc": "best", "fontsize": "x-small"}
    axis.legend(*dots.get_legend_handles_labels(), **place)
    if alone:
        axis.axis("off")


def _draw_scores(axis: Any, table: pd.DataFrame, order: list[str]) -> None:
    """One score of every predictor, in a colour and with a marker for each kind."""
    for i, (kind, (names, colour)) in enumerate(_KINDS.items()):
        at = [order.index(name) for name in names if name in order]
        dots = table.iloc[at]
        style = {"fmt": MARKERS[i], "color": COLOURS[colour], "ms": 4.5, "capsize": 1.5, "lw": 1}
        axis.errorbar(dots["measured"], at, xerr=2 * dots["standard_error"], label=kind, **style)


def known_panel(axis: Any, rows: pd.DataFrame, title: str) -> Any:
    """What pretraining alone does: J and pass@8, the entropy over its largest value; dashed, J of a perfect reader."""
    if rows["part"].isin(("J", "pass_at_k", "H", "reader")).sum() == 0:
        return no_rows(axis, title)
    shown = (("J", "J", "score_best"), ("pass_at_k", "pass@8", "score_value"), ("H", "H / H0", "reference"))
    for i, (part, name, colour) in enumerate(shown):
        line = rows[rows["part"] == part].sort_values("tokens")
        size = line["measured"].max() if part == "H" else 1.0
        style = {"color": COLOURS[colour], "ms": 4, "lw": 1.2, "label": name}
        axis.plot(line["tokens"], line["measured"] / size, MARKERS[i] + "-", **style)
    for J in rows.loc[rows["part"] == "reader", "measured"].iloc[:1]:
        axis.axhline(J, label="perfect reader", **EXACT)
    axis.set(title=title, ylabel="before RL", ylim=(0, 1.05))
    return token_axis(axis, rows["tokens"].dropna())


def gain_panel(axis: Any, rows: pd.DataFrame, by: str, title: str) -> Any:
    """Mean gains with two standard errors, a line for every value of the column `by`; the exact gradient's dashed.

    Budgets are shades of the first recipe's colour.
    """
    if rows.empty:
        return no_rows(axis, title)
    colours, values = [COLOURS[key] for key in ("costate", "score", "critic", "control")], rows[by].nunique()
    for i, (value, own) in enumerate(rows.groupby(by, sort=False)):
        name, line = str(value), dict[str, Any](color=colours[i % len(colours)], lw=1.2)
        if by == "budget":
            name, line = f"{value:.0f}", {"color": colours[0], "lw": 1.2, "alpha": (i + 1) / values}
        if name.startswith("exact"):
            line = {**EXACT, "color": COLOURS["exact"] if "Adam" in name else "0.5"}
        _means(axis, own, marker=MARKERS[i], ms=4, capsize=1.5, label=name, **line)
    axis.axhline(0, color="0.6", lw=0.8)
    axis.set(ylabel="gain of exact J", title=title)
    return token_axis(axis, rows["tokens"])


def cap_panel(axis: Any, rows: pd.DataFrame, colour: Any, name: str) -> Any:
    """The signal (points) under its cap (dashed), means over prompts and trajectories."""
    styles: dict[str, tuple[str, dict[str, Any]]] = {
        "costate": ("signal", {"marker": "o", "ms": 4, "lw": 1}),
        "cap": ("its cap", {"ls": "--", "lw": 1.4}),
    }
    for part, (what, style) in styles.items():
        _means(axis, rows[rows["part"] == part], color=colour, capsize=2, label=f"{name}: {what}", **style)
    axis.set(ylabel="|E costate| at the prompt, and its cap", title="signal and cap")
    return token_axis(axis, rows["tokens"].dropna())


def alignment_panel(axis: Any, rows: pd.DataFrame, largest: str, colour: Any, marker: str, name: str) -> Any:
    """The share of the cap that is used: means over prompts, and the largest prompt (part `largest`) of each checkpoint."""
    mean, each = rows[rows["part"] == "alignment"], rows[rows["part"] == largest]
    _means(axis, mean, fmt=marker + "-", color=colour, ms=4.5, capsize=2, label=f"{name}, mean over prompts")
    axis.plot(each["tokens"], each["measured"], ".", color=colour, ms=3, alpha=0.5, label=f"{name}, largest prompt")
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axis.set(ylabel="alignment |E costate| / cap", title="how much of the cap is used", ylim=(0, 1.5))
    return axis


def centres_by_corpus_panel(axis: Any, centres: pd.DataFrame, recipes: Sequence[str]) -> Any:
    """Centres of the gains for every corpus, side by side for every recipe (its own group size) and budget."""
    if centres.empty:
        return no_rows(axis, "corpus and budget")
    corpora, budgets = list(dict.fromkeys(centres["corpus"])), sorted(centres["budget"].unique())
    for i, recipe in enumerate(recipes):
        own = centres[centres["recipe"] == recipe]
        own = own[own["group"] == own["group"].iloc[0]] if len(own) else own
        for j, budget in enumerate(budgets):
            here = own[own["budget"] == budget]
            shift = 0.13 * (j - (len(budgets) - 1) / 2) + 0.4 * (i - 0.5)
            at = [corpora.index(corpus) + shift for corpus in here["corpus"]]
            style = {"fmt": MARKERS[j], "color": COLOURS[("costate", "exact")[i]], "ms": 5, "capsize": 2}
            bars = 2 * here["standard_error"]
            axis.errorbar(at, here["measured"], bars, label=f"{recipe}, {int(budget)} updates", **style)
    axis.set_xticks(range(len(corpora)), corpora)
    axis.set(xlabel="corpus", ylabel="centre of the gain, log2 tokens", title="corpus and budget")
    axis.legend(fontsize="small")
    return axis


def centres_by_group_panel(axis: Any, centres: pd.DataFrame, title: str) -> Any:
    """Centres of the gains against the size of the groups, a line for every budget."""
    if centres.empty:
        return no_rows(axis, title)
    for j, (_, own) in enumerate(centres.groupby("budget")):
        style = {"fmt": MARKERS[j] + "-", "color": COLOURS["costate"], "ms": 5, "lw": 1, "capsize": 2}
        _means(axis, own, "group", 1.05 ** (j - 1), **style)  # side by side
    axis.set_xscale("log", base=2)
    axis.set(xlabel="rows in a group, as many rows an update", title=title)
    return axis
