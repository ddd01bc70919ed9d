"""Objectives by hand and by other roads: enumerated groups, tilted completions, differences along the parameters."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from agents.recipes.learners import build_learner
from envs.token_tasks import arithmetic, garnet, sum_and_stop
from tests.theory.groups.enumeration import policy_of
from theory.differences import directional_slope
from theory.groups.binary_rewards import grpo_objective
from theory.groups.expected_update import expected_update
from theory.groups.objectives import (
    free_drift,
    frozen_objective,
    length_objective,
    length_speeds,
    mean_lengths,
    of_policy,
    prompt_gradients,
    row_weights,
    slope_gaps,
    std_objective,
    trust_region_objective,
    win_rate,
)
from theory.tokens.completions import completions, words
from theory.tokens.prefix_tree import grow

STOP, GARNET = sum_and_stop(modulus=2, horizon=4), garnet(V=2, horizon=3, seed=1, gamma=0.9)
one_prompt = pytest.mark.parametrize("world", [STOP, GARNET], ids=["stop", "garnet"])


def tree_of(world, seed=0):
    with torch.no_grad():
        return grow(world, policy_of(world, seed))


def random_vector(size, seed=3):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved(policy, step):
    """A copy of the policy whose parameters are shifted."""
    other = copy.deepcopy(policy)
    vector_to_parameters(parameters_to_vector(policy.parameters()).detach() + step, other.parameters())
    return other


def test_row_weights_are_those_of_all_ordered_groups():
    policy = policy_of(GARNET)
    update = expected_update(GARNET, policy, build_learner("grpo", length="row sum"), 3)
    tree = grow(GARNET, policy)
    rows = completions(tree)
    R, p, W = rows.returns[0], rows.p[0], torch.zeros(len(rows.word), dtype=torch.float64)
    for own, *others in itertools.product(range(len(R)), repeat=3):
        returns = R[[own, *others]]
        A = (returns[0] - returns.mean()) / returns.std(unbiased=False) if len({own, *others}) > 1 else 0.0
        W[own] += p[others].prod() * A
    of_words = torch.zeros(8, dtype=torch.float64).index_add_(0, rows.word, rows.given[0] * W)
    assert torch.allclose(row_weights(update, words(tree)), of_words, atol=1e-12)


def test_row_weights_of_dapo_divide_by_the_length_of_the_group():
    policy = policy_of(STOP)
    rows = words(grow(STOP, policy))
    R, p, lengths = rows.returns[0], rows.p[0], rows.mask[0].sum(1)
    A = (R[:, None] - R).sign()  # binary rewards, two rows
    W = (p * 2 * A / (lengths[:, None] + lengths)).sum(1)
    assert torch.allclose(row_weights(expected_update(STOP, policy, build_learner("dapo"), 2), rows), W)


def test_the_win_rate_by_hand():
    R, p, wanted = torch.tensor(
        [[0.0, 1.0, 1.0 + 1e-15, 3.0], [0.1, 0.2, 0.3, 0.4], [-0.9, -0.3, -0.3, 0.6]], dtype=torch.float64
    )
    assert torch.allclose(win_rate(R, p), wanted)


@one_prompt
def test_slopes_of_J_and_of_the_trust_region_objective_at_its_own_policy_are_the_gradient(world):
    policy, drawn = policy_of(world), tree_of(world)
    truth = expected_update(world, policy, build_learner("rloo"), 2).truth.flat
    v = random_vector(len(truth)) / len(truth) ** 0.5
    for objective in (
        lambda tree: tree.J,
        trust_region_objective(drawn, 1.0),
        frozen_objective(words(drawn).returns[0]),
    ):
        slope = directional_slope(policy, v, of_policy(world, objective))
        assert float(slope) == pytest.approx(float(truth @ v), rel=1e-8)


def test_the_trust_region_objective_of_another_policy_by_hand():
    """`sum_k gamma^k sum over completions of P_old(first k tokens) pi(c_k) Q_old`, Q_old the mean of what follows."""
    now, old = completions(tree_of(GARNET, 1)), completions(tree_of(GARNET, 0))
    pi, before, total = now.log_probs[0].exp(), old.log_probs[0].exp(), 0.0
    for k in range(3):
        for begun in itertools.product((0, 1), repeat=k + 1):
            rows = (old.tokens[0, :, : k + 1] == torch.tensor(begun)).all(1)
            after = old.p[0][rows] / old.p[0][rows].sum()
            Q = float(after @ old.rewards[0][rows, k:].sum(1))  # gamma^k Q
            first = int(rows.nonzero()[0])
            total += float(before[first, :k].prod() * pi[first, k]) * Q
    objective = trust_region_objective(tree_of(GARNET, 0), 0.5)
    assert float(objective(tree_of(GARNET, 1))) == pytest.approx(total / 2)


def test_the_length_objective_by_hand():
    tree, V = tree_of(STOP), 0.3
    rows, total = completions(tree), 0.0
    for p, R, tokens in zip(rows.p[0], rows.returns[0], rows.tokens[0].tolist(), strict=True):
        length = tokens.index(2) + 1 if 2 in tokens else 4
        total += float(p * (R - V)) / length
    assert float(length_objective(2.0, torch.tensor(V))(tree)) == pytest.approx(2 * total)


def test_mean_lengths_by_hand():
    rows, sums = completions(tree_of(STOP)), {True: [0.0, 0.0], False: [0.0, 0.0]}
    for p, R, tokens in zip(rows.p[0].tolist(), rows.returns[0], rows.tokens[0].tolist(), strict=True):
        of = sums[bool(R > 0.5)]
        of[0], of[1] = of[0] + p, of[1] + p * (tokens.index(2) + 1 if 2 in tokens else 4)
    assert mean_lengths(rows).tolist() == pytest.approx([sums[kind][1] / sums[kind][0] for kind in (True, False)])


def test_free_drift_is_the_slope_along_tilted_completions():
    rows = completions(tree_of(STOP))
    W = random_vector(len(rows.p[0]), seed=0)
    tilted = lambda e: mean_lengths(replace(rows, p=rows.p * (e * W).exp()))  # noqa: E731
    assert torch.allclose(free_drift(W, rows), (tilted(1e-5) - tilted(-1e-5)) / 2e-5, atol=1e-8)


def test_length_speeds_are_those_of_a_policy_that_moves_by_one_in_the_direction():
    policy = policy_of(STOP)
    v = 7 * random_vector(sum(p.numel() for p in policy.parameters()))
    with torch.no_grad():
        ends = [mean_lengths(completions(grow(STOP, moved(policy, h * v / v.norm())))) for h in (1e-5, -1e-5)]
    assert torch.allclose(length_speeds(STOP, policy, v), (ends[0] - ends[1]) / 2e-5, atol=1e-8)


def test_the_gradients_of_every_prompt_are_differences_of_its_success():
    world = arithmetic(modulus=3, horizon=2)
    policy = policy_of(world, 2)
    P, slopes = prompt_gradients(world, policy)
    v = random_vector(slopes.shape[1])
    with torch.no_grad():
        ends = [completions(grow(world, moved(policy, h * v))).success() for h in (1e-6, -1e-6)]
    assert float(slopes.norm(dim=1).median()) > 1e-2
    assert torch.allclose(slopes @ v, (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-8)
    assert torch.allclose(P, completions(grow(world, policy)).success(), atol=1e-14)


def test_the_slope_of_the_std_objective_is_the_chain_rule_and_leaves_the_policy_alone():
    world = arithmetic(modulus=3, horizon=2)
    policy, G = policy_of(world, 1), 5
    before = [p.detach().clone() for p in policy.parameters()]
    P, slopes = prompt_gradients(world, policy)
    direction = slopes.sum(0) / slopes.sum(0).norm()
    for population in (True, False):
        ends = [grpo_objective(P * (1 + h), G, population) for h in (1e-5, -1e-5)]
        weight = (ends[0] - ends[1]) / (2e-5 * P)  # c_G without its formula
        slope = directional_slope(policy, direction, of_policy(world, std_objective(G, population)), 2e-4)
        assert float(slope) == pytest.approx(float(world.weights * weight @ (slopes @ direction)), rel=1e-7)
    assert all(torch.equal(p, q) for p, q in zip(policy.parameters(), before, strict=True))


def test_slope_gaps_are_zero_for_the_gradient_and_a_share_for_a_multiple_of_it():
    policy = policy_of(GARNET)
    truth = expected_update(GARNET, policy, build_learner("rloo"), 2).truth.flat
    directions = [random_vector(len(truth)), 3 * truth]
    gaps = slope_gaps(GARNET, policy, torch.stack([truth, 1.1 * truth]), [lambda tree: tree.J] * 2, directions)
    assert float(gaps[0]) < 1e-8
    assert float(gaps[1]) == pytest.approx(1 / 11, rel=1e-6)
