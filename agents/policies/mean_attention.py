"""The smallest policy with attention: every position reads the mean of what was said up to it. For work by hand."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents.policies.module_policy import ModulePolicy
from envs.tables import number_table
from envs.world import InputError


class _MeanReader(nn.Module):
    """Logits `W m_k` of the mean `m_k` of the embeddings up to position k."""

    def __init__(self, head: Tensor):
        super().__init__()
        self.head = nn.Parameter(head)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        read = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)
        logits: Tensor = x.cumsum(1) / read[:, None] @ self.head.mT
        return logits


class MeanAttention(ModulePolicy):
    """`pi_k = softmax((W m_k + offset) / temperature)`, `m_k` the mean of the embeddings of all positions up to k.

    This is causal attention with equal scores, without other layers: values, gradients and costates can be worked out on
    paper. The head W is the only parameter, and "embedding" the only site.

    Args:
        embedding: one row for each token, (V, D).
        head: W, one row for each token, (V, D); the embedding itself where it is left out.
        temperature: the first entropy knob.
        offset: the second, as in `agents.policies.knobs.entropy_knobs`.

    Raises:
        InputError: a table is no table of finite numbers, the two do not fit, or a knob is refused.
    """

    def __init__(self, embedding: Any, head: Any = None, temperature: float = 1.0, offset: Any = 0.0):
        table = number_table("embedding", embedding)
        weights = table.clone() if head is None else number_table("head", head)
        if table.ndim != 2 or weights.shape != table.shape:
            shapes = f"{tuple(table.shape)} and {tuple(weights.shape)}"
            raise InputError(f"embedding and head must both be tables of one shape (V, D); got {shapes}")
        super().__init__(_MeanReader(weights), table, temperature=temperature, offset=offset)
