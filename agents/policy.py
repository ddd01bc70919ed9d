"""The contract of a policy in a world with additive noise: it gives the command, the world adds the noise."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


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
