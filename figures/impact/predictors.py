"""How well a number known before RL predicts the gain: four scores, each with a bootstrap over trajectories.

Arrays are (T, C): T trajectories, C checkpoints each. A resample draws trajectories with replacement within each corpus, since
checkpoints of one trajectory are not independent; all predictors see the same resamples, so their differences are paired.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from envs.world import InputError
from figures.harness.statistics import Estimate

Array = np.ndarray
Score = Callable[[Float[Array, "T C"], Float[Array, "T C"], Int[Array, "B T"]], Float[Array, "B"]]


def rank_correlation(x: Float[Array, "T C"], y: Float[Array, "T C"], draws: Int[Array, "B T"]) -> Float[Array, "B"]:
    """Spearman's rank correlation over all checkpoints of the trajectories drawn; 0 where one of the two is constant."""
    weights = _times(draws, len(x)).repeat(x.shape[1], 1)
    ranks = [_weighted_ranks(z.ravel(), weights) - (draws.shape[1] * x.shape[1] + 1) / 2 for z in (x, y)]
    squares = [(weights * r**2).sum(1) for r in ranks]
    return _ratio((weights * ranks[0] * ranks[1]).sum(1), np.sqrt(squares[0] * squares[1]))


def _times(draws: Int[Array, "B T"], count: int) -> Int[Array, "B T"]:
    """How often each trajectory was drawn."""
    places = draws + count * np.arange(len(draws))[:, None]
    return np.bincount(places.ravel(), minlength=count * len(draws)).reshape(len(draws), count)


def _weighted_ranks(values: Float[Array, "N"], weights: Int[Array, "B N"]) -> Float[Array, "B N"]:
    """Rank of every value in a sample that holds it `weights` times; ties share their mean rank."""
    order = values.argsort(kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    up_to = np.concatenate([np.zeros((len(weights), 1)), weights[:, order].cumsum(1)], 1)
    ends = np.append(starts[1:], len(values))
    ranks = np.empty(weights.shape)
    ranks[:, order] = ((up_to[:, starts] + up_to[:, ends] + 1) / 2).repeat(ends - starts, 1)
    return ranks


def _ratio(numerator: Array, denominator: Array) -> Array:
    """0 where the denominator is 0."""
    return np.asarray(np.divide(numerator, denominator, out=np.zeros_like(denominator), where=denominator > 0))


def within_correlation(x: Float[Array, "T C"], y: Float[Array, "T C"], draws: Int[Array, "B T"]) -> Float[Array, "B"]:
    """Spearman's rank correlation within each trajectory, in the mean over those drawn."""
    ranks = [rankdata(z, axis=1) for z in (x, y)]
    x, y = (r - r.mean(-1, keepdims=True) for r in ranks)
    each = _ratio((x * y).sum(-1), np.sqrt((x**2).sum(-1) * (y**2).sum(-1)))
    return np.asarray(each[draws].mean(1))


def left_out_error(x: Float[Array, "T C"], y: Float[Array, "T C"], draws: Int[Array, "B T"]) -> Float[Array, "B"]:
    """Root mean square error of `y = a x + b`, fitted to all other trajectories, over that of their mean gain alone.

    Below 1 the predictor knows something of a trajectory on which it was not fitted. All copies of the trajectory that is left
    out are left out with it; a draw of one trajectory only has nothing to fit and counts as 1.
    """
    x = (x - x.mean()) / max(float(x.std()), 1e-300)
    sums = np.stack([np.full(len(x), x.shape[1]), x.sum(1), y.sum(1), (x * x).sum(1), (x * y).sum(1), (y * y).sum(1)])
    times = _times(draws, len(x))
    rest = (times @ sums.T)[:, None] - times[..., None] * sums.T  # (B, T, 6): sums over the other trajectories
    n, sx, sy, sxx, sxy, _ = np.moveaxis(rest, -1, 0)
    known = n > 0
    n = np.where(known, n, 1)
    spread = sxx - sx * sx / n
    slope = np.where(spread > 1e-12 * n, (sxy - sx * sy / n) / np.where(spread > 1e-12 * n, spread, 1), 0.0)
    error, flat = (_squares(sums, a, (sy - a * sx) / n) for a in (slope, np.zeros_like(slope)))
    weight = times * known
    total = (weight * flat).sum(1)
    share = np.divide((weight * error).sum(1), total, out=np.ones(len(draws)), where=total > 0)
    return np.asarray(np.sqrt(share))


def _squares(sums: Float[Array, "6 T"], a: Float[Array, "B T"], b: Float[Array, "B T"]) -> Float[Array, "B T"]:
    """`sum (y - a x - b)^2` of every trajectory."""
    n, sx, sy, sxx, sxy, syy = sums
    squares = syy - 2 * a * sxy - 2 * b * sy + a * a * sxx + 2 * a * b * sx + b * b * n
    return np.asarray(np.maximum(squares, 0.0))


def chosen_share(x: Float[Array, "T C"], y: Float[Array, "T C"], draws: Int[Array, "B T"]) -> Float[Array, "B"]:
    """Gain from the checkpoints of largest x over that from the best ones, both summed over the trajectories drawn.

    1 where nothing is to be gained anywhere.
    """
    chosen, best = (z[draws].sum(1) for z in (y[np.arange(len(y)), x.argmax(1)], y.max(1)))
    return np.asarray(np.divide(chosen, best, out=np.ones(len(draws)), where=best > 0))


RANK, WITHIN, ERROR, CHOICE = "rank correlation", "within trajectories", "left-out error", "gain of its choice"
SCORES: dict[str, Score] = {
    RANK: rank_correlation,
    WITHIN: within_correlation,
    ERROR: left_out_error,
    CHOICE: chosen_share,
}


@dataclass(frozen=True)
class Scored:
    """A score of every predictor on the T trajectories themselves, and on B resamples; standard errors are the bootstrap's."""

    value: dict[str, float]
    resampled: dict[str, Float[Array, "B"]]
    trajectories: int

    def of(self, predictor: str) -> Estimate:
        """The score of one predictor."""
        return self._estimate(self.value[predictor], self.resampled[predictor])

    def difference(self, one: str, other: str) -> Estimate:
        """The score of one predictor less that of another, on the same resamples."""
        return self._estimate(self.value[one] - self.value[other], self.resampled[one] - self.resampled[other])

    def against(self, other: "Scored", predictor: str) -> Estimate:
        """The score of a predictor here less its score there, the same trajectories being drawn in both."""
        spread = self.resampled[predictor] - other.resampled[predictor]
        return self._estimate(self.value[predictor] - other.value[predictor], spread)

    def _estimate(self, value: float, resampled: Float[Array, "B"]) -> Estimate:
        return Estimate(np.asarray(value), np.asarray(resampled.std(ddof=1)), self.trajectories)


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
    return Scored(value, {name: score(x, gain, draws) for name, x in predictors.items()}, len(gain))


def left_out_prediction(x: Float[Array, "T C"], y: Float[Array, "T C"]) -> Float[Array, "T C"]:
    """`a x + b` for every trajectory, a and b by least squares on all others."""
    predicted = np.empty_like(y)
    for t in range(len(x)):
        others = np.arange(len(x)) != t
        predicted[t] = np.polyval(np.polyfit(x[others].ravel(), y[others].ravel(), 1), x[t])
    return predicted
