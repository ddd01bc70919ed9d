"""Worlds, gains and a plain numpy road to expected returns, shared by the tests of the exact answers."""

import dataclasses

import numpy as np
import torch

from envs.linear_quadratic import double_integrator, random_system, scalar


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
