"""A plain Transformer run for sampling: the forward pass of `agents.policies.transformer` once more, in reserved memory."""

import math
from typing import Any, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from agents.policies.transformer import Attention, Block, Embedding, Linear, Transformer

_PARTS = {Transformer, Block, Attention, Linear, Embedding, nn.LayerNorm, nn.GELU, nn.Sequential, nn.ModuleList}


def is_plain(policy: object) -> TypeGuard[Transformer]:
    """Whether this is a Transformer with no part exchanged and nothing hooked on: its weights then say all."""
    if not isinstance(policy, Transformer):
        return False
    return all(map(_as_the_source_has_it, policy.modules()))


def _as_the_source_has_it(m: Any) -> bool:
    """A part of the source's own kind and settings, with nothing hooked on."""
    changed = {
        nn.LayerNorm: lambda: m.eps != 1e-5,
        nn.GELU: lambda: m.approximate != "none",
        nn.Sequential: lambda: len(m) != 3,
    }
    if type(m) not in _PARTS or m._forward_hooks or m._forward_pre_hooks:
        return False
    return not changed.get(type(m), lambda: False)()


class InPlace:
    """A plain Transformer run from its weights, its keys and values in places reserved beforehand.

    The forward pass of `agents.policies.transformer` written out once more, with nothing in it that sampling can do without.
    """

    def __init__(self, network: Any, rows: int, places: int):
        self.heads, self.filled, self.D = network.blocks[0].attention.heads, 0, (network.width,)
        self.position, self.offset, self.temperature = network.position, network.offset, network.temperature
        self.blocks = [tuple((m.weight, m.bias) for m in _maps(block)) for block in network.blocks]
        self.norm, self.head = (network.norm.weight, network.norm.bias), (network.head.weight, network.head.bias)
        shape = (len(self.blocks), 2, places, self.heads, network.width // self.heads, rows)
        self.past = network.head.weight.new_empty(shape)

    def extend(self, x: Float[Tensor, "rows T D"], cache: Any, probes: Any) -> tuple[Float[Tensor, "rows V"], Any]:
        """Logits after the last position; where x has more rows than the past, consecutive ones share it."""
        if len(x) > self.past.shape[-1]:
            self.past = self.past.repeat_interleave(len(x) // self.past.shape[-1], -1)
        here, seen = slice(self.filled, self.filled + x.shape[1]), slice(self.filled + x.shape[1])
        x, self.filled = x + self.position[here], seen.stop
        for i, (norm1, inward, outward, norm2, up, down) in enumerate(self.blocks):
            keys, values = self.past[i]
            y = linear(layer_norm(x, self.D, *norm1), *inward)
            q, k, v = y.unflatten(-1, (3, self.heads, -1)).permute(2, 1, 3, 4, 0)
            keys[here], values[here] = k, v
            if x.shape[1] == 1 or i + 1 == len(self.blocks):  # nobody asks the last layer for earlier positions
                x, y = x[:, -1:], _attention_of_one(q[-1], keys[seen], values[seen])
            else:
                q, k, v = (part.permute(3, 1, 0, 2) for part in (q, k, v))
                y = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            x = x + linear(y, *outward)
            x = x + linear(gelu(linear(layer_norm(x, self.D, *norm2), *up)), *down)
        z = linear(layer_norm(x[:, 0], self.D, *self.norm), *self.head)
        return (z + self.offset) / self.temperature, cache


def _attention_of_one(
    q: Float[Tensor, "heads d rows"], keys: Float[Tensor, "t heads d rows"], values: Float[Tensor, "t heads d rows"]
) -> Float[Tensor, "rows 1 D"]:
    """Attention from one position per row; with the rows innermost, a few sweeps do what were many tiny products."""
    weights = torch.softmax((keys * (q / math.sqrt(q.shape[1])).contiguous()).sum(2), 0)
    return (values * weights[:, :, None]).sum(0).flatten(0, 1).mT[:, None]


def _maps(block: Any) -> tuple[Any, ...]:
    return block.norm1, block.attention.inward, block.attention.outward, block.norm2, block.mlp[0], block.mlp[2]
