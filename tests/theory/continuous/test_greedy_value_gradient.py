"""VGL under a greedy policy: the action by search, the update by derivatives of returns, the gradient by values."""

import numpy as np
import pytest
import torch

from envs.linear_quadratic import LinearQuadratic, random_system
from envs.world import InputError
from tests.oracles import numerical_gradient
from tests.theory.cases import priced, tensor
from theory.continuous.greedy_value_gradient import (
    greedy_path,
    greedy_policy,
    greedy_update,
    greedy_update_matrix,
    greedy_weight,
)
from theory.continuous.lyapunov import linear_value


def cases():
    """World with every cost, one with few actions, and critics that change with time."""
    for seed, world in enumerate((priced(3), random_system(2, 1, seed=4, horizon=5, gamma=1.0))):
        rng = np.random.default_rng(seed)
        roots = rng.standard_normal((world.horizon, world.n, world.n))
        yield world, tensor(roots @ roots.transpose(0, 2, 1)), tensor(rng.standard_normal((world.horizon, world.n)))


def plain(world):
    return {name: np.asarray(getattr(world, name)) for name in ("A", "B", "Q", "R", "N", "q", "q_a", "Q_f", "q_f")}


def test_the_action_is_the_best_one():
    for world, C, w in cases():
        K, k = greedy_policy(world, C, w)
        rng, still = np.random.default_rng(3), np.zeros(world.n)
        for t in range(world.horizon):
            s = rng.standard_normal(world.n)

            def promised(a, s=s, t=t, world=world, C=C, w=w, still=still):
                ahead = np.asarray(world.transition(s, a, still))
                bonus = -ahead @ C[t].numpy() @ ahead + w[t].numpy() @ ahead
                return float(world.reward(s, a)) + world.gamma * float(bonus)

            best = -K[t].numpy() @ s - k[t].numpy()
            np.testing.assert_allclose(numerical_gradient(promised, best), 0, atol=1e-6)
            for _ in range(20):
                assert promised(best + rng.standard_normal(world.m)) < promised(best)


def update_by_returns(world, C, w, lam, Omega):
    """Slopes of TD(lam) returns in the state at which they start, by differences, along the path without noise."""
    K, k = (x.numpy() for x in greedy_policy(world, C, w))
    C, w, T = C.numpy(), w.numpy(), world.horizon
    value = lambda s, t: -s @ C[t - 1] @ s + w[t - 1] @ s  # noqa: E731

    def td_return(s, t):
        if t == T:
            return float(world.terminal_reward(s))
        a = -K[t] @ s - k[t]
        ahead = np.asarray(world.transition(s, a, np.zeros(world.n)))
        return float(world.reward(s, a)) + world.gamma * (
            lam * td_return(ahead, t + 1) + (1 - lam) * value(ahead, t + 1)
        )

    s, rows = np.asarray(world.m_0), []
    for t in range(T + 1):
        if t:
            gap = lambda x, t=t: td_return(x, t) - value(x, t)  # noqa: E731
            rows.append(np.asarray(Omega[t - 1]) @ numerical_gradient(gap, s))
        if t < T:
            s = np.asarray(world.transition(s, -K[t] @ s - k[t], np.zeros(world.n)))
    return np.stack(rows), s


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_the_update_is_that_of_td_lambda_returns(lam):
    for world, C, w in cases():
        roots = np.random.default_rng(9).standard_normal((world.horizon, world.n, world.n))
        Omega = tensor(roots @ roots.transpose(0, 2, 1))
        exact, last = update_by_returns(world, C, w, lam, Omega)
        update = greedy_update(world, C, w, lam, Omega)
        np.testing.assert_allclose(update, exact, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(greedy_path(world, C, w).states[-1], last, rtol=1e-12)
        D, b = greedy_update_matrix(world, C, lam, Omega)
        np.testing.assert_allclose((D @ w.flatten() + b).reshape(w.shape), update, rtol=1e-10, atol=1e-10)
        batch = greedy_update(world, C, torch.stack([w, 2 * w, 0 * w]), lam, Omega)
        torch.testing.assert_close(batch[0] - batch[2], batch[1] - batch[0], rtol=1e-9, atol=1e-9)
        assert not np.allclose(greedy_update(world, C, w, abs(lam - 0.5), Omega), exact, rtol=1e-3), "the control"


def test_vgl_1_with_the_greedy_weight_is_the_gradient_of_the_return():
    """J of the policy by the Lyapunov equation, noise included; D is its Hessian."""
    for world, C, w in cases():

        def J(x, world=world, C=C):
            K, k = greedy_policy(world, C, tensor(x))
            P, p, c = linear_value(world, K, k).at(0)
            m = tensor(world.m_0)
            return -float(m @ P @ m + (P * tensor(world.S_0)).sum() + 2 * p @ m + c)

        star, one = greedy_weight(world, C), torch.eye(world.n).double()
        slope = numerical_gradient(J, w.numpy(), step=1e-3)
        np.testing.assert_allclose(greedy_update(world, C, w, 1.0, star), slope, rtol=1e-7, atol=1e-8)
        assert not np.allclose(greedy_update(world, C, w, 1.0, one), slope, rtol=1e-2), "the control: Omega = I"
        assert not np.allclose(greedy_update(world, C, w, 0.0, star), slope, rtol=1e-2), "the control: lam = 0"
        D, b = greedy_update_matrix(world, C, 1.0, star)
        torch.testing.assert_close(D, D.mT, rtol=1e-9, atol=1e-10)
        assert float(torch.linalg.eigvalsh(D).max()) < 1e-9
        np.testing.assert_allclose(b, numerical_gradient(J, 0 * w.numpy(), step=1e-3).flatten(), rtol=1e-7, atol=1e-8)
        assert float((greedy_update_matrix(world, C, 0.0, star)[0] - D).abs().max()) > 1e-2


@pytest.mark.parametrize(
    ("cost", "C", "features", "rates"),
    [
        (0.02, (0.0025, 0.0025), (1, -0.43), (7.19, 159.8, -1.66, -10.5, -233.5)),
        (0.05, (20.0, 0.0025), (1, -0.69), (-10.1, -90.4, -3.60, 2.95, -90.1)),
        (0.01, (0.99, 0.99), (1, -0.5), (-0.277, -0.139, -0.275, -0.272, -0.136)),
    ],
)
def test_rates_of_the_scalar_problems(cost, C, features, rates):
    """Against the table from which the problems come, and by hand: two steps of one number."""
    world = LinearQuadratic(A=[[1.0]], B=[[1.0]], Q=[[0.0]], R=[[cost]], Q_f=[[1.0]], m_0=[1.0], horizon=2)
    q, C = tensor(features), tensor(C).reshape(2, 1, 1)
    star, one = greedy_weight(world, C), torch.eye(1).double()
    for (lam, Omega), rate in zip(((0.0, one), (0.0, star), (0.5, one), (1.0, one), (1.0, star)), rates, strict=True):
        D, _ = greedy_update_matrix(world, C, lam, Omega)
        assert float(q @ D @ q) == pytest.approx(rate, rel=6e-3)
        assert float(q @ D @ q) == pytest.approx(by_hand(cost, C.flatten(), q, lam, Omega.expand(2, 1, 1).flatten()))


def by_hand(k, c, q, lam, Omega):
    """Slope of `sum_t q_t Omega_t (g_t - G_t)` in p: `a_t = (p q_{t+1} / 2 - c_{t+1} s_t) / (k + c_{t+1})`."""
    (c1, c2), (q1, q2), (o1, o2) = c.tolist(), q.tolist(), Omega.tolist()
    s1 = q1 / 2 / (k + c1)  # slopes of the states in p
    a1 = (q2 / 2 - c2 * s1) / (k + c2)
    s2 = s1 + a1
    gain, critic = c2 / (k + c2), (q1 - 2 * c1 * s1, q2 - 2 * c2 * s2)
    last = -2 * s2
    first = 2 * k * gain * a1 + (1 - gain) * (lam * last + (1 - lam) * critic[1])
    return q1 * o1 * (first - critic[0]) + q2 * o2 * (last - critic[1])


def test_only_the_symmetric_part_of_a_critic_counts_and_float32_is_converted():
    world, C, _ = next(cases())
    twist = torch.triu(torch.ones(3, 3).double(), 1)
    twisted = C + twist - twist.mT
    for given in (twisted, twisted.float()):
        single = world.to(dtype=torch.float32) if given.dtype == torch.float32 else world
        found, _ = greedy_update_matrix(single, given, 0.5, torch.eye(3).to(given))
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, greedy_update_matrix(world, C, 0.5, ONE)[0], rtol=1e-4, atol=1e-4)


ONE = torch.eye(3).double()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda w, C, v: greedy_update_matrix(w.replace(horizon=None), C, 0.5, ONE), "horizon must be finite here: "),
        (lambda w, C, v: greedy_policy(w, C[:2], v), "C must be finite, of shape (3, 3) or (3, 3, 3); got (2, 3, 3)"),
        (
            lambda w, C, v: greedy_policy(w, -9 * C, v),
            "C must make R + gamma B'C B positive definite, else no action is best",
        ),
        (lambda w, C, v: greedy_path(w, C, v[:2]), "w must be finite, of shape (3, 3), times 1 ... T; got (2, 3)"),
        (lambda w, C, v: greedy_update(w, C, v / 0, 0.5, ONE), "w must be finite"),
        (lambda w, C, v: greedy_update(w, C, v, -0.1, ONE), "lam must lie in [0, 1]; got -0.1"),
        (lambda w, C, v: greedy_update(w, C, v, 0.5, -ONE), "Omega must be positive semidefinite"),
        (
            lambda w, C, v: greedy_update(w, C, v, 0.5, ONE[:2, :2]),
            "Omega must be finite, of shape (3, 3) or (3, 3, 3)",
        ),
        (
            lambda w, C, v: greedy_update_matrix(w.replace(horizon=9_000), C[0], 0.5, ONE),
            "horizon=9000 and n=3 make matrices",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(call, says, unchecked):
    with pytest.raises(InputError) as error:
        call(*next(cases()))
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)
