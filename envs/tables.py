"""Tables that come in as lists, numpy arrays or tensors: float64 torch tensors, or an error in one line."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.arguments import short
from envs.world import InputError

# fields of a batch, which no signal may be called by
TAKEN_NAMES = ("rewards", "mask", "group", "log_probs", "old", "reference", "values", "ended", "span", "extras")
_ROW_SUM = 1e-9  # how far a row of probabilities may be from summing to one


def number_table(name: str, given: Any) -> Tensor:
    """A float64 tensor of what is given.

    Args:
        name: of the table in the error.
        given: what the user gave.

    Returns:
        The tensor.

    Raises:
        InputError: it is no rectangular table of finite numbers.
    """
    try:
        table = torch.as_tensor(
            given.detach() if isinstance(given, Tensor) else np.array(given, order="C"), dtype=torch.float64
        )
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name} must be a rectangular table of numbers") from None
    if not bool(table.isfinite().all()):
        raise InputError(f"{name} holds NaN or infinity; every entry must be a finite number")
    return table


def by_step(name: str, given: Any, horizon: int) -> Tensor:
    """A table for every step; one table is that of all steps.

    Args:
        name: of the table in the error.
        given: one table, or one for each step.
        horizon: number of steps.

    Returns:
        One table for each step.

    Raises:
        InputError: as in `number_table`.
    """
    table = number_table(name, given)
    return table.expand(horizon, *table.shape).clone() if table.ndim == 2 else table


def signal_tables(given: Any, horizon: int) -> dict[str, Tensor]:
    """The signals of a token world by name, a table for every step each.

    Args:
        given: tables by name; None for none.
        horizon: number of steps.

    Returns:
        The tables by name.

    Raises:
        InputError: there is no dictionary, a name is no Python name or means something else to a recipe, or as in
            `number_table`.
    """
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"signals must be tables by name, a dictionary; got {type(given).__name__}")
    for name in given or {}:
        if not (isinstance(name, str) and name.isidentifier()) or name in TAKEN_NAMES:
            raise InputError(f"signals must have names of their own, like 'accuracy'; got {short(name)}")
    return {name: by_step(f"signals[{name!r}]", table, horizon) for name, table in (given or {}).items()}


def probabilities(name: str, given: Any) -> Tensor:
    """A table whose rows are probabilities, to the rounding of the precision that it comes in.

    Rows that come in less than double precision are divided by their sums, so that they sum to one here too.

    Args:
        name: of the table in the error.
        given: what the user gave.

    Returns:
        The table in float64.

    Raises:
        InputError: an entry is negative or a row does not sum to one; the error names the worst row.
    """
    table = number_table(name, given)
    if bool((table < 0).any()):
        raise InputError(f"{name} holds a negative probability, {float(table.min()):.3g}")
    if not table.ndim or not table.shape[-1]:
        return table
    kind = given.dtype if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given)).dtype
    eps = torch.finfo(kind).eps if kind.is_floating_point else 0.0
    sums = table.sum(-1)
    allowed = max(_ROW_SUM, max(8, table.shape[-1]) * eps)
    gap = (sums - 1).abs()
    if gap.numel() and float(gap.max()) > allowed:
        where = [int(i) for i in np.unravel_index(int(gap.argmax()), gap.shape)]
        row = f"{name}[{', '.join(map(str, where))}]" if where else name
        off = float(sums.flatten()[int(gap.argmax())]) - 1
        raise InputError(
            f"{row} misses a sum of one by {off:+.3g} ({allowed:.1g} is allowed); every row of probabilities must sum to one"
        )
    return table / sums[..., None] if eps > torch.finfo(torch.float64).eps else table


def whole_numbers(name: str, given: Any, ndim: int, size: int, thing: str, where: str) -> Tensor:
    """An int64 tensor of `ndim` dimensions with entries 0 ... size - 1.

    Args:
        name: of the table in the error.
        given: what the user gave.
        ndim: number of axes.
        size: one more than the largest entry allowed.
        thing: what an entry is, in the error.
        where: what it must belong to, in the error.

    Returns:
        The tensor.

    Raises:
        InputError: an entry is no whole number or out of range, or the table is empty or has other axes.
    """
    try:
        numbers = np.asarray(given.cpu() if isinstance(given, Tensor) else given)
        table = torch.as_tensor(given if isinstance(given, Tensor) else numbers, dtype=torch.int64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name} must be whole numbers, all prompts of one length") from None
    if table.numel() and numbers.dtype.kind not in "iu":
        raise InputError(f"{name} must be whole numbers; got {numbers.dtype}")
    if table.ndim != ndim or not table.numel():
        raise InputError(f"{name} must have {ndim} dimension(s) and at least one entry; got shape {tuple(table.shape)}")
    bad = table[(table < 0) | (table >= size)]
    if bad.numel():
        raise InputError(f"{name}: {thing} {int(bad[0])} is outside the {where}: they are 0 ... {size - 1}")
    return table
