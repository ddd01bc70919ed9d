"""Slow, independent truths for the tests: they share no code with what they judge."""

import math

import numpy as np
import torch


def assert_mean_within(values, target, errors: float = 5.0, floor: float = 1e-12):
    """Column means of per-sample `values` (samples first) lie within `errors` standard errors of `target`.

    5 standard errors: a false alarm once in 1.7 million comparisons.
    """
    values = torch.as_tensor(values).detach().double()
    mean, error = values.mean(0), values.std(0) / math.sqrt(len(values))
    gap = (mean - torch.as_tensor(target)).abs()
    assert bool((gap <= errors * error + floor).all()), f"off by {(gap / (error + 1e-300)).max():.2f} standard errors"


def differs_by(values, target, errors: float = 8.0) -> bool:
    """Whether some column mean lies more than `errors` standard errors away: what a negative control must show."""
    values = torch.as_tensor(values).detach().double()
    error = values.std(0) / math.sqrt(len(values))
    return bool(((values.mean(0) - torch.as_tensor(target)).abs() > errors * error).any())


def numerical_gradient(f, x, step: float = 1e-5):
    """Central differences of a scalar function of an array of any shape, entry by entry."""
    x = np.asarray(x, dtype=float)
    out = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        out[index] = (float(f(x + shift)) - float(f(x - shift))) / (2 * step)
    return out


def simulate_lq(world, K, paths: int, steps: int, seed: int):
    """Plain numpy simulation of u = -K_t s with Gaussian noise: (returns, states); no code of the suite."""
    rng = np.random.default_rng(seed)
    A, B, Q, R, Q_f = (np.asarray(getattr(world, name)) for name in ("A", "B", "Q", "R", "Q_f"))
    n, m = B.shape
    draw = lambda S, k: rng.multivariate_normal(np.zeros(k), np.asarray(S), paths, method="eigh")  # noqa: E731
    s = np.asarray(world.m_0) + draw(world.S_0, n)
    total, states = np.zeros(paths), [s]
    for t in range(steps):
        gain = K[t] if np.ndim(K) == 3 else K
        a = -s @ np.asarray(gain).T + draw(world.S_x, m)
        total -= world.gamma**t * (np.einsum("bi,ij,bj->b", s, Q, s) + np.einsum("bi,ij,bj->b", a, R, a))
        s = s @ A.T + a @ B.T + draw(world.S_w, n)
        states.append(s)
    if world.horizon is not None:
        total -= world.gamma**steps * np.einsum("bi,ij,bj->b", s, Q_f, s)
    return total, np.stack(states, 1)
