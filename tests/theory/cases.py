"""Worlds, gains and a plain numpy road to expected returns, shared by the tests of the exact answers."""

import dataclasses

import numpy as np
import torch

from envs.linear_quadratic import LinearQuadratic, double_integrator, random_system, scalar, symmetric_root


def tensor(x) -> torch.Tensor:
    """float64, from anything."""
    return torch.as_tensor(np.asarray(x), dtype=torch.float64)


def stable_gain(world, seed: int = 0, steps: int | None = None) -> torch.Tensor:
    """A random gain that nothing tuned, shrunk until A - BK is well inside the unit circle; (T, m, n) with `steps`."""
    assert np.abs(np.linalg.eigvals(world.A)).max() < 0.95, "give an unstable world its gain by hand"
    rng = np.random.default_rng(seed)
    gains = [rng.standard_normal((world.m, world.n)) for _ in range(steps or 1)]
    for k, K in enumerate(gains):
        while np.abs(np.linalg.eigvals(world.A - world.B @ K)).max() >= 0.95:
            K = 0.7 * K
        gains[k] = K
    return tensor(gains if steps else gains[0])


def variant(kind, world, **own):
    """The matrices of `world` in a variant of the linear-quadratic world."""
    return kind(**{f.name: getattr(world, f.name) for f in dataclasses.fields(world) if f.init}, **own)


def finite_cases() -> dict:
    """name -> (world, K): scalar, underactuated, several actions, gain that changes with time."""
    several = random_system(3, 2, seed=1, horizon=4, gamma=0.95)
    return {
        "scalar": (scalar(horizon=5), tensor([[0.8]])),
        "double_integrator": (double_integrator(horizon=6), tensor([[1.0, 1.5]])),
        "several": (several, stable_gain(several)),
        "time_varying": (several, stable_gain(several, steps=4)),
    }


def endless_cases() -> dict:
    """name -> (world, K) with gamma < 1 and no horizon."""
    several = random_system(3, 2, seed=1, gamma=0.9)
    return {"scalar": (scalar(horizon=None, gamma=0.9), tensor([[0.8]])), "several": (several, stable_gain(several))}


def priced(horizon: int | None = 5, noise: str = "gaussian"):
    """A system that is not normal, with every cost there is: a cross term, and linear ones of states, actions and the end."""
    base = random_system(3, 2, seed=1, horizon=horizon, gamma=0.9, noise=noise)
    mix = np.array([[0.5, -0.3], [0.2, 0.6], [-0.4, 0.1]])
    return base.replace(
        A=[[0.8, 2.0, 0.0], [0.0, 0.5, 1.5], [0.0, 0.0, 0.3]],
        N=symmetric_root(base.Q) @ mix @ symmetric_root(base.R),
        q=[0.7, -1.1, 0.4],
        q_a=[0.9, -0.6],
        q_f=[-1.3, 0.5, 0.8],
    )


def affine_policies(world) -> dict:
    """name -> (K, k) of policies with and without an offset, constant and changing with time where there is a horizon."""
    rng, m, n = np.random.default_rng(4), world.m, world.n
    K, k = stable_gain(world, seed=3), tensor(rng.standard_normal(m))
    policies = {"no offset": (K, None), "offset": (K, k)}
    if world.horizon is None:
        return policies
    gains, offsets = (
        0.3 * tensor(rng.standard_normal((world.horizon, m, n))),
        tensor(rng.standard_normal((world.horizon, m))),
    )
    return policies | {"both change": (gains, offsets), "offset changes": (K, offsets), "gain changes": (gains, None)}


def plain_road(world, K, k=None):
    """The same problem without cross term and linear costs, and what its gain on `[s, 1]` is for the command v = u + R^{-1}N's.

    A last state that is always 1 makes linear costs quadratic (q joins Q, q_a joins N), and `a = v - R^{-1}N'[s, 1]` removes N:
    what is left is a world of A, B, Q and R alone, from which the value's P, p and c are read off as one matrix.
    `extra` is what has to be added to Q and Q_f in the corner of that 1 to keep them semidefinite.
    """
    A, B, Q, R, Q_f, N, q, q_a, q_f = (np.asarray(getattr(world, x)) for x in COSTS)
    n, m, extra = *B.shape, 1e2
    corner = lambda S, s, c: np.block([[S, s[:, None]], [s[None], np.array([[c]])]])  # noqa: E731
    zeros = np.zeros(n)
    N_1, A_1, B_1 = np.vstack([N, q_a]), corner(A, zeros, 1.0), np.vstack([B, np.zeros(m)])
    shift = np.linalg.solve(R, N_1.T)
    Q_1 = corner(Q, q, extra) - N_1 @ shift
    lifted = LinearQuadratic(
        A=A_1 - B_1 @ shift,
        B=B_1,
        Q=(Q_1 + Q_1.T) / 2,
        R=R,
        Q_f=corner(Q_f, q_f, extra),
        S_w=corner(world.S_w, zeros, 0.0),
        S_x=world.S_x,
        m_0=np.append(world.m_0, 1.0),
        S_0=corner(world.S_0, zeros, 0.0),
        gamma=world.gamma,
        horizon=world.horizon,
    )
    return lifted, extra, None if K is None else _joined(world, K, k) - tensor(shift)


COSTS = ("A", "B", "Q", "R", "Q_f", "N", "q", "q_a", "q_f")


def _joined(world, K, k):
    """The gain [K, k] on [s, 1]."""
    k = torch.zeros(world.m, dtype=torch.float64) if k is None else k
    if K.ndim == 3 or k.ndim == 2:
        K, k = K.expand(world.horizon, world.m, world.n), k.expand(world.horizon, world.m)
    return torch.cat([K, k[..., None]], -1)


def forward_return(world, K, mean=None, covariance=None, steps: int | None = None) -> float:
    """E R_0 under u = -K_t s by carrying mean and covariance of the state forward: no backward recursion anywhere."""
    A, B, Q, R, Q_f, S_x, S_w = (np.asarray(getattr(world, k)) for k in ("A", "B", "Q", "R", "Q_f", "S_x", "S_w"))
    mean = np.asarray(world.m_0 if mean is None else mean)
    covariance = np.asarray(world.S_0 if covariance is None else covariance)
    total, steps = 0.0, world.horizon or steps
    for t in range(steps):
        gain = np.asarray(K[t] if K.ndim == 3 else K)
        M, Phi = Q + gain.T @ R @ gain, A - B @ gain
        total -= world.gamma**t * (mean @ M @ mean + np.trace(M @ covariance) + np.trace(R @ S_x))
        mean, covariance = Phi @ mean, Phi @ covariance @ Phi.T + B @ S_x @ B.T + S_w
    if world.horizon is not None:
        total -= world.gamma**steps * (mean @ Q_f @ mean + np.trace(Q_f @ covariance))
    return float(total)
