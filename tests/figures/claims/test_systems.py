"""Claims on reference systems: their fields by a second road, and defects that turn a part."""

import pandas as pd
import pytest
import torch

from agents.policies.prefix_table import PrefixTable
from figures.claims.systems import kl_optimum, on_policy_distillation, update_is_a_gradient
from figures.harness.judge import judge
from figures.measures import distillation, penalty_ends, tables, update_fields
from figures.measures.tables import of_logits, table_of, word_distance
from figures.measures.token_systems import build_world
from theory.curl import jacobian
from theory.tokens import soft_control
from theory.tokens.prefix_tree import grow


def outcomes(claim, *settings):
    rows = [row for s in settings for row in claim.measure(s, torch.Generator().manual_seed(0), "cpu")]
    return {name: part.result.outcome for name, part in judge(claim.CLAIM, pd.DataFrame(rows)).parts.items()}


def test_the_jacobian_of_reinforce_is_the_hessian_of_the_return():
    world = build_world("stop (2,3)")
    at = PrefixTable(world, seed=1).logits.detach().flatten()

    def J(x):
        return grow(world, PrefixTable(world, x.reshape(-1, world.V))).J.detach()

    field = of_logits(world, update_fields.recipe_field(world, "REINFORCE", 0.0, 0))
    A, step = jacobian(field, at), 1e-3
    for i, j in ((0, 1), (0, 3), (4, 7), (2, 2)):
        e, f = torch.eye(len(at)).to(at)[[i, j]] * step
        second = (J(at + e + f) - J(at + e - f) - J(at - e + f) + J(at - e - f)) / (4 * step**2)
        assert float(A[i, j]) == pytest.approx(float(second), rel=1e-4, abs=1e-7)


def test_distillation_by_all_tokens_is_the_mean_of_the_sampled_token_and_not_the_gradient_of_the_objective():
    world, (student, *teachers) = (
        build_world("stop (2,3)"),
        [PrefixTable(build_world("stop (2,3)"), seed=s) for s in range(3)],
    )
    weights = torch.tensor([0.7, 0.3]).double()
    full = distillation.at_prefixes(world, teachers, weights)(student)
    sampled = distillation.by_penalty(world, teachers, weights, "kl_loss", "k2")(student)
    torch.testing.assert_close(full, sampled, rtol=0, atol=1e-14)
    slope, step = distillation.by_penalty(world, teachers, weights, "kl_reward", "k1")(student), 1e-4
    for i in (0, 5, 10):
        shift = torch.zeros_like(student.logits)
        shift.view(-1)[i] = step
        shifted = [PrefixTable(world, student.logits.detach() + sign * shift) for sign in (1, -1)]
        up, down = (distillation.objective(world, policy, teachers, weights) for policy in shifted)
        assert float(slope[i]) == pytest.approx(-(up - down) / (2 * step), rel=1e-5, abs=1e-9)
    assert float((slope - full).norm()) > 0.05 * float(full.norm())


def test_the_distance_of_laws_is_that_of_completions_alone():
    world = build_world("stop (2,3)")
    first = PrefixTable(world, seed=0)
    logits = first.logits.detach().clone()
    ended = [1 + a for a in range(world.V) if a == world.end]  # the row after the end token at once
    logits[ended] += torch.randn(1, world.V, generator=torch.Generator().manual_seed(0)).double()
    assert word_distance(world, first, PrefixTable(world, logits)) < 1e-15
    logits[0, 0] += 1.0
    p, q = (torch.softmax(x[0], -1) for x in (first.logits.detach(), logits))
    assert word_distance(world, first, PrefixTable(world, logits)) == pytest.approx(float((p - q).abs().sum()) / 2)


def test_a_wrong_penalty_turns_the_ends(monkeypatch):
    setting = kl_optimum.KlOptimumSetting("lock (2,3)", 0.3, 0)
    right = outcomes(kl_optimum, setting)
    assert right[kl_optimum.REWARD_END] == right[kl_optimum.RATIONAL] == right[kl_optimum.AT_REST] == "holds"
    real = penalty_ends.penalised_field
    monkeypatch.setattr(penalty_ends, "penalised_field", lambda w, ref, place, k, b: real(w, ref, place, k, 1.001 * b))
    wrong = outcomes(kl_optimum, setting)
    assert wrong[kl_optimum.REWARD_END] == wrong[kl_optimum.RATIONAL] == "fails"


def test_another_optimum_turns_the_identities(monkeypatch):
    setting = kl_optimum.KlOptimumSetting("garnet (2,3)", 1.0, 0)
    real = soft_control.soft_optimum
    monkeypatch.setattr(kl_optimum, "soft_optimum", lambda tree, beta: real(tree, 1.001 * beta))
    wrong = outcomes(kl_optimum, setting)
    assert wrong[kl_optimum.TILT] == wrong[kl_optimum.REGRET] == wrong[kl_optimum.AT_REST] == "fails"


def test_penalties_that_do_not_differ_would_be_seen(monkeypatch):
    """k1 in the reward in the place of k3 in the loss: then the claim would hold."""
    real = penalty_ends.penalised_field
    setting = kl_optimum.KlOptimumSetting("lock (2,3)", 1.0, 0)
    monkeypatch.setattr(penalty_ends, "penalised_field", lambda w, ref, place, k, b: real(w, ref, "kl_reward", "k1", b))
    assert outcomes(kl_optimum, setting)[kl_optimum.LOSS_END] == "holds"


def test_a_field_with_a_moving_factor_has_a_curl(monkeypatch):
    setting = update_is_a_gradient.UpdateIsAGradientSetting("RLOO", "lock (2,3)", 0)
    assert outcomes(update_is_a_gradient, setting)[update_is_a_gradient.RETURNS] == "holds"
    real = update_fields.mean_field
    moving = lambda *a, **k: lambda policy: real(*a, **k)(policy) * (1 + 0.01 * policy.logits.detach()[0, 0])  # noqa: E731
    monkeypatch.setattr(update_fields, "mean_field", moving)
    assert outcomes(update_is_a_gradient, setting)[update_is_a_gradient.RETURNS] == "fails"


def test_regressed_costates_of_another_covariance_are_seen(monkeypatch):
    setting = update_is_a_gradient.UpdateIsAGradientSetting("costate regression", "random_finite", 0)
    assert outcomes(update_is_a_gradient, setting)[update_is_a_gradient.PROJECTION] == "holds"
    real = update_is_a_gradient.costate_covariance
    monkeypatch.setattr(update_is_a_gradient, "costate_covariance", lambda w, K, t: [torch.eye(3).double()] * 2)
    assert outcomes(update_is_a_gradient, setting)[update_is_a_gradient.PROJECTION] == "fails"
    assert real is not update_is_a_gradient.costate_covariance


def test_an_ascent_that_does_not_come_to_rest_says_so(monkeypatch):
    world = build_world("lock (2,3)")
    monkeypatch.setattr(tables, "_MOST", 3)
    with pytest.raises(tables.InputError, match=r"^rate=1.0 has not brought the update to rest in 3 steps"):
        penalty_ends.reward_path(world, PrefixTable(world, seed=1), PrefixTable(world, seed=0), 0.3)


def test_teachers_that_are_left_out_are_seen(monkeypatch):
    setting = on_policy_distillation.OnPolicyDistillationSetting("garnet (3,3)", 2, 0)
    right = outcomes(on_policy_distillation, setting)
    assert right[on_policy_distillation.LOCAL] == right[on_policy_distillation.IN_REWARD] == "holds"
    assert right[on_policy_distillation.MINIMISER] == right[on_policy_distillation.FORWARD] == "fails"
    real = on_policy_distillation.at_prefixes
    first = lambda w, teachers, weights, forward=False: real(w, teachers[:1], torch.ones(1).double(), forward)  # noqa: E731
    monkeypatch.setattr(on_policy_distillation, "at_prefixes", first)
    wrong = outcomes(on_policy_distillation, setting)
    assert wrong[on_policy_distillation.LOCAL] == wrong[on_policy_distillation.SAMPLED] == "fails"
    monkeypatch.setattr(on_policy_distillation, "table_of", lambda w, log_pi: table_of(w, [0.9 * x for x in log_pi]))
    assert outcomes(on_policy_distillation, setting)[on_policy_distillation.VALUE] == "fails"
