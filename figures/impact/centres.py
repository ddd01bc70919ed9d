"""Where the gain of RL is centred along pretraining, for every corpus, recipe, group size and budget of the study."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from figures.harness.statistics import Estimate, estimate
from figures.impact.tables import aligned


class Run(NamedTuple):
    """What was run: corpus, recipe, rows of a group, updates of RL."""

    corpus: str
    recipe: str
    group: int
    budget: int


Centres = dict[Run, Float[np.ndarray, "T"]]


def centre(gain: Float[np.ndarray, "T C"], tokens: Float[np.ndarray, "T C"]) -> Float[np.ndarray, "T"]:
    """Centre of the positive gains over log2(tokens), `sum_c g_c log2 n_c / sum_c g_c`, where tokens > 0.

    NaN for a trajectory without any positive gain: it has no centre.
    """
    positive = np.where(tokens > 0, np.clip(gain, 0, None), 0.0)
    total = positive.sum(1)
    weighted = (positive * np.log2(np.where(tokens > 0, tokens, 1.0))).sum(1)
    return np.asarray(np.divide(weighted, total, out=np.full(len(gain), np.nan), where=total > 0))


def centres_of(study: pd.DataFrame) -> Centres:
    """Centre of every trajectory, in log2 tokens; a recipe's own group size comes before its others."""
    gains, centres = study[study["kind"] == "gain"], Centres()
    for recipe, group, budget in gains[["recipe", "group", "budget"]].drop_duplicates().itertuples(index=False):
        runs = aligned(study, recipe, group, budget)
        for corpus in runs.corpora:
            own = runs.of(corpus)
            centres[Run(corpus, recipe, int(group), int(budget))] = centre(own.gain, own.tokens)
    return centres


def own_group(centres: Centres, recipe: str) -> int:
    """The group size that a recipe is judged at: its first."""
    return next(run.group for run in centres if run.recipe == recipe)


def mean_centre(centres: Float[np.ndarray, "T"]) -> Estimate | None:
    """Mean over the trajectories that have a centre; None for fewer than two of them."""
    finite = centres[np.isfinite(centres)]
    return estimate(finite) if len(finite) > 1 else None
