"""Exact answers where the environment speaks, against plain loops over all that may be said and happen."""

import itertools

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from tests.envs.refusals import refused
from tests.theory.speech_cases import WORLDS, Conversations, by_the_clock, policy_of, talking, world_of
from tests.theory.token_cases import transformer
from theory.tokens.completions import completions, mean_entropy, words
from theory.tokens.costates import expected_costates, sampled_costates
from theory.tokens.dynamic_programming import best_words, logit_gradient, tables
from theory.tokens.error_split import error_split
from theory.tokens.forward_mode import forward_value_gradient
from theory.tokens.live_prefixes import live_prefixes, live_surrogate
from theory.tokens.prefix_tree import grow, token_roots
from theory.tokens.tree_gradients import path_surrogate, score_surrogate, total_surrogate, tree_gradients

close = torch.testing.assert_close
EACH = pytest.mark.parametrize("name", WORLDS)


def flat(slopes):
    return torch.cat([g.flatten() for g in slopes])


def slope_of(x, policy):
    parameters = list(policy.parameters())
    return flat(torch.autograd.grad(x, parameters, allow_unused=True, materialize_grads=True))


def true_gradient(every, policy):
    return slope_of(every.J(policy), policy)


@EACH
def test_the_value_of_every_prefix_is_that_of_plain_loops(name):
    world = world_of(name)
    policy, every = policy_of(world), Conversations(world)
    tree = grow(world, policy)
    close(tree.J.detach(), every.J(policy).detach(), rtol=1e-12, atol=1e-14)
    close(every.p(policy).detach().sum(), torch.tensor(float(len(world.prompts)), dtype=torch.float64))
    for k in range(world.horizon):
        prefixes = itertools.product(range(len(world.prompts)), *[range(world.V)] * k)
        for node, (prompt, *said) in enumerate(prefixes):
            if world.end in said:
                continue
            chance, value = every.value(policy, prompt, said)
            assert float(tree.levels[k].reach[node]) == pytest.approx(float(world.weights[prompt]) * chance, rel=1e-11)
            if chance:
                assert float(tree.V[k][node]) == pytest.approx(value, rel=1e-10, abs=1e-13)
                close(token_roots(world, policy, prompt, said).belief[0], tree.levels[k].belief[node])


@EACH
@pytest.mark.parametrize("chunk", [2**28, 1])
def test_the_gradient_is_that_of_the_sum_over_all_conversations(name, chunk):
    world = world_of(name)
    policy, every = policy_of(world), Conversations(world)
    exact = tree_gradients(world, policy, 1.0, ("layer1",), chunk=chunk)
    truth = true_gradient(every, policy)
    close(exact.flat, truth, rtol=1e-9, atol=1e-12)
    assert torch.linalg.vector_norm(truth) > 1e-3
    probe = torch.zeros(len(world.prompts), world.prompts.shape[1] + world.horizon - 1, 8, dtype=torch.float64)
    probe.requires_grad_()
    J = every.J(policy, {"layer1": probe[every.prompt]})
    slope = torch.autograd.grad(J, probe)[0][:, : world.prompts.shape[1]] / world.weights[:, None, None]
    close(exact.costates["layer1"][0], slope, rtol=1e-8, atol=1e-11)


@EACH
def test_forward_mode_and_live_prefixes_find_the_same(name):
    world = world_of(name)
    policy = policy_of(world)
    exact = tree_gradients(world, policy, 1.0, ("layer1",))
    close(
        forward_value_gradient(world, policy, 1.0, "layer1"), exact.costates["layer1"][0][:, -1], rtol=1e-9, atol=1e-12
    )
    J, surrogate = live_surrogate(live_prefixes(world), policy)
    close(J, exact.J)
    close(slope_of(surrogate, policy), exact.flat)
    assert bool(surrogate.isfinite())
    assert bool(score_surrogate(grow(world, policy)).isfinite())


def test_scores_of_the_environments_tokens_would_make_another_gradient():
    world = talking()
    policy, every = policy_of(world), Conversations(world)
    all_tokens = (every.log_probs(policy)[0] * every.span).sum(1)
    p, R = every.p(policy).detach() * world.weights[every.prompt], every.rewards.sum(1)
    wrong = slope_of((p * R) @ all_tokens, policy)
    assert not torch.allclose(wrong, true_gradient(every, policy), rtol=0.05)


@EACH
def test_completions_have_the_chances_rewards_and_masks_of_plain_loops(name):
    world = world_of(name)
    policy, every = policy_of(world), Conversations(world)
    rows = completions(grow(world, policy))
    close(rows.p.sum(1), torch.ones(len(world.prompts), dtype=torch.float64))
    mine, theirs = {}, {}
    for q, i in itertools.product(range(len(world.prompts)), range(len(rows.word))):
        key = (
            q,
            *(rows.tokens[q, i] * rows.span[q, i]).tolist(),
            *rows.mask[q, i].tolist(),
            *rows.rewards[q, i].tolist(),
        )
        mine[key] = mine.get(key, 0.0) + float(rows.p[q, i])
    for i, p in enumerate(every.p(policy).tolist()):
        key = (int(every.prompt[i]), *every.words[i], *every.mask[i].tolist(), *every.rewards[i].tolist())
        theirs[key] = theirs.get(key, 0.0) + p
    mine = {key: p for key, p in mine.items() if p > 0}
    assert sum(theirs.values()) == pytest.approx(sum(mine.values()))
    if world.end is None:
        assert set(mine) == set(theirs)
        for key, p in theirs.items():
            assert mine[key] == pytest.approx(p, rel=1e-11)
    spoken = words(grow(world, policy))
    close(
        (rows.p[..., None] * rows.rewards).sum(1), (spoken.p[..., None] * spoken.rewards).sum(1), rtol=1e-11, atol=1e-13
    )
    close((rows.over_states(rows.rewards) * spoken.p[..., None]).sum(1), (rows.p[..., None] * rows.rewards).sum(1))


def test_the_entropy_is_that_of_the_policys_own_steps():
    world = talking()
    policy, every = policy_of(world), Conversations(world)
    p = every.p(policy).detach() * world.weights[every.prompt]
    H = every.log_probs(policy)[1].detach()
    close(mean_entropy(grow(world, policy)).detach(), (p @ (H * every.mask).sum(1)) / (p @ every.mask.double().sum(1)))


def test_a_policy_that_reads_the_state_has_the_values_and_gradient_of_plain_loops():
    world = talking()
    z = torch.randn(world.S, world.V, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    every, pi = Conversations(world), torch.softmax(z, -1)
    states = torch.tensor(every.states)
    chance = torch.where(every.mask, pi[states, every.tokens], 1.0).prod(1) * every.chance
    J = (world.weights[every.prompt] * chance) @ every.rewards.sum(1)
    close(tables(world, pi.detach()).J, J.detach())
    exact = logit_gradient(world, pi.detach()).sum(0)
    close(exact, torch.autograd.grad(J, z)[0], rtol=1e-10, atol=1e-13)
    assert not exact[3:].any()
    assert bool(exact[:3].any())


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_relaxed_tokens_count_the_slope_of_the_environments_law(alpha):
    """J_alpha by forward differences of the tree's own J along random directions of the parameters."""
    world = by_the_clock()
    policy = policy_of(world)
    parameters = list(policy.parameters())
    gradient = slope_of(total_surrogate(grow(world, policy, alpha)), policy)
    at, rng = parameters_to_vector(parameters).detach().clone(), torch.Generator().manual_seed(0)
    v = torch.randn(len(at), generator=rng, dtype=torch.float64)

    def J(step):
        torch.nn.utils.vector_to_parameters(at + step * v, parameters)
        return float(grow(world, policy, alpha).J)

    slope = (J(1e-5) - J(-1e-5)) / 2e-5
    torch.nn.utils.vector_to_parameters(at, parameters)
    assert float(gradient @ v) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_the_error_splits_and_stays_within_its_bounds(alpha):
    for world in [by_the_clock()] + ([talking()] if alpha == 1 else []):
        split = error_split(world, policy_of(world), alpha, "layer1")
        assert float(split.residual.max()) < 1e-12
        assert bool((split.tiers[:-1] <= split.tiers[1:] * (1 + 1e-9)).all())
        assert float(split.error.min()) > 1e-4


def test_a_relaxed_token_that_leaves_the_turn_open_is_refused():
    with refused("alpha"):
        grow(talking(), policy_of(talking()), 0.5)


@pytest.mark.parametrize("name", ["attention", "score", "soft", "straight_through"])
def test_sampled_costates_have_their_exact_means(name):
    world = by_the_clock(2)
    policy, alpha = policy_of(world), 0.6 if name == "straight_through" else 1.0
    exact = expected_costates(world, policy, name, "layer1", alpha)[0]
    rng = torch.Generator().manual_seed(3)
    drawn = sampled_costates(world, policy, name, "layer1", 4000, rng, alpha).flatten(2)
    error = drawn.std(1) / drawn.shape[1] ** 0.5
    assert bool(((drawn.mean(1) - exact.flatten(1)).abs() <= 5 * error + 1e-12).all())
    assert name == "attention" or float(exact.abs().max()) > 1e-3


def test_the_best_word_asks_first_and_needs_an_environment_without_chance():
    with refused("world"):
        best_words(world_of("oracle"))
    P = world_of("by the clock")
    with refused("world"):
        best_words(P)


def test_a_transformer_of_many_heads_meets_no_nan_in_its_gradients():
    world = world_of("sure oracle")
    exact = tree_gradients(world, transformer(world), 1.0, ("embedding",))
    assert bool(exact.flat.isfinite().all())


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_rewards_averaged_over_the_own_token_have_the_value_as_their_mean(alpha):
    tree = grow(by_the_clock(), policy_of(by_the_clock()), alpha)
    close(path_surrogate(tree, own_token_averaged=True), tree.J)
