"""The factor of a standard deviation and what it climbs: against binomial sums, draws, quadrature and limits."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import binom

from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by, numerical_gradient
from theory.groups.binary_rewards import (
    alignment,
    arcsine,
    baseline_kappa,
    grpo_kappa,
    grpo_objective,
    mean_factor,
    mean_objective,
    signal_probability,
)
from theory.tokens.tree_gradients import TreeGradients

INSIDE = (0.03, 0.2, 0.5, 0.77, 0.99)
KINDS = list(itertools.product((True, False), (0.0, 0.1)))


def number(P):
    return torch.tensor(P, dtype=torch.float64)


def factor(P, *options):
    return float(grpo_kappa(number(P), *options))


def advantages(R, population, eps):
    """GRPO's of groups R (..., G), numpy's own std; 0 where all are equal."""
    std = R.std(-1, ddof=0 if population else 1, keepdims=True)
    return np.where(std > 0, (R - R.mean(-1, keepdims=True)) / np.where(std > 0, std + eps, 1), 0.0)


@pytest.mark.parametrize(("population", "eps"), KINDS)
@pytest.mark.parametrize("G", [2, 3, 8, 40])
def test_the_factor_is_the_mean_slope_of_a_binomial_group(G, population, eps):
    """`E[sum_i A_i (R_i - P)] / (G P (1-P))` over the number of successes, the group written out for each."""
    for P in INSIDE:
        total = 0.0
        for k in range(G + 1):
            R = np.array([1.0] * k + [0.0] * (G - k))
            total += binom.pmf(k, G, P) * float(advantages(R, population, eps) @ (R - P))
        assert factor(P, G, population, eps) == pytest.approx(total / (G * P * (1 - P)), rel=1e-10)


@pytest.mark.parametrize(("population", "eps"), KINDS)
def test_the_factor_is_that_of_drawn_groups(population, eps):
    """The mean of `A_1 (R_1 - P) / (P (1-P))`, the likelihood-ratio estimate of one row; no formula of the sum in it."""
    G, P, rng = 4, 0.3, np.random.default_rng(5)
    R = (rng.random((100_000, G)) < P).astype(float)
    drawn = advantages(R, population, eps)[:, 0] * (R[:, 0] - P) / (P * (1 - P))
    assert_mean_within(drawn, factor(P, G, population, eps))
    assert differs_by(drawn, factor(P, G, not population, eps)), "the control: the other std"


@pytest.mark.parametrize("G", [2, 3, 5, 16])
def test_at_the_ends_the_factor_is_the_root_of_one_less_than_the_group(G):
    """One success among G - 1 failures: `m(1-m)/std = sqrt(G-1)/G`, in G ways of G P, and the limits run there."""
    for P in (0.0, 1.0):
        assert factor(P, G) == pytest.approx(math.sqrt(G - 1), rel=1e-12)
        assert factor(P, G, False) == pytest.approx((G - 1) / math.sqrt(G), rel=1e-12)
    for tiny in (1e-5, 1e-6):
        assert factor(tiny, G) == pytest.approx(factor(0.0, G), abs=100 * G**2 * tiny)
        assert factor(1 - tiny, G) == pytest.approx(factor(1.0, G), abs=100 * G**2 * tiny)


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_the_sample_std_scales_the_factor_and_only_where_eps_is_zero(eps):
    ratio = [factor(P, 5, False, eps) / factor(P, 5, True, eps) / math.sqrt(4 / 5) for P in INSIDE]
    assert (max(abs(r - 1) for r in ratio) < 1e-12) == (eps == 0)


def test_two_rows_know_no_std_at_all():
    """With G = 2 the two differ by a constant: 1 at every P."""
    for P in (0.0, *INSIDE, 1.0):
        assert factor(P, 2) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("P", [0.2, 0.5, 0.9])
def test_large_groups_tend_to_one_over_the_true_std(P):
    gaps = [abs(factor(P, G) * math.sqrt(P * (1 - P)) - 1) for G in (50, 200, 800)]
    assert gaps[2] < 2e-2
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2], "falling about as 1/G"
    short = [float(arcsine(number(P)) - grpo_objective(number(P), G)) * math.sqrt(G) for G in (50, 200, 800)]
    assert 1.0 < min(short) < max(short) < 2.0, "what is climbed lacks about 1.46 / sqrt(G), all of it near P = 0"
    assert max(short) - min(short) < 0.2


def test_a_factor_of_a_group_of_thousands_is_still_a_number():
    assert factor(0.5, 3000) == pytest.approx(2.0, rel=1e-3)
    assert float(grpo_objective(number(0.5), 3000)) == pytest.approx(math.pi / 2, rel=2e-2)


@pytest.mark.parametrize(("population", "eps"), KINDS)
@pytest.mark.parametrize("G", [2, 3, 8])
def test_what_is_climbed_has_the_factor_as_its_slope_and_is_its_integral(G, population, eps):
    F = lambda P: grpo_objective(number(float(P)), G, population, eps)  # noqa: E731
    for P in INSIDE:
        assert float(numerical_gradient(F, P, 1e-5)) == pytest.approx(factor(P, G, population, eps), rel=1e-6)
    for P in (0.4, 1.0):
        area = quad(lambda p: factor(p, G, population, eps), 0.0, P, epsabs=1e-12, epsrel=1e-12)[0]
        assert float(F(P)) == pytest.approx(area, rel=1e-9)
    assert float(F(0.0)) == 0.0


def test_the_arcsine_is_the_integral_of_one_over_the_true_std():
    for P in INSIDE:
        slope = numerical_gradient(lambda p: arcsine(number(float(p))), P, 1e-6)
        assert float(slope) == pytest.approx(1 / math.sqrt(P * (1 - P)), rel=1e-6)
    assert float(arcsine(number(1.0))) == pytest.approx(math.pi)
    assert float(arcsine(number(0.0))) == 0.0


@pytest.mark.parametrize("G", [2, 3, 6])
def test_the_chance_of_a_signal_is_that_of_all_groups_whose_rewards_differ(G):
    for P in (0.0, *INSIDE, 1.0):
        total = sum(
            math.prod(P if r else 1 - P for r in group)
            for group in itertools.product((0, 1), repeat=G)
            if len(set(group)) == 2
        )
        assert float(signal_probability(number(P), G)) == pytest.approx(total, abs=1e-12)


def test_the_mean_baselines_kappa_is_the_covariance_over_the_variance():
    for G, own in itertools.product((2, 5), (True, False)):
        P, cov = 0.3, 0.0
        for group in itertools.product((0, 1), repeat=G):
            chance = math.prod(P if r else 1 - P for r in group)
            base = sum(group) / G if own else sum(group[1:]) / (G - 1)
            cov += chance * (group[0] - base) * (group[0] - P)
        assert baseline_kappa(G, own) == pytest.approx(cov / (P * (1 - P)), rel=1e-12)


def test_functions_take_tables_of_chances():
    P = torch.tensor([[0.1, 0.5], [0.9, 1.0]], dtype=torch.float64)
    for f in (grpo_kappa, grpo_objective, signal_probability):
        each = [[float(f(x, 4)) for x in row] for row in P]
        torch.testing.assert_close(f(P, 4), number(each))


def test_a_comparison_of_known_vectors():
    truth = number([3.0, 4.0])
    assert alignment(2 * truth, truth) == pytest.approx((1.0, 2.0, 0.0), abs=1e-15)
    assert alignment(-truth, truth) == pytest.approx((-1.0, -1.0, 0.0), abs=1e-15)
    assert alignment(number([-4.0, 3.0]), truth) == pytest.approx((0.0, 0.0, 1.0), abs=1e-15)
    assert alignment(number([4.0, 0.0]), truth) == pytest.approx((0.6, 12 / 25, 16 / 25), rel=1e-12)


def test_a_comparison_takes_gradients_in_parts_and_whole_answers():
    parts, other = [number([[3.0]]), number([4.0, 0.0])], (number([[4.0]]), number([0.0, 1.0]))
    flat = alignment(number([4.0, 0.0, 1.0]), number([3.0, 4.0, 0.0]))
    assert alignment(other, parts) == flat
    answer = [TreeGradients(number(0.0), [], tuple(parameters), {}) for parameters in (other, parts)]
    assert alignment(*answer) == flat


def test_a_comparison_with_nothing_says_so():
    zero, one = number([0.0, 0.0]), number([1.0, 0.0])
    assert all(math.isnan(x) for x in alignment(one, zero))
    cosine, scale, bias = alignment(zero, one)
    assert math.isnan(cosine)
    assert (scale, bias) == (0.0, 0.0)


@pytest.mark.parametrize("f", [grpo_kappa, grpo_objective, signal_probability])
def test_what_is_no_group_or_no_probability_is_refused(f):
    with refused("group"):
        f(number(0.5), 1)
    for bad in (-0.1, 1.1, math.nan):
        with refused("P"):
            f(number([0.5, bad]), 4)


@pytest.mark.parametrize("f", [grpo_kappa, grpo_objective])
def test_an_eps_below_zero_is_refused(f):
    for bad in (-0.1, math.nan):
        with refused("eps"):
            f(number(0.5), 4, eps=bad)


@pytest.mark.parametrize("G", [2, 3, 8, 40])
def test_the_factor_of_the_mean_is_that_of_a_binomial_group(G):
    """`E[sum_i A_i (R_i - P)] / (G P (1-P))`, `A = (R - m) / m` and 0 for m = 0, and its sum of powers."""
    for P in INSIDE:
        total = 0.0
        for k in range(1, G + 1):
            R = np.array([1.0] * k + [0.0] * (G - k))
            total += binom.pmf(k, G, P) * float((R / R.mean() - 1) @ (R - P))
        found = float(mean_factor(number(P), G))
        assert found == pytest.approx(total / (G * P * (1 - P)), rel=1e-10)
        assert found == pytest.approx(sum((1 - P) ** k for k in range(G - 1)), rel=1e-12)
        assert P == 0.99 or float(mean_factor(number(P), G + 1)) - found == pytest.approx((1 - P) ** (G - 1), abs=1e-12)
    assert float(mean_factor(number(0.0), G)) == G - 1
    assert float(mean_factor(number(1.0), G)) == 1


@pytest.mark.parametrize("G", [2, 3, 8, 40])
def test_the_objective_of_the_mean_is_the_integral_of_its_factor_and_a_sum_of_pass_at_k(G):
    for P in INSIDE:
        integral = quad(lambda x: float(mean_factor(number(x), G)), P, 1, epsabs=1e-12)[0]
        found = float(mean_objective(number(P), G))
        assert found == pytest.approx(-integral, rel=1e-9, abs=1e-12)
        passed = sum((1 - (1 - P) ** k) / k for k in range(1, G)) - sum(1 / k for k in range(1, G))
        assert found == pytest.approx(passed, rel=1e-9, abs=1e-12)
    assert float(mean_objective(number(0.3), 200)) == pytest.approx(math.log(0.3), rel=1e-12)
    assert abs(float(mean_objective(number(0.3), 8)) - math.log(0.3)) > 1e-3, "the control: a small group"


@pytest.mark.parametrize("call", [mean_factor, mean_objective])
def test_the_mean_refuses_what_is_no_probability_and_groups_of_one(call):
    for P in (-0.1, 1.1, math.nan):
        with refused("P"):
            call(number(P), 4)
    with refused("group"):
        call(number(0.5), 1)
