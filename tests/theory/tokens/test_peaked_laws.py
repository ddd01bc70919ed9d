"""Functions of probabilities keep their digits for peaked laws: against arithmetic of many digits, down to 1 - p = 1e-300."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from figures.measures.token_systems import build_policy, build_world, with_reward
from theory.groups.binary_rewards import grpo_kappa, signal_probability
from theory.tokens.costates import expected_costates
from theory.tokens.error_split import error_split
from theory.tokens.forward_mode import forward_value_gradient
from theory.tokens.softmax_bounds import (
    INEQUALITIES,
    complement,
    covariance,
    embedding_spread_bound,
    entropy,
    gini,
    inf_to_one_bound,
    jacobian,
    jacobian_norm,
    log_softmax,
    sandwich_bound,
    softmax,
)

mpmath.mp.dps = 680  # 60 digits beside the 620 of 1 - (1 - 1e-300)^2
LOGITS = st.lists(st.floats(-690, 0, allow_subnormal=False).map(lambda z: round(z, 6)), min_size=2, max_size=5)


def softmax_of(logits):
    """Probabilities by torch, and with many digits."""
    z = torch.tensor(logits, dtype=torch.float64)
    exact = [mpmath.exp(mpmath.mpf(float(x))) for x in z]
    total = mpmath.fsum(exact)
    return torch.softmax(z, -1), [x / total for x in exact]


def near(x, exact, digits=1e-11):
    """Whether a number has its digits; what lies below the normal numbers has none."""
    return abs(mpmath.mpf(float(x)) - exact) <= digits * abs(exact) + mpmath.mpf("1e-305")


@settings(max_examples=60, deadline=None)
@given(LOGITS)
def test_entropy_gini_complement_and_jacobian_have_their_digits(logits):
    p, q = softmax_of(logits)
    assert near(gini(p), mpmath.fsum(x * (1 - x) for x in q))
    assert near(entropy(p), -mpmath.fsum(x * mpmath.log(x) for x in q))
    for i, x in enumerate(q):
        assert near(complement(p)[i], 1 - x)
        for j, y in enumerate(q):
            assert near(jacobian(p)[i, j], x * (1 - x) if i == j else -x * y)


@settings(max_examples=60, deadline=None)
@given(LOGITS, st.integers(0, 4))
def test_log_probabilities_and_their_derivatives_have_their_digits(logits, token):
    z, (_, q) = torch.tensor(logits, dtype=torch.float64).requires_grad_(), softmax_of(logits)
    token = token % len(logits)
    ours = log_softmax(z)
    (slopes,) = torch.autograd.grad(ours[token], z)
    for i, x in enumerate(q):
        assert near(ours.detach()[i], mpmath.log(x))
        assert near(slopes[i], 1 - x if i == token else -x)


@settings(max_examples=60, deadline=None)
@given(LOGITS, st.integers(0, 4))
def test_probabilities_and_their_derivatives_have_their_digits(logits, token):
    z, (_, q) = torch.tensor(logits, dtype=torch.float64).requires_grad_(), softmax_of(logits)
    token = token % len(logits)
    p = softmax(z)
    (slopes,) = torch.autograd.grad(p[token], z)
    for i, x in enumerate(q):
        assert near(p.detach()[i], x)
        assert near(slopes[i], x * (1 - x) if i == token else -x * q[token])
    direction = torch.eye(len(logits), dtype=torch.float64)[token]
    _, pushed = torch.func.jvp(softmax, (z.detach(),), (direction,))
    assert all(near(pushed[i], x * (1 - x) if i == token else -x * q[token]) for i, x in enumerate(q))


@pytest.mark.parametrize("name", ["garnet", "arithmetic", "one choice", "lock"])
@pytest.mark.parametrize(("alpha", "temperature"), [(0.0, 0.1), (0.25, 0.1), (0.75, 0.07), (1.0, 0.05)])
def test_both_roads_to_a_peaked_policys_value_gradient_keep_their_digits(name, alpha, temperature):
    """Down to gradients of 1e-90; the full preset of the claim error_split once called the identity false here."""
    world, smallest = build_world(name), []
    for seed in (1, 3, 4):
        policy = build_policy(world, seed, temperature=temperature)
        split = error_split(world, policy, alpha, "layer1")
        forward = forward_value_gradient(world, policy, alpha, "layer1")
        size = split.value_gradient.norm(dim=-1)
        assert bool((split.residual <= 1e-11 * size).all())
        assert bool(((split.value_gradient - forward).norm(dim=-1) <= 1e-11 * size).all())
        smallest.append(float(size.min()))
    assert min(smallest) < 1e-3


def test_torchs_log_softmax_has_not_and_forbidden_tokens_stay_forbidden():
    z = torch.tensor([0.0, -35.0, -torch.inf], dtype=torch.float64)
    exact = -mpmath.log1p(mpmath.exp(-35))
    assert near(log_softmax(z)[0], exact)
    assert not near(torch.log_softmax(z, -1)[0], exact)
    assert float(log_softmax(z)[2]) == -torch.inf
    torch.testing.assert_close(log_softmax(z[:2] + 700), torch.log_softmax(z[:2], -1))
    assert bool(log_softmax([0.0, torch.inf]).isnan().any())
    assert bool(log_softmax([-torch.inf, -torch.inf]).isnan().any())


@settings(max_examples=30, deadline=None)
@given(LOGITS)
def test_the_jacobians_norm_has_its_digits(logits):
    p, q = softmax_of(logits)
    top = max(range(len(q)), key=lambda i: q[i])
    scale = 1 - q[top]
    scaled = mpmath.matrix(
        [[(x * (1 - x) if i == j else -x * y) / scale for j, y in enumerate(q)] for i, x in enumerate(q)]
    )
    exact = scale * max(mpmath.eigsy(scaled, eigvals_only=True))
    assert near(jacobian_norm(p), exact, 1e-10)


@settings(max_examples=40, deadline=None)
@given(LOGITS, st.integers(0, 10**6))
def test_covariances_and_sandwiches_have_their_digits(logits, seed):
    p, q = softmax_of(logits)
    E, W = (torch.as_tensor(x) for x in np.random.default_rng(seed).normal(3.0, 1.0, (2, len(q), 1)))
    e, w = ([mpmath.mpf(float(x)) for x in table[:, 0]] for table in (E, W))
    mean_e, mean_w = (mpmath.fsum(x * y for x, y in zip(q, table, strict=True)) for table in (e, w))
    cov = mpmath.fsum(x * (a - mean_e) * (b - mean_w) for x, a, b in zip(q, e, w, strict=True))
    terms = mpmath.fsum(x * abs((a - mean_e) * (b - mean_w)) for x, a, b in zip(q, e, w, strict=True))
    for measured in (covariance(p, W, E[:, 0])[0], sandwich_bound(p, E, W)[0]):
        assert abs(abs(mpmath.mpf(float(measured))) - abs(cov)) <= mpmath.mpf("1e-10") * terms + mpmath.mpf("1e-305")
    spread = mpmath.fsum(x * abs(a - mean_e) for x, a in zip(q, e, strict=True))
    assert near(embedding_spread_bound(p, E)[0], spread, 1e-9)


@pytest.mark.parametrize("missing", [1e-3, 1e-13, 1e-17, 1e-100, 1e-300])
def test_every_inequality_holds_for_peaked_laws_and_its_sides_have_the_size_of_what_is_missing(missing):
    z = torch.tensor([0.0, np.log(missing), np.log(missing / 3)], dtype=torch.float64)
    p = torch.softmax(z, -1)
    for name, sides in INEQUALITIES.items():
        low, high = (float(x) for x in sides(p))
        assert low <= high * (1 + 1e-12), name
    assert float(gini(p)) == pytest.approx(2 * missing * 4 / 3, rel=3 * missing + 1e-12)
    assert float(entropy(p)) > float(gini(p)) > float(jacobian_norm(p)) > 0
    low, high = inf_to_one_bound(p)
    assert 0 < float(low) <= float(high) * (1 + 1e-12)
    naive = float((p * (1 - p)).sum())
    assert missing > 1e-12 or abs(naive / float(gini(p)) - 1) > 1e-4, "the control: 1 - p of a rounded p"


@pytest.mark.parametrize("P", [1e-300, 1e-17, 1e-9, 0.5, 1 - 1e-9, 1 - 2**-53])
@pytest.mark.parametrize("group", [2, 5, 16])
def test_factors_of_binary_groups_have_their_digits_near_0_and_1(P, group):
    exact, one = mpmath.mpf(P), mpmath.mpf(1)
    signal = one - exact**group - (one - exact) ** group
    assert near(signal_probability(torch.tensor(P, dtype=torch.float64), group), signal, 1e-13)
    kappa = mpmath.mpf(0)
    for k in range(1, group):
        m = mpmath.mpf(k) / group
        kappa += (
            mpmath.binomial(group, k) * exact ** (k - 1) * (one - exact) ** (group - k - 1) * mpmath.sqrt(m * (1 - m))
        )
    assert near(grpo_kappa(torch.tensor(P, dtype=torch.float64), group), kappa, 1e-12)


@pytest.mark.parametrize(("name", "kind", "seed"), [("garnet (4,4)", "terminal", 3), ("parity (2,5)", "dense", 6)])
def test_value_gradients_of_a_policy_without_entropy_keep_their_digits_on_every_road(name, kind, seed):
    """E1 + E2 by reverse mode, forward mode and covariances: the gradient itself is 1e-15 and less."""
    world = with_reward(build_world(name), kind, seed)
    policy = build_policy(world, seed, temperature=0.1)
    total = expected_costates(world, policy, "total", "layer1")[0][:, -1]
    assert 0 < float(total.norm()) < 1e-13
    for other in (
        forward_value_gradient(world, policy, 1.0, "layer1"),
        error_split(world, policy, 1.0, "layer1").sampling.sum(0),
    ):
        assert float((other - total).norm() / total.norm()) < 1e-12


def test_the_last_steps_own_average_keeps_its_digits():
    """E1b with one step to go is the value gradient, at every prefix of a policy whose entropy is 1e-15."""
    world = with_reward(build_world("copy (2,3)"), "terminal", 6)
    policy = build_policy(world, 6, temperature=0.1)
    own, total = (
        expected_costates(world, policy, name, "layer1")[-1][:, -1] for name in ("attention_expected", "total")
    )
    sizes = total.norm(dim=-1)
    assert float(sizes.min()) < 1e-10
    assert float(((own - total).norm(dim=-1) / sizes).max()) < 1e-9
