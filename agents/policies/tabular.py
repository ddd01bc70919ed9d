"""A softmax table on the abstract states of a token world: its parameters are the logits themselves."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents.policies.knobs import entropy_knobs
from envs.world import InputError


class TabularPolicy(nn.Module):
    """`pi_k(a | z) = softmax((logits[k, z] + offset) / temperature)`, logits (S, V), or (H, S, V) to change in time.

    The two knobs are those of `agents.policies.knobs.entropy_knobs`.

    Args:
        logits: the table.
        temperature: the first entropy knob.
        offset: the second.

    Raises:
        InputError: the table is not finite or has another shape, or `entropy_knobs` refuses a knob.
    """

    offset: Tensor

    def __init__(self, logits: Any, temperature: float = 1.0, offset: Any = 0.0):
        super().__init__()
        table = torch.as_tensor(logits, dtype=torch.float64).detach().clone()
        if table.ndim not in (2, 3) or not bool(table.isfinite().all()):
            raise InputError(f"logits must be finite of shape (S, V) or (H, S, V); got {tuple(table.shape)}")
        self.temperature, knob = entropy_knobs(temperature, offset, table.shape[-1])
        self.logits = nn.Parameter(table)
        self.register_buffer("offset", knob)

    def probabilities(self) -> Float[Tensor, "*time S V"]:
        """pi(a | z) of every state and action (and time).

        Returns:
            One row of probabilities for each state.
        """
        return torch.softmax((self.logits + self.offset) / self.temperature, -1)
