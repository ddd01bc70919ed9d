"""The split of the value gradient closes to rounding, its parts are central differences, its tiers bound the error."""

import dataclasses
import itertools

import pytest
import torch

from envs.token_mdp import TokenMDP
from envs.token_tasks import garnet
from envs.world import InputError
from tests.theory.token_cases import (
    Recomputing,
    Recurrent,
    differences,
    enumerate_rollouts,
    several_prompts,
    transformer,
    value_differences,
    worlds,
)
from theory.tokens.costates import expected_costates
from theory.tokens.error_split import error_split, split_of_tree
from theory.tokens.forward_mode import forward_value_gradient, logit_slopes
from theory.tokens.prefix_tree import grow
from theory.tokens.softmax_bounds import entropy
from theory.tokens.tree_size import bytes_per_node

close = torch.testing.assert_close
WORLDS = worlds()
SITES = ("embedding", "layer1", "layer2")


@pytest.mark.parametrize("whole_prompt", [False, True])
@pytest.mark.parametrize(("site", "temperature"), [("embedding", 0.2), ("layer2", 1.0)])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", WORLDS)
def test_the_identity_closes_and_the_tiers_are_ordered(name, alpha, temperature, site, whole_prompt):
    world = WORLDS[name]
    split = error_split(world, transformer(world, temperature, seed=4), alpha, site, whole_prompt)
    size = split.value_gradient.norm(dim=-1).clamp(min=1.0)
    assert float((split.residual / size).max()) < 1e-12
    close(split.error, split.tiers[0], rtol=1e-9, atol=1e-12)
    assert bool((split.tiers.diff(dim=0) >= -1e-12).all())
    if alpha == 0:
        assert float(split.error.max()) < 1e-12
        assert float(split.tiers.max()) < 1e-10, "osc(Q) = 0: every tier vanishes"
    elif alpha == 1:
        close(split.error, split.value_gradient.norm(dim=-1))
        assert float(split.error.min()) > 1e-6
    if world.V == 2:
        close(split.tiers[1], split.tiers[2], rtol=1e-9, atol=1e-12)  # the constant is optimal: two tokens attain it


@pytest.mark.parametrize("whole_prompt", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", WORLDS)
def test_the_split_of_e1b_closes_without_the_own_reward_and_with_nothing_else(name, alpha, whole_prompt):
    """Reverse mode gives E1b, forward mode the slopes; the sampling terms of E1 would not close it."""
    world = WORLDS[name]
    policy = transformer(world, temperature=0.5, seed=4)
    tree = grow(world, policy, alpha, ("layer1",))
    slopes = logit_slopes(world, policy, alpha, "layer1", whole_prompt)
    split = split_of_tree(tree, slopes, alpha, "layer1", whole_prompt, own_token_averaged=True)
    of_e1 = split_of_tree(tree, slopes, alpha, "layer1", whole_prompt)
    size = split.value_gradient.norm(dim=-1).clamp(min=1.0)
    assert float((split.residual / size).max()) < 1e-12
    assert bool((split.tiers.diff(dim=0) >= -1e-12).all())
    close(split.value_gradient, of_e1.value_gradient)
    last = slice(None) if whole_prompt else slice(-1, None)
    close(split.attention, expected_costates(world, policy, "E1b", "layer1", alpha)[0][:, last].flatten(1))
    if alpha > 0 and bool(world.r.any()):
        wrong = dataclasses.replace(split, sampling=of_e1.sampling)
        assert float(wrong.residual.max()) > 1e-6


@pytest.mark.parametrize("alpha", [0.4, 1.0])
@pytest.mark.parametrize("name", ["garnet", "several_prompts"])
def test_each_tier_costs_something_at_low_entropy(name, alpha):
    split = error_split(WORLDS[name], transformer(WORLDS[name], 0.1, seed=4), alpha, "layer1")
    assert bool((split.tiers.diff(dim=0) > 1e-3 * split.tiers[0]).all())


@pytest.mark.parametrize("whole_prompt", [False, True])
@pytest.mark.parametrize("alpha", [0.4, 1.0])
@pytest.mark.parametrize("site", SITES)
def test_both_gradients_are_central_differences_prompt_by_prompt(site, alpha, whole_prompt):
    world = several_prompts()
    policy = transformer(world, seed=4)
    split = error_split(world, policy, alpha, site, whole_prompt)
    kept = slice(None) if whole_prompt else slice(-1, None)
    path = lambda moved, still: moved.by_node(still.chance(0) * moved.returns(0), 0)  # noqa: E731
    attention = differences(path, world, policy, alpha, site)[:, kept].flatten(1)
    value = value_differences(world, policy, alpha, site)[:, kept].flatten(1)
    for gradient, truth in (
        (split.value_gradient, value),
        (forward_value_gradient(world, policy, alpha, site, whole_prompt), value),
        (split.attention, attention),
    ):
        close(gradient, truth, rtol=1e-6, atol=1e-9)
    assert float((value - attention).norm()) > 1e-3 * float(value.norm())


@pytest.mark.parametrize("alpha", [0.4, 1.0])
@pytest.mark.parametrize("name", ["garnet", "several_prompts"])
def test_every_sampling_term_and_tier_by_enumeration(name, alpha):
    """Covariances by their definition, from central differences of the logits along every token sequence."""
    world = WORLDS[name]
    policy = transformer(world, temperature=0.5, seed=4)
    split = error_split(world, policy, alpha, "layer1", whole_prompt=True)
    slopes = differences(lambda moved, _: moved.logits, world, policy, alpha, "layer1").flatten(-2)  # (L, H, V, D)
    rolled = enumerate_rollouts(world, policy, alpha)
    after = [world.V ** (world.horizon - k) for k in range(world.horizon)]
    tier1, tier2 = 0.0, 0.0
    for k in range(world.horizon):
        pi = torch.softmax(rolled.logits[0, :, k], -1)[:, :, None]
        Q = rolled.Q(k)[0].repeat_interleave(after[k], 0)[:, :, None]
        w = slopes[:, k]
        cov = (pi * w * Q).sum(1) - (pi * w).sum(1) * (pi * Q).sum(1)
        weight = world.gamma**k * rolled.chance(0)
        close(split.sampling[k], rolled.by_node(weight * cov.mT, 0).mT, rtol=1e-5, atol=1e-9)
        D_w = (w[:, :, None] - w[:, None]).norm(dim=-1).amax((1, 2))
        factor = ((pi * (1 - pi)).sum((1, 2)) / 2).clamp(max=0.25)
        osc = (Q.amax(1) - Q.amin(1))[:, 0]
        tier1 = tier1 + rolled.by_node(weight * cov.norm(dim=-1), 0)[0]
        tier2 = tier2 + rolled.by_node(weight * D_w * osc * factor, 0)[0]
    close(split.tiers[1], tier1, rtol=1e-5, atol=1e-9)
    close(split.tiers[2], tier2, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("whole_prompt", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", ["garnet", "several_prompts"])
def test_logit_slopes_are_central_differences_along_every_sequence(name, alpha, whole_prompt):
    world = WORLDS[name]
    policy = transformer(world, temperature=0.5, seed=4)
    truth = differences(lambda moved, _: moved.logits, world, policy, alpha, "embedding")  # (L, H, V, positions, D)
    truth = truth if whole_prompt else truth[..., -1:, :]
    for k, slopes in enumerate(logit_slopes(world, policy, alpha, "embedding", whole_prompt)):
        per_node = truth[:: world.V ** (world.horizon - k), k].flatten(-2)
        close(slopes, per_node, rtol=1e-6, atol=1e-8)


def test_entropy_gini_and_gap_are_means_over_the_steps_of_a_rollout():
    world = several_prompts()
    policy = transformer(world, seed=4)
    split, rolled = error_split(world, policy, 0.4, "layer1"), enumerate_rollouts(world, policy, 0.4)
    pi = torch.softmax(rolled.logits, -1)
    mean = lambda f: rolled.by_node(rolled.chance(0) * f.mean(-1), 0)[0]  # noqa: E731
    close(split.entropy, mean(entropy(pi)))
    close(split.gini, mean(1 - pi.square().sum(-1)))
    close(split.gap, 0.4 * split.gini)


def test_weights_of_the_prompts_do_not_touch_what_belongs_to_one_prompt():
    world = several_prompts()
    policy = transformer(world, seed=4)
    even = TokenMDP(world.P, world.r, world.prompts, world.starts, 2, world.gamma)
    one, other = (error_split(w, policy, 0.4, "layer1") for w in (world, even))
    for field in dataclasses.fields(one):
        close(getattr(one, field.name), getattr(other, field.name))


def test_a_network_that_is_not_ours_splits_too():
    world = garnet(V=3, horizon=3, gamma=0.9, seed=1)
    split = error_split(world, Recomputing(Recurrent(3)), 0.6, "embedding")
    assert float(split.residual.max()) < 1e-12
    assert float(split.error.min()) > 1e-3


def test_slopes_of_another_alpha_do_not_close_the_identity():
    """The control: the sampling terms need the total derivative at their own alpha, and the error falls with alpha."""
    world = WORLDS["garnet"]
    policy = transformer(world, temperature=0.3, seed=4)
    splits = [error_split(world, policy, alpha, "layer1") for alpha in (0.3, 0.6, 1.0)]
    for a, b in itertools.pairwise(splits):
        mixed = dataclasses.replace(a, sampling=b.sampling)
        assert float(mixed.residual.max()) > 1e-3 * float(a.error.max())
        assert float(a.error.max()) < float(b.error.max())


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_directions_taken_a_few_at_a_time_give_the_same_slopes_in_less_memory(alpha, monkeypatch):
    import theory.tokens.forward_mode as module

    taken = []
    real = module.vmap
    monkeypatch.setattr(
        module, "vmap", lambda f, chunk_size: taken.append(chunk_size) or real(f, chunk_size=chunk_size)
    )
    world = WORLDS["garnet"]
    policy = transformer(world, seed=4)
    nodes = 13 * bytes_per_node(world, policy)
    whole = error_split(world, policy, alpha, "layer1", whole_prompt=True)
    pieces = error_split(world, policy, alpha, "layer1", whole_prompt=True, budget=4 * nodes)
    assert taken[0] is None
    assert 1 <= taken[1] <= 4
    close(whole.sampling, pieces.sampling)
    close(whole.tiers, pieces.tiers)
    for way in (logit_slopes, forward_value_gradient):
        with pytest.raises(InputError, match=r"slopes of 13 prefixes in 8 directions need about .* GiB"):
            way(world, policy, alpha, "layer1", budget=nodes)
