"""Estimators on one bit against scipy's quadrature, closed forms, draws in standard errors and finite differences."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit

from tests.envs.refusals import refused
from tests.typecheck import unchecked
from theory.groups.one_bit import disarm, noise_given_bit, one_bit, rebar_weight

F0, F1 = 0.2, 1.0
CASES = [(0.0, 0.1), (0.5, 0.5), (1.0, 1.0), (-2.0, 0.3), (3.0, 2.0)]


def sigmoid(x):
    return 0.5 * (1 + math.tanh(x / 2))


def rebar_by_scipy(ell, f0, f1, tau, eta):
    """Mean and variance of REBAR from its definition; v uniform, the slope of z~ by central differences in ell."""
    p = sigmoid(ell)

    def again(v, b, at):
        u = 1 - sigmoid(at) + v * sigmoid(at) if b else v * (1 - sigmoid(at))
        return at + math.log(u) - math.log1p(-u)

    def c(z):
        return f0 + (f1 - f0) * sigmoid(z / tau)

    def own(v, b):
        z = again(v, b, ell)
        return eta * (f1 - f0) * sigmoid(z / tau) * (1 - sigmoid(z / tau)) / tau

    def other(v, b, step=1e-5):
        slope = (c(again(v, b, ell + step)) - c(again(v, b, ell - step))) / (2 * step)
        return ((f1 if b else f0) - eta * c(again(v, b, ell))) * (b - p) - eta * slope

    def integral(f, b):
        points = [10.0**-k for k in (6, 4, 3, 2, 1)] if b else [1 - 10.0**-k for k in (1, 2, 3, 4, 6)]
        return quad(f, 1e-12, 1 - 1e-12, args=(b,), points=points, limit=500, epsabs=1e-12, epsrel=1e-11)[0]

    mean = square = 0.0
    for b, chance in ((0, 1 - p), (1, p)):  # z and z~ are drawn apart, given the bit
        A, C = integral(other, b), integral(own, b)
        A2, C2 = integral(lambda v, b: other(v, b) ** 2, b), integral(lambda v, b: own(v, b) ** 2, b)
        mean, square = mean + chance * (A + C), square + chance * (A2 + 2 * A * C + C2)
    return mean, square - mean**2


@pytest.mark.parametrize(("ell", "tau"), CASES)
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_rebar_is_what_scipy_integrates(ell, tau, eta):
    mean, variance = rebar_by_scipy(ell, F0, F1, tau, eta)
    found = one_bit(ell, F0, F1, tau, eta)["REBAR"]
    assert float(found.mean) == pytest.approx(mean, abs=1e-7)
    assert found.variance == pytest.approx(variance, rel=1e-5)
    assert one_bit(ell, F0, F1, 1.1 * tau, eta)["REBAR"].variance != pytest.approx(variance, rel=1e-3), "the control"


@pytest.mark.parametrize("ell", [-30.0, -4.0, -0.5, 0.0, 1.0, 6.0])
@pytest.mark.parametrize("tau", [1e-4, 0.1, 1.0, 30.0])
def test_all_four_are_unbiased_at_every_tau_and_eta(ell, tau):
    slope, step = (F1 - F0) * sigmoid(ell) * sigmoid(-ell), 1e-4
    by_differences = (F1 - F0) * (sigmoid(ell + step) - sigmoid(ell - step)) / (2 * step)
    assert slope == pytest.approx(by_differences, rel=1e-6, abs=1e-12)
    for eta in (-1.0, 0.0, 0.5, 1.0, None):
        for name, found in one_bit(ell, F0, F1, tau, eta).items():
            assert float(found.mean) == pytest.approx(slope, abs=1e-13), (name, eta)


@pytest.mark.parametrize("ell", [-3.0, -0.5, 0.0, 0.7, 5.0])
@pytest.mark.parametrize(("f0", "f1"), [(F0, F1), (2.0, -1.0), (1.0, 1.0)])
def test_closed_forms_of_rloo_and_disarm(ell, f0, f1):
    p, q, D = sigmoid(ell), sigmoid(-ell), f1 - f0
    found, less = one_bit(ell, f0, f1), min(p, q)
    assert found["RLOO"].variance == pytest.approx(D**2 * p * q * (1 - 2 * p * q) / 2, abs=1e-15)
    assert found["DisARM"].variance == pytest.approx(D**2 * p * q * (1 - less) * (1 - 2 * less) / 2, abs=1e-15)
    assert found["DisARM"].variance <= found["RLOO"].variance
    assert found["REINFORCE"].variance == pytest.approx(p * q * (f1 * q + f0 * p) ** 2 / 2, abs=1e-15)


def test_disarm_is_what_pairs_of_opposite_noise_give():
    """`(f(b) - f(b')) (-1)^{b'} 1[b != b'] sigmoid(|ell|) / 2` of arXiv:2006.10680, u by u."""
    ell = 0.8
    u = (np.arange(200_000) + 0.5) / 200_000
    b, other = u > sigmoid(-ell), 1 - u > sigmoid(-ell)
    f = np.where([b, other], F1, F0)
    drawn = (f[0] - f[1]) * (-1.0) ** other * (b != other) * sigmoid(abs(ell)) / 2
    found = one_bit(ell, F0, F1)["DisARM"]
    assert drawn.mean() == pytest.approx(float(found.mean), abs=1e-5)
    assert drawn.var() == pytest.approx(found.variance, abs=1e-5)
    chances, gradients = disarm(ell, F0, F1)
    assert sorted(set(np.round(drawn, 12))) == pytest.approx(sorted(set(gradients[:, 0].tolist())))
    assert float(chances.sum()) == pytest.approx(1.0)


def test_numbers_that_were_known_before():
    at_zero, best = one_bit(0.0, F0, F1, 0.1, 1.0), one_bit(0.0, F0, F1, 0.1)
    assert at_zero["REBAR"].variance == pytest.approx(0.227, abs=5e-4)
    assert 2 * at_zero["REINFORCE"].variance == pytest.approx(0.09)  # of one draw
    assert best["REBAR"].variance == pytest.approx(0.064, abs=5e-4)
    assert rebar_weight(0.0, F0, F1, 0.1) == pytest.approx(0.28, abs=5e-3)
    at_one = one_bit(1.0, F0, F1, 1.0)
    assert at_one["REBAR"].variance == pytest.approx(0.0028, abs=5e-5)
    assert 2 * at_one["REINFORCE"].variance == pytest.approx(0.034, abs=5e-4)
    assert at_zero["DisARM"].variance == 0


@pytest.mark.parametrize(("ell", "tau"), CASES)
def test_the_variance_is_quadratic_in_the_weight_and_smallest_at_the_best(ell, tau):
    best = rebar_weight(ell, F0, F1, tau)
    variance = [one_bit(ell, F0, F1, tau, best + h)["REBAR"].variance for h in (-0.2, -0.1, 0.0, 0.1, 0.2)]
    assert min(variance) == variance[2]
    assert variance[0] == pytest.approx(variance[4], rel=1e-8)
    third = variance[4] - 2 * variance[3] + 2 * variance[1] - variance[0]
    assert abs(third) < 1e-12
    assert variance[4] - variance[2] == pytest.approx(4 * (variance[3] - variance[2]), rel=1e-6)
    assert one_bit(ell, F0, F1, tau)["REBAR"].variance == pytest.approx(variance[2], rel=1e-12)


def test_the_noise_given_the_bit_is_that_of_draws():
    ell, rng, count = -0.7, np.random.default_rng(1), 400_000
    z = ell + rng.logistic(size=count)
    for given in noise_given_bit(ell):
        own = z[(z > 0) == bool(given.bit)]
        assert len(own) / count == pytest.approx(float(given.chance), abs=5e-3)
        assert bool(((given.z > 0) == bool(given.bit)).logical_or(given.z == 0).all())
        for f in (np.tanh, lambda x: np.exp(-np.abs(x)), lambda x: expit(x / 0.05)):
            error = f(own).std() / math.sqrt(len(own))
            expected = float(given.mean(given.z.new_tensor(f(given.z.numpy()))))
            assert abs(f(own).mean() - expected) < 4.5 * error
    shifted = noise_given_bit(ell + 0.2)[1]
    own = z[z > 0]
    assert abs(np.tanh(own).mean() - float(shifted.mean(shifted.z.tanh()))) > 10 * np.tanh(own).std() / math.sqrt(
        len(own)
    )


def test_the_slope_of_the_noise_is_that_at_a_fixed_place_within_the_bit():
    step = 1e-5
    for at, up, down in zip(*(noise_given_bit(x) for x in (0.4, 0.4 + step, 0.4 - step)), strict=True):
        moved = (up.z - down.z) / (2 * step)
        assert float((moved - at.slope).abs().max()) < 1e-8


def test_equal_values_have_no_slope_and_nothing_to_control():
    found = one_bit(0.3, 1.0, 1.0)
    assert all(abs(float(x.mean)) < 1e-15 for x in found.values())
    assert found["RLOO"].variance == found["DisARM"].variance == 0
    assert one_bit(0.3, 0.0, 0.0)["REBAR"].variance == 0
    assert rebar_weight(0.3, 0.0, 0.0, 1.0) == 0


@unchecked()
def test_bad_input_is_refused_in_one_line():
    for name, arguments in {
        "ell": (math.nan, F0, F1),
        "f0": (0.0, "a", F1),
        "f1": (0.0, F0, math.inf),
        "tau": (0.0, F0, F1, 0.0),
        "eta": (0.0, F0, F1, 1.0, math.inf),
    }.items():
        with refused(name):
            one_bit(*arguments)
    with refused("tau"):
        rebar_weight(0.0, F0, F1, -1.0)
    with refused("ell"):
        noise_given_bit(math.inf)
