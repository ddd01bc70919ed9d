"""Sweeps of value-gradient learning without sampling: where they end, how fast, and from which states they diverge."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from envs.linear_quadratic import LinearQuadratic
from envs.world import InputError
from figures.measures.linear_systems import SYSTEMS
from theory.continuous.riccati import riccati
from theory.continuous.value_gradient_targets import mean_target, sweep_spectrum

_MOST = 10_000  # sweeps
_WIDTH = 1e-3  # of a law of states in the directions that it hardly visits


def endless_system(name: str, units: float = 1.0, gain: float = 0.7) -> tuple[LinearQuadratic, Tensor]:
    """A system of `SYSTEMS` without its horizon, and `gain` times its optimal gain; component i in units of `units^-i`."""
    world = SYSTEMS[name]().to()
    world = world.replace(horizon=None, Q_f=torch.zeros_like(world.Q))
    K, D = gain * riccati(world).K, torch.diag(units ** torch.arange(world.n, dtype=torch.float64))
    back = torch.linalg.inv(D)
    rescaled = world.replace(
        A=D @ world.A @ back,
        B=D @ world.B,
        Q=back @ world.Q @ back,
        N=back @ world.N,
        S_w=D @ world.S_w @ D,
        S_0=D @ world.S_0 @ D,
        m_0=D @ world.m_0,
    )
    return rescaled, K @ back


def swept(world: LinearQuadratic, K: Tensor, lam: float, X: Float[Tensor, "*times n n"]) -> Float[Tensor, "*times n n"]:
    """The critic that repeated sweeps `X <- mean_target(X)` end at; T + 1 of them where the horizon is finite."""
    if world.horizon is not None:
        for _ in range(world.horizon + 1):
            X = mean_target(world, K, X, lam)
        return X
    for _ in range(_MOST):
        before, X = X, mean_target(world, K, X, lam)
        if float((X - before).abs().max()) <= 1e-15 * float(X.abs().max()):
            return X
    raise InputError(f"lam={lam:g} has not brought the sweeps to rest in {_MOST}: take a larger lam or a smaller gain")


def rate_gaps(world: LinearQuadratic, K: Tensor, lam: float) -> tuple[float, float]:
    """How far the rates of one sweep are from their formula: of all errors, and of antisymmetric ones (nan with one state).

    The sweep is applied to one error after the other; the eigenvalues of what comes out are matched with the formula's. Of
    antisymmetric errors the largest symmetric part that comes out counts too.
    """
    n, zero = world.n, mean_target(world, K, torch.zeros_like(world.A), lam)

    def image(error: Tensor) -> Tensor:
        return mean_target(world, K, error, lam) - zero

    unit = torch.eye(n * n, dtype=torch.float64).reshape(-1, n, n)
    whole = torch.stack([image(E).flatten() for E in unit], 1)
    every = _distance(torch.linalg.eigvals(whole), sweep_spectrum(world, K, lam))
    i, j = torch.triu_indices(n, n, 1)
    if not len(i):
        return every, float("nan")
    images = torch.stack([image(E - E.mT) for E in unit.reshape(n, n, n, n)[i, j]])
    among = torch.linalg.eigvals(images[:, i, j].mT)
    curl = _distance(among, sweep_spectrum(world, K, lam, antisymmetric=True))
    return every, max(curl, float((images + images.mT).abs().max()))


def _distance(found: Tensor, exact: Tensor) -> float:
    """Largest distance between two sets of complex numbers, matched so that the sum of distances is least."""
    gaps = np.abs(found.numpy()[:, None] - exact.numpy())
    return float(gaps[linear_sum_assignment(gaps)].max())


def narrow_weight(world: LinearQuadratic, K: Tensor) -> Float[Tensor, "n n"]:
    """`u u' + small`, u the direction in which VGL(0) comes nearest to divergence, or diverges the most.

    With all states along u, as with a weight Omega along u, the mean update of VGL(0) has the eigenvalues
    `gamma (u'Phi u) phi - 1`, phi an eigenvalue of Phi. So it diverges where some `u'Phi u` is large, as it is in loops
    far from normal.
    """
    Phi = world.A - world.B @ K
    values, vectors = torch.linalg.eigh((Phi + Phi.mT) / 2)
    largest = [float((c * torch.linalg.eigvals(Phi)).real.max()) for c in values[[0, -1]]]
    u = vectors[:, 0 if largest[0] > largest[1] else -1]
    return torch.outer(u, u) + _WIDTH * torch.eye(world.n, dtype=torch.float64)
