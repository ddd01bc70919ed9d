"""The claim on stochastic value gradients: defects that turn its parts, and a user's own system."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from figures.claims.systems import stochastic_value_gradients as svg
from figures.harness.judge import judge
from figures.measures import noise_theorems, stochastic_value_gradients, wrong_models
from figures.measures.linear_systems import build_system
from theory.continuous.noise_derivatives import NoiseDerivatives


def outcomes(kind, case, samples=20_000, margin=0.15):
    setting = svg.StochasticValueGradientsSetting(kind, case, samples, margin)
    rows = svg.measure(setting, torch.Generator().manual_seed(0), "cpu")
    return {name: part.result.outcome for name, part in judge(svg.CLAIM, pd.DataFrame(rows)).parts.items()}


def test_estimators_off_by_a_share_are_seen(monkeypatch):
    right = outcomes("spread", "scalar")
    assert right[svg.MEAN] == right[svg.SPREAD] == right[svg.ORDER] == "holds"
    assert right[svg.NO_MORE] == "fails"
    real = stochastic_value_gradients.svg_costates
    monkeypatch.setattr(stochastic_value_gradients, "svg_costates", lambda *a: 1.05 * real(*a))
    wrong = outcomes("spread", "scalar")
    assert wrong[svg.MEAN] == wrong[svg.SPREAD] == "fails"


def test_a_covariance_of_fewer_steps_is_seen(monkeypatch):
    real = svg.svg_covariance
    monkeypatch.setattr(svg, "svg_covariance", lambda w, K, steps, t: real(w, K, 0 if steps is None else steps, t))
    wrong = outcomes("spread", "scalar")
    assert wrong[svg.SPREAD] == wrong[svg.ORDER] == "fails"


def test_an_estimator_without_the_sampled_steps_is_seen(monkeypatch):
    real = stochastic_value_gradients.svg_costates
    none = lambda w, policy, path, steps, critic: real(w, policy, path, min(1, 9 if steps is None else steps), critic)  # noqa: E731
    monkeypatch.setattr(stochastic_value_gradients, "svg_costates", none)
    wrong = outcomes("spread", "scalar")
    assert wrong[svg.MEAN] == "holds"
    assert wrong[svg.SPREAD] == "fails"


def test_a_right_model_would_turn_the_controls(monkeypatch):
    right = outcomes("model", "random_finite")
    assert right[svg.MODEL_MEAN] == right[svg.TWICE] == "holds"
    assert right[svg.WRONG] == right[svg.CURL] == "fails"
    monkeypatch.setattr(svg, "shrunk", lambda world, model, factor: world)
    blind = outcomes("model", "random_finite")
    assert blind[svg.WRONG] == blind[svg.CURL] == "holds"


def test_the_value_of_the_world_is_not_the_mean_of_a_model(monkeypatch):
    real = svg.model_costate
    monkeypatch.setattr(svg, "model_costate", lambda w, K, model, way: real(w, K, w, way))
    assert outcomes("model", "double_integrator")[svg.MODEL_MEAN] == "fails"


def test_real_paths_in_the_place_of_imagined_ones_are_seen(monkeypatch):
    real = wrong_models.model_costate
    monkeypatch.setattr(wrong_models, "model_costate", lambda w, K, model, way: real(w, K, model, True))
    assert outcomes("model", "random_endless")[svg.TWICE] == "fails"


def test_derivatives_by_price_would_be_seen(monkeypatch):
    assert outcomes("noise", "laplace")[svg.OTHER] == "fails"
    real = noise_theorems.noise_derivatives

    def by_price(*a):
        d = real(*a)
        return NoiseDerivatives(d.in_mean, d.bonnet, d.price, d.price)

    monkeypatch.setattr(noise_theorems, "noise_derivatives", by_price)
    wrong = outcomes("noise", "laplace")
    assert wrong[svg.OTHER] == "holds"
    assert wrong[svg.PATHWISE] == "fails"
    assert outcomes("noise", "gaussian")[svg.GAUSSIAN] == "holds"


def test_other_draws_are_seen(monkeypatch):
    real = noise_theorems.noise_family
    monkeypatch.setattr(noise_theorems, "noise_family", lambda name: real("laplace"))
    wrong = outcomes("noise", "gaussian", 60_000)
    assert wrong[svg.PATHWISE] == wrong[svg.BONNET] == "fails"


def test_the_size_of_a_model_error_is_that_of_the_closed_loop():
    world, K, _ = build_system("random_finite")
    model = wrong_models.wrong_model(world, K, 0.2, torch.Generator().manual_seed(1))
    loops = [x.A - x.B @ K for x in (world, model)]
    assert float((loops[1] - loops[0]).norm()) == pytest.approx(0.2 * float(loops[0].norm()))
    half = wrong_models.shrunk(world, model, 0.5)
    torch.testing.assert_close(half.A - half.B @ K, (loops[0] + loops[1]) / 2)


@pytest.mark.parametrize("horizon", [None, 5])
def test_a_user_s_own_system_with_every_cost_and_an_offset(horizon):
    own = {
        "A": [[0.8, 2.0], [0.0, 0.5]],
        "B": [[0.0], [1.0]],
        "Q": [[1.0, 0.0], [0.0, 1.0]],
        "R": [[0.5]],
        "N": [[0.3], [0.2]],
        "q": [0.5, -1.0],
        "q_a": [0.4],
        "S_x": [[0.25]],
        "S_w": np.diag([0.1, 0.2]).tolist(),
        "gamma": 0.9,
        "K": [[0.02, 0.3]],
        "k": [0.7],
        "noise": "gumbel",
        **({} if horizon is None else {"horizon": horizon}),
    }
    found = outcomes("spread", json.dumps(own, sort_keys=True), 40_000, 0.3)
    assert found[svg.MEAN] == found[svg.SPREAD] == found[svg.ORDER] == "holds"
    assert found[svg.NO_MORE] == "fails"
