"""Every inequality on many distributions, attained where its constant is optimal, and seen to fail when made too strong."""

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from envs.world import InputError
from tests.theory.cases import tensor
from tests.theory.distributions import ROUNDING, dirichlet, logits, peaked, some, special, two_point
from theory.tokens import softmax_bounds as bounds
from theory.tokens.softmax_bounds import INEQUALITIES, gini, jacobian, jacobian_norm

close = torch.testing.assert_close
SWEEP = {V: torch.cat([special(V), dirichlet(V)]) for V in (2, 3, 5, 20, 300)}
SWEEP[5000] = torch.cat([special(5000), dirichlet(5000, 4)])


@pytest.mark.parametrize("name", INEQUALITIES)
def test_inequality_holds_on_the_sweep(name):
    for p in SWEEP.values():
        small, large = INEQUALITIES[name](p)
        assert small.shape == large.shape == p.shape[:1]
        assert float((small - large).max()) <= ROUNDING


@given(logits)
@some
def test_inequalities_hold_for_any_logits(z):
    p = torch.softmax(tensor(z), -1)
    for small, large in (rule(p) for rule in INEQUALITIES.values()):
        assert float(small) <= float(large) + ROUNDING


ATTAINED = {
    "p2 <= |J|": tensor([0.4, 0.4, 0.2]),
    "|J| <= min(p1, 2 p1 (1 - p1))": two_point(0.8, 3),
    "min(p1, 2 p1 (1 - p1)) <= 1/2": tensor([0.5, 0.3, 0.2]),
    "p1 (1 - p1) <= |J|": peaked(0.7, 5000),
    "G / (V - 1) <= |J|": tensor([1 / 7] * 7),
    "|J| <= G": two_point(0.8, 3),
    "G <= H / (2 ln 2)": two_point(0.5, 3),
    "G <= 1 - exp(-H)": tensor([1 / 7] * 7),
    "1 - p1 <= G": tensor([1 / 7] * 7),
    "G <= 2 (1 - p1)": two_point(1 - 1e-5),
    "|J| <= 1/V + sqrt((ln V - H) / 2)": tensor([1 / 8] * 8),
}


@pytest.mark.parametrize("name", INEQUALITIES)
def test_no_constant_can_be_better(name):
    small, large = INEQUALITIES[name](ATTAINED[name])
    assert float(small) == pytest.approx(float(large), rel=1e-3)
    assert float(small) > 1e-6


@pytest.mark.parametrize("name", INEQUALITIES)
def test_an_inequality_one_percent_too_strong_is_seen_to_be_violated(name):
    """The control: the sweep can tell."""
    assert any(
        bool((1.01 * small > large + ROUNDING).any()) for small, large in map(INEQUALITIES[name], SWEEP.values())
    )


def test_jacobian_norm_is_the_largest_singular_value():
    for V in (2, 3, 5, 20):
        p = SWEEP[V]
        close(jacobian_norm(p), torch.linalg.matrix_norm(jacobian(p), 2), rtol=1e-9, atol=1e-13)
    p = special(300)
    close(jacobian_norm(p), torch.linalg.matrix_norm(jacobian(p), 2), rtol=1e-9, atol=1e-13)


@given(logits, st.integers(1, 4))
@some
def test_jacobian_norm_survives_ties_and_tiny_probabilities(z, repeat):
    p = torch.softmax(tensor(z * repeat), -1)
    close(jacobian_norm(p), torch.linalg.matrix_norm(jacobian(p), 2), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    ("p", "norm"),
    [([1.0, 0, 0], 0.0), ([0.4, 0.4, 0.2], 0.4), ([0.25] * 4, 0.25), ([0.8, 0.2], 0.32), ([0.5, 0.5, 0, 0], 0.5)],
)
def test_jacobian_norm_in_closed_form(p, norm):
    assert float(jacobian_norm(tensor(p))) == pytest.approx(norm, abs=1e-14)


def test_jacobian_is_the_slope_of_softmax(rng):
    z = torch.randn(6, generator=rng, dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(lambda x: torch.softmax(x, -1), z)
    close(jacobian(torch.softmax(z, -1)), slope)


def test_batches_are_rows_one_by_one():
    p = dirichlet(5, 6).unflatten(0, (4, 6))
    for f in (bounds.entropy, gini, jacobian_norm, bounds.oscillation, lambda x: bounds.sampling_gap(x, 0.3)):
        close(f(p), torch.stack([torch.stack([f(row) for row in block]) for block in p]))


def test_entropy_gini_and_gap_are_what_their_names_say():
    p = SWEEP[5]
    close(bounds.entropy(p), torch.distributions.Categorical(probs=p, validate_args=False).entropy(), atol=1e-7, rtol=0)
    distances = (torch.eye(5, dtype=p.dtype) - p[:, None]).abs().sum(-1) / 2  # TV(delta_a, p) for every a
    close(gini(p), (p * distances).sum(-1))
    u = 0.7 * p[:, None] + 0.3 * torch.eye(5, dtype=p.dtype)
    close(bounds.sampling_gap(p, 0.3), (p * (u - p[:, None]).abs().sum(-1) / 2).sum(-1))


def test_entropy_alone_does_not_fix_the_gini_index():
    """At one nat and V = 50000, G can be 0.134 or 0.632: report G beside H."""
    V, low, high = 50_000, 0.5, 1 - 1e-9
    for _ in range(60):
        p1 = (low + high) / 2
        low, high = (p1, high) if float(bounds.entropy(peaked(p1, V))) > 1 else (low, p1)
    spread = tensor([1 / math.e, 1 / math.e, 1 - 2 / math.e])
    assert float(gini(peaked(low, V))) == pytest.approx(0.134, abs=2e-3)
    assert float(bounds.gini_entropy_bound(tensor(1.0))) == pytest.approx(0.632, abs=1e-3)
    assert float(gini(spread)) > 4 * float(gini(peaked(low, V)))


def brute_inf_to_one(p):
    signs = tensor(list(np.ndindex(*[2] * len(p)))) * 2 - 1
    return (signs @ jacobian(p)).abs().sum(-1).max()


@pytest.mark.parametrize("V", [2, 3, 5, 8])
def test_inf_to_one_norm_is_the_maximum_over_signs_and_bounded(V):
    for p in torch.cat([special(V), dirichlet(V, 5)]):
        small, large = bounds.inf_to_one_bound(p)
        close(small, brute_inf_to_one(p), rtol=1e-10, atol=1e-12)
        assert float(small) <= float(large) + ROUNDING


@pytest.mark.parametrize("p", [[0.9, 0.1], [0.9, 0.1, 0], [0.25] * 4])
def test_inf_to_one_bound_is_attained(p):
    small, large = bounds.inf_to_one_bound(tensor(p))
    assert float(small) == pytest.approx(float(large), rel=1e-12)


def test_a_large_vocabulary_is_no_burden():
    p = special(32_768)
    began = time.process_time()
    norm = jacobian_norm(p)
    assert time.process_time() - began < 10
    assert float(norm[0]) == pytest.approx(1 / 32_768, rel=1e-9), "uniform: the norm vanishes while G goes to one"
    assert float(gini(p)[0]) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("p", [[[0.5, 0.5], [0.7, 0.7]], [[0.5, 0.5], [1.5, -0.5]], [[0.5, 0.5], [np.nan, 1.0]]])
def test_what_is_no_distribution_is_refused(p):
    with pytest.raises(InputError, match="sum to one"):
        bounds.check_probabilities(tensor(p))
    close(bounds.check_probabilities(tensor(p[0])), tensor(p[0]))


def test_the_refusal_names_the_worst_sum_and_the_negative_entry():
    for bad, said in ([0.7, 0.7], "worst sum 1.4"), ([1.5, -0.5], "smallest entry is -0.5"), ([np.nan, 1.0], "nan"):
        with pytest.raises(InputError, match=said):
            bounds.check_probabilities(tensor([[0.5, 0.5], bad, [0.6, 0.45]]))


def test_too_many_subsets_are_refused():
    with pytest.raises(InputError, match=r"V=21.*V <= 20"):
        bounds.inf_to_one_norm(tensor([1 / 21] * 21))
