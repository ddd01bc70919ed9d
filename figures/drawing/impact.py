"""Panels of the impact study: gains along pretraining, predictions against gains, caps, centres."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from figures.drawing.panels import no_rows
from figures.drawing.style import COLOURS, EXACT, MARKERS
from figures.impact.contest import CRITERION
from figures.impact.numbers import PREDICTORS


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


def peak_told(rows: pd.DataFrame, predictor: str) -> str:
    """Whether a prediction has its peak at the checkpoint from which the mean measured gain is largest; rows of one corpus."""
    tables = [rows[rows["predictor"] == name].set_index("tokens")["measured"] for name in ("measured", predictor)]
    if any(table.empty for table in tables):
        return "no prediction"
    measured, predicted = (table.idxmax() for table in tables)
    if measured == predicted:
        return "peak predicted"
    return f"peak predicted too {'early' if predicted < measured else 'late'}"


def left_out_panel(axis: Any, points: pd.DataFrame, errors: Mapping[str, float]) -> Any:
    """Every measured gain against its prediction from the other trajectories; dashed, where both are equal.

    Args:
        axis: where to draw.
        points: gains as `measured`, predictions as `target`, with the column corpus.
        errors: predictor -> its left-out error; the title has the judged one's beside that of P(1-P).
    """
    own, null = errors.get(CRITERION), errors.get("spread")
    told = "predicted and measured" if own is None else f"left-out error {own:.2f}"
    title = told + (f",\nof {PREDICTORS['spread']} {null:.2f}" if own is not None and null is not None else "")
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
