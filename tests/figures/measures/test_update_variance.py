"""Reduced scores, the oracle recipe, sampled excess variance and fitted slopes, each by a second road."""

from itertools import product

import numpy as np
import pytest
import torch

from figures.harness.statistics import Estimate
from figures.measures.token_systems import build_policy, build_world
from figures.measures.update_variance import exactly, fitted_slope, oracle_recipe, reduced, sampled_excess
from theory.groups.variance import group_variance, hoeffding, word_scores
from theory.tokens.completions import completions
from theory.tokens.prefix_tree import grow


@pytest.fixture(scope="module")
def tree_and_scores():
    world = build_world("dense (2,3)")
    policy = build_policy(world, 1)
    tree = grow(world, policy)
    return tree, word_scores(tree, policy)


@pytest.fixture(scope="module")
def garnet(tree_and_scores):
    tree, s = tree_and_scores
    rows = completions(tree)
    return rows.p[0], rows.returns[0], s


def test_reduced_scores_keep_all_inner_products(garnet):
    s = garnet[2]
    small = reduced(s)
    assert small.shape[1] < len(s) + 1
    torch.testing.assert_close(small @ small.mT, s @ s.mT)
    assert not torch.allclose(small[:, 1:] @ small[:, 1:].mT, s @ s.mT)


def pair_moments(p, R, s, baselines):
    """Mean and variance of `((R_i - b_ij) s_i + (R_j - b_ji) s_j) / 2` over all ordered pairs of completions."""
    updates, chances = [], []
    for i, j in product(range(len(p)), repeat=2):
        updates.append(((R[i] - baselines(i, j)) * s[i] + (R[j] - baselines(j, i)) * s[j]) / 2)
        chances.append(p[i] * p[j])
    updates, chances = torch.stack(updates), torch.stack(chances)
    mean = chances @ updates
    return mean, float(chances @ (updates - mean).square().sum(1))


def test_the_oracle_recipe_has_the_moments_of_all_pairs(tree_and_scores, garnet):
    (tree, s), (p, R, _) = tree_and_scores, garnet
    V = float(p @ R)
    variance, mean = group_variance(tree, s, oracle_recipe(V), 2)
    by_hand, variance_by_hand = pair_moments(p, R, s, lambda i, j: V)
    torch.testing.assert_close(mean, by_hand)
    assert variance == pytest.approx(variance_by_hand)
    assert group_variance(tree, s, oracle_recipe(1.1 * V), 2)[0] != pytest.approx(variance_by_hand, rel=1e-4)


def test_sampled_excess_has_the_mean_that_enumerated_pairs_have(garnet):
    p, R, s = garnet[0], garnet[1], reduced(garnet[2])
    V = p @ R
    (mean, variance), (with_V, oracle) = (pair_moments(p, R, s, b) for b in (lambda i, j: R[j], lambda i, j: V))
    exact = variance - oracle
    torch.testing.assert_close(mean, with_V)
    assert exact == pytest.approx(hoeffding(p, R, s, 2)[1])
    sampled = sampled_excess(p, R, s, 2, 40_000, torch.Generator().manual_seed(3))
    assert sampled.samples == 40_000
    assert abs(sampled.mean - exact) < 5 * sampled.standard_error < 0.2 * exact


def test_fitted_slope_is_that_of_a_power_law_and_its_error_that_of_its_spread():
    rng, x = np.random.default_rng(0), np.log([2.0, 4.0, 8.0, 16.0])
    errors = 0.05 * np.exp(-2 * x)
    known = [Estimate(np.asarray(np.exp(1 - 2 * a)), np.asarray(e), 100) for a, e in zip(x, errors, strict=True)]
    slope = fitted_slope(x, known)
    assert float(slope.mean) == pytest.approx(-2)
    noisy = np.log(np.exp(1 - 2 * x) + errors * rng.standard_normal((20_000, 4)))
    spread = np.polyfit(x, noisy.T, 1)[0].std()
    assert float(slope.standard_error) == pytest.approx(spread, rel=0.05)


def test_numbers_that_are_known_exactly_give_a_slope_without_error():
    slope = fitted_slope([0.0, 1.0, 3.0], [exactly(np.exp(0.5 * x + 1)) for x in (0.0, 1.0, 3.0)])
    assert (float(slope.mean), float(slope.standard_error)) == (pytest.approx(0.5), 0.0)
