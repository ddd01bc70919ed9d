"""The signal is capped by the spread of rewards: Cauchy-Schwarz with the Fisher matrix, along pretraining."""

from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.caps import draw_caps
from figures.drawing.panels import with_columns
from figures.harness.claim import Part
from figures.harness.rows import Row, at_least, at_most, report
from figures.harness.statistics import estimate
from figures.impact.runs import claim_on_runs
from figures.impact.tables import CLEAN, corpus_names, peak_of_the_others, two_corpora

KEPT, BARE, ATTAINED, MOVES = "the cap is kept", "sd(R) alone is a cap", "the cap is attained", "the alignment moves"
_CURVES = ("costate", "cap", "sd", "alignment")


def derive(study: pd.DataFrame) -> list[Row]:
    """The largest alignment over prompts at every checkpoint; the means along pretraining."""
    points = study[study["kind"] == "checkpoint"].reset_index(drop=True)
    points = points.assign(corpus=corpus_names(points))
    rows: list[Row] = []
    for corpus, own in points.groupby("corpus", sort=False):
        for label, point in own.iterrows():
            labels = {"corpus": corpus, "tokens": int(point["tokens"]), "point": int(label)}
            rows += at_most(KEPT, point["largest_alignment"], 1.0, tolerance=1e-9, labels=labels)
            rows += at_least(ATTAINED, point["alignment"], 0.95, labels=labels)
        rows += at_most(BARE, own["over_sd"].max(), 1.0, judged=corpus == CLEAN, labels={"corpus": corpus})
        rows += _course(own, str(corpus))
    return rows


def _course(points: pd.DataFrame, corpus: str) -> list[Row]:
    """Means over trajectories, and how much higher the alignment is at its peak than at the first draw."""
    rows: list[Row] = []
    for tokens, here in points.groupby("tokens"):
        for name in _CURVES:
            rows += report(name, estimate(here[name].to_numpy()), labels={"corpus": corpus, "tokens": int(tokens)})
    table = points.pivot(index=["run", "trajectory"], columns="checkpoint", values="alignment").to_numpy()
    best = table[np.arange(len(table)), peak_of_the_others(table)]
    return rows + at_least(MOVES, estimate(best - table[:, 0]), 0.1, labels={"corpus": corpus})


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Signal under its cap along pretraining, a panel for every corpus, and how much of the cap is used."""
    rows = with_columns(rows, "tokens")
    draw_caps(figure, rows, two_corpora(list(dict.fromkeys(rows["corpus"]))), KEPT)


CLAIM = claim_on_runs(
    name="signal_cap",
    statement="The signal at a prompt is capped by the spread of its rewards",
    formula=r"\|\nabla_h V\| \le \mathrm{sd}(R)\,\sqrt{\lambda_{\max}(F_h)},\qquad F_h = E[s s^{\top}],\quad "
    r"s = \sum_t \nabla_h \log\pi(c_t)",
    source="Cauchy-Schwarz on grad_h V = E[(R - V) s]; theory page section 5",
    must_hold="at every prompt of every checkpoint, exact (tolerance 1e-9); the mean alignment (signal over cap) is "
    "higher by 0.1 at its highest than at the first draw",
    must_fail="sd(R) alone is a cap (clean corpus); the cap is attained (mean alignment 0.95)",
    how_to_read="Left and middle, the size of the expected costate at the prompt (points) under its cap (dashed), means over "
    "prompts and trajectories: where success is rare, or sure, rewards have no spread and there is no signal. Right, the "
    "share of the cap that is used: the mean (lines) rises as the network learns to read the prompt, so the signal is not the "
    "spread of rewards alone; small dots are the largest prompt of each checkpoint, which must not be above 1.",
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
