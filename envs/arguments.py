"""What a world is built from: arrays of one library, defaults, and refusals that name the argument and the remedy."""

import functools
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from envs.world import InputError, namespace, stop_gradient

MOST_BYTES = 4 * 2**30  # of a world's tables or matrices
P = ParamSpec("P")
Answer = TypeVar("Answer")

_SYMMETRY_TOLERANCE = 1e-10  # relative; below it a float64 matrix is symmetric up to rounding


def as_arrays(given: dict[str, Any]) -> dict[str, Any]:
    """All given fields as float arrays of one library, finite.

    Args:
        given: what the user gave, by field; None means left out.

    Returns:
        The arrays by field: torch tensors where one field is a tensor, else numpy arrays in float64.

    Raises:
        InputError: a field is no rectangular array of finite numbers; the error names it.
    """
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
            raise InputError(f"{name} must be a rectangular array of numbers; got {short(value)}") from None
        if not bool(namespace(arrays[name]).isfinite(arrays[name]).all()):
            raise InputError(f"{name} holds NaN or infinity; every entry must be a finite number")
    return arrays


def defaults(arrays: dict[str, Any]) -> dict[str, Any]:
    """Zeros (identity for S_0) for the fields that were left out.

    Args:
        arrays: the fields that were given.

    Returns:
        The fields that were left out, by name.

    Raises:
        InputError: A, B, Q or R is missing or no matrix.
    """
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
    filled |= {"N": 0 * arrays["B"], "q": state[..., 0], "q_a": action[..., 0], "q_f": state[..., 0]}
    return {name: value for name, value in filled.items() if name not in arrays}


def check_semidefinite(name: str, S: Any) -> None:
    """Refuse a matrix that is asymmetric or has a negative eigenvalue, rounding aside.

    Args:
        name: of the matrix in the error.
        S: the matrix, or a batch of them.

    Raises:
        InputError: S is not symmetric or has a negative eigenvalue.
    """
    xp, S = namespace(S), stop_gradient(S)
    gap, size = float(abs(S - S.mT).max()), max(float(abs(S).max()), 1e-300)
    rounding = max(_SYMMETRY_TOLERANCE, 8 * S.shape[-1] * float(xp.finfo(S.dtype).eps))
    if gap > rounding * size:
        raise InputError(f"{name} must be symmetric; |{name} - {name}'| reaches {gap:.3g}: pass ({name} + {name}') / 2")
    lowest = float(xp.linalg.eigvalsh(S).min())
    if lowest < -rounding * size:
        raise InputError(f"{name} must be positive semidefinite; its smallest eigenvalue is {lowest:.3g}")


def check_joint_cost(Q: Any, N: Any, R: Any) -> None:
    """Refuse an N that makes `[[Q, N], [N', R]]` indefinite: some state and action would then be paid for their size.

    Each direction is measured in units of its own cost, so that a large Q does not hide a small R.

    Args:
        Q: cost of the states.
        N: cross term.
        R: cost of the actions.

    Raises:
        InputError: the joint matrix has a negative eigenvalue.
    """
    xp, (Q, N, R) = namespace(Q), (stop_gradient(x) for x in (Q, N, R))
    weights = [abs(S[..., range(S.shape[-1]), range(S.shape[-1])]) ** 0.5 for S in (Q, R)]
    units = [xp.where(weight > 0, weight, 1.0) for weight in weights]
    free = (weights[0][..., :, None] * weights[1][..., None, :] == 0) & (N != 0)
    lowest = -math.inf if bool(free.any()) else _lowest_scaled(xp, Q, N, R, *units)
    if lowest < -max(_SYMMETRY_TOLERANCE, 8 * sum(N.shape[-2:]) * float(xp.finfo(N.dtype).eps)):
        raise InputError(
            "N must leave [[Q, N], [N', R]] positive semidefinite, else some states and actions are rewarded without "
            f"bound; its smallest eigenvalue, each direction in units of its own cost, is {lowest:.3g}: take a smaller N"
        )


def _lowest_scaled(xp: Any, Q: Any, N: Any, R: Any, state: Any, action: Any) -> float:
    """Smallest eigenvalue of `[[Q, N], [N', R]]` after rows and columns were divided by these units."""
    Q, R = (S / (unit[..., :, None] * unit[..., None, :]) for S, unit in ((Q, state), (R, action)))
    N = N / (state[..., :, None] * action[..., None, :])
    batch = np.broadcast_shapes(*(tuple(S.shape[:-2]) for S in (Q, N, R)))
    Q, N, R = (xp.broadcast_to(S, (*batch, *S.shape[-2:])) for S in (Q, N, R))
    joint = xp.concatenate([xp.concatenate([Q, N], -1), xp.concatenate([N.mT, R], -1)], -2)
    return float(xp.linalg.eigvalsh(joint).min())


def check_gamma(gamma: float) -> None:
    """Refuse a discount outside (0, 1].

    Args:
        gamma: the discount.

    Raises:
        InputError: gamma is no number in (0, 1].
    """
    if isinstance(gamma, bool) or not (isinstance(gamma, int | float | np.number) and 0 < float(gamma) <= 1):
        raise InputError(f"gamma must lie in (0, 1]; got {short(gamma)}")


def check_horizon(horizon: int | None) -> None:
    """Refuse a horizon that is neither None nor a positive whole number.

    Args:
        horizon: number of steps, or None for an endless world.

    Raises:
        InputError: the horizon is neither.
    """
    if horizon is not None:
        whole("horizon", horizon, 1, "or None for an endless world")


def as_numbers(name: str, given: Any) -> Tensor:
    """What a user brings as a tensor: floating-point tensors as they are, all else (lists, numpy, whole numbers) in float64.

    Args:
        name: of the argument in the error.
        given: what the user gave.

    Returns:
        A floating-point tensor.

    Raises:
        InputError: it is no array of real numbers.
    """
    if isinstance(given, Tensor) and given.is_floating_point():
        return given
    try:
        array = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
        if array.dtype.kind not in "iuf":
            raise TypeError
        tensor = torch.as_tensor(array.astype(np.float64))
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name} must be real numbers, an array of one shape; got {short(given)}") from None
    return tensor.to(given.device) if isinstance(given, Tensor) else tensor


def takes_numbers(*names: str) -> Callable[[Callable[P, Answer]], Callable[P, Answer]]:
    """Make a function take lists, numpy arrays and plain numbers for these arguments too (`as_numbers`).

    Args:
        names: of the arguments.

    Returns:
        The decorator.
    """

    def decorate(function: Callable[P, Answer]) -> Callable[P, Answer]:
        signature = inspect.signature(function)
        places = {name: index for index, name in enumerate(signature.parameters) if name in names}

        @functools.wraps(function)
        def converted(*args: P.args, **kwargs: P.kwargs) -> Answer:
            positional: list[Any] = list(args)
            for name, index in places.items():
                if index < len(positional):
                    positional[index] = as_numbers(name, positional[index])
                elif name in kwargs:
                    kwargs[name] = as_numbers(name, kwargs[name])
            return function(*positional, **kwargs)

        return converted

    return decorate


def names(given: str | Sequence[str]) -> tuple[str, ...]:
    """One name, or several, as a tuple.

    Args:
        given: what a user brings.

    Returns:
        The names.

    Raises:
        InputError: it is neither.
    """
    several = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(name, str) for name in several):
        raise InputError(f"a site is called by its name, a text, or several by a list of names; got {short(given)}")
    return several


def asked_for(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the keyword-only parameters without a default: what a function asks for beside its usual arguments.

    Args:
        function: any callable.

    Returns:
        The names, in their order; none where the function shows no signature.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have none
        return ()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty)


def whole(name: str, given: Any, least: int, why: str = "") -> int:
    """A whole number >= least, numpy's included; True and False are none.

    Args:
        name: of the argument in the error.
        given: what the user gave.
        least: the smallest number allowed.
        why: what to say in the error, or what else is allowed.

    Returns:
        The number, as an int.

    Raises:
        InputError: it is no whole number, or a smaller one.
    """
    try:
        number = None if isinstance(given, bool | np.bool_) else operator.index(given)
    except TypeError:
        number = None
    if number is None or number < least:
        raise InputError(f"{name} must be a whole number >= {least}{why and ': ' + why}; got {short(given)}")
    return number


def check_bytes(needed: int, what: str, remedy: str) -> None:
    """Refuse, before anything is allocated, what needs more than `MOST_BYTES`.

    Args:
        needed: bytes.
        what: what needs them; the error begins with it.
        remedy: what to do; the error ends with it.

    Raises:
        InputError: more than `MOST_BYTES` are needed.
    """
    if needed > MOST_BYTES:
        raise InputError(f"{what} that need {needed / 2**30:.3g} GiB, at most {MOST_BYTES / 2**30:.3g}: {remedy}")


def check_spread(name: str, value: Any) -> None:
    """Refuse a standard deviation that is negative or no finite number.

    Args:
        name: of the argument in the error.
        value: what the user gave.

    Raises:
        InputError: the value is no finite number >= 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= float(value) < math.inf:
        raise InputError(f"{name} must be a finite number >= 0, a standard deviation; got {short(value)}")


def check_finite(name: str, value: Any) -> None:
    """Refuse what is no finite number.

    Args:
        name: of the argument in the error.
        value: what the user gave.

    Raises:
        InputError: the value is no finite number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise InputError(f"{name} must be a finite number; got {short(value)}")


def check_seed(seed: Any) -> int:
    """A seed as a whole number: None would make every copy of a world another one.

    Args:
        seed: what the user gave.

    Returns:
        The seed, as an int.

    Raises:
        InputError: the seed is no whole number >= 0.
    """
    return whole("seed", seed, 0, "the same seed gives the same world")


def short(given: Any) -> str:
    """What was given, in one line of at most 80 characters.

    Args:
        given: anything that has a repr.

    Returns:
        The repr, cut where it is too long.
    """
    text = " ".join(repr(given).split())
    return text if len(text) <= 80 else text[:77] + "..."
