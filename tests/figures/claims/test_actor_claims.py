"""Second roads to what the claims about actor updates are made of, and defects that must turn them."""

import itertools
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

import figures.claims.critic_free.actor_update_is_value_gradient as actor
import figures.claims.critic_free.grpo_arcsine as arcsine
from agents.policies.linear import LinearPolicy
from agents.recipes.advantages import leave_one_out, mean_baseline
from agents.recipes.learners import rloo
from agents.sampling.rollout import rollout
from agents.sampling.token_rewards import token_returns
from agents.sampling.tokens import sample_tokens
from envs.linear_quadratic import random_system
from envs.noise import draw_noise
from figures.harness.claim import judge
from figures.measures.actor_updates import command_updates, group_costates, recipes, worst_deviation
from figures.measures.token_systems import build_policy, build_world
from theory.continuous.lq_gradients import command_slope, expected_return
from theory.groups.binary_rewards import grpo_objective
from theory.tokens.completions import completions
from theory.tokens.costates import expected_costates
from theory.tokens.forward_mode import forward_gradients
from theory.tokens.prefix_tree import grow

LOCK = actor.ActorUpdateIsValueGradientSetting("exact", "lock (2,3)", 4)
LINEAR = [s for s in actor.settings("quick") if s.kind == "linear" and s.world == "scalar"]
COPY = arcsine.GrpoArcsineSetting("copy (2,3)", (2, 3, 4), directions=1)


def verdict(module, settings, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return judge(module.CLAIM, pd.DataFrame([row for s in settings for row in module.measure(s, rng, "cpu")]))


def by_hand(learner, G, P, L):
    """kappa = Cov(A_1, R_1) / Var(R_1), over all 2^G rewards of a group; rows of L steps, paid at the last."""
    mean = 0.0
    for bits in itertools.product((0.0, 1.0), repeat=G):
        rewards = torch.zeros(G, L, dtype=torch.float64)
        rewards[:, -1] = torch.tensor(bits, dtype=torch.float64)
        weights, _ = learner(rewards, torch.ones(G, L, dtype=torch.bool), torch.zeros(G, dtype=torch.int64))
        chance = P ** sum(bits) * (1 - P) ** (G - sum(bits))
        mean += chance * G * float(weights[0, 0]) * (bits[0] - P)  # weights are of the groups' mean over rows
    return mean / (P * (1 - P))


@pytest.mark.parametrize("P", [0.03, 0.5, 0.9])
@pytest.mark.parametrize(
    "recipe", [r for r in recipes(8) if r.learner.critic is None], ids=lambda r: f"{r.name} {r.group}"
)
def test_every_kappa_is_the_slope_of_the_advantage_in_the_own_reward(recipe, P):
    kappa = recipe.kappa(torch.tensor([P], dtype=torch.float64), 3)
    assert float(kappa[0]) == pytest.approx(by_hand(recipe.learner, recipe.group, P, 3), rel=1e-10)


def test_forward_gradients_are_the_score_costates():
    world = build_world("arithmetic (3,2)")
    policy = build_policy(world, 3)
    for found, score in zip(
        forward_gradients(world, policy, "layer2"), expected_costates(world, policy, "score", "layer2"), strict=True
    ):
        assert torch.allclose(found, score[:, -1], atol=1e-13)


def test_the_worst_deviation_is_that_of_the_worst_prompt_in_its_own_size():
    truth = [torch.tensor([[3.0, 4.0], [0.3, 0.4]]), torch.ones(4, 2) / 100]
    kappa = torch.tensor([1.0, 2.0])
    found = [torch.stack([truth[0][0], 2 * truth[0][1]])[:, None], torch.stack([g * k for g, k in
             zip(truth[1], (1, 1, 2, 2), strict=True)])[:, None]]  # fmt: skip
    assert worst_deviation(found, truth, kappa) == 0
    found[1][3, 0, 0] += 0.1
    assert worst_deviation(found, truth, kappa) == pytest.approx(0.1)
    found[1][1, 0, 0] += 0.1
    assert worst_deviation(found, truth, kappa) == pytest.approx(0.1)


def test_a_sampled_group_costate_is_the_slope_of_its_weighted_log_likelihood():
    world = build_world("stop (2,4)")
    policy, G, groups = build_policy(world, 1), 3, 8
    found = group_costates(world, policy, rloo(), "embedding", G, groups, torch.Generator().manual_seed(2))
    sample = sample_tokens(policy, world.prompts, world.horizon, torch.Generator().manual_seed(2), copies=G * groups)
    R = token_returns(world, sample.prompt, sample.tokens).reshape(groups, G)
    assert 0 < float(R.mean()) < 1
    A = (R - (R.sum(1, keepdim=True) - R) / (G - 1)).flatten()
    direction = torch.randn(found.shape[1], generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def log_likelihood(h):
        x = policy.embed(torch.cat([world.prompts[sample.prompt], sample.tokens[:, :-1]], 1)).detach()
        last = world.prompts.shape[1] - 1
        x[:, last] += h * direction
        log_pi = torch.log_softmax(policy(x)[:, last:], -1).gather(2, sample.tokens[..., None])[..., 0]
        return (log_pi * world.mask(sample.tokens)).sum(1).detach()

    slope = (log_likelihood(1e-5) - log_likelihood(-1e-5)) / 2e-5
    assert torch.allclose(found @ direction, (A * slope).reshape(groups, G).mean(1), atol=1e-8)


def system():
    world = random_system(3, 2, seed=1, horizon=3, action_noise=0.5).to()
    K = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 4
    return world, K, torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def test_the_slopes_in_command_and_gain_are_differences_of_the_return():
    world, K, start = system()
    here = world.replace(m_0=start, S_0=torch.zeros_like(world.S_0))
    command, gain = command_slope(world, K, start)
    for i in range(2):
        first = torch.zeros(3, 2, 3, dtype=torch.float64)
        first[0, i] = -1e-4 * start / start.square().sum()  # moves u_0 alone, and by 1e-4
        ends = [expected_return(here, K.expand(3, -1, -1) + sign * first) for sign in (1, -1)]
        assert float(ends[0] - ends[1]) / 2e-4 == pytest.approx(float(command[i]), rel=1e-8)
    step = torch.zeros_like(K)
    step[1, 2] = 1e-4
    ends = [expected_return(here, K + sign * step) for sign in (1, -1)]
    assert float(ends[0] - ends[1]) / 2e-4 == pytest.approx(float(gain[1, 2]), rel=1e-6)


@pytest.mark.parametrize("advantage", [leave_one_out, mean_baseline])
def test_command_updates_are_advantages_times_noise_over_variance(advantage):
    world, K, start = system()
    found = command_updates(world, LinearPolicy(K), advantage, start, 4, 5, torch.Generator().manual_seed(1))
    noise = draw_noise(world, 20, 3, torch.Generator().manual_seed(1))
    path = rollout(world, LinearPolicy(K), noise, start.expand(20, -1))
    R = path.returns.detach().reshape(5, 4)
    A = R - (R.mean(1, keepdim=True) if advantage is mean_baseline else (R.sum(1, keepdim=True) - R) / 3)
    weighted = A.flatten()[:, None, None] * (noise.xi @ torch.linalg.inv(world.S_x))
    gain = -torch.einsum("btm,btn->bmn", weighted, path.states[:, :-1].detach())  # u = -K s
    both = torch.cat([weighted[:, 0], gain.flatten(1)], 1).reshape(5, 4, -1).mean(1)
    assert torch.allclose(found, both, atol=1e-10)


def test_a_wrong_kappa_or_a_wrong_costate_is_seen(monkeypatch):
    assert verdict(actor, [LOCK]).parts["kappa grad V at every prefix"].outcome == "holds"
    wrong = [replace(r, kappa=lambda P, L, k=r.kappa: k(P, L) * (1 + 1e-7)) for r in recipes(4)]
    monkeypatch.setattr(actor, "recipes", lambda most: wrong)
    found = verdict(actor, [LOCK])
    assert found.parts["kappa grad V at every prefix"].outcome == "fails"
    assert found.parts["parameter gradient"].outcome == "fails"


def test_a_sampled_learner_of_another_kappa_is_seen(monkeypatch):
    setting = next(s for s in actor.settings("quick") if s.recipe == "Dr. GRPO" and s.kind == "sampled")
    real = actor.group_costates
    monkeypatch.setattr(actor, "group_costates", lambda w, p, learner, *rest: real(w, p, rloo(), *rest))
    assert verdict(actor, [setting]).parts["sampled update"].outcome == "fails"


def test_a_baseline_taken_for_another_is_seen(monkeypatch):
    monkeypatch.setitem(actor._BASELINES, "Dr. GRPO", leave_one_out)
    assert verdict(actor, LINEAR).parts["linear-quadratic counterpart"].outcome == "fails"


def test_the_gradients_of_every_prompt_are_differences_of_its_success():
    world = build_world("copy (2,3)")
    policy = build_policy(world, 2)
    P, slopes = arcsine.prompt_gradients(world, policy)
    with torch.no_grad():
        weight, ends = policy.head.weight, []
        for h in (1e-5, -2e-5):
            weight[1, 3] += h
            ends.append(completions(grow(world, policy)).success())
        weight[1, 3] += 1e-5
    before = sum(p.numel() for p in itertools.takewhile(lambda p: p is not weight, policy.parameters()))
    assert torch.allclose(slopes[:, before + weight.shape[1] + 3], (ends[0] - ends[1]) / 2e-5, atol=1e-9)
    assert torch.allclose(P, completions(grow(world, policy)).success(), atol=1e-14)


def test_the_difference_of_the_objective_is_the_chain_rule_and_leaves_the_policy_alone():
    world = build_world("arithmetic (3,2)")
    policy, G = build_policy(world, 1), 5
    before = [p.detach().clone() for p in policy.parameters()]
    P, slopes = arcsine.prompt_gradients(world, policy)
    direction = slopes.sum(0) / slopes.sum(0).norm()
    weight = (grpo_objective(P * (1 + 1e-5), G) - grpo_objective(P * (1 - 1e-5), G)) / (
        2e-5 * P
    )  # c_G without its formula
    found = arcsine.objective_slope(world, policy, direction, G, True)
    assert found == pytest.approx(float(world.weights * weight @ (slopes @ direction)), rel=1e-7)
    assert all(torch.allclose(p, q, atol=1e-15) for p, q in zip(policy.parameters(), before, strict=True))


def test_zeta_and_the_gap_of_the_objective():
    N = 10**6
    sums = float(torch.arange(1, N + 1, dtype=torch.float64).rsqrt().sum())
    assert sums - 2 * N**0.5 - 0.5 / N**0.5 == pytest.approx(arcsine.ZETA, abs=1e-9)
    P = torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)
    for G in (64, 256):  # F_G as the plain integral of its definition, by the trapezoidal rule
        grid, k = torch.linspace(0, 1, 10_001, dtype=torch.float64), torch.arange(1, G, dtype=torch.float64)
        at = (P[:, None] * grid).clamp(min=1e-300)
        weight = torch.zeros_like(at)
        for j in k:
            log_C = math.lgamma(G + 1) - math.lgamma(j + 1) - math.lgamma(G - j + 1)
            term = (log_C + (j - 1) * at.log() + (G - j - 1) * (-at).log1p()).exp()
            weight += term * (j / G * (1 - j / G)).sqrt()
        F = P * torch.trapezoid(weight, grid, dim=1)
        assert float((2 * P.sqrt().asin() - F - arcsine.objective_gap(P, G)).abs().max()) < 0.5 / G**1.5


def test_another_objective_is_seen(monkeypatch):
    found = verdict(arcsine, [COPY])
    assert found.parts["finite G: the gradient of F_G"].outcome == "holds"
    monkeypatch.setattr(arcsine, "grpo_objective", lambda P, G, population: grpo_objective(P, G + 1, population))
    assert verdict(arcsine, [COPY]).parts["finite G: the gradient of F_G"].outcome == "fails"


def test_an_error_of_another_order_is_seen(monkeypatch):
    limit = arcsine.settings("quick")[0]
    assert verdict(arcsine, [limit]).parts["objective: error 1/sqrt G"].outcome == "holds"
    monkeypatch.setattr(arcsine, "ZETA", -1.45)
    assert verdict(arcsine, [limit]).parts["objective: error 1/sqrt G"].outcome == "fails"
