"""The claim on wrong critics: planted defects that turn its parts."""

import pytest
import torch

from agents.policies.prefix_table import PrefixTable
from figures.claims.systems import gae_meets_vgl as claim
from figures.measures import wrong_critics
from figures.measures.token_systems import build_world
from tests.figures.claims.test_systems import outcomes

SYSTEM = "scalar, 5 steps"


def tokens(kind, world="stop (2,3)"):
    return claim.GaeMeetsVglSetting(world, kind, 0)


def paths(noise, count=2**15):
    return claim.GaeMeetsVglSetting(SYSTEM, noise, 0, count)


def test_another_closed_form_turns_both_estimators(monkeypatch):
    right = outcomes(claim, paths("gaussian"))
    assert right[claim.GAE] == right[claim.VGL] == "holds"
    assert right[claim.UNBIASED] == "fails"
    real = claim.lambda_gradient
    monkeypatch.setattr(claim, "lambda_gradient", lambda w, K, critic, lam: real(w, K, critic, 0.7 * lam))
    wrong = outcomes(claim, paths("gaussian"))
    assert wrong[claim.GAE] == wrong[claim.VGL] == "fails"


def test_each_estimator_alone_is_seen(monkeypatch):
    real = wrong_critics.gae_gradient
    monkeypatch.setattr(wrong_critics, "gae_gradient", lambda w, p, t, v, lam: real(w, p, t, v, 1.0))
    wrong = outcomes(claim, paths("gaussian"))
    assert (wrong[claim.GAE], wrong[claim.VGL]) == ("fails", "holds")


def test_uniform_noise_is_what_parts_them():
    assert outcomes(claim, paths("uniform"))[claim.UNIFORM] == "fails"


def test_a_term_that_is_left_out_of_the_polynomial_is_seen(monkeypatch):
    settings = [tokens(kind) for kind in (wrong_critics.EXACT_CRITIC, wrong_critics.NOISY, wrong_critics.TIME)]
    right = outcomes(claim, *settings)
    assert right[claim.POLYNOMIAL] == right[claim.RIGHT] == "holds"
    assert right[claim.UNBIASED] == right[claim.END_TOKEN] == "fails"
    real = wrong_critics.bias_terms
    monkeypatch.setattr(wrong_critics, "bias_terms", lambda tree, errors: real(tree, errors)[:-1])
    assert outcomes(claim, *settings)[claim.POLYNOMIAL] == "fails"


def test_an_error_of_time_alone_that_is_none_would_be_seen(monkeypatch):
    assert outcomes(claim, tokens(wrong_critics.TIME, "lock (2,3)"))[claim.ONE_LENGTH] == "holds"
    real = wrong_critics.critic_errors
    monkeypatch.setattr(
        wrong_critics, "critic_errors", lambda tree, kind, *a: real(tree, wrong_critics.EXACT_CRITIC, *a)
    )
    assert outcomes(claim, tokens(wrong_critics.TIME))[claim.END_TOKEN] == "holds"
    monkeypatch.setattr(wrong_critics, "critic_errors", lambda tree, kind, *a: real(tree, wrong_critics.NOISY, *a))
    assert outcomes(claim, tokens(wrong_critics.TIME, "lock (2,3)"))[claim.ONE_LENGTH] == "fails"


@pytest.mark.parametrize(("size", "falls"), [(0.0, True), (1.0, False)])
def test_lambda_buys_less_variance_with_a_good_critic_alone(size, falls):
    """With a bad critic bias and spread both rise as lambda falls."""
    world = build_world("garnet (2,3)")
    update = wrong_critics.wrong_critic_update(
        world, PrefixTable(world, seed=0), wrong_critics.NOISY, 1, (0.0, 1.0), size
    )
    bias, spread = update.bias.norm(dim=1), update.spread
    assert bool(spread[0] < spread[1]) == falls
    assert bool(bias[0] > bias[1] + 0.01) != falls


def test_the_spread_is_that_of_the_update_itself():
    """By hand for a choice of one step: `sum_a p_a (r_a - b)^2 |grad log pi_a|^2 - |mean|^2`."""
    world = build_world("one choice of 3")
    policy = PrefixTable(world, seed=1)
    update = wrong_critics.wrong_critic_update(world, policy, wrong_critics.EXACT_CRITIC, 1, (0.5,), 0.3)
    p = torch.softmax(policy.logits.detach()[0], -1)
    scores = torch.eye(3).double() - p
    drawn = (world.start_belief(torch.zeros(1, dtype=torch.long))[0] @ world.r[0]).double()
    A = drawn - p @ drawn
    second = (p * A.square()) @ scores.square().sum(1)
    assert float(update.spread[0] ** 2) == pytest.approx(float(second - ((p * A) @ scores).square().sum()))
