"""Helpers of the claims on variance, KL estimators and off-policy steps by second roads; planted defects turn the claims."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

import figures.claims.critic_free.kl_estimators as kl
import figures.claims.critic_free.off_policy_steps as steps
import figures.claims.critic_free.u_statistic as u
from agents.recipes.learners import Learner, dr_grpo
from agents.recipes.surrogates import KL_ESTIMATORS
from figures.harness.claim import judge
from figures.harness.statistics import Estimate
from figures.measures.token_systems import build_policy, build_world
from theory.groups.expected_update import expected_update
from theory.groups.variance import completion_scores, hoeffding
from theory.tokens.completions import completions
from theory.tokens.prefix_tree import grow

SMALL = u.UStatisticSetting("garnet (2,3)", 1, sizes=(2, 3), sampled=(2, 4), samples=20_000)


def verdict(module, setting):
    rows = module.measure(setting, torch.Generator().manual_seed(0), "cpu")
    return judge(module.CLAIM, pd.DataFrame(rows))


@pytest.fixture(scope="module")
def garnet():
    world = build_world("garnet (2,3)")
    policy = build_policy(world, 1)
    tree = grow(world, policy)
    found = completions(tree)
    return found.p[0], found.returns[0], completion_scores(tree, policy)


def test_reduced_scores_keep_all_inner_products(garnet):
    s = garnet[2]
    small = u.reduced(s)
    assert small.shape[1] < len(s) + 1
    torch.testing.assert_close(small @ small.mT, s @ s.mT)


def test_sampled_excess_has_the_mean_that_enumerated_pairs_have(garnet):
    p, R, s = garnet[0], garnet[1], u.reduced(garnet[2])
    V, J = p @ R, p @ ((R - p @ R)[:, None] * s)
    exact = 0.0
    for i, j in product(range(len(p)), repeat=2):
        update = (R[i] - R[j]) * (s[i] - s[j]) / 2
        with_V = ((R[i] - V) * s[i] + (R[j] - V) * s[j]) / 2
        exact += float(p[i] * p[j] * ((update - J).square().sum() - (with_V - J).square().sum()))
    assert exact == pytest.approx(hoeffding(p, R, s, 2)[1])
    found = u.sampled_excess(p, R, s, 2, 40_000, torch.Generator().manual_seed(3))
    assert abs(found.mean - exact) < 5 * found.standard_error < 0.2 * exact


def test_fitted_slope_is_that_of_a_power_law_and_its_error_that_of_its_spread():
    rng, x = np.random.default_rng(0), np.log([2.0, 4.0, 8.0, 16.0])
    errors = 0.05 * np.exp(-2 * x)
    known = [Estimate(np.asarray(np.exp(1 - 2 * a)), np.asarray(e), 100) for a, e in zip(x, errors, strict=True)]
    slope = u.fitted_slope(x, known)
    assert float(slope.mean) == pytest.approx(-2)
    noisy = np.log(np.exp(1 - 2 * x) + errors * rng.standard_normal((20_000, 4)))
    spread = np.polyfit(x, noisy.T, 1)[0].std()
    assert float(slope.standard_error) == pytest.approx(spread, rel=0.05)


def test_a_wrong_remainder_and_a_baseline_that_is_not_V_are_seen(monkeypatch):
    real = u.hoeffding
    monkeypatch.setattr(u, "hoeffding", lambda *a: (real(*a)[0], 1.001 * real(*a)[1]))
    assert verdict(u, SMALL).parts[u.EXACT_SUM].outcome == "fails"
    monkeypatch.setattr(u, "hoeffding", real)
    wrong = u.oracle_recipe
    monkeypatch.setattr(u, "oracle_recipe", lambda V: wrong(1.01 * V))
    assert verdict(u, SMALL).parts[u.ORACLE].outcome == "fails"


@pytest.fixture(scope="module", params=["stop (2,4)", "stop (3,3)"])
def pair(request):
    world = build_world(request.param)
    return world, build_policy(world, 0), build_policy(world, 1)


def over_completions(world, policy, reference, visits=None):
    """Sums over completions by enumeration: probabilities of `visits` where prefixes are held fixed."""
    mine, other = (completions(grow(world, p)) for p in (policy, reference))
    p = world.weights[:, None] * (mine.p if visits is None else completions(grow(world, visits)).p)
    log_ratio, mask = (mine.log_probs - other.log_probs).flatten(0, 1), mine.mask.flatten(0, 1)
    return {name: float(p.flatten() @ (kind(log_ratio) * mask).sum(-1)) for name, kind in KL_ESTIMATORS.items()}


def nudged(policy, direction, step):
    other = kl.between(policy, policy, 0.0)
    with torch.no_grad():
        for p, d in zip(other.parameters(), direction, strict=True):
            p += step * d
    return other


def test_exact_gradients_are_the_slopes_of_enumerated_sums(pair):
    world, reference, other = pair
    policy = kl.between(reference, other, 0.25)
    found, rng, step = kl.exact_kl(world, policy, reference), torch.Generator().manual_seed(0), 1e-4
    direction = [torch.randn(p.shape, generator=rng, dtype=p.dtype) for p in policy.parameters()]
    ahead, behind = nudged(policy, direction, step), nudged(policy, direction, -step)
    along = lambda gradient: float(gradient @ kl.flat(direction))  # noqa: E731
    moving = [over_completions(world, at, reference) for at in (ahead, behind)]
    for name in KL_ESTIMATORS:
        assert along(found.whole[name]) == pytest.approx((moving[0][name] - moving[1][name]) / 2 / step, rel=1e-4)
    assert found.values["KL"] == pytest.approx(over_completions(world, policy, reference)["k1"])
    torch.testing.assert_close(found.whole["k1"], found.whole["KL"])
    fixed = [over_completions(world, at, reference, visits=policy) for at in (ahead, behind)]
    slopes = {name: (fixed[0][name] - fixed[1][name]) / 2 / step for name in KL_ESTIMATORS}
    assert abs(slopes["k1"]) < 1e-5 * abs(slopes["k2"])
    assert along(found.given["KL"]) == pytest.approx(slopes["k2"], rel=1e-4)
    assert along(found.given["forward"]) == pytest.approx(slopes["k3"], rel=1e-4)
    assert slopes["k2"] != pytest.approx(along(found.whole["KL"]), rel=1e-2)


def test_penalties_of_another_size_are_seen(monkeypatch):
    setting, real = kl.KlEstimatorsSetting("lock (2,3)", 0, (1 / 64, 1 / 4)), kl.penalised()
    own = (kl.K3_FORWARD, kl.K1_REWARD)
    found = verdict(kl, setting)
    assert [found.parts[part].outcome for part in own] == ["holds", "holds"]
    off = {
        "k3 in the loss": replace(real["k3 in the loss"], kl_loss=kl.Penalty("k3", 1.01)),
        "k1 in the reward": replace(real["k1 in the reward"], kl_reward=kl.Penalty("k1", 0.99)),
    }
    monkeypatch.setattr(kl, "penalised", lambda: real | off)
    found = verdict(kl, setting)
    assert [found.parts[part].outcome for part in own] == ["fails", "fails"]


@pytest.fixture(scope="module")
def moved():
    world = steps.WORLDS[steps.LOCK]()
    old = build_policy(world, 1, 2.0)
    return world, old, kl.between(old, build_policy(world, 2, 2.0), 0.2)


def test_whole_row_weights_are_exact_and_token_weights_are_not(moved):
    world, old, now = moved
    learners = steps.learners()
    gaps = {
        name: steps.gap(expected_update(world, now, learners[name], 2, behaviour=old))
        for name in ("whole row", "importance")
    }
    assert gaps["whole row"] < 1e-12
    assert gaps["importance"] > 1e-2


def test_silenced_tokens_counted_group_by_group(moved):
    world, old, now = moved
    drawn = completions(grow(world, old))
    ratio = (completions(grow(world, now)).log_probs - drawn.log_probs)[0].exp()
    p, R, silent, all_tokens = drawn.p[0], drawn.returns[0], 0.0, 0.0
    for i, j in product(range(len(p)), repeat=2):
        for row, other in ((i, j), (j, i)):
            A = float(R[row] - R[other])
            gone = (ratio[row] > 1.2) if A > 0 else (ratio[row] < 0.8)
            silent += float(p[i] * p[j] * gone.sum() * (A != 0))
            all_tokens += float(p[i] * p[j]) * len(gone) * (A != 0)
    assert silent > 0
    assert steps.silenced(world, now, old, dr_grpo(), 2) == pytest.approx(silent / all_tokens)
    assert steps.silenced(world, now, old, steps.learners()["importance"], 2) == 0


def test_total_variation_is_the_largest_gap_of_an_event(moved):
    world, old, now = moved
    p, q = (completions(grow(world, policy)).p[0] for policy in (old, now))
    assert steps.total_variation(world, old, now) == pytest.approx(float((p - q).clamp(min=0).sum()))
    assert steps.total_variation(world, now, now) == 0


def test_sine_is_0_for_multiples_and_1_for_updates_that_vanish_or_point_away(moved):
    world, old, _ = moved
    update = expected_update(world, old, dr_grpo(), 2)
    assert steps.sine(update) < 1e-12
    for factor in (0.0, -1.0):
        mean = replace(update.mean, parameters=tuple(factor * x for x in update.mean.parameters))
        assert steps.sine(replace(update, mean=mean)) == 1
    truth = kl.flat(update.truth.parameters)
    away = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0), dtype=truth.dtype)
    away = away - truth * (away @ truth) / truth.square().sum()
    tilted = replace(update.mean, parameters=(truth + away * truth.norm() / away.norm(),))
    assert steps.sine(replace(update, mean=tilted)) == pytest.approx(0.5**0.5)


def test_a_first_step_with_a_bias_and_whole_rows_weighed_by_tokens_are_seen(monkeypatch):
    setting = steps.OffPolicyStepsSetting(steps.LOCK, steps=2, group=2, temperature=2.0)
    few = {name: steps.learners()[name] for name in ("grpo", "whole row")}
    monkeypatch.setattr(steps, "learners", lambda: few)
    found = verdict(steps, setting)
    assert found.parts[steps.FIRST].outcome == found.parts[steps.WHOLE].outcome == "holds"
    few["grpo"] = Learner("grpo", lambda r, m, g: (r.sum(1, keepdim=True) + 0.3 * r.cumsum(1)) * m)
    few["whole row"] = replace(few["whole row"], surrogate=steps.importance)
    found = verdict(steps, setting)
    assert found.parts[steps.FIRST].outcome == found.parts[steps.WHOLE].outcome == "fails"
