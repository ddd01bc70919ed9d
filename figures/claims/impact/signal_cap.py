"""The signal is capped by the spread of rewards: Cauchy-Schwarz with the Fisher matrix, along pretraining."""

from typing import Any

import numpy as np
import pandas as pd

from figures.harness.claim import Row, compare
from figures.harness.statistics import estimate
from figures.impact.runs import claim_on_runs
from figures.impact.tables import corpus_names

KEPT, BARE, ATTAINED, MOVES = "the cap is kept", "sd(R) alone is a cap", "the cap is attained", "the alignment moves"
_CURVES = {"costate": "|E costate|", "cap": "cap", "sd": "sd(R)", "alignment": "alignment"}


def derive(rows: pd.DataFrame) -> list[Row]:
    """The largest and the smallest alignment over prompts at every checkpoint; the means along pretraining."""
    points = rows[rows["kind"] == "checkpoint"].reset_index(drop=True)
    points = points.assign(corpus=corpus_names(points))
    found: list[Row] = []
    for corpus, one in points.groupby("corpus", sort=False):
        for label, point in one.iterrows():
            labels = {"corpus": corpus, "tokens": int(point["tokens"]), "point": int(label)}
            found += compare(KEPT, point["largest_alignment"], 1.0, relation="<=", tolerance=1e-9, labels=labels)
            found += compare(ATTAINED, point["alignment"], 0.95, relation=">=", labels=labels)
        found += compare(BARE, one["over_sd"].max(), 1.0, relation="<=" if corpus == "clean" else "report",
                         labels={"corpus": corpus})  # fmt: skip
        found += _course(one, str(corpus))
    return found


def _course(points: pd.DataFrame, corpus: str) -> list[Row]:
    """Means over trajectories, and how far alignment is higher at its peak than at the first draw."""
    found: list[Row] = []
    for tokens, here in points.groupby("tokens"):
        for name in _CURVES:
            mean = estimate(here[name].to_numpy())
            found += compare(name, mean.mean, 0.0, mean.standard_error, mean.samples, relation="report",
                             labels={"corpus": corpus, "tokens": int(tokens)})  # fmt: skip
    table = points.pivot(index=["run", "trajectory"], columns="checkpoint", values="alignment").to_numpy()
    best = table[np.arange(len(table)), (table.sum(0) - table).argmax(1)]  # placed by the other trajectories
    rise = estimate(best - table[:, 0])
    return found + compare(
        MOVES, rise.mean, 0.1, rise.standard_error, rise.samples, relation=">=", labels={"corpus": corpus}
    )


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Signal under its cap, and the alignment, along pretraining."""
    from figures.drawing.impact import cap_panel, token_axis
    from figures.drawing.style import COLOURS, EXACT, MARKERS

    left, right = figure.subplots(1, 2)
    corpora = [name for name in ("clean", "quality 0.5") if name in set(rows["corpus"])]
    for i, corpus in enumerate(corpora or list(dict.fromkeys(rows["corpus"]))[:2]):
        here, colour = rows[rows["corpus"] == corpus], COLOURS[("costate", "score")[i]]
        cap_panel(left, here, colour, corpus)
        mean = here[here["part"] == "alignment"].sort_values("tokens")
        right.errorbar(mean["tokens"], mean["measured"], 2 * mean["standard_error"], fmt=MARKERS[i] + "-", color=colour,
                       ms=4.5, capsize=2, label=f"{corpus}, mean over prompts")  # fmt: skip
        each = here[here["part"] == KEPT]
        right.plot(
            each["tokens"], each["measured"], ".", color=colour, ms=3, alpha=0.5, label=f"{corpus}, largest prompt"
        )
    right.axhline(1, **EXACT, label="the cap")
    right.set_yticks([0, 0.25, 0.5, 0.75, 1])
    right.set(ylabel="alignment |E costate| / cap", title="how much of the cap is used", ylim=(0, 1.5))
    for axis in (left, right):
        token_axis(axis, rows["tokens"].dropna())  # of all corpora: one of them reads on
        axis.legend(loc="upper left", fontsize=8)


CLAIM = claim_on_runs(
    name="signal_cap",
    statement="The signal at a prompt is capped by the spread of its rewards",
    formula=r"\|\nabla_h V\| \le \mathrm{sd}(R)\,\sqrt{\lambda_{\max}(F_h)},\qquad F_h = E[s s^{\top}],\quad "
    r"s = \sum_t \nabla_h \log\pi(c_t)",
    source="Cauchy-Schwarz on grad_h V = E[(R - V) s]; theory page section 5",
    must_hold="at every prompt of every checkpoint, exact (tolerance 1e-9); the alignment (signal over cap) is higher "
    "by 0.1 at its highest than at the first draw",
    must_fail="sd(R) alone is a cap (clean corpus); the cap is attained (mean alignment 0.95)",
    how_to_read="Left, the size of the expected costate at the prompt (points) under its cap (dashed), means over "
    "prompts and trajectories: where success is rare, or sure, rewards have no spread and there is no signal. Right, "
    "the share of the cap that is used: it rises from a tenth to a half or more as the network learns to read the "
    "prompt, so the signal is not the spread of rewards alone; no prompt (dots: the largest of each checkpoint) is "
    "above 1.",
    parts=(
        Part(KEPT, "claim", "holds"),
        Part(MOVES, "claim", "holds"),
        Part(BARE, "control", "fails"),
        Part(ATTAINED, "control", "fails"),
    ),
    draw=draw,
    height=5.5,
    derive=derive,
)
