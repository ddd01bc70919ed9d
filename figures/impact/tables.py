"""From the rows of the impact study to aligned arrays: T trajectories, C checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from envs.world import InputError
from figures.harness.rows import Row

CLEAN, HALF_GUESSED = "clean", "quality 0.5"  # the two corpora that every preset has
_TRAJECTORY = ["corpus", "run", "trajectory"]
_PLAIN = {"quality": 1.0, "noise": 0.0, "coverage": 1.0, "width": 16, "names": "say,copy,add"}
_FLAWS = ("quality", "noise", "coverage")


@dataclass(frozen=True)
class Runs:
    """One recipe at one group size and one budget, in T trajectories from C checkpoints each.

    Attributes:
        gain: exact gain of RL from every checkpoint.
        known: name -> what was known of every checkpoint before RL.
        corpus: (T,) name of each trajectory's corpus.
        tokens: tokens read in pretraining.
    """

    gain: Float[np.ndarray, "T C"]
    known: dict[str, Float[np.ndarray, "T C"]]
    corpus: np.ndarray
    tokens: Float[np.ndarray, "T C"]

    @property
    def corpora(self) -> list[str]:
        """Names of the corpora, each once."""
        return list(dict.fromkeys(self.corpus))

    def of(self, corpus: str) -> "Runs":
        """The trajectories on one corpus."""
        keep = self.corpus == corpus
        known = {name: values[keep] for name, values in self.known.items()}
        return Runs(self.gain[keep], known, self.corpus[keep], self.tokens[keep])


def corpus_names(rows: pd.DataFrame) -> pd.Series:
    """Name of the corpus of every row: `clean`, or what differs from that ("quality 0.5", "noise 0.2", "coverage 0.6").

    Where a study has several widths or several sets of skills, those that are not the plain ones are named too.
    """
    fields = [field for field in _PLAIN if field in _FLAWS or rows[field].nunique() > 1]
    kinds = list(rows[fields].itertuples(index=False, name=None))
    names = {kind: _name(dict(zip(fields, kind, strict=True))) for kind in set(kinds)}
    return pd.Series([names[kind] for kind in kinds], index=rows.index)


def _name(fields: dict[str, object]) -> str:
    differences = {field: value for field, value in fields.items() if value != _PLAIN[field]}
    return ", ".join(f"{field} {value}".removeprefix("names ") for field, value in differences.items()) or CLEAN


def with_shared_fields(rows: list[Row], study: pd.DataFrame, fields: Sequence[str]) -> list[Row]:
    """Derived rows with the fields that all points behind a row have alike: those of its corpus, or of the whole study.

    Args:
        rows: derived from the study.
        study: its rows, with the fields of their settings as columns.
        fields: names of these columns; those that the study lacks are left out.
    """
    names = [name for name in fields if name in study]
    kinds = study[names].assign(corpus=corpus_names(study)).drop_duplicates()
    groups = {None: kinds, **dict(iter(kinds.groupby("corpus")))}
    shared = {
        corpus: {name: group[name].iloc[0] for name in names if group[name].nunique(dropna=False) == 1}
        for corpus, group in groups.items()
    }
    return [{**row, **{k: v for k, v in shared[row.get("corpus")].items() if k not in row}} for row in rows]


def teaches_all(corpus: str) -> bool:
    """Whether a corpus of that name has no wrong answer, no slip and no gap."""
    return not any(flaw in corpus for flaw in _FLAWS)


def two_corpora(names: Sequence[str]) -> list[str]:
    """The corpora that are drawn: the clean and the half-guessed one, or the first two where the study has neither."""
    return [name for name in (CLEAN, HALF_GUESSED) if name in names] or list(names[:2])


def was_run(rows: pd.DataFrame, *recipes: str) -> list[str]:
    """Those of the recipes that the study holds."""
    return [recipe for recipe in recipes if (rows["recipe"] == recipe).any()]


def budgets_of(rows: pd.DataFrame, recipe: str) -> list[float]:
    """Budgets of RL that a recipe was run with, in updates, the smallest first."""
    return sorted(rows.loc[rows["recipe"] == recipe, "budget"].dropna().unique())


def aligned(
    rows: pd.DataFrame, recipe: str, group: int | None = None, budget: float | None = None, known: Sequence[str] = ()
) -> Runs:
    """The runs of a recipe, with some columns of what was known before RL.

    Args:
        rows: of the study.
        recipe: name of the recipe.
        group: rows of a group; by default the first that the recipe was run with.
        budget: updates of RL; by default the largest.
        known: names of columns of the rows of kind "checkpoint".

    Raises:
        InputError: no run is of that kind, or trajectories have different numbers of checkpoints.
    """
    gains = rows[(rows["kind"] == "gain") & (rows["recipe"] == recipe)]
    gains = gains[gains["group"] == (gains["group"].iloc[0] if group is None and len(gains) else group)]
    gains = gains[gains["budget"] == (gains["budget"].max() if budget is None else budget)]
    if gains.empty:
        raise InputError(f"recipe {recipe!r} with group {group} and budget {budget} was not run in this study")
    named = rows.assign(corpus=corpus_names(rows))
    table = named.loc[gains.index].pivot(index=_TRAJECTORY, columns="checkpoint", values="gain")
    if table.isna().any(axis=None):
        raise InputError("trajectories have different numbers of checkpoints: keep `checkpoints` alike in a study")
    names = ["tokens", *known]
    points = named[named["kind"] == "checkpoint"].pivot(index=_TRAJECTORY, columns="checkpoint", values=names)
    columns = points.loc[table.index].to_numpy(dtype=np.float64).reshape(len(table), len(names), -1)
    tokens, *numbers = columns.swapaxes(0, 1)
    corpus = table.index.get_level_values("corpus").to_numpy()
    return Runs(table.to_numpy(), dict(zip(known, numbers, strict=True)), corpus, tokens)


def peak_of_the_others(gain: Float[np.ndarray, "T C"]) -> np.ndarray:
    """(T,) For each trajectory the checkpoint where the mean gain of all other trajectories is largest.

    No gain takes part in choosing the checkpoint at which it is read, so noise does not favour the peak.
    """
    others = gain.sum(0) - gain
    return np.asarray(others.argmax(1))
