"""Relaxed tokens at one step: quadrature against samples, scipy and differences; limits, scores and crossing by other roads."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by
from tests.typecheck import unchecked
from theory.differences import central_gradient
from theory.tokens.gumbel import logistic_rule, simplex_rule, two_token_rule
from theory.tokens.gumbel_limits import (
    leading_crossing,
    score_fisher,
    score_moments,
    small_tau,
    table_curvature,
)
from theory.tokens.gumbel_moments import corners, crossing, relaxed_moments, sampled_variance

LAWS = {2: [0.7, 0.3], 3: [0.6, 0.3, 0.1], 4: [0.4, 0.3, 0.2, 0.1]}
M = torch.tensor([[1.0, 0.5, -2.0, 0.3], [0.5, -1.5, 1.0, 0.1], [-2.0, 1.0, 0.7, -0.4], [0.3, 0.1, -0.4, 2.0]]).double()


def law(V):
    return torch.tensor(LAWS[V], dtype=torch.float64)


def table(V):
    return torch.tensor([1.0, 0.0, -2.0, 0.5][:V], dtype=torch.float64)


def affine(y):
    return y @ table(y.shape[-1])


def quadratic(y):
    V = y.shape[-1]
    return affine(y) + ((y @ M[:V, :V]) * y).sum(-1)


def smooth(y):
    return (2 * affine(y)).sin() + y[..., 0] ** 3


def noise(V, samples=400_000, seed=0):
    """Gumbel numbers by numpy's own sampler."""
    return torch.from_numpy(np.random.default_rng(seed).gumbel(size=(samples, V)))


def drawn(p, f, tau, g):
    """Values, pathwise derivatives by autograd through the logits, shares and tokens of samples."""
    z = p.log().expand(len(g), -1).clone().requires_grad_()
    value = f(torch.softmax((z + g) / tau, -1))
    (slope,) = torch.autograd.grad(value.sum(), z)
    e = (-g).exp()
    return value.detach(), slope, e, (p.log() + g).argmax(-1)


def exact(x):
    return torch.tensor(x, dtype=torch.float64)


def J_of(z, f, tau):
    """The relaxed return of any logits."""
    rule = simplex_rule(torch.softmax(z, -1), tau)
    return rule.weights @ f(rule.relaxed)


@pytest.mark.parametrize("V", [2, 3, 4])
@pytest.mark.parametrize("tau", [0.2, 1.0])
def test_all_moments_are_those_of_samples(V, tau):
    p, b = law(V), 0.3
    found = relaxed_moments(p, quadratic, tau, b)
    value, slope, e, _ = drawn(p, quadratic, tau, noise(V))
    centred = (value - b)[:, None]
    samples = {
        "J": value,
        "pathwise": slope,
        "score": centred * (1 - e),
        "pathwise_square": slope.square().sum(1),
        "noise_square": (centred * (1 - e)).square().sum(1),
        "concrete_square": (centred * (1 - V * e / e.sum(1, keepdim=True))).square().sum(1),
    }
    for name, own in samples.items():
        truth = torch.as_tensor(getattr(found, name), dtype=torch.float64)
        assert_mean_within(own, truth)
        assert differs_by(own, 1.3 * truth)


@pytest.mark.parametrize("V", [2, 3])
@pytest.mark.parametrize("tau", [0.02, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("f", [affine, quadratic, smooth])
def test_score_pathwise_and_finite_differences_agree(V, tau, f):
    p = law(V)
    found = relaxed_moments(p, f, tau)
    size = float(found.pathwise.norm())
    assert float((found.pathwise - found.score).norm()) <= 1e-9 * size
    by_differences = central_gradient(lambda z: J_of(z, f, tau), p.log())
    assert float((found.pathwise - by_differences).norm()) <= 1e-6 * size
    assert float((found.pathwise - relaxed_moments(p, f, 1.3 * tau).pathwise).norm()) > 1e-5 * size


def test_two_roads_to_two_tokens_and_scipy():
    for p_1, tau in ((0.7, 0.05), (0.7, 1.0), (0.95, 0.3)):
        p = torch.tensor([p_1, 1 - p_1], dtype=torch.float64)
        one, other = (
            relaxed_moments(p, smooth, tau, 0.1, rule) for rule in (simplex_rule(p, tau), two_token_rule(p, tau))
        )
        for name in ("J", "pathwise_square", "concrete_square", "noise_square"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-10)
        ell = math.log(p_1 / (1 - p_1))

        def integrand(x, tau=tau, ell=ell):
            y = 1 / (1 + math.exp(-max(min(x / tau, 700.0), -700.0)))
            return float(smooth(torch.tensor([[y, 1 - y]], dtype=torch.float64))) * stats.logistic.pdf(x - ell)

        J = sum(integrate.quad(integrand, a, b, limit=400)[0] for a, b in ((-40, -1), (-1, 0), (0, 1), (1, 40)))
        assert pytest.approx(J, rel=1e-7) == one.J
    s, weights = logistic_rule(0.3)
    assert float(weights @ torch.from_numpy(stats.logistic.pdf(s.numpy() - 1.2))) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("V", [2, 3, 4, 5])
def test_the_shares_are_uniform_on_the_simplex_and_tokens_have_the_law(V):
    p = torch.arange(1, V + 1, dtype=torch.float64)
    p = p / p.sum()
    rule = simplex_rule(p, 0.7, 40 if V < 5 else 16)
    tolerance = 1e-9 if V < 5 else 1e-3
    tops = torch.stack([rule.weights[rule.tokens == k].sum() for k in range(V)])
    torch.testing.assert_close(tops, p, rtol=0, atol=tolerance)
    mean, square = rule.weights @ rule.shares, rule.weights @ rule.shares.square()
    torch.testing.assert_close(mean, torch.full_like(p, 1 / V), rtol=0, atol=tolerance)
    torch.testing.assert_close(square, torch.full_like(p, 2 / (V * (V + 1))), rtol=0, atol=tolerance)
    top = rule.relaxed.gather(1, rule.tokens[:, None])[:, 0]
    assert bool((top == rule.relaxed.amax(1)).all())
    u = (p.log() - rule.shares.log()) / 0.7
    torch.testing.assert_close(torch.softmax(u, 1), rule.relaxed, rtol=1e-6, atol=1e-9)


def extrapolated(value, steps=(0.04, 0.02, 0.01)):
    a, b, c = (value(tau) for tau in steps)
    return (a - 6 * b + 8 * c) / 3


@pytest.mark.parametrize("V", [2, 3])
@pytest.mark.parametrize("f", [quadratic, smooth, affine])
def test_fact_1_and_3_slope_of_the_bias_and_growth_of_the_spread(V, f):
    p = law(V)
    found = small_tau(p, f)
    slope = extrapolated(lambda tau: (relaxed_moments(p, f, tau).J - found.J) / tau)
    assert slope == pytest.approx(found.slope, abs=2e-5)
    own = extrapolated(lambda tau: (relaxed_moments(p, f, tau).pathwise - found.gradient) / tau)
    torch.testing.assert_close(own, found.gradient_slope, rtol=0, atol=5e-4)
    growth = extrapolated(lambda tau: tau * relaxed_moments(p, f, tau).pathwise_square)
    assert growth == pytest.approx(found.pathwise, rel=1e-4)
    by_differences = central_gradient(lambda z: exact(small_tau(torch.softmax(z, -1), f).slope), p.log())
    torch.testing.assert_close(found.gradient_slope, by_differences, rtol=0, atol=1e-7)
    if f is affine:
        assert abs(found.slope) < 1e-14
        assert found.pathwise == pytest.approx(float(p @ (table(V) - p @ table(V)).square()) / 3, rel=1e-12)


@pytest.mark.parametrize("V", [2, 3, 4])
def test_fact_1_for_quadratic_rewards_by_the_trace_and_its_line_meets_the_mean_field(V):
    p, H = law(V), 2 * M[:V, :V]
    by_edges, by_trace = small_tau(p, quadratic), small_tau(p, quadratic, H)
    own = -float((H @ (torch.diag(p) - torch.outer(p, p))).trace()) / 2
    assert by_edges.slope == pytest.approx(own, rel=1e-12)
    assert by_trace.slope == pytest.approx(own, rel=1e-12)
    torch.testing.assert_close(by_edges.gradient_slope, by_trace.gradient_slope)
    assert by_trace.J + by_trace.slope == pytest.approx(float(quadratic(p[None])), rel=1e-12)
    assert abs(small_tau(p, smooth).J + small_tau(p, smooth).slope - float(smooth(p[None]))) > 1e-3
    assert small_tau(p, quadratic, 1.5 * H).slope != pytest.approx(own, rel=0.1)


@pytest.mark.parametrize("V", [2, 3])
def test_fact_2_table_rewards_have_no_linear_bias(V):
    p, R = law(V), table(V)
    token, value, gradient = table_curvature(p, R)
    J = float(p @ R)

    def mean_token(tau):
        rule = simplex_rule(p, tau)
        return (rule.weights @ rule.relaxed - p) / tau**2

    torch.testing.assert_close(extrapolated(mean_token), token, rtol=0, atol=1e-4)
    gini_slope = central_gradient(lambda z: 1 - torch.softmax(z, -1).square().sum(), p.log())
    torch.testing.assert_close(token, math.pi**2 / 12 * gini_slope, rtol=0, atol=1e-7)
    assert extrapolated(lambda tau: (relaxed_moments(p, affine, tau).J - J) / tau**2) == pytest.approx(value, abs=2e-4)
    own = central_gradient(lambda z: exact(table_curvature(torch.softmax(z, -1), R)[1]), p.log())
    torch.testing.assert_close(gradient, own, rtol=0, atol=1e-7)
    assert (
        abs(extrapolated(lambda tau: (relaxed_moments(p, quadratic, tau).J - small_tau(p, quadratic).J) / tau**2)) > 1
    )


@pytest.mark.parametrize("V", [2, 3, 4])
def test_fact_4_fisher_matrices_and_conditional_means_of_the_scores(V):
    p = law(V)
    _, _, e, token = drawn(p, affine, 1.0, noise(V))
    scores = {"noise": 1 - e, "concrete": 1 - V * e / e.sum(1, keepdim=True), "token": torch.eye(V)[token].double() - p}
    for score, fisher in zip(scores.values(), score_fisher(p), strict=True):
        assert_mean_within(score[:, :, None] * score[:, None], fisher)
        assert differs_by(score.square().sum(1), 1.05 * fisher.trace())
        for k in range(V):  # each is the conditional mean of the one before
            assert_mean_within(score[token == k], torch.eye(V).double()[k] - p)
    assert differs_by(scores["concrete"].square().sum(1), score_fisher(p)[2].trace())


@pytest.mark.parametrize("tau", [0.3, 2.0])
def test_fact_4_the_score_of_the_concrete_density_by_autograd(tau):
    """The density of y on the simplex (Maddison et al. 2017) gives the score 1 - V w, at every p and tau."""
    p, V = law(3), 3
    rule = simplex_rule(p, tau, 12)
    y, kept = rule.relaxed, rule.relaxed.min(1).values > 1e-8
    z = p.log().expand(len(y), -1).clone().requires_grad_()
    terms = z - tau * y.log()
    density = terms.sum(1) - V * torch.logsumexp(terms, 1)
    (score,) = torch.autograd.grad(density.sum(), z)
    torch.testing.assert_close(score[kept], (1 - V * rule.shares)[kept], rtol=1e-5, atol=1e-5)
    assert int(kept.sum()) > 50


@pytest.mark.parametrize("V", [2, 3, 4])
def test_fact_5_lengths_of_the_scores_with_a_hard_reward(V):
    p, R, b = law(V), table(V), 0.4
    _, _, e, token = drawn(p, affine, 1.0, noise(V))
    mass = (R[token] - b).square()
    found = score_moments(p, R, b)
    samples = {
        "noise": (1 - e).square().sum(1),
        "concrete": (1 - V * e / e.sum(1, keepdim=True)).square().sum(1),
        "token": (torch.eye(V)[token].double() - p).square().sum(1),
    }
    for name, own in samples.items():
        truth = getattr(found, name)
        assert_mean_within(mass * own, truth)
        assert differs_by(mass * own, 1.1 * truth)
    even = score_moments(p, torch.ones(V), 0.0)
    traces = [float(fisher.trace()) for fisher in score_fisher(p)]
    assert [even.noise, even.concrete, even.token] == pytest.approx(traces)
    near = relaxed_moments(p, affine, 0.002, b, simplex_rule(p, 0.002, {2: 400, 3: 160, 4: 50}[V]))
    assert near.noise_square == pytest.approx(found.noise, rel=0.01)
    assert near.concrete_square == pytest.approx(found.concrete, rel=0.01)


def test_fact_6_the_crossing():
    for p_1, leading, exact, bias in ((0.7, 0.450, 0.479, 0.087), (0.9, 0.228, 0.2297, 0.036)):
        p = torch.tensor([p_1, 1 - p_1], dtype=torch.float64)
        assert leading_crossing(p, table(2)) == pytest.approx(1 / (6 * (1 - 3 * p_1 * (1 - p_1))), rel=1e-12)
        assert leading_crossing(p, table(2)) == pytest.approx(leading, abs=5e-4)
        tau = crossing(p, affine)
        assert tau == pytest.approx(exact, abs=5e-4)
        gradient = p * (table(2) - p @ table(2))
        own = relaxed_moments(p, affine, tau).pathwise - gradient
        assert float(own.norm() / gradient.norm()) == pytest.approx(bias, abs=5e-4)
    p = law(3)
    tau = crossing(p, affine)
    _, slope, _, token = drawn(p, affine, tau, noise(3))
    R = table(3)
    hard = (R[token] - p @ R)[:, None] * (torch.eye(3)[token].double() - p)
    assert float(slope.var(0).sum()) == pytest.approx(float(hard.var(0).sum()), rel=0.02)
    assert float(hard.var(0).sum()) == pytest.approx(sampled_variance(p, R), rel=0.02)
    assert float(drawn(p, affine, 0.8 * tau, noise(3))[1].var(0).sum()) > 1.1 * sampled_variance(p, R)


def test_an_even_pair_of_tokens_has_no_crossing():
    p = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert sampled_variance(p, table(2)) == 0.0
    assert crossing(p, affine) == math.inf
    assert leading_crossing(p, table(2)) == pytest.approx(2 / 3)


def test_other_precisions_and_lists_are_taken():
    one, other = (relaxed_moments(p, affine, 0.5) for p in (law(2), law(2).float()))
    assert pytest.approx(other.J, rel=1e-6) == one.J
    with unchecked():
        assert score_moments([0.5, 0.5], [1, 0], 0.0).token == pytest.approx(0.25)
        assert pytest.approx(one.J) == relaxed_moments([0.7, 0.3], affine, 0.5).J


def test_refusals():
    with unchecked():
        check_refusals()


def check_refusals():
    p = law(2)
    for bad in ([1.0], [0.5, 0.6], [1.0, 0.0], [math.nan, 1.0], [[0.5, 0.5]]):
        with refused("p"):
            simplex_rule(torch.tensor(bad), 1.0)
    for tau in (0.0, -1.0, math.nan, math.inf, True, "1"):
        with refused("tau"):
            simplex_rule(p, tau)
        with refused("tau"):
            logistic_rule(tau)
    with refused("nodes"):
        simplex_rule(p, 1.0, 1)
    with refused("nodes"):
        simplex_rule(torch.full((9,), 1 / 9), 1.0)
    with refused("p"):
        two_token_rule(law(3), 1.0)
    with refused("f"):
        relaxed_moments(p, lambda y: y, 1.0)
    with refused("f"):
        relaxed_moments(p, lambda y: y.detach().sum(-1), 1.0)
    with refused("f"):
        corners(lambda y: y[:, 0] / 0, 2)
    with refused("f"):
        crossing(p, lambda y: y.sum(-1))
    with refused("hess"):
        small_tau(p, quadratic, M)
    for moments in (
        lambda R: score_moments(p, R, 0.0),
        lambda R: table_curvature(p, R),
        lambda R: leading_crossing(p, R),
    ):
        with refused("R"):
            moments(torch.ones(3))
    with refused("R"):
        leading_crossing(p, torch.ones(2))
