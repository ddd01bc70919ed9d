"""From the rows of the impact study to aligned arrays: T trajectories, C checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from envs.world import InputError

_WHO = ["corpus", "block", "trajectory"]
CLEAN = "clean"


@dataclass(frozen=True)
class Runs:
    """Gains of one recipe, group size and budget, and what was known before; `corpus` (T,) are names, `tokens` (C,)."""

    gain: Float[np.ndarray, "T C"]
    known: dict[str, Float[np.ndarray, "T C"]]
    corpus: np.ndarray
    tokens: np.ndarray

    def of(self, corpus: str) -> "Runs":
        """The trajectories on one corpus."""
        keep = self.corpus == corpus
        return Runs(self.gain[keep], {k: x[keep] for k, x in self.known.items()}, self.corpus[keep], self.tokens)


def corpus_names(rows: pd.DataFrame) -> pd.Series:
    """`clean`, or what is different from that: "quality 0.5", "noise 0.2", "coverage 0.6", "width 32", other skills."""
    plain = {"quality": 1.0, "noise": 0.0, "coverage": 1.0, "width": 16, "names": "say,copy,add"}
    said = [
        rows[field].map(lambda value, f=field: "" if value == plain[f] else f"{f} {value}".removeprefix("names "))
        for field in plain
    ]
    joined = pd.concat(said, axis=1).apply(lambda row: ", ".join(x for x in row if x), axis=1)
    return joined.where(joined != "", CLEAN)


def teaches_all(corpus: str) -> bool:
    """Whether a corpus of that name has no wrong answer, no slip and no gap."""
    return not any(field in corpus for field in ("quality", "noise", "coverage"))


def was_run(rows: pd.DataFrame, *recipes: str) -> list[str]:
    """Those of the recipes that the study holds."""
    return [recipe for recipe in recipes if (rows["recipe"] == recipe).any()]


def aligned(
    rows: pd.DataFrame, recipe: str, group: int | None = None, budget: int | None = None, known: Sequence[str] = ()
) -> Runs:
    """The runs of a recipe, with some columns of what was known; by default at its first group size and its largest budget.

    Raises InputError where no run is of that kind, or where trajectories have different checkpoints.
    """
    gains = rows[(rows["kind"] == "gain") & (rows["recipe"] == recipe)]
    gains = gains[(gains["group"] == (gains["group"].iloc[0] if group is None and len(gains) else group))]
    gains = gains[gains["budget"] == (gains["budget"].max() if budget is None else budget)]
    if gains.empty:
        raise InputError(f"recipe {recipe!r} with group {group} and budget {budget} was not run in this study")
    gains = gains.assign(corpus=corpus_names(gains))
    table = gains.pivot(index=_WHO, columns="tokens", values="gain")
    if table.isna().any(axis=None):
        raise InputError("trajectories have different checkpoints: keep `updates` and `checkpoints` alike in a study")
    points = rows[rows["kind"] == "checkpoint"]
    points = points.assign(corpus=corpus_names(points))
    given = {name: points.pivot(index=_WHO, columns="tokens", values=name).loc[table.index] for name in known}
    arrays = {name: frame.to_numpy(dtype=np.float64) for name, frame in given.items()}
    corpus = table.index.get_level_values("corpus").to_numpy()
    return Runs(table.to_numpy(), arrays, corpus, table.columns.to_numpy())


def peak_of_the_others(gain: Float[np.ndarray, "T C"]) -> np.ndarray:
    """(T,) For each trajectory the checkpoint where the mean gain of all others is largest: no number chooses itself."""
    others = gain.sum(0) - gain
    return np.asarray(others.argmax(1))


def centre(gain: Float[np.ndarray, "T C"], tokens: Float[np.ndarray, "C"]) -> Float[np.ndarray, "T"]:
    """Centre of the positive gains over log2(tokens), `sum_c g_c log2 n_c / sum_c g_c`, where tokens > 0."""
    keep = tokens > 0
    positive = np.clip(gain[:, keep], 0, None)
    return np.asarray(positive @ np.log2(tokens[keep]) / positive.sum(1))
