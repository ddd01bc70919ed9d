"""Live prefixes against the prefix tree: the same return and gradient in every kind of world, with fewer positions read."""

import dataclasses

import pytest
import torch

from agents.policies.transformer import Transformer
from envs.skills import skills
from envs.token_mdp import TokenMDP
from envs.token_tasks import arithmetic, combination_lock, copy, distractor, garnet, parity, sum_and_stop
from envs.world import InputError
from theory.differences import directional_slope, flat_parameters
from theory.tokens.live_prefixes import live_prefixes, live_surrogate
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_gradients import score_surrogate
from theory.tokens.tree_size import node_count


def noisy_verifier():
    """Tokens lead by chance to "good", which alone is paid; one prompt has weight 0, one begins in a sealed state."""
    P = torch.zeros(3, 2, 3, dtype=torch.float64)
    P[0, :, 1:] = torch.tensor([[0.8, 0.2], [0.3, 0.7]], dtype=torch.float64)
    P[1, :, 1] = P[2, :, 2] = 1
    r = torch.zeros(3, 3, 2, dtype=torch.float64)
    r[2, 1, 1] = -2.0
    return TokenMDP(P, r, [[0], [1], [1]], [0, 2, 1], 3, 0.7, weights=[0.6, 0.4, 0.0])


WORLDS = {
    "lock": combination_lock(V=3, horizon=4, seed=2, gamma=0.8),
    "copy": copy(V=2, length=3),
    "arithmetic, dense": arithmetic(modulus=3, horizon=2, sparse=False),
    "parity": parity(V=3, horizon=4),
    "distractor": distractor(V=3, horizon=3, gamma=0.9),
    "garnet": garnet(V=3, horizon=3, seed=1, gamma=0.9),
    "stop": sum_and_stop(modulus=3, horizon=4, gamma=0.9),
    "skills": skills(modulus=2, horizon=3, names="say,copy"),
    "one step": garnet(V=2, horizon=1, seed=3),
    "noisy verifier": noisy_verifier(),
}


def transformer(world, **options):
    return Transformer(world.V, width=8, layers=2, heads=2, length=12, seed=3, **options)


def gradient(surrogate, policy):
    slopes = torch.autograd.grad(surrogate, list(policy.parameters()), allow_unused=True, materialize_grads=True)
    return flat_parameters(slopes)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("name", WORLDS)
def test_return_and_gradient_are_those_of_the_prefix_tree(name, temperature):
    world = WORLDS[name]
    policy = transformer(world, temperature=temperature)
    tree = grow(world, policy)
    J, surrogate = live_surrogate(live_prefixes(world), policy)
    assert float(J) == pytest.approx(float(tree.J), rel=1e-12, abs=1e-15)
    truth = gradient(score_surrogate(tree), policy)
    assert torch.allclose(gradient(surrogate, policy), truth, rtol=1e-10, atol=1e-13 * float(truth.abs().max()))


def test_the_gradient_is_that_of_central_differences():
    world = WORLDS["noisy verifier"]
    policy, live = transformer(world), live_prefixes(world)
    slope = gradient(live_surrogate(live, policy)[1], policy)
    direction = slope / slope.norm()
    difference = directional_slope(policy, direction, lambda shifted: live_surrogate(live, shifted)[0], step=1e-3)
    assert float(slope @ direction) == pytest.approx(float(difference), rel=1e-8)


@pytest.mark.parametrize(("name", "rows"), [("lock", 1), ("copy", 8), ("skills", 8)])
def test_a_world_with_one_right_answer_is_read_in_one_context_for_each_prompt(name, rows):
    live = live_prefixes(WORLDS[name])
    assert len(live.contexts) == rows
    assert live.positions < node_count(WORLDS[name]) * WORLDS[name].prompts.shape[1]


def test_in_a_world_of_dense_rewards_every_prefix_is_live():
    world = WORLDS["garnet"]
    assert sum(len(level.parent) for level in live_prefixes(world).levels) == node_count(world)


def test_a_reward_that_is_overlooked_would_be_seen():
    world = WORLDS["lock"]
    dull = dataclasses.replace(world, r=0 * world.r, optimal_return=None)
    policy, blind = transformer(world), live_prefixes(dull)
    assert sum(len(level.parent) for level in blind.levels) == 0
    J, surrogate = live_surrogate(blind, policy)
    assert float(J) == 0.0
    assert not gradient(surrogate, policy).any()
    assert float(grow(world, policy).J) > 0


def test_a_hidden_readout_is_refused():
    world = dataclasses.replace(WORLDS["lock"], readout=torch.ones(8), optimal_return=None)
    with pytest.raises(InputError, match="readout"):
        live_prefixes(world)
