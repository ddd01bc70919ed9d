"""Pictures of a folder of checkpoints: one pretraining run, and the predicted impact of RL."""

from pathlib import Path
from typing import Any

import pandas as pd

from figures.drawing.frame import add_frame, save
from figures.drawing.impact import known_panel, token_axis
from figures.drawing.style import COLOURS, EXACT, MARKERS, house_style, new_figure
from figures.impact.numbers import PREDICTORS

_PRETRAINING = (
    "Exact answers at every checkpoint of one network. Dashed, the expected return of a policy that has learned the corpus "
    "perfectly: where pretraining tends on the prompts that the corpus shows. Entropy is per step, over its largest value."
)
_OBJECTIVES = (
    "Two networks from one first draw read documents of one corpus: one is paid for the next tokens that it names, one follows "
    "the likelihood. Left, the exact mean of -log P(next token); right, the exact return in the world. Dashed, a policy that "
    "has learned the corpus perfectly."
)
_IMPACT = (
    "Every criterion over its largest value: its highest point is the checkpoint from which it would start RL. All are exact "
    "numbers of the checkpoint before RL. Dashed, the measured gain of exact J, where RL was run (--budget), over its largest."
)
_SKILL_COLOURS = ("costate", "score", "score_value", "control", "score_best", "reference")


@house_style()
def draw_pretraining(table: pd.DataFrame, reader: float, title: str, stem: Path) -> None:
    """The picture of one pretraining run: J, pass@k and entropy; and J by skill."""
    figure = new_figure(4.4)
    left, right = figure.subplots(1, 2)
    parts = [table[["tokens"]].assign(part=name, measured=table[name]) for name in ("J", "pass_at_k", "H")]
    parts.append(pd.DataFrame({"tokens": table["tokens"][:1], "part": "reader", "measured": reader}))
    known_panel(left, pd.concat(parts), "all prompts")
    for i, name in enumerate(name for name in table if name.startswith("skill ")):
        style: dict[str, Any] = {"color": COLOURS[_SKILL_COLOURS[i % 6]], "marker": MARKERS[i % 8], "ms": 4, "lw": 1.2}
        label = f"prompts that begin with token {name.removeprefix('skill ')}"
        right.plot(table["tokens"], table[name], label=label, **style)
    right.axhline(reader, **EXACT)
    right.set(title="by skill", ylabel="J", ylim=(0, 1.05))
    token_axis(right, table["tokens"])
    for axis in (left, right):
        axis.legend(fontsize="small")
    add_frame(figure, title, _PRETRAINING)
    save(figure, stem)


@house_style()
def draw_objectives(table: pd.DataFrame, objective: str, least: float, reader: float, title: str, stem: Path) -> None:
    """The picture of a run that is paid for next tokens beside one that follows the likelihood.

    `least` is the loss and `reader` the return of a policy that has learned the corpus perfectly.
    """
    figure = new_figure(4.4)
    panels = figure.subplots(1, 2)
    looks = ((objective, "", "control", "o"), ("likelihood", "likelihood ", "costate", "s"))
    sides = (("nats", "nats a token", "exact loss of the corpus", least), ("J", "J", "expected return", reader))
    for axis, (column, name, heading, best) in zip(panels, sides, strict=True):
        for label, prefix, colour, marker in looks:
            style: dict[str, Any] = {"color": COLOURS[colour], "marker": marker, "ms": 4, "lw": 1.3}
            axis.plot(table["tokens"], table[prefix + column], label=label, **style)
        axis.axhline(best, label="the corpus learned perfectly", **EXACT)
        axis.set(ylabel=name, title=heading)
        token_axis(axis, table["tokens"])
    panels[1].set_ylim(0, 1.05 * max(1.0, float(table["J"].max())))
    panels[0].legend(fontsize="small")
    add_frame(figure, title, _OBJECTIVES)
    save(figure, stem)


@house_style()
def draw_impact(table: pd.DataFrame, shown: dict[str, str], title: str, stem: Path) -> None:
    """Predictions for a folder of checkpoints, each over its largest, and the measured gain where RL was run.

    `shown` gives predictor -> name of a colour.
    """
    figure = new_figure(4.4)
    axis, at = figure.subplots(), range(len(table))
    for i, (name, colour) in enumerate(shown.items()):
        share = table[name] / max(table[name].max(), 1e-300)
        axis.plot(at, share, MARKERS[i] + "-", color=COLOURS[colour], ms=4, lw=1.2, label=PREDICTORS[name])
    if "gain" in table:
        axis.plot(at, table["gain"] / max(table["gain"].max(), 1e-300), "ko--", ms=5, lw=1.4, label="measured gain")
    axis.set_xticks(at, table["checkpoint"], rotation=30, ha="right", fontsize="small")
    axis.set(ylabel="share of the largest", title="predicted impact of RL")
    axis.legend(fontsize="small")
    add_frame(figure, title, _IMPACT)
    save(figure, stem)
