"""From the rows of the impact study to aligned arrays: T trajectories, C checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from envs.world import InputError

_WHO = ["corpus", "run", "trajectory"]
CLEAN = "clean"


@dataclass(frozen=True)
class Runs:
    """Gains of one recipe, group size and budget, and what was known before; `corpus` (T,) are names."""

    gain: Float[np.ndarray, "T C"]
    known: dict[str, Float[np.ndarray, "T C"]]
    corpus: np.ndarray
    tokens: Float[np.ndarray, "T C"]

    def of(self, corpus: str) -> "Runs":
        """The trajectories on one corpus."""
        keep = self.corpus == corpus
        return Runs(self.gain[keep], {k: x[keep] for k, x in self.known.items()}, self.corpus[keep], self.tokens[keep])


def corpus_names(rows: pd.DataFrame) -> pd.Series:
    """`clean`, or what is different from that: "quality 0.5", "noise 0.2", "coverage 0.6".

    Where a study has several widths or several sets of skills these are named too, if they are not the plain ones.
    """
    plain = {"quality": 1.0, "noise": 0.0, "coverage": 1.0, "width": 16, "names": "say,copy,add"}
    told = [field for field in plain if field not in ("width", "names") or rows[field].nunique() > 1]
    said = [
        rows[field].map(lambda value, f=field: "" if value == plain[f] else f"{f} {value}".removeprefix("names "))
        for field in told
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
    named = rows.assign(corpus=corpus_names(rows))
    gains, points = named.loc[gains.index], named[named["kind"] == "checkpoint"]
    table = gains.pivot(index=_WHO, columns="checkpoint", values="gain")
    if table.isna().any(axis=None):
        raise InputError("trajectories have different numbers of checkpoints: keep `checkpoints` alike in a study")
    points = points.set_index(_WHO)
    given = {name: _square(points, name, table.index) for name in ("tokens", *known)}
    corpus = table.index.get_level_values("corpus").to_numpy()
    return Runs(table.to_numpy(), {name: given[name] for name in known}, corpus, given["tokens"])


def _square(points: pd.DataFrame, column: str, who: pd.Index) -> Float[np.ndarray, "T C"]:
    """A column of what was known, a row for each trajectory."""
    table = points.pivot(columns="checkpoint", values=column)
    return table.loc[who].to_numpy(dtype=np.float64)


def peak_of_the_others(gain: Float[np.ndarray, "T C"]) -> np.ndarray:
    """(T,) For each trajectory the checkpoint where the mean gain of all others is largest: no number chooses itself."""
    others = gain.sum(0) - gain
    return np.asarray(others.argmax(1))


def centre(gain: Float[np.ndarray, "T C"], tokens: Float[np.ndarray, "T C"]) -> Float[np.ndarray, "T"]:
    """Centre of the positive gains over log2(tokens), `sum_c g_c log2 n_c / sum_c g_c`, where tokens > 0.

    NaN for a trajectory that RL gains nothing from anywhere: it has no centre.
    """
    positive = np.where(tokens > 0, np.clip(gain, 0, None), 0.0)
    total = positive.sum(1)
    weighted = (positive * np.log2(np.where(tokens > 0, tokens, 1.0))).sum(1)
    return np.asarray(np.divide(weighted, total, out=np.full(len(gain), np.nan), where=total > 0))
