"""Where an endless world may be cut: what the steps after the cut add is computed, not taken from the spectral radius.

The spectral radius says how a closed loop decays in the end. A loop that is not normal may grow for many steps before that, and
a nilpotent one has radius 0 and still needs up to n steps to come to rest.

Theory page, section 1: "Value and value gradient".
"""

import torch
from jaxtyping import Float
from torch import Tensor

from envs.linear_quadratic import LinearQuadratic
from envs.world import InputError
from theory.continuous.gains import check_gain, check_offset, spectral_radius
from theory.continuous.lq_gradients import costate_covariance
from theory.continuous.lyapunov import linear_value, mean_states, second_moments

MOST_STEPS = 2000
SMALLEST_COMPONENT = 1e-9  # of the largest component of the value gradient: no component is judged on a smaller scale
SMALLEST_SPREAD = 1e-4  # of the value gradient: a smaller spread of the costate counts as none


def gradient_size(
    P: Float[Tensor, "n n"], Sigma: Float[Tensor, "n n"], p: Float[Tensor, "n"], mean: Float[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """Root mean square of every component of `grad V = -2 (P s + p)`, for states with `E s = mean` and `E s s' = Sigma`.

    Args:
        P: quadratic part of the value.
        Sigma: second moment of the states.
        p: linear part of the value.
        mean: mean of the states.

    Returns:
        One number for each component, in return units per unit of that component.
    """
    square = (P @ Sigma @ P).diagonal() + 2 * p * (P @ mean) + p.square()
    size: Tensor = 2 * square.clamp(min=0).sqrt()
    return size


def spread_scale(covariance: Float[Tensor, "*times n n"], gradient: Float[Tensor, "n"]) -> Float[Tensor, "*times n n"]:
    """Products of the costate's standard deviations, none below `SMALLEST_SPREAD` of the value gradient's own size.

    Args:
        covariance: Cov(lambda), at one time or at several.
        gradient: size of every component of the value gradient, as `gradient_size` gives it.

    Returns:
        For every entry of the covariance the scale by which it is judged.
    """
    least = SMALLEST_SPREAD * float(gradient.max())
    sizes = covariance.diagonal(dim1=-2, dim2=-1).clamp(min=least**2).sqrt()
    return sizes[..., :, None] * sizes[..., None, :]


def steps_until_settled(
    world: LinearQuadratic,
    K: Float[Tensor, "m n"],
    last: int = 0,
    tolerance: float = 1e-8,
    most: int = MOST_STEPS,
    k: Float[Tensor, "m"] | None = None,
) -> int:
    """A number of steps j so large that what follows them changes no value gradient and no costate covariance.

    The first j steps leave `R_j = (F^j)' P F^j` of P, F = sqrt(gamma) Phi. It falls with j, and so does the bound
    `2 sqrt(R_ii tr(R Sigma_t))` on the root mean square of what it adds to component i of the value gradient. Of p they
    leave `p_j = gamma Phi'(p_{j-1} - R_{j-1} B k)`, `p_0 = p`, which adds `2 |p_ji|`. The covariance of the first j
    steps is compared with the endless one.

    Args:
        world: an endless linear-quadratic world.
        K: a stable gain.
        last: the bounds hold at times 0 ... `last`; a path that is looked at until then needs `last + j` steps.
        tolerance: of a component of the value gradient in units of its root mean square, and of an entry of the
            covariance in units of the product of standard deviations.
        most: largest j.
        k: offset of the policy u = -K s - k.

    Returns:
        The number of steps j.

    Raises:
        InputError: K or k does not fit or K is unstable, or j would be larger than `most`.
    """
    K, k, world = check_gain(world, K), check_offset(world, k), world.to()
    value, back, path = linear_value(world, K, k), world.gamma * (world.A - world.B @ K).mT, _cut(world, max(last, 1))
    Sigma, means = second_moments(path, K, k)[: last + 1], mean_states(path, K, k)[: last + 1]
    sizes = torch.stack([gradient_size(value.P, S, value.p, m) for S, m in zip(Sigma, means, strict=True)])
    least = tolerance * sizes.clamp(min=SMALLEST_COMPONENT * float(sizes.max()))
    j, R, p, F = 0, value.P, value.p, world.gamma**0.5 * (world.A - world.B @ K)
    while bool((_left_over(R, p, Sigma) > least).any()):
        j, R, p = j + 1, F.mT @ R @ F, back @ (p if k is None else p - R @ (world.B @ k))
        _check(world, K, j, most)
    while j == 0 or not _covariance_settled(world, K, sizes[0], j, tolerance):
        j += 1 + j // 8
        _check(world, K, j, most)
    return j


def _left_over(R: Tensor, p: Tensor, Sigma: Tensor) -> Tensor:
    """Bound on the root mean square of every component of `2 (R s + p)`, for each second moment of s."""
    quadratic: Tensor = (R.diagonal() * (R * Sigma).sum((1, 2))[:, None]).clamp(min=0).sqrt()
    return 2 * (quadratic + p.abs())


def _covariance_settled(world: LinearQuadratic, K: Tensor, gradient: Tensor, j: int, tolerance: float) -> bool:
    whole, first = (torch.stack(costate_covariance(w, K)).sum(0) for w in (world, _cut(world, j)))
    scale = spread_scale(whole, gradient)
    return bool(((whole - first).abs() <= tolerance * scale).all())


def _check(world: LinearQuadratic, K: Tensor, k: int, most: int) -> None:
    if k > most:
        radius = spectral_radius(world.A - world.B @ K)
        raise InputError(
            f"A - B K (spectral radius {radius:.6g}, gamma={world.gamma:g}) needs paths of more than {most} steps "
            "to settle: give a horizon"
        )


def _cut(world: LinearQuadratic, steps: int) -> LinearQuadratic:
    return world.replace(horizon=steps, Q_f=torch.zeros_like(world.Q), q_f=torch.zeros_like(world.q))


def cut_endless(
    world: LinearQuadratic,
    K: Float[Tensor, "*time m n"],
    last: int = 0,
    tolerance: float = 1e-8,
    k: Float[Tensor, "*offset_time m"] | None = None,
) -> LinearQuadratic:
    """The world with a horizon of `last + steps_until_settled` steps and no last reward; one that has a horizon, as it is.

    Args:
        world: a linear-quadratic world.
        K: a stable gain.
        last: last time that is looked at.
        tolerance: as in `steps_until_settled`.
        k: offset of the policy u = -K s - k; None for zero.

    Returns:
        A world with a finite horizon.

    Raises:
        InputError: as in `steps_until_settled`.
    """
    if world.horizon is not None:
        return world
    return _cut(world.to(), last + steps_until_settled(world, K, last, tolerance, k=k))
