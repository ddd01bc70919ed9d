"""The contract of a policy in a world with additive noise, and the two entropy knobs of a policy over tokens."""

import math
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from envs.world import InputError


@runtime_checkable
class Policy(Protocol):
    """A differentiable map from the history to the command `u_t = mu(history, t)`.

    `history` holds the last `window` states, oldest first (all of them where `window` is None), fewer at the start.
    Any `torch.nn.Module` with this call is a policy; its parameters are what the estimators differentiate.
    """

    window: int | None

    def __call__(self, history: Float[Tensor, "batch seen n"], t: int) -> Float[Tensor, "batch m"]:
        """The command for the last state of the history."""
        ...


def entropy_knobs(temperature: float, offset: Any, V: int) -> tuple[float, Float[Tensor, "V"]]:
    """Check the knobs of `softmax((z + offset) / temperature)`; an offset that is one number goes to token 0 alone.

    Adding it to all logits would change nothing. Raises InputError for a temperature that is not finite and > 0 and an
    offset that is neither a finite number nor V of them.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise InputError(f"temperature must be > 0; got {temperature!r}")
    try:
        given = torch.as_tensor(offset, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"offset must be a finite number or {V} of them; got {type(offset).__name__}") from None
    if given.ndim == 0:
        given = given * one_hot(torch.tensor(0), V)
    if given.shape != (V,) or not bool(given.isfinite().all()):
        raise InputError(f"offset must be a finite number or {V} of them; got shape {tuple(given.shape)}")
    return temperature, given
