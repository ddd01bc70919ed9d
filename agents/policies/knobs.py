"""The two entropy knobs of a policy over tokens: temperature and offset."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from envs.world import InputError


def entropy_knobs(temperature: float, offset: Any, V: int) -> tuple[float, Float[Tensor, "V"]]:
    """Check the knobs of `softmax((z + offset) / temperature)`.

    An offset that is one number is added to the logit of token 0 only: added to all logits it would change nothing.

    Args:
        temperature: by which the logits are divided.
        offset: what is added to the logits, one number or V of them.
        V: size of the vocabulary.

    Returns:
        The temperature, and the offset of every token.

    Raises:
        InputError: the temperature is not finite and > 0, or the offset is neither a finite number nor V of them.
    """
    if isinstance(temperature, str) or not (temperature > 0 and math.isfinite(temperature)):
        raise InputError(f"temperature must be a finite number > 0; got {temperature!r}")
    try:
        knob = torch.as_tensor(offset, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"offset must be a finite number or {V} of them; got {type(offset).__name__}") from None
    if knob.ndim == 0:
        knob = knob * one_hot(torch.tensor(0), V)
    if knob.shape != (V,) or not bool(knob.isfinite().all()):
        raise InputError(f"offset must be a finite number or {V} of them; got shape {tuple(knob.shape)}")
    return temperature, knob


def divided(x: Float[Tensor, "*batch"], by: float) -> Float[Tensor, "*batch"]:
    """`x / by`, by a number that is a constant in forward mode too.

    `x / by` makes a tensor of the number, whose tangent is a symbolic zero, and torch sends sums and products with these
    through slow Python kernels: several milliseconds for each division. The result is the same to the last digit.

    Args:
        x: any tensor.
        by: the number.

    Returns:
        The quotient.
    """
    quotient: Tensor = torch.ops.aten.div.Scalar(x, by)
    return quotient
