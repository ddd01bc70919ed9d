"""The closed-form policy gradient by the adjoint against two other exact roads, n = 8 states and m = 4 actions.

(a) forward sensitivities: for every parameter the derivative of P solves its own Lyapunov equation, by the Kronecker
product; (b) central differences of the expected return. All three must agree to 1e-6 before anything is timed.
"""

import itertools
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.timing import check, interleave, median_ratio, report
from envs.linear_quadratic import LinearQuadratic, random_system
from theory.continuous.lq_gradients import expected_return, policy_gradient
from theory.continuous.lyapunov import linear_value
from theory.continuous.riccati import riccati
from theory.differences import central_gradient

ROUNDS, TARGET = 15, 10


def forward_sensitivities(world: LinearQuadratic, K: Tensor) -> Tensor:
    """`dJ/dK_ij = -(tr(dP_0 Sigma_0) + dc_0)`, one Lyapunov equation for every parameter; P itself is shared."""
    Phi, slopes = world.A - world.B @ K, torch.zeros_like(K)
    kron, P = world.gamma * torch.kron(Phi.mT.contiguous(), Phi.mT.contiguous()), linear_value(world, K).P
    for index in itertools.product(range(world.m), range(world.n)):
        dK = torch.zeros_like(K)
        dK[index] = 1.0
        slopes[index] = (_endless if world.horizon is None else _finite)(world, K, dK, kron, P)
    return slopes


def _endless(world: LinearQuadratic, K: Tensor, dK: Tensor, kron: Tensor, P: Tensor) -> Tensor:
    """`(I - gamma Phi' x Phi') vec dP = vec(source)`, dense."""
    source = _source(world, K, dK, P).reshape(-1)
    dP = torch.linalg.solve(torch.eye(len(kron), dtype=K.dtype) - kron, source).reshape(P.shape)
    slope: Tensor = -(dP @ _start(world)).trace() - world.gamma / (1 - world.gamma) * (dP @ _noise(world)).trace()
    return slope


def _finite(world: LinearQuadratic, K: Tensor, dK: Tensor, kron: Tensor, P: Tensor) -> Tensor:
    """`vec dP_t = vec(source_t) + gamma (Phi' x Phi') vec dP_{t+1}`, backwards from dP_T = 0."""
    dP, dc = torch.zeros_like(world.Q), torch.zeros((), dtype=K.dtype)
    for later in reversed(P[1:]):
        dc = world.gamma * (dc + (dP @ _noise(world)).trace())
        dP = _source(world, K, dK, later) + (kron @ dP.reshape(-1)).reshape(dP.shape)
    return -(dP @ _start(world)).trace() - dc


def _start(world: LinearQuadratic) -> Tensor:
    second_moment: Tensor = world.S_0 + torch.outer(world.m_0, world.m_0)
    return second_moment


def _noise(world: LinearQuadratic) -> Tensor:
    covariance: Tensor = world.B @ world.S_x @ world.B.mT + world.S_w
    return covariance


def _source(world: LinearQuadratic, K: Tensor, dK: Tensor, P: Tensor) -> Tensor:
    """What moves dP by itself: `dK'(RK - gamma B'P Phi)` and its transpose."""
    half: Tensor = dK.mT @ (world.R @ K - world.gamma * world.B.mT @ P @ (world.A - world.B @ K))
    return half + half.mT


def differences(world: LinearQuadratic, K: Tensor) -> Tensor:
    """Central differences in every entry of K."""

    def value(k: Tensor) -> Tensor:
        return expected_return(world, k.reshape(K.shape))

    return central_gradient(value, K.reshape(-1)).reshape(K.shape)


def main() -> None:
    """Check, measure and print."""
    for horizon in (50, None):
        world = random_system(8, 4, seed=0, horizon=horizon).to()
        K = 0.7 * riccati(world.replace(horizon=None)).K
        roads: dict[str, Callable[[], Tensor]] = {
            "adjoint": partial(policy_gradient, world, K),
            "sensitivities": partial(forward_sensitivities, world, K),
            "differences": partial(differences, world, K),
        }
        exact = roads["adjoint"]()
        for name, road in roads.items():
            check(f"{name}, horizon {horizon}", float((road() - exact).abs().max() / exact.abs().max()), 1e-6)
        seconds = interleave(roads, ROUNDS)
        for name in ("sensitivities", "differences"):
            report(
                f"policy gradient, horizon {horizon}: adjoint against {name}",
                median_ratio(seconds, name, "adjoint"),
                TARGET,
            )


if __name__ == "__main__":
    main()
