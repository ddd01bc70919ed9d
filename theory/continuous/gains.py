"""Linear policies `u = -K s - k`: which gains and offsets fit a world, and which have a finite value there.

Theory page, section 1: "Value and value gradient".
"""

import torch
from jaxtyping import Float
from torch import Tensor

from envs.linear_quadratic import LinearQuadratic
from envs.world import InputError

MOST_STEPS = 100_000  # of a finite horizon


def gain_at(K: Float[Tensor, "*time m n"], t: int) -> Float[Tensor, "m n"]:
    """K_t of a gain that may or may not change with time.

    Args:
        K: one gain, or one for each step.
        t: the step.

    Returns:
        The gain of this step.
    """
    return K[t] if K.ndim == 3 else K


def offset_at(k: Float[Tensor, "*offset_time m"] | None, t: int) -> Float[Tensor, "m"] | None:
    """k_t of an offset that may or may not change with time; None where the policy has none.

    Args:
        k: one offset, one for each step, or None.
        t: the step.

    Returns:
        The offset of this step, or None.
    """
    return k[t] if k is not None and k.ndim == 2 else k


def check_one_system(world: LinearQuadratic) -> None:
    """Refuse a batch of systems, and a horizon that closed forms, which go step by step, would take too long for.

    Args:
        world: the world that a closed form was asked about.

    Raises:
        InputError: a field holds a batch of systems, or the horizon is longer than `MOST_STEPS`.
    """
    vectors = ("m_0", "q", "q_a", "q_f")
    dims = dict.fromkeys(("A", "B", "Q", "R", "Q_f", "S_w", "S_x", "S_0", "N"), 2) | dict.fromkeys(vectors, 1)
    for name, ndim in dims.items():
        shape = tuple(getattr(world, name).shape)
        if len(shape) > ndim:
            raise InputError(
                f"{name} must describe one system here, shape {shape[-ndim:]}; got {shape}: only riccati takes a batch"
            )
    check_steps(world)


def check_steps(world: LinearQuadratic) -> None:
    """Refuse a horizon beyond `MOST_STEPS`.

    Args:
        world: the world that a closed form was asked about.

    Raises:
        InputError: the horizon is longer than `MOST_STEPS`.
    """
    if world.horizon is not None and world.horizon > MOST_STEPS:
        raise InputError(
            f"horizon={world.horizon} is too long for closed forms, which go step by step: at most {MOST_STEPS}, or None "
            "for an endless world"
        )


def check_gain(world: LinearQuadratic, K: Tensor) -> Tensor:
    """A gain in float64, refused where it does not fit the world.

    Args:
        world: one linear-quadratic system.
        K: the gain, of shape (m, n) or, for a finite horizon, (T, m, n).

    Returns:
        K as a float64 tensor of the same shape.

    Raises:
        InputError: K has another shape or holds NaN or infinity, or as in `check_one_system`.
    """
    check_one_system(world)
    return _fitting(world, "K", K, (world.m, world.n))


def check_offset(world: LinearQuadratic, k: Tensor | None) -> Tensor | None:
    """An offset in float64, refused where it does not fit the world.

    Args:
        world: one linear-quadratic system.
        k: the offset, of shape (m,) or, for a finite horizon, (T, m); or None.

    Returns:
        k as a float64 tensor of the same shape, or None.

    Raises:
        InputError: k has another shape or holds NaN or infinity.
    """
    return None if k is None else _fitting(world, "k", k, (world.m,))


def _fitting(world: LinearQuadratic, name: str, given: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Finite float64 numbers of this shape, or of one for each step."""
    given = torch.as_tensor(given, dtype=torch.float64)
    shapes = [shape] + ([(world.horizon, *shape)] if world.horizon else [])
    if tuple(given.shape) not in shapes:
        raise InputError(f"{name} must have shape {' or '.join(map(str, shapes))}; got {tuple(given.shape)}")
    if not bool(given.isfinite().all()):
        raise InputError(f"{name} holds NaN or infinity; every entry must be a finite number")
    return given


def check_keeps(world: LinearQuadratic, form: str) -> None:
    """Refuse a world variant that does not say that it keeps this closed form (`LinearQuadratic.keeps`).

    Args:
        world: the world that a closed form was asked about.
        form: name of the closed form, one of `envs.linear_quadratic.CLOSED_FORMS`.

    Raises:
        InputError: the world does not keep this form; the error names those that it keeps.
    """
    if form not in world.keeps:
        name, kept = type(world).__name__, ", ".join(sorted(world.keeps)) or "none"
        raise InputError(
            f"{name} has no such closed form: {form} (kept: {kept}); see theory/continuous/broken_assumptions.py"
        )


def spectral_radius(Phi: Float[Tensor, "n n"]) -> float:
    """Largest absolute eigenvalue.

    Args:
        Phi: a square matrix.

    Returns:
        The radius.
    """
    return float(torch.linalg.eigvals(Phi).abs().max())


def check_stable(world: LinearQuadratic, K: Tensor) -> None:
    """Refuse an endless world whose closed loop has no finite value.

    Args:
        world: an endless linear-quadratic world.
        K: the gain.

    Raises:
        InputError: `gamma rho(A - B K)^2 >= 1`; the error names the radius.
    """
    here = world.to()
    radius = spectral_radius(here.A - here.B @ K)
    if not radius < world.gamma**-0.5:
        raise InputError(
            f"K leaves the closed loop A - B K unstable for horizon=None: spectral radius {radius:.6g}, "
            f"needs < {world.gamma**-0.5:.6g} = 1/sqrt(gamma)"
        )


def check_rest(k: Tensor | None) -> None:
    """Refuse an offset where gamma = 1: the state does not come to rest at 0, and what each step costs adds up for ever.

    Args:
        k: the offset of a policy in an endless world with gamma = 1, or None.

    Raises:
        InputError: k is not zero.
    """
    if k is not None and bool(k.any()):
        raise InputError("k must be zero for horizon=None with gamma=1: give gamma < 1 or a horizon")
