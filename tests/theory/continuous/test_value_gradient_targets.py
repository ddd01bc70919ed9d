"""VGL(lambda) under a fixed gain: targets as mixtures of n-step targets, noise unit by unit, sweeps of one basis."""

import itertools

import numpy as np
import pytest
import torch

from agents.policies.linear import LinearPolicy
from agents.sampling.rollout import rollout
from agents.sampling.value_gradient_targets import vgl_targets
from envs.linear_quadratic import LinearQuadratic, double_integrator, random_system, scalar
from envs.noise import Noise
from envs.world import InputError
from tests.theory.cases import priced, stable_gain, tensor
from theory.continuous.costates import path_derivatives
from theory.continuous.lq_gradients import costate_covariance
from theory.continuous.lyapunov import linear_value
from theory.continuous.value_gradient_targets import (
    mean_target,
    stationary_moment,
    sweep_spectrum,
    target_covariance,
    update_abscissa,
)

LAMS = (0.0, 0.35, 0.8, 1.0)
ONE = torch.eye(3).double()


def cases(horizon):
    """World and gain: not normal with a cross cost, and with a gain that changes where there is a horizon."""
    world = priced(horizon)
    fixed = stable_gain(world, seed=3)
    yield world, fixed
    yield random_system(4, 2, seed=2, horizon=horizon, gamma=0.95), stable_gain(random_system(4, 2, seed=2))
    yield scalar(horizon=horizon), tensor([[0.8]])
    if horizon:
        yield world, 0.3 * tensor(np.random.default_rng(5).standard_normal((horizon, world.m, world.n)))


def critic(world, horizon=None, seed=0):
    rng = np.random.default_rng(seed)
    return tensor(rng.standard_normal((horizon + 1, world.n, world.n) if horizon else (world.n, world.n)))


def mixture_of_n_steps(world, K, X, lam, t, steps):
    """`(1 - lam) sum_k lam^{k-1} (k-step target)`, the last with all that is left: products of Phi, M from the joint cost."""
    Q, N, R, Q_f = (np.asarray(getattr(world, x)) for x in ("Q", "N", "R", "Q_f"))
    joint = np.block([[Q, N], [N.T, R]])
    total, forward, partial = np.zeros_like(Q), np.eye(world.n), np.zeros_like(Q)
    for k in range(1, steps + 1):
        gain = np.asarray(K[t + k - 1] if K.ndim == 3 else K)
        closed = np.vstack([np.eye(world.n), -gain])
        partial = partial - 2 * world.gamma ** (k - 1) * forward.T @ closed.T @ joint @ closed @ forward
        forward = (np.asarray(world.A) - np.asarray(world.B) @ gain) @ forward
        ahead = np.asarray(X[t + k] if X.ndim == 3 else X)
        total += (1 - lam) * lam ** (k - 1) * (partial + world.gamma**k * forward.T @ ahead @ forward)
    last = partial + (world.gamma**steps * forward.T @ (-2 * Q_f) @ forward if world.horizon else 0)
    return total + lam**steps * last


@pytest.mark.parametrize("lam", LAMS)
def test_the_mean_target_is_the_mixture_of_n_step_targets(lam):
    for (world, K), per_time in itertools.product(cases(4), (False, True)):
        X = critic(world, 4 if per_time else None)
        found = mean_target(world, K, X, lam)
        for t in range(5):
            steps = 4 - t
            exact = mixture_of_n_steps(world, K, X, lam, t, steps)
            np.testing.assert_allclose(found[t], exact, rtol=1e-11, atol=1e-12)
    for world, K in cases(None):
        X = critic(world)
        exact = mixture_of_n_steps(world, K, X, lam, 0, 900)
        np.testing.assert_allclose(mean_target(world, K, X, lam), exact, rtol=1e-10, atol=1e-11)
        assert (
            lam == 1 or not np.allclose(mean_target(world, K, X.mT.contiguous(), lam), exact, rtol=1e-3) or world.n == 1
        )


@pytest.mark.parametrize("lam", LAMS)
def test_the_value_gradient_is_the_only_critic_that_stays(lam):
    for world, K in [*cases(4), *cases(None)]:
        P = linear_value(world, K).P
        torch.testing.assert_close(mean_target(world, K, -2 * P, lam), -2 * P, rtol=1e-10, atol=1e-11)
        other = mean_target(world, K, -1.9 * P, lam)
        assert lam == 1 or not torch.allclose(other, -1.9 * P, rtol=1e-3)


def noisy_targets(world, K, X, lam):
    """Targets of paths from 0 with one unit of noise each, minus those without noise; and the noise's covariance."""
    T, n, m = world.horizon, world.n, world.m
    size = T * (m + n)
    units = torch.eye(size + 1, dtype=torch.float64)[:, :size]  # the last row is the path without noise
    noise = Noise(
        torch.zeros(size + 1, n).double(), units[:, : T * m].reshape(-1, T, m), units[:, T * m :].reshape(-1, T, n)
    )
    states = rollout(world, LinearPolicy(K), noise).states.detach()
    command = lambda s, t: -(K[t] if K.ndim == 3 else K) @ s  # noqa: E731
    Dr, Df, terminal = path_derivatives(world, command, states, noise.xi, noise.w)
    G = (X @ states[..., None])[..., 0]
    targets = vgl_targets(Dr, Df, terminal, G, world.gamma, lam)
    blocks = [tensor(world.S_x)] * T + [tensor(world.S_w)] * T
    return (targets[:-1] - targets[-1]), torch.block_diag(*blocks)


@pytest.mark.parametrize("lam", LAMS)
def test_the_covariance_is_that_of_a_linear_map_of_the_noise(lam):
    """Targets are affine in the noise, so their covariance given s_t is `sum c S c'` over the noise from t on."""
    for (world, K), per_time in itertools.product(cases(4), (False, True)):
        X = critic(world, 4 if per_time else None)
        slopes, S = noisy_targets(world, K, X, lam)
        for t in range(5):
            later = torch.cat([torch.arange(4).repeat_interleave(k) >= t for k in (world.m, world.n)])
            c = slopes[later, t]
            exact = c.mT @ S[later][:, later] @ c
            torch.testing.assert_close(target_covariance(world, K, X, lam, t), exact, rtol=1e-11, atol=1e-13)


def test_the_covariance_in_an_endless_world_is_that_of_long_paths():
    for (world, K), lam in itertools.product(cases(None), LAMS):
        X = critic(world)
        finite = world.replace(horizon=600, Q_f=0 * world.Q, q_f=None)
        long = target_covariance(finite, K, torch.cat([X.expand(600, -1, -1), 0 * X[None]]), lam)
        torch.testing.assert_close(target_covariance(world, K, X, lam), long, rtol=1e-9, atol=1e-12)
        costate = sum(costate_covariance(world, K, 0))
        assert torch.allclose(target_covariance(world, K, X, lam), costate, rtol=1e-8) == (lam == 1)
    assert not torch.allclose(target_covariance(*next(cases(None)), critic(priced(None)), 1.0), 0 * X.new_zeros(3, 3))


@pytest.mark.parametrize("lam", LAMS)
def test_errors_die_at_the_rates_of_the_spectrum(lam):
    for world, K in cases(None):
        P, n = linear_value(world, K).P, world.n
        whole = sweep_spectrum(world, K, lam)
        assert len(whole) == n * n
        traces = [sum(x**k for x in whole.tolist()) for k in (1, 2, 3)]
        basis = torch.eye(n * n, dtype=torch.float64).reshape(-1, n, n)
        S = torch.stack([(mean_target(world, K, E - 2 * P, lam) + 2 * P).flatten() for E in basis], 1)
        for k, trace in enumerate(traces, 1):
            assert float(torch.linalg.matrix_power(S, k).trace()) == pytest.approx(trace.real, rel=1e-8, abs=1e-10)
            assert abs(trace.imag) < 1e-10
        assert list(whole.abs()) == sorted(whole.abs(), reverse=True)
        curl = sweep_spectrum(world, K, lam, antisymmetric=True)
        assert len(curl) == n * (n - 1) // 2
        twist = critic(world, seed=1)
        twist = twist - twist.mT
        after = mean_target(world, K, twist - 2 * P, lam) + 2 * P
        torch.testing.assert_close(after, -after.mT, rtol=0, atol=1e-11)


def test_the_curl_of_two_states_is_one_number():
    world, K, lam = double_integrator(horizon=None, gamma=0.9), tensor([[1.0, 1.5]]), 0.4
    P, twist = linear_value(world, K).P, tensor([[0, 1], [-1, 0]])
    after = mean_target(world, K, twist - 2 * P, lam) + 2 * P
    det = 0.9 * float(torch.linalg.det(tensor(world.A) - tensor(world.B) @ K))
    rate = (1 - lam) * det / (1 - lam * det)
    torch.testing.assert_close(after, rate * twist, rtol=0, atol=1e-12)
    assert sweep_spectrum(world, K, lam, antisymmetric=True).real.item() == pytest.approx(rate)


def update_jacobian(world, K, lam, Omega, Sigma):
    """Jacobian of `Omega (mean_target(X) - X) Sigma`, column by column: affine, so differences are exact."""
    n = world.n
    field = lambda X: (Omega @ (mean_target(world, K, X, lam) - X) @ Sigma).flatten()  # noqa: E731
    basis = torch.eye(n * n, dtype=torch.float64).reshape(-1, n, n)
    return torch.stack([field(E) - field(0 * E) for E in basis], 1)


def test_the_abscissa_is_that_of_the_mean_update():
    for (world, K), lam in itertools.product(cases(None), LAMS):
        roots = critic(world, seed=2), critic(world, seed=3)
        Omega, Sigma = (x @ x.mT for x in roots)
        exact = float(torch.linalg.eigvals(update_jacobian(world, K, lam, Omega, Sigma)).real.max())
        assert update_abscissa(world, K, lam, Omega, Sigma) == pytest.approx(exact, rel=1e-8, abs=1e-10)
        assert update_abscissa(world, K, lam, Sigma, Omega) == pytest.approx(exact, rel=1e-8, abs=1e-10)


def random_loops(count):
    """Random closed loops (K = 0) of three states with rho < 1, and two random weights each."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        A = rng.standard_normal((3, 3))
        A *= rng.uniform(0.5, 0.99) / np.abs(np.linalg.eigvals(A)).max()
        roots = rng.standard_normal((3, 3, 3))
        Omega, Sigma, S_w = (tensor(x @ x.T) for x in roots)
        world = LinearQuadratic(A=A, B=np.zeros((3, 1)), Q=np.eye(3), R=[[1.0]], S_w=S_w.numpy(), gamma=0.95)
        yield world, tensor(np.zeros((1, 3))), Omega, Sigma


def test_which_updates_are_stable_in_random_loops():
    for world, K, Omega, Sigma in random_loops(60):
        own = stationary_moment(world, K)
        carried = tensor(world.A) @ own @ tensor(world.A).T + tensor(world.S_w)
        torch.testing.assert_close(own, carried, rtol=1e-9, atol=1e-9)
        assert update_abscissa(world, K, 1.0, Omega, Sigma) < 0
        assert max(update_abscissa(world, K, lam, ONE, own) for lam in (0.0, 0.5)) < 0


def test_states_along_one_direction_have_the_eigenvalues_of_the_page():
    """Sigma = u u': rates `gamma (u'Phi u) phi - 1`; the same with Omega = u u' decides on-policy."""
    world, K = double_integrator(horizon=None, gamma=0.9), tensor([[1.0, 1.5]])
    Phi, one = tensor(world.A) - tensor(world.B) @ K, torch.eye(2).double()
    for u in (tensor([1.0, 0.0]), tensor([0.6, 0.8]), tensor([0.9995, 0.0316])):
        exact = (0.9 * float(u @ Phi @ u) * torch.linalg.eigvals(Phi) - 1).real.max() * float(u @ u)
        assert update_abscissa(world, K, 0.0, one, torch.outer(u, u)) == pytest.approx(
            max(0.0, float(exact)), abs=1e-12
        )
    stretched = LinearQuadratic(
        A=[[0.9, 5.0], [0, 0.8]], B=[[0.0], [0.0]], Q=np.eye(2), R=[[1.0]], S_w=np.eye(2), gamma=0.95
    )
    u, still = tensor([1.0, 1.0]) / 2**0.5, tensor([[0.0, 0.0]])
    rate = 0.95 * float(u @ tensor(stretched.A) @ u) * 0.9 - 1
    assert update_abscissa(stretched, still, 0.0, one, torch.outer(u, u)) == pytest.approx(rate)
    assert rate > 0
    assert update_abscissa(stretched, still, 0.0, torch.outer(u, u), stationary_moment(stretched, still)) > 0


def test_float32_is_computed_in_float64():
    world, K = random_system(3, 2, seed=1), stable_gain(random_system(3, 2, seed=1))
    X = critic(world)
    single = world.to(dtype=torch.float32)
    for given in (mean_target, target_covariance):
        found = given(single, K.float(), X.float(), 0.5)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, given(world, K, X, 0.5), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(given(world, K.tolist(), X.numpy(), 0.5), given(world, K, X, 0.5))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda w, K, X: mean_target(w, K, X, 1.5), "lam must lie in [0, 1]; got 1.5"),
        (lambda w, K, X: mean_target(w, K, X, float("nan")), "lam must lie in [0, 1]; got nan"),
        (lambda w, K, X: mean_target(w, K, X[:2], 0.5), "X must have shape (3, 3); got (2, 3)"),
        (lambda w, K, X: mean_target(w, K, X / 0, 0.5), "X holds NaN or infinity; every entry must be a finite number"),
        (lambda w, K, X: mean_target(w, K[:1], X, 0.5), "K must have shape (2, 3); got (1, 3)"),
        (
            lambda w, K, X: mean_target(w, K - 9, X, 0.9),
            "K makes targets infinite for horizon=None: lam gamma rho(",
        ),
        (lambda w, K, X: target_covariance(w.replace(horizon=4), K, X, 0.5, 5), "t must lie in 0 ... 4; got 5"),
        (
            lambda w, K, X: sweep_spectrum(w.replace(horizon=4), K, 0.5),
            "horizon must be None here: with a finite horizon",
        ),
        (
            lambda w, K, X: update_abscissa(w, K, 0.5, -torch.eye(3).double(), torch.eye(3).double()),
            "Omega must be positive semi",
        ),
        (
            lambda w, K, X: update_abscissa(w, K, 0.5, torch.eye(3).double(), torch.eye(2).double()),
            "Sigma must be a finite matrix",
        ),
        (lambda w, K, X: stationary_moment(w, K - 9), "K must make rho(A - B K) < 1 for a stationary law; got "),
    ],
)
def test_bad_input_is_refused_in_one_line(call, says, unchecked):
    world = random_system(3, 2, seed=1)
    with pytest.raises(InputError) as error:
        call(world, stable_gain(world), critic(world))
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)


class GradedReward(LinearQuadratic):
    """A variant that keeps no closed form."""


def test_variants_are_refused_and_gamma_1_with_noise_is_not():
    with pytest.raises(InputError, match="has no such closed form: value"):
        mean_target(
            GradedReward(A=[[1.0]], B=[[1.0]], Q=[[1.0]], R=[[1.0]], horizon=3), tensor([[0.1]]), tensor([[1.0]]), 0.5
        )
    world = double_integrator(horizon=None)
    assert torch.isfinite(mean_target(world, tensor([[1.0, 1.5]]), torch.zeros(2, 2), 1.0)).all(), (
        "gamma = 1 with noise"
    )
