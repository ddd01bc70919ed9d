"""Where an endless world may be cut: what the steps after the cut add is computed, not taken from the spectral radius.

The spectral radius says how a closed loop decays in the end. A loop that is not normal may grow for many steps before that, and
a nilpotent one has radius 0 and still needs up to n steps to come to rest.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from envs.linear_quadratic import LinearQuadratic
from envs.world import InputError
from theory.continuous.lq_gradients import costate_covariance
from theory.continuous.lyapunov import check_gain, endless_cost, second_moments, spectral_radius

MOST_STEPS = 2000
SMALLEST_COMPONENT = 1e-9  # of the largest component of the value gradient: no component is judged on a smaller scale
SMALLEST_SPREAD = 1e-4  # of the value gradient: a smaller spread of the costate counts as none


def gradient_size(P: Float[Tensor, "n n"], Sigma: Float[Tensor, "n n"]) -> Float[Tensor, "n"]:
    """Root mean square of every component of `grad V = -2 P s`, for states with `E s s' = Sigma`."""
    size: Tensor = 2 * (P @ Sigma @ P).diagonal().clamp(min=0).sqrt()
    return size


def spread_scale(
    covariance: Float[Tensor, "*times n n"], P: Float[Tensor, "n n"], Sigma: Float[Tensor, "n n"]
) -> Float[Tensor, "*times n n"]:
    """Products of the costate's standard deviations, none below `SMALLEST_SPREAD` of the value gradient's own size."""
    least = SMALLEST_SPREAD * float(gradient_size(P, Sigma).max())
    sizes = covariance.diagonal(dim1=-2, dim2=-1).clamp(min=least**2).sqrt()
    return sizes[..., :, None] * sizes[..., None, :]


def steps_until_settled(
    world: LinearQuadratic, K: Float[Tensor, "m n"], last: int = 0, tolerance: float = 1e-8, most: int = MOST_STEPS
) -> int:
    """A number of steps k so large that what follows them changes no value gradient and no costate covariance.

    The first k steps leave `R_k = (F^k)' P F^k` of P, F = sqrt(gamma) Phi. It falls with k, and so does the bound
    `2 sqrt(R_ii tr(R Sigma_t))` on the root mean square of what it adds to component i of the value gradient. The covariance of
    the first k steps is compared with the endless one.

    Args:
        world: an endless linear-quadratic world.
        K: a stable gain.
        last: the bounds hold at times 0 ... `last`; a path that is looked at until then needs `last + k` steps.
        tolerance: of a component of the value gradient in units of its root mean square, and of an entry of the covariance in
            units of the product of standard deviations.
        most: largest k.

    Raises:
        InputError: K does not fit or is unstable, or k would be larger than `most`.
    """
    K, world = check_gain(world, K), world.to()
    P, F = endless_cost(world, K), world.gamma**0.5 * (world.A - world.B @ K)
    Sigma = second_moments(_cut(world, max(last, 1)), K)[: last + 1]
    size = torch.stack([gradient_size(P, S) for S in Sigma])
    size = size.clamp(min=SMALLEST_COMPONENT * float(size.max()))
    k, R = 0, P
    while bool((2 * (R.diagonal() * (R * Sigma).sum((1, 2))[:, None]).clamp(min=0).sqrt() > tolerance * size).any()):
        k, R = k + 1, F.mT @ R @ F
        _check(world, K, k, most)
    while k == 0 or not _covariance_settled(world, K, P, k, tolerance):
        k += 1 + k // 8
        _check(world, K, k, most)
    return k


def _covariance_settled(world: LinearQuadratic, K: Tensor, P: Tensor, k: int, tolerance: float) -> bool:
    whole, first = (torch.stack(costate_covariance(w, K)).sum(0) for w in (world, _cut(world, k)))
    scale = spread_scale(whole, P, world.S_0 + torch.outer(world.m_0, world.m_0))
    return bool(((whole - first).abs() <= tolerance * scale).all())


def _check(world: LinearQuadratic, K: Tensor, k: int, most: int) -> None:
    if k > most:
        radius = spectral_radius(world.A - world.B @ K)
        raise InputError(
            f"A - B K (spectral radius {radius:.6g}, gamma={world.gamma:g}) needs paths of more than {most} steps "
            "to settle: give a horizon"
        )


def _cut(world: LinearQuadratic, steps: int) -> LinearQuadratic:
    return world.replace(horizon=steps, Q_f=torch.zeros_like(world.Q))


def cut_endless(
    world: LinearQuadratic, K: Float[Tensor, "*time m n"], last: int = 0, tolerance: float = 1e-8
) -> LinearQuadratic:
    """The world with a horizon of `last + steps_until_settled` steps and Q_f = 0; one that has a horizon, as it is."""
    if world.horizon is not None:
        return world
    return _cut(world.to(), last + steps_until_settled(world, K, last, tolerance))
