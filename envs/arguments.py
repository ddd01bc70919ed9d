"""What a world is built from: arrays of one library, defaults, and refusals that name the argument and the remedy."""

from typing import Any

import numpy as np
import torch

from envs.world import InputError, namespace, stop_gradient

_SYMMETRY_TOLERANCE = 1e-10  # relative; below it a float64 matrix is symmetric up to rounding


def as_arrays(given: dict[str, Any]) -> dict[str, Any]:
    """All given fields as float arrays of one library, finite, or an error that names the field."""
    given = {name: value for name, value in given.items() if value is not None}
    tensors = [value for value in given.values() if isinstance(value, torch.Tensor)]
    arrays: dict[str, Any] = {}
    for name, value in given.items():
        try:
            if tensors:
                dtype = tensors[0].dtype if tensors[0].is_floating_point() else torch.float64
                arrays[name] = torch.as_tensor(value, dtype=dtype, device=tensors[0].device)
            else:
                arrays[name] = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError):
            shown = " ".join(repr(value).split())
            raise InputError(f"{name} must be a rectangular array of numbers; got {shown}") from None
        if not bool(namespace(arrays[name]).isfinite(arrays[name]).all()):
            raise InputError(f"{name} holds NaN or infinity; every entry must be a finite number")
    return arrays


def defaults(arrays: dict[str, Any]) -> dict[str, Any]:
    """Zeros (identity for S_0) for the fields that were left out."""
    for name in ("A", "B", "Q", "R"):
        if name not in arrays:
            raise InputError(f"{name} is missing; a linear-quadratic world needs A, B, Q and R")
        shape = tuple(arrays[name].shape)
        if len(shape) < 2 or 0 in shape:
            raise InputError(f"{name} must be a matrix; got shape {shape}: write a scalar as [[value]]")
    state, action = 0 * arrays["Q"], 0 * arrays["R"]
    identity = state.copy() if isinstance(state, np.ndarray) else state.clone()
    identity[..., range(min(state.shape[-2:])), range(min(state.shape[-2:]))] = 1.0
    filled = {"Q_f": state, "S_w": state, "S_x": action, "m_0": state[..., 0], "S_0": identity}
    return {name: value for name, value in filled.items() if name not in arrays}


def check_semidefinite(name: str, S: Any) -> None:
    """Refuse a matrix that is asymmetric or has a negative eigenvalue, rounding aside."""
    xp, S = namespace(S), stop_gradient(S)
    gap, size = float(abs(S - S.mT).max()), max(float(abs(S).max()), 1e-300)
    rounding = max(_SYMMETRY_TOLERANCE, 8 * S.shape[-1] * float(xp.finfo(S.dtype).eps))
    if gap > rounding * size:
        raise InputError(f"{name} must be symmetric; |{name} - {name}'| reaches {gap:.3g}: pass ({name} + {name}') / 2")
    lowest = float(xp.linalg.eigvalsh(S).min())
    if lowest < -rounding * size:
        raise InputError(f"{name} must be positive semidefinite; its smallest eigenvalue is {lowest:.3g}")


def check_gamma(gamma: float) -> None:
    """Refuse a discount outside (0, 1]."""
    if not (isinstance(gamma, (int, float)) and 0 < gamma <= 1):
        raise InputError(f"gamma must lie in (0, 1]; got {gamma!r}")


def check_horizon(horizon: int | None) -> None:
    """Refuse a horizon that is neither None nor a positive whole number."""
    whole = isinstance(horizon, (int, np.integer)) and not isinstance(horizon, bool)
    if horizon is not None and not (whole and horizon >= 1):
        raise InputError(f"horizon must be a whole number >= 1, or None for an endless world; got {horizon!r}")
