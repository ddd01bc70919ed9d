"""The claim on value-gradient flow: planted defects that turn its parts, its problems, and the numbers that are printed."""

import pandas as pd
import pytest
import torch

from agents.sampling import particle_flow
from figures.claims.systems import value_gradient_flow as claim
from figures.measures import flow_clouds, flow_laws, flow_prompts, value_flow
from figures.measures.value_flow import cloud_distance, nearest_tilt, random_problem
from figures.report.found_numbers import NUMBERS
from tests.agents.cases import draws
from tests.figures.claims.test_systems import outcomes
from theory import prompt_flow
from theory.continuous.gaussian_flow import flow, tilted
from theory.tokens.tree_gradients import total_surrogate

LAWS = claim.ValueGradientFlowSetting("2 numbers, common axes", 0, particles=16)
WORLD = claim.ValueGradientFlowSetting("lock (2,3)", 0, steps=3)
CONTROLS = (flow_laws.SOME_BETA, flow_laws.KL_BUDGET, flow_clouds.OFF_CENTRE, flow_prompts.E1, flow_clouds.ADAM)


def test_every_part_comes_out_as_documented():
    found = outcomes(claim, LAWS, WORLD)
    assert found == {part.name: part.documented for part in claim.CLAIM.parts}


def test_another_closed_form_is_seen(monkeypatch):
    real = flow_laws.flow
    monkeypatch.setattr(flow_laws, "flow", lambda R, *a: real(1.01 * R, *a))
    monkeypatch.setattr(flow_clouds, "flow", lambda R, *a, **k: real(1.01 * R, *a, **k))
    assert outcomes(claim, LAWS)[flow_laws.CLOSED] == "fails"
    assert outcomes(claim, LAWS)[flow_laws.SQUARE] == "fails"


def test_a_budget_that_is_too_small_and_one_that_bounds_kl_are_seen(monkeypatch):
    monkeypatch.setattr(flow_laws, "path_length", lambda *a: 0.5 * flow(*a).distance)
    assert outcomes(claim, LAWS)[flow_laws.BOUND] == "fails"
    monkeypatch.setattr(flow_laws, "flow_kl", lambda *a: 1e-3)
    assert outcomes(claim, LAWS)[flow_laws.KL_BUDGET] == "holds"


def test_a_flow_that_is_a_tilt_would_be_seen():
    problem = random_problem("3 numbers", torch.Generator().manual_seed(0))
    given = (problem.R, problem.a_star, problem.m, problem.S)
    tilt, law = tilted(*given, 0.37), flow(*given, 0.3)
    as_law = type(law)(law.map, tilt.mean, tilt.covariance, 1.0)
    assert nearest_tilt(problem, as_law) < flow_laws.NEAR < 1e-3 < nearest_tilt(problem, law)


def test_a_tilt_that_earns_too_little_is_seen(monkeypatch):
    real = flow_laws.beta_of_kl
    monkeypatch.setattr(flow_laws, "beta_of_kl", lambda *a: 3 * real(*a))
    assert outcomes(claim, LAWS)[flow_laws.HEADROOM] == "fails"
    multiplier = flow_laws.multiplier_of_distance
    monkeypatch.setattr(flow_laws, "multiplier_of_distance", lambda *a: 1.5 * multiplier(*a))
    assert outcomes(claim, LAWS)[flow_laws.BEST_MAP] == "fails"


def test_particles_that_repel_to_one_side_and_an_adam_without_scale_are_seen(monkeypatch):
    real = particle_flow.flow_direction
    monkeypatch.setattr(particle_flow, "flow_direction", lambda g, a, *x: real(g, a, *x) + 0.01 * a)
    wrong = outcomes(claim, LAWS)
    assert wrong[flow_clouds.CENTRED] == wrong[flow_clouds.TRANSLATED] == wrong[flow_laws.CLOSED] == "fails"
    monkeypatch.setattr(particle_flow, "flow_direction", real)
    monkeypatch.setattr(particle_flow, "_EPS", 1.0)
    assert outcomes(claim, LAWS)[flow_clouds.ADAM] == "holds"
    monkeypatch.setattr(flow_clouds, "adam_reach", lambda rate, steps: 0.9 * rate * steps)
    monkeypatch.setattr(particle_flow, "_EPS", 1e-8)
    assert outcomes(claim, LAWS)[flow_clouds.REACH] == "fails"


def test_plain_steps_that_forget_alpha_are_seen(monkeypatch):
    real = particle_flow.flow_direction
    monkeypatch.setattr(particle_flow, "flow_direction", lambda g, a, alpha, size: real(g, a, 1.0, size))
    assert outcomes(claim, LAWS)[flow_clouds.PLAIN] == "fails"


def test_defects_at_the_prompt_are_seen(monkeypatch):
    real = prompt_flow.kl_headroom
    monkeypatch.setattr(prompt_flow, "kl_headroom", lambda p, R, eps: 0.2 * real(p, R, eps))
    wrong = outcomes(claim, WORLD)
    assert wrong[flow_laws.HEADROOM] == wrong[flow_prompts.FIRST] == "fails"
    monkeypatch.setattr(prompt_flow, "kl_headroom", real)
    monkeypatch.setattr(flow_prompts, "path_surrogate", total_surrogate)
    assert outcomes(claim, WORLD)[flow_prompts.E1] == "holds"
    slope = prompt_flow.slope_of
    monkeypatch.setattr(prompt_flow, "slope_of", lambda value, delta: -slope(value, delta))
    assert outcomes(claim, WORLD)[flow_prompts.RISES] == "fails"
    monkeypatch.setattr(value_flow, "Shifted", lambda policy, *a: policy)
    assert outcomes(claim, WORLD)[flow_prompts.VALUE] == "fails"


@pytest.mark.parametrize("name", value_flow.SYSTEMS)
def test_problems_are_what_their_names_say(name):
    problem, (n, common) = random_problem(name, torch.Generator().manual_seed(3)), value_flow.SYSTEMS[name]
    assert problem.R.shape == problem.S.shape == (n, n)
    assert float(problem.R.trace()) == pytest.approx(n)
    assert float(torch.linalg.eigvalsh(problem.S)[0]) > 0
    assert (float((problem.R @ problem.S - problem.S @ problem.R).norm()) < 1e-12) == common
    cloud = problem.cloud(100_000, torch.Generator().manual_seed(4))
    torch.testing.assert_close(value_flow.moments(cloud)[1], problem.S, rtol=0, atol=0.05)
    at = cloud[:2].clone().requires_grad_()
    value = -((at - problem.a_star) @ problem.R * (at - problem.a_star)).sum()
    torch.testing.assert_close(problem.gradient(at.detach()), torch.autograd.grad(value, at)[0])


def test_the_distance_of_clouds_is_that_of_the_best_assignment():
    cloud = draws(5, 2)
    assert cloud_distance(cloud, cloud.flip(0)) == 0
    sorted_by = draws(6, 1, seed=1).sort(0).values, draws(6, 1, seed=2).sort(0).values
    assert cloud_distance(sorted_by[0].flip(0), sorted_by[1]) == pytest.approx(
        float((sorted_by[0] - sorted_by[1]).square().mean().sqrt())
    )


def test_the_printed_numbers_are_those_of_the_rows():
    rows = [row for s in (LAWS, WORLD) for row in claim.measure(s, torch.Generator().manual_seed(0), "cpu")]
    frame = pd.DataFrame(rows)
    told = NUMBERS["value_gradient_flow"](frame)
    own = frame[frame["part"] == "efficiency"].sort_values("step")["measured"]
    assert f"{own.iloc[0]:.2f} for a small step" in told
    assert f"{own.iloc[-1]:.2f} at the end of the flow" in told
    ten = frame[(frame["part"] == "gain of ten particles") & (frame["alpha"] == 10) & (frame["optimiser"] == "adam")]
    assert f"Adam {ten['measured'].item():.2f}." in told
