"""Bad input to a world: one line, naming the argument; and the good neighbours of every refusal are accepted."""

import math

import numpy as np
import pytest
import torch

from envs.linear_quadratic import LinearQuadratic, random_system, scalar
from envs.lq_variants import ChaoticMap, quantised_action, state_scaled_noise, step_reward
from envs.stacked_history import stack_history
from tests.envs.refusals import refused

SQUARE = ("Q", "R", "Q_f", "S_w", "S_x", "S_0")


def build(**changes):
    """A good world of two states and two actions, with some fields spoiled."""
    names = ("A", "B", "Q", "R", "Q_f", "S_w", "S_x", "S_0")
    fields = {name: np.eye(2) for name in names} | {"m_0": np.zeros(2)}
    return LinearQuadratic(**(fields | changes))


def test_the_unspoiled_world_is_accepted():
    assert build().n == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("A", np.ones((2, 3))),
        ("A", np.ones((3, 2))),
        ("B", np.ones((3, 2))),
        ("Q", np.eye(3)),
        ("R", np.eye(3)),
        ("Q_f", np.eye(1)),
        ("S_w", np.eye(3)),
        ("S_x", np.eye(1)),
        ("S_0", np.ones(2)),
        ("S_w", 0.1),
        ("m_0", np.zeros(3)),
        ("m_0", 0.0),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name, value):
    with refused(name):
        build(**{name: value})


@pytest.mark.parametrize("name", ["A", "B", "Q", "R"])
@pytest.mark.parametrize("value", [None, 2.0, [1.0, 2.0], np.zeros((0, 0)), [[1.0, 2.0], [3.0]], np.full((2, 2), "x")])
def test_what_is_no_matrix_is_refused(name, value):
    with refused(name):
        build(**{name: value})


@pytest.mark.parametrize("name", SQUARE)
@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
def test_asymmetric_and_indefinite_matrices_are_refused(name, library):
    for bad in ([[1.0, 0.5], [0.4, 1.0]], [[1.0, 0.0], [0.0, -1e-6]], [[1.0, 2.0], [2.0, 1.0]]):
        with refused(name):
            build(**{name: library(np.array(bad))})


@pytest.mark.parametrize("name", SQUARE)
def test_singular_matrices_and_rounding_are_no_reason_to_refuse(name):
    v = np.array([[1.0], [1 / 3]])
    build(**{name: v @ v.T})
    build(**{name: [[1.0, 1e-13], [0.0, 1.0]]})


@pytest.mark.parametrize("name", ["A", "B", "m_0", *SQUARE])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
def test_nan_and_infinity_are_refused_in_every_field(name, bad, library):
    spoiled = np.zeros(2) if name == "m_0" else np.eye(2)
    spoiled[..., -1] = bad
    with refused(name):
        build(**{name: library(spoiled)})


@pytest.mark.parametrize("make", [build, ChaoticMap])
@pytest.mark.parametrize("gamma", [0.0, -0.5, 1.0 + 1e-9, math.nan, math.inf])
def test_a_discount_outside_0_1_is_refused(make, gamma):
    assert make(gamma=1.0).gamma == 1.0
    with refused("gamma"):
        make(gamma=gamma)


@pytest.mark.parametrize("make", [build, ChaoticMap])
@pytest.mark.parametrize("horizon", [0, -3, True])
def test_a_horizon_below_one_is_refused(make, horizon):
    assert make(horizon=1).horizon == 1
    with refused("horizon"):
        make(horizon=horizon)


def test_the_chaotic_map_needs_an_end():
    with refused("horizon"):
        ChaoticMap(horizon=None)


@pytest.mark.parametrize("make", [build, ChaoticMap, scalar, step_reward, random_system])
def test_an_unknown_noise_is_refused_with_the_list_of_known_ones(make):
    with pytest.raises(ValueError, match="gaussian, laplace, logistic, gumbel, uniform; got 'cauchy'"):
        make(noise="cauchy")
    with refused("noise"):
        make(noise="cauchy")


def test_a_changed_copy_is_checked_like_a_new_world():
    with refused("gamma"):
        scalar().replace(gamma=2.0)
    with refused("Q"):
        scalar().replace(Q=[[-1.0]])


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        *((step_reward, "width", bad) for bad in (0.0, -1.0, math.nan)),
        *((quantised_action, "quantum", bad) for bad in (0.0, -1.0, math.nan, math.inf)),
        *((ChaoticMap, "sd", bad) for bad in (0.0, -1.0, math.nan, math.inf)),
        *((ChaoticMap, name, bad) for name in ("beta", "start") for bad in (math.nan, -math.inf)),
        *((state_scaled_noise, "C", bad) for bad in ([[math.nan]], [[math.inf]], [[1.0, 2.0]], [1.0], 0.5)),
        *((random_system, name, bad) for name in ("size", "actions") for bad in (0, -2)),
        *((random_system, "spectral_radius", bad) for bad in (-0.1, math.nan, math.inf)),
        *((lambda window: stack_history(scalar(), window), "window", bad) for bad in (0, -1)),
    ],
)
def test_settings_out_of_range_are_refused(make, name, value):
    with refused(name):
        make(**{name: value})


@pytest.mark.parametrize("variant", [step_reward, quantised_action, state_scaled_noise])
def test_a_variant_is_not_stacked_into_a_plain_world(variant):
    with refused("world"):
        stack_history(variant(), 2)
