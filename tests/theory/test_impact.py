"""Signal and headroom by other roads: sampled costates, all tuples, the binary equation, a constrained optimiser."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize

from agents.sampling.completions import step_rewards
from agents.sampling.tokens import sample_tokens
from envs.token_tasks import arithmetic, garnet, sum_and_stop
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by
from tests.theory.token_cases import several_prompts, transformer, with_readout
from theory.impact import (
    best_of,
    best_of_headroom,
    entropy_law,
    kl_headroom,
    null_models,
    power_headroom,
    signal,
    word_scores,
)
from theory.tokens.completions import words
from theory.tokens.forward_mode import forward_value_gradient
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_gradients import tree_gradients

close = torch.testing.assert_close
WORLDS = {
    "stop": sum_and_stop(2, 3, gamma=0.9),
    "several ends": sum_and_stop(3, 2, gamma=0.8),
    "several prompts": arithmetic(2, 2),
    "unlike weights": several_prompts(),
    "dense": garnet(V=2, horizon=3, seed=1),
}
EACH = pytest.mark.parametrize("name", WORLDS)


@EACH
@pytest.mark.parametrize("site", ["embedding", "layer1"])
def test_the_costate_is_the_value_gradient_of_reverse_and_forward_mode_and_the_gradient_that_of_the_tree(name, site):
    world, network = WORLDS[name], transformer(WORLDS[name], seed=1)
    exact, reverse = signal(world, network, site), tree_gradients(world, network, sites=(site,))
    truth = reverse.costates[site][0][:, -1]  # of the prompt's own value: divided by the prompt's weight already
    close(exact.costate, truth.norm(dim=-1), rtol=1e-9, atol=1e-12)
    close(exact.costate, forward_value_gradient(world, network, 1.0, site).norm(dim=-1), rtol=1e-9, atol=1e-12)
    assert exact.gradient == pytest.approx(float(torch.cat([g.flatten() for g in reverse.parameters]).norm()), rel=1e-9)
    assert float(exact.costate.min()) > 1e-4


def scores_by_autograd(world, network, site, masked=True):
    """`grad_h log pi(o)` of one completion after the other in reverse mode, whole contexts, no tree and no cache."""
    scores, last = [], world.prompts.shape[1] - 1
    for prompt, *word in itertools.product(range(len(world.prompts)), *[range(world.V)] * world.horizon):
        said = word[: word.index(world.end) + 1] if masked and world.end in word else word
        x = network.embed(torch.cat([world.prompts[prompt], torch.tensor(said[:-1], dtype=torch.int64)])).detach()[None]
        probe = torch.zeros_like(x).requires_grad_()
        log_pi = torch.log_softmax(network(x, {site: probe})[0, last:], -1)
        (slope,) = torch.autograd.grad(log_pi[torch.arange(len(said)), torch.tensor(said)].sum(), probe)
        scores.append(slope[0, last])
    return torch.stack(scores).unflatten(0, (len(world.prompts), -1))


@EACH
@pytest.mark.parametrize("site", ["embedding", "layer1"])
def test_word_scores_are_the_gradients_of_each_log_probability(name, site):
    world, network = WORLDS[name], transformer(WORLDS[name], temperature=0.6, seed=1)
    tree = grow(world, network)
    scores = word_scores(tree, network, site)
    close(scores, scores_by_autograd(world, network, site), rtol=1e-9, atol=1e-11)
    p = words(tree).p
    assert float(torch.einsum("il,ild->id", p, scores).abs().max()) < 1e-13  # the mean score is 0
    if world.end is not None:
        unmasked = scores_by_autograd(world, network, site, masked=False)
        assert float((scores - unmasked).abs().max()) > 1e-2, "the control: what follows the end token would count"


@pytest.mark.parametrize("name", ["dense", "stop"])
def test_noise_and_cap_are_those_of_sampled_costates(name, rng):
    world = WORLDS[name]
    network = transformer(world, seed=1)
    sample = sample_tokens(network, world.prompts, world.horizon, rng, copies=30_000)
    x = network.embed(torch.cat([world.prompts[sample.prompt], sample.tokens[:, :-1]], 1)).detach()
    probe = torch.zeros_like(x).requires_grad_()
    logits = network(x, {"layer1": probe})[:, -world.horizon :]
    log_p = torch.log_softmax(logits, -1).gather(2, sample.tokens[..., None])[..., 0]
    (s,) = torch.autograd.grad((log_p * world.mask(sample.tokens)).sum(), probe)
    s = s[:, world.prompts.shape[1] - 1]
    states = torch.rand(sample.tokens.shape, generator=rng, dtype=torch.float64)
    R = step_rewards(world, sample.prompt, sample.tokens, states).sum(1)
    costates = (R - float(tree_gradients(world, network).J))[:, None] * s
    exact = signal(world, network, "layer1")
    square = float(exact.noise[0] ** 2 + exact.costate[0] ** 2)
    assert_mean_within((costates**2).sum(1), square)
    assert differs_by((costates**2).sum(1), 1.25 * square)  # tails are heavy: the sample sees no smaller error
    cap = R.std() * torch.linalg.eigvalsh(s.mT @ s / len(s))[-1].sqrt()
    assert float(exact.cap[0]) == pytest.approx(float(cap), rel=0.03)


@EACH
def test_the_signal_is_capped_by_the_reward_spread(name):
    for seed in range(4):
        exact = signal(WORLDS[name], transformer(WORLDS[name], seed=seed), "layer2")
        assert (exact.alignment >= 0).all()
        assert (exact.alignment <= 1 + 1e-12).all()
        assert (exact.alignment > 1e-6).any()


def test_without_spread_there_is_no_signal():
    world = garnet(V=2, horizon=2, seed=1)
    flat = type(world)(world.P, 0 * world.r + 0.5, world.prompts, world.starts, 2)
    exact = signal(flat, transformer(flat, seed=1), "layer1")
    for x in (exact.snr, exact.alignment):
        assert x.isfinite().all()
    assert float(exact.costate.max()) < 1e-12


P = torch.tensor([0.1, 0.3, 0.35, 0.25], dtype=torch.float64)
R = torch.tensor([1.0, 0.2, 0.2, -0.5], dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_best_of_k_is_the_mean_over_all_tuples(k):
    total = 0.0
    for row in itertools.product(range(4), repeat=k):
        total += float(np.prod([P[i] for i in row])) * max(float(R[i]) for i in row)
    assert float(best_of(P, R, k)) == pytest.approx(total, rel=1e-12)
    assert float(best_of_headroom(P, R, k)) == pytest.approx(total - float(P @ R), abs=1e-12)


@pytest.mark.parametrize("chance", [1e-6, 0.2, 0.9])
def test_for_binary_rewards_best_of_k_is_pass_at_k_and_the_ball_solves_its_equation(chance):
    p, r = torch.tensor([1 - chance, chance], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert float(best_of(p, r, 5)) == pytest.approx(1 - (1 - chance) ** 5, rel=1e-9)
    kl = lambda q: q * np.log(q / chance) + (1 - q) * np.log((1 - q) / (1 - chance))  # noqa: E731
    q = brentq(lambda q: kl(q) - 0.05, chance, 1 - 1e-15)
    assert kl_headroom(p, r, 0.05) == pytest.approx(q - chance, rel=1e-9)
    assert kl_headroom(p, r, 50.0) == pytest.approx(1 - chance, rel=1e-12)


@pytest.mark.parametrize("eps", [0.01, 0.3, 2.0])
def test_the_ball_against_a_constrained_optimiser(eps):
    kl = lambda q: float((q * np.log(np.maximum(q, 1e-300) / P.numpy())).sum())  # noqa: E731
    optimum = minimize(
        lambda q: -q @ R.numpy(),
        P.numpy(),
        bounds=[(1e-12, 1)] * 4,
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
        constraints=[{"type": "eq", "fun": lambda q: q.sum() - 1}, {"type": "ineq", "fun": lambda q: eps - kl(q)}],
    )
    assert kl_headroom(P, R, eps) == pytest.approx(-optimum.fun - float(P @ R), abs=1e-6)


def test_power_sampling_by_hand():
    q = P.numpy() ** 4 / (P.numpy() ** 4).sum()
    assert float(power_headroom(P, R, 4.0)) == pytest.approx(q @ R.numpy() - float(P @ R), rel=1e-12)
    assert float(power_headroom(P, R, 1.0)) == pytest.approx(0, abs=1e-15)


def test_bad_requests_are_refused():
    with refused("k"):
        best_of(P, R, 0)
    with refused("eps"):
        kl_headroom(P, R, 0.0)
    with refused("alpha"):
        power_headroom(P, R, 0.0)
    with refused("world"):
        signal(with_readout(WORLDS["dense"]), transformer(WORLDS["dense"], seed=1), "layer1")


def test_null_models_are_the_spread_of_binary_rewards_and_do_not_move_with_a_shift():
    chance = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    p, r = torch.stack([1 - chance, chance], -1), torch.tensor([[0.0, 1.0]] * 3, dtype=torch.float64)
    models = null_models(p, r, chance + 1)
    assert models["sqrt(P(1-P))"].tolist() == pytest.approx([float(x * (1 - x)) ** 0.5 for x in chance])
    assert models["P(1-P)"].tolist() == pytest.approx([float(x * (1 - x)) for x in chance])
    assert models["headroom"].tolist() == pytest.approx([1 - float(x) for x in chance])
    assert (models["J"].tolist(), models["H"].tolist()) == (chance.tolist(), (chance + 1).tolist())
    dense, moved = null_models(P, R, P[0]), null_models(P, R - 3.0, P[0])
    by_hand = float(P @ R**2 - (P @ R) ** 2)
    assert float(dense["P(1-P)"]) == pytest.approx(by_hand, rel=1e-12)
    for name in ("sqrt(P(1-P))", "P(1-P)", "headroom"):
        assert float(moved[name]) == pytest.approx(float(dense[name]), rel=1e-12)


def test_a_ball_whose_rim_is_the_best_completions_reaches_them():
    """Where the best lie on the rim exactly rounding puts some of them beyond it, at a tilt that no search ends at."""
    r = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    for eps in (0.07218045112781955, *np.linspace(0.01, 2.0, 200)):
        share = float(np.exp(-eps))
        p = torch.tensor([share / 3] * 3 + [(1 - share) / 2] * 2, dtype=torch.float64)
        assert kl_headroom(p, r, float(eps)) == pytest.approx(1 - share, rel=1e-6)
        assert kl_headroom(p, r, 0.9 * float(eps)) < 1 - share - 1e-6


def test_the_entropy_law_is_a_least_squares_line():
    H = torch.tensor([0.1, 0.5, 1.2, 2.0], dtype=torch.float64)
    a, b = np.linalg.lstsq(np.stack([-np.exp(H.numpy()), np.ones(4)], 1), R.numpy(), rcond=None)[0]
    assert entropy_law(H, R) == pytest.approx((a, b), rel=1e-10)
    with refused("H"):
        entropy_law(H[:1].expand(4), R)


def test_a_small_power_gives_nothing_to_what_cannot_be_said():
    p, R = torch.tensor([0.25, 0.75, 0.0]).double(), torch.tensor([0.0, 1.0, 100.0]).double()
    q = p[:2] ** 0.01 / (p[:2] ** 0.01).sum()
    assert float(power_headroom(p, R, 0.01)) == pytest.approx(float(q[1]) - 0.75, rel=1e-12)
