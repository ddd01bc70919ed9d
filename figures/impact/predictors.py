"""How well a number known before RL foretells the gain: four scores, each with a bootstrap over trajectories.

Arrays are (T, C): T trajectories, C checkpoints each. A resample draws trajectories with replacement within each corpus, since
checkpoints of one trajectory are not independent; all predictors see the same resamples, so their differences are paired.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from envs.world import InputError

Array = np.ndarray
Score = Callable[[Float[Array, "T C"], Float[Array, "T C"], Int[Array, "B T"]], Float[Array, "B"]]


def rank_correlation(x: Float[Array, "T C"], y: Float[Array, "T C"], draws: Int[Array, "B T"]) -> Float[Array, "B"]:
    """Spearman's rank correlation over all checkpoints of the trajectories drawn; 0 where one of the two is constant."""
    return _correlation(*(rankdata(z[draws].reshape(len(draws), -1), axis=1) for z in (x, y)))


def _correlation(x: Array, y: Array) -> Array:
    x, y = (z - z.mean(-1, keepdims=True) for z in (x, y))
    size = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    return np.divide((x * y).sum(-1), size, out=np.zeros_like(size), where=size > 0)


def within_correlation(x: Float[Array, "T C"], y: Float[Array, "T C"], draws: Int[Array, "B T"]) -> Float[Array, "B"]:
    """Spearman's rank correlation within each trajectory, in the mean over those drawn."""
    each = _correlation(rankdata(x, axis=1), rankdata(y, axis=1))
    return each[draws].mean(1)


def left_out_error(x: Float[Array, "T C"], y: Float[Array, "T C"], draws: Int[Array, "B T"]) -> Float[Array, "B"]:
    """Root mean square error of `y = a x + b`, fitted to all other trajectories, over that of their mean gain alone.

    Below 1 the predictor says something of a trajectory that it has not seen. All copies of the trajectory that is left out
    are left out with it; a draw of one trajectory only has nothing to fit and counts as 1.
    """
    x = (x - x.mean()) / max(float(x.std()), 1e-300)
    sums = np.stack([np.full(len(x), x.shape[1]), x.sum(1), y.sum(1), (x * x).sum(1), (x * y).sum(1), (y * y).sum(1)])
    times = np.stack([(draws == t).sum(1) for t in range(len(x))], 1)  # (B, T)
    rest = (times @ sums.T)[:, None] - times[..., None] * sums.T  # (B, T, 6): what the others add up to
    n, sx, sy, sxx, sxy, _ = np.moveaxis(rest, -1, 0)
    known = n > 0
    n = np.where(known, n, 1)
    spread = sxx - sx * sx / n
    slope = np.where(spread > 1e-12 * n, (sxy - sx * sy / n) / np.where(spread > 1e-12 * n, spread, 1), 0.0)
    error, flat = (_squares(sums, a, (sy - a * sx) / n) for a in (slope, np.zeros_like(slope)))
    weight = times * known
    total = (weight * flat).sum(1)
    return np.sqrt(np.divide((weight * error).sum(1), total, out=np.ones(len(draws)), where=total > 0))


def _squares(sums: Float[Array, "6 T"], a: Float[Array, "B T"], b: Float[Array, "B T"]) -> Float[Array, "B T"]:
    """`sum (y - a x - b)^2` of every trajectory."""
    n, sx, sy, sxx, sxy, syy = sums
    return np.maximum(syy - 2 * a * sxy - 2 * b * sy + a * a * sxx + 2 * a * b * sx + b * b * n, 0.0)


def chosen_share(x: Float[Array, "T C"], y: Float[Array, "T C"], draws: Int[Array, "B T"]) -> Float[Array, "B"]:
    """Gain from the checkpoints of largest x over that from the best ones, both summed over the trajectories drawn.

    1 where nothing is to be gained anywhere.
    """
    got, best = (z[draws].sum(1) for z in (y[np.arange(len(y)), x.argmax(1)], y.max(1)))
    return np.divide(got, best, out=np.ones(len(draws)), where=best > 0)


SCORES: dict[str, Score] = {
    "rank correlation": rank_correlation,
    "within trajectories": within_correlation,
    "left-out error": left_out_error,
    "gain of its choice": chosen_share,
}


@dataclass(frozen=True)
class Scored:
    """A score of every predictor on the trajectories themselves, and on B resamples."""

    value: dict[str, float]
    resampled: dict[str, Float[Array, "B"]]

    def difference(self, one: str, other: str) -> tuple[float, float]:
        """`value[one] - value[other]` and its bootstrap standard error."""
        spread = self.resampled[one] - self.resampled[other]
        return self.value[one] - self.value[other], float(spread.std(ddof=1))

    def of(self, one: str) -> tuple[float, float]:
        """A value and its bootstrap standard error."""
        return self.value[one], float(self.resampled[one].std(ddof=1))


def resamples(groups: Int[Array, "T"], count: int, rng: np.random.Generator) -> Int[Array, "B T"]:
    """Trajectories drawn with replacement within each group. Raises InputError for a group of one: it has no spread."""
    draws = np.empty((count, len(groups)), dtype=np.int64)
    for name in np.unique(groups):
        members = np.flatnonzero(groups == name)
        if len(members) < 2:
            raise InputError("seeds must be >= 2 for every corpus: one trajectory has no spread")
        draws[:, members] = rng.choice(members, (count, len(members)))
    return draws


def score_all(
    predictors: Mapping[str, Float[Array, "T C"]], gain: Float[Array, "T C"], draws: Int[Array, "B T"], score: Score
) -> Scored:
    """One score of every predictor, on all trajectories once each and on the resamples."""
    whole = np.arange(len(gain))[None]
    value = {name: float(score(x, gain, whole)[0]) for name, x in predictors.items()}
    return Scored(value, {name: score(x, gain, draws) for name, x in predictors.items()})


def left_out_prediction(x: Float[Array, "T C"], y: Float[Array, "T C"]) -> Float[Array, "T C"]:
    """`a x + b` for every trajectory, a and b by least squares on all others."""
    found = np.empty_like(y)
    for t in range(len(x)):
        others = np.arange(len(x)) != t
        found[t] = np.polyval(np.polyfit(x[others].ravel(), y[others].ravel(), 1), x[t])
    return found
