"""Scores of predictors by other roads: scipy's rank correlation, a loop of fits, hand sums, an analytic standard error."""

import numpy as np
import pytest
from scipy import stats

from figures.impact.predictors import (
    SCORES,
    Scored,
    chosen_share,
    left_out_error,
    left_out_prediction,
    rank_correlation,
    resamples,
    score_all,
    within_correlation,
)
from tests.envs.refusals import refused

DRAWS = np.array([[0, 1, 2, 3, 4], [0, 0, 2, 3, 3], [4, 4, 4, 1, 4], [2, 1, 2, 1, 2], [3, 3, 3, 3, 3]])


def table(trajectories=5, checkpoints=4, seed=0, decimals=8):
    return np.random.default_rng(seed).standard_normal((trajectories, checkpoints)).round(decimals)


def noisy(seed, noise, trajectories=24, checkpoints=6):
    """Gains that differ between and within trajectories, and a predictor of them."""
    gain = np.abs(table(trajectories, 1, seed)) + np.abs(table(trajectories, checkpoints, seed + 1))
    return gain + noise * table(trajectories, checkpoints, seed + 2), gain


@pytest.mark.parametrize("decimals", [8, 0], ids=["no ties", "ties"])
def test_rank_correlation_is_scipys_on_all_checkpoints_drawn(decimals):
    x, y = table(seed=1, decimals=decimals), table(seed=2, decimals=decimals)
    assert (len(np.unique(x)) < x.size) == (decimals == 0)
    truth = [stats.spearmanr(x[draw].ravel(), y[draw].ravel()).statistic for draw in DRAWS]
    np.testing.assert_allclose(rank_correlation(x, y, DRAWS), truth, rtol=1e-12)
    assert np.ptp(truth) > 0.1
    np.testing.assert_allclose(rank_correlation(np.exp(x), y, DRAWS), truth, rtol=1e-12)
    np.testing.assert_allclose(rank_correlation(-x, y, DRAWS), np.negative(truth), rtol=1e-12)


@pytest.mark.parametrize("decimals", [8, 0], ids=["no ties", "ties"])
def test_within_correlation_is_scipys_trajectory_by_trajectory(decimals):
    x, y = table(seed=1, decimals=decimals, checkpoints=6), table(seed=2, decimals=decimals, checkpoints=6)
    each = np.array([stats.spearmanr(*pair).statistic for pair in zip(x, y, strict=True)])
    correlations = within_correlation(x, y, DRAWS)
    np.testing.assert_allclose(correlations, [np.mean([each[t] for t in draw]) for draw in DRAWS], rtol=1e-12)
    shift = (
        100 * np.arange(5)[:, None]
    )  # a shift of whole trajectories counts here not at all, and in the pooled score a lot
    np.testing.assert_allclose(within_correlation(x + shift, y, DRAWS), correlations, rtol=1e-12)
    assert np.abs(rank_correlation(x + shift, y, DRAWS) - rank_correlation(x, y, DRAWS)).max() > 0.1


def test_constants_have_no_correlation():
    x, flat = table(), np.full((5, 4), 0.1)
    for score in (rank_correlation, within_correlation):
        for pair in ((flat, x), (x, flat), (flat, flat)):
            assert score(*pair, DRAWS).tolist() == [0.0] * 5
    by_trajectory = np.arange(5.0)[:, None] + np.zeros((5, 4))
    assert within_correlation(by_trajectory, x, DRAWS).tolist() == [0.0] * 5


def left_out_by_fits(x, y, draw):
    """Every trajectory drawn, as often as it is, against a line through all others of the draw, its copies left out."""
    error, flat = 0.0, 0.0
    for t in draw:
        others = [s for s in draw if s != t]
        if others:
            X, Y = x[others].ravel(), y[others].ravel()
            line = np.polyfit(X, Y, 1) if np.ptp(X) > 0 else (0.0, Y.mean())
            error += ((y[t] - np.polyval(line, x[t])) ** 2).sum()
            flat += ((y[t] - Y.mean()) ** 2).sum()
    return np.sqrt(error / flat) if flat else 1.0


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_left_out_error_is_that_of_a_loop_of_fits_without_any_copy_of_the_one_left_out(noise):
    x, y = noisy(3, noise, 5, 4)
    truth = [left_out_by_fits(x, y, draw) for draw in DRAWS]
    np.testing.assert_allclose(left_out_error(x, y, DRAWS), truth, rtol=1e-10)
    assert truth[-1] == 1.0  # a draw of one trajectory alone has nothing to fit
    assert min(abs(e - 1) for e in truth[:-1]) > 1e-3


def test_a_predictor_that_is_constant_on_all_others_says_their_mean():
    x, y = np.full((5, 4), 0.1), table(seed=4)
    assert left_out_error(x, y, DRAWS) == pytest.approx(np.ones(5), rel=1e-12)
    x[2] += table(1, seed=5)[0]
    truth = [left_out_by_fits(x, y, draw) for draw in DRAWS]
    np.testing.assert_allclose(left_out_error(x, y, DRAWS), truth, rtol=1e-10)


def test_left_out_error_does_not_know_units():
    x, y = noisy(3, 0.5, 5, 4)
    errors = left_out_error(x, y, DRAWS)
    for a, b in ((3.0, -7.0), (-1e-3, 100.0), (1e9, 0.0), (1e-9, 0.0)):
        np.testing.assert_allclose(left_out_error(a * x + b, y, DRAWS), errors, rtol=1e-8)
        np.testing.assert_allclose(left_out_error(x, a * y + (b if a == 3 else 0), DRAWS), errors, rtol=1e-8)
    assert np.abs(left_out_error(x**3, y, DRAWS) - errors).max() > 1e-2


def test_left_out_predictions_have_the_left_out_error_and_never_saw_their_own_trajectory():
    x, y = noisy(3, 0.5, 5, 4)
    predicted, flat = left_out_prediction(x, y), [(y.sum() - row.sum()) / (y.size - row.size) for row in y]
    error = ((predicted - y) ** 2).sum() / ((np.array(flat)[:, None] - y) ** 2).sum()
    assert error**0.5 == pytest.approx(left_out_error(x, y, np.arange(5)[None])[0], rel=1e-10)
    for t in range(5):
        other = y.copy()
        other[t] += table(1, seed=9)[0]
        moved = np.abs(left_out_prediction(x, other) - predicted).max(1)
        assert moved[t] == 0
        assert np.delete(moved, t).min() > 1e-3


def test_chosen_share_by_hand():
    x = np.array([[1.0, 3.0, 2.0], [5.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
    y = np.array([[0.1, 0.2, 0.4], [0.3, 0.6, 0.5], [0.0, 0.1, 0.8]])
    draws = np.array([[0, 1, 2], [0, 0, 1], [1, 1, 1], [2, 2, 2]])
    shares = [(0.2 + 0.3 + 0.8) / (0.4 + 0.6 + 0.8), (0.2 + 0.2 + 0.3) / (0.4 + 0.4 + 0.6), 0.5, 1.0]
    np.testing.assert_allclose(chosen_share(x, y, draws), shares, rtol=1e-12)
    assert chosen_share(y, y, draws).tolist() == [1.0] * 4


def test_resamples_stay_within_their_groups_and_draw_all_members_alike_and_independently():
    groups = np.array([7, 0, 7, 3, 0, 7, 3, 7])
    B = 20_000
    draws = resamples(groups, B, np.random.default_rng(1))
    assert draws.shape == (B, 8)
    np.testing.assert_array_equal(groups[draws], np.broadcast_to(groups, draws.shape))
    for t, name in enumerate(groups):
        members = np.flatnonzero(groups == name)
        for share in [(draws[:, t] == m).mean() for m in members]:
            assert share == pytest.approx(1 / len(members), abs=5 * 0.5 / B**0.5)
        for other in members[members != t]:  # drawn with replacement: the same one as another place's by chance alone
            same = (draws[:, t] == draws[:, other]).mean()
            assert same == pytest.approx(1 / len(members), abs=5 * 0.5 / B**0.5)
    np.testing.assert_array_equal(draws, resamples(groups, B, np.random.default_rng(1)))
    assert (draws != resamples(groups, B, np.random.default_rng(2))).any()


def test_a_corpus_of_one_trajectory_is_refused():
    for groups in ([0], [0, 0, 1], [2, 1, 1, 0, 0]):
        with refused("seeds"):
            resamples(np.array(groups), 10, np.random.default_rng(0))


def mean_of(x, y, draws):
    return x.mean(1)[draws].mean(1)


def numbers(estimate):
    return float(estimate.mean), float(estimate.standard_error)


def test_the_standard_error_of_a_mean_is_the_analytic_one_and_differences_are_paired():
    groups, B = np.repeat([0, 1], [8, 16]), 20_000
    shared = 5 * table(24, 1, seed=6)
    x = {"one": shared + table(24, 3, seed=7) + 2.0 * groups[:, None], "other": shared + table(24, 3, seed=8)}
    draws = resamples(groups, B, np.random.default_rng(3))
    scored = score_all(x, table(24, 3), draws, mean_of)

    def analytic(z):
        """Means of two strata: each one's variance over its size, weighed by the square of its share."""
        parts = [z[groups == g].mean(1) for g in (0, 1)]
        return sum((len(p) / 24) ** 2 * p.var() / len(p) for p in parts) ** 0.5

    tolerance = 5 / (2 * B) ** 0.5  # five standard errors of a standard deviation
    for name, z in x.items():
        assert scored.resampled[name].shape == (B,)
        assert numbers(scored.of(name)) == (
            pytest.approx(z.mean(), rel=1e-12),
            pytest.approx(analytic(z), rel=tolerance),
        )
        assert scored.of(name).samples == 24
    gap, error = numbers(scored.difference("one", "other"))
    assert gap == pytest.approx(x["one"].mean() - x["other"].mean(), rel=1e-12)
    assert error == pytest.approx(analytic(x["one"] - x["other"]), rel=tolerance)
    unpaired = np.hypot(scored.of("one").standard_error, scored.of("other").standard_error)
    assert error < 0.5 * unpaired
    assert numbers(scored.difference("other", "one")) == (-gap, error)
    renamed = score_all({"one": x["other"]}, table(24, 3), draws, mean_of)
    assert numbers(scored.against(renamed, "one")) == (gap, error)


@pytest.mark.parametrize("name", SCORES)
def test_a_planted_predictor_beats_noise(name):
    x, gain = noisy(10, 0.3)
    draws = resamples(np.repeat([0, 1], 12), 2000, np.random.default_rng(4))
    scored = score_all({"true": x, "noise": table(24, 6, seed=20), "itself": gain}, gain, draws, SCORES[name])
    best = 0.0 if name == "left-out error" else 1.0
    assert numbers(scored.of("itself")) == (pytest.approx(best, abs=1e-6), pytest.approx(0, abs=1e-6))
    gap, error = numbers(scored.difference("true", "noise"))
    assert (-gap if best == 0 else gap) > 5 * error > 0
    assert float(SCORES[name](x, gain, np.arange(24)[None])[0]) == scored.value["true"]


def test_noise_says_nothing_of_a_trajectory_left_out_and_would_seem_to_if_it_were_left_in():
    """Over 300 draws of noise the mean error is above that of a constant; a fit that has seen all is below it."""
    _, gain = noisy(30, 0.0)
    whole, errors, seen = np.arange(24)[None], [], []
    for seed in range(300):
        x = table(24, 6, seed=100 + seed)
        errors.append(left_out_error(x, gain, whole)[0])
        seen.append((gain - np.polyval(np.polyfit(x.ravel(), gain.ravel(), 1), x)).std() / gain.std())
    assert 1 < np.mean(errors) < 1.02
    assert min(errors) > 0.9
    assert np.mean(seen) < 1 - 5 * stats.sem(seen)


def test_the_bootstraps_standard_error_is_the_standard_deviation_of_a_sample():
    """Not of a population: two resamples at 0 and 2 have the deviation sqrt 2."""
    scored = Scored({"x": 1.0, "y": 0.0}, {"x": np.array([0.0, 2.0]), "y": np.zeros(2)}, 2)
    assert float(scored.of("x").standard_error) == pytest.approx(2**0.5)
    assert float(scored.difference("x", "y").standard_error) == pytest.approx(2**0.5)
