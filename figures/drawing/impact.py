"""Drawings of the impact law: gains along pretraining, and the table of predictors as dots."""

from typing import Any

import pandas as pd

from figures.drawing.style import COLOURS, EXACT, MARKERS, add_caption, house_style, new_figure, save
from figures.impact.numbers import PREDICTORS

_KIND_COLOURS = ("score_value", "costate", "score", "control", "score_best")
_PRETRAINING = (
    "Exact answers at every checkpoint of one network. Dashed, the expected return of a reader that has learned the corpus "
    "perfectly: where pretraining tends on the prompts that it shows. Entropy is per step, over its largest value."
)
_IMPACT = (
    "Every criterion over its largest value: its highest point is the checkpoint that it would start RL from. All are exact "
    "numbers of the checkpoint before RL. Dashed, the measured gain of exact J, where RL was run (--budget), over its largest."
)
_REFERENCE = {"left-out error": 1.0, "gain of its choice": 1.0}  # the mean gain alone; the best checkpoint


def token_axis(axis: Any, tokens: Any) -> Any:
    """Logarithmic tokens, with the first draw (0 tokens) at the left edge."""
    axis.set_xscale("symlog", linthresh=sorted(set(tokens))[1], linscale=0.5)
    axis.set_xlim(0, 1.15 * max(tokens))
    axis.set_xlabel("tokens of pretraining")
    return axis


def curves_panel(axis: Any, rows: pd.DataFrame, predictors: dict[str, str], title: str) -> Any:
    """Measured gain with two standard errors, predictions as lines; rows of one corpus."""
    seen = rows[rows["predictor"] == "measured"].sort_values("tokens")
    axis.errorbar(seen["tokens"], seen["measured"], 2 * seen["standard_error"], fmt="o", color="black", ms=4, capsize=2,
                  label="measured gain", zorder=3)  # fmt: skip
    for name, colour in predictors.items():
        one = rows[rows["predictor"] == name].sort_values("tokens")
        axis.plot(one["tokens"], one["measured"], color=COLOURS[colour], lw=1.5, label=PREDICTORS[name])
    axis.axhline(0, color="0.6", lw=0.8)
    axis.set(ylabel="gain of exact J", title=title)
    return token_axis(axis, rows["tokens"])


def scores_panel(
    figure: Any, place: Any, rows: pd.DataFrame, scores: list[str], kinds: dict[str, dict[str, str]]
) -> None:
    """One column of dots a score, one line a predictor, best left-out error on top; bars are two standard errors."""
    order = rows[rows["part"] == "left-out error"].sort_values("measured", ascending=False)["predictor"].tolist()
    axes = place.subgridspec(1, len(scores)).subplots(sharey=True)
    for axis, score in zip(axes, scores, strict=True):
        table = rows[rows["part"] == score].set_index("predictor").loc[order]
        for i, (kind, names) in enumerate(kinds.items()):
            at = [order.index(name) for name in names if name in order]
            one = table.iloc[at]
            axis.errorbar(one["measured"], at, xerr=2 * one["standard_error"], fmt=MARKERS[i], ms=4.5, capsize=1.5, lw=1,
                          color=COLOURS[_KIND_COLOURS[i]], label=kind)  # fmt: skip
        if score in _REFERENCE:
            axis.axvline(_REFERENCE[score], **EXACT)
        axis.set(title=score, ylim=(-0.7, len(order) - 0.3))
        axis.tick_params(labelsize=8)
    axes[0].set_yticks(range(len(order)), [PREDICTORS[name] for name in order], fontsize=8)
    axes[-1].legend(loc="upper left", fontsize=7.5)


def known_panel(axis: Any, rows: pd.DataFrame, title: str) -> Any:
    """What pretraining alone does: J and pass@8, the entropy over its largest value; dashed, J of a perfect reader."""
    shown = (("J", "J", "costate"), ("pass_at_k", "pass@8", "score"), ("H", "H / H0", "reference"))
    for i, (part, name, colour) in enumerate(shown):
        one = rows[rows["part"] == part].sort_values("tokens")
        size = one["measured"].max() if part == "H" else 1.0
        axis.plot(
            one["tokens"], one["measured"] / size, MARKERS[i] + "-", color=COLOURS[colour], ms=4, lw=1.2, label=name
        )
    axis.axhline(rows.loc[rows["part"] == "reader", "measured"].iloc[0], label="perfect reader", **EXACT)
    axis.set(title=title, ylabel="before RL", ylim=(0, 1.05))
    return token_axis(axis, rows["tokens"].dropna())


def gain_lines(axis: Any, rows: pd.DataFrame, by: str, title: str) -> Any:
    """Mean gains with two standard errors, a line for every value of the column `by`; the exact gradient's dashed."""
    colours = [COLOURS[key] for key in ("costate", "score", "score_value", "control")]
    for i, (value, one) in enumerate(rows.groupby(by, sort=False)):
        one = one.sort_values("tokens")
        exact = str(value).startswith("exact")
        line = (
            {**EXACT, "color": "black" if "Adam" in str(value) else "0.5"}
            if exact
            else {"color": colours[i], "lw": 1.2}
        )
        axis.errorbar(one["tokens"], one["measured"], 2 * one["standard_error"], marker=MARKERS[i], ms=4, capsize=1.5,
                      label=f"{value:.0f}" if by == "budget" else str(value), **line)  # fmt: skip
    axis.axhline(0, color="0.6", lw=0.8)
    axis.set(ylabel="gain of exact J", title=title)
    return token_axis(axis, rows["tokens"])


def cap_panel(axis: Any, rows: pd.DataFrame, colour: Any, name: str) -> Any:
    """The signal (points) under its cap (dashed), means over prompts and trajectories."""
    for part, style in (("costate", {"marker": "o", "ms": 4, "lw": 1}), ("cap", {"ls": "--", "lw": 1.4})):
        one = rows[rows["part"] == part].sort_values("tokens")
        axis.errorbar(one["tokens"], one["measured"], 2 * one["standard_error"], color=colour, capsize=2,
                      label=f"{name}: " + {"costate": "signal", "cap": "its cap"}[part], **style)  # fmt: skip
    axis.set(ylabel="|E costate| at the prompt, and its cap", title="signal and cap")
    return token_axis(axis, rows["tokens"].dropna())


@house_style()
def draw_pretraining(table: pd.DataFrame, reader: float, title: str, stem: Any) -> None:
    """The picture of one pretraining run: J, pass@k and entropy; and J by skill."""
    figure = new_figure(4.4)
    left, right = figure.subplots(1, 2)
    parts = [table[["tokens"]].assign(part=name, measured=table[name]) for name in ("J", "pass_at_k", "H")]
    parts.append(pd.DataFrame({"tokens": table["tokens"][:1], "part": "reader", "measured": reader}))
    known_panel(left, pd.concat(parts), "all prompts")
    colours = [COLOURS[key] for key in ("costate", "score", "score_value", "control", "score_best", "reference")]
    for i, name in enumerate(name for name in table if name.startswith("skill ")):
        style = {"color": colours[i % 6], "marker": MARKERS[i % 8], "ms": 4, "lw": 1.2}
        right.plot(
            table["tokens"], table[name], label=f"prompts that begin with token {name.removeprefix('skill ')}", **style
        )
    right.axhline(reader, **EXACT)
    right.set(title="by skill", ylabel="J", ylim=(0, 1.05))
    token_axis(right, table["tokens"])
    for axis in (left, right):
        axis.legend(fontsize=8)
    add_caption(figure, title, _PRETRAINING)
    save(figure, stem)


@house_style()
def draw_impact(table: pd.DataFrame, shown: dict[str, str], title: str, stem: Any) -> None:
    """Predictions for a folder of checkpoints, each over its largest, and the measured gain where RL was run."""
    figure = new_figure(4.4)
    axis, at = figure.subplots(), range(len(table))
    for i, (name, colour) in enumerate(shown.items()):
        share = table[name] / max(table[name].max(), 1e-300)
        axis.plot(at, share, MARKERS[i] + "-", color=COLOURS[colour], ms=4, lw=1.2, label=PREDICTORS[name])
    if "gain" in table:
        axis.plot(at, table["gain"] / max(table["gain"].max(), 1e-300), "ko--", ms=5, lw=1.4, label="measured gain")
    axis.set_xticks(at, table["checkpoint"], rotation=30, ha="right", fontsize=8)
    axis.set(ylabel="share of the largest", title="predicted impact of RL")
    axis.legend(fontsize=8)
    add_caption(figure, title, _IMPACT)
    save(figure, stem)
