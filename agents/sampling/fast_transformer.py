"""A faster forward pass of a plain Transformer, for sampling: keys and values are written into memory reserved beforehand."""

import math
from typing import Any, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from agents.policies.transformer import Attention, Block, Embedding, Linear, Transformer

_PARTS = {Transformer, Block, Attention, Linear, Embedding, nn.LayerNorm, nn.GELU, nn.Sequential, nn.ModuleList}


def is_plain(policy: object) -> TypeGuard[Transformer]:
    """Whether this is a Transformer without exchanged parts or hooks, so that its weights determine its logits.

    Args:
        policy: any object.

    Returns:
        True or False.
    """
    if not isinstance(policy, Transformer):
        return False
    return all(map(_is_original, policy.modules()))


def _is_original(m: nn.Module) -> bool:
    """Whether a module has the class and settings that `Transformer` gives it, and no hooks."""
    if type(m) not in _PARTS or m._forward_hooks or m._forward_pre_hooks:
        return False
    if isinstance(m, nn.LayerNorm):
        return m.eps == 1e-5
    if isinstance(m, nn.GELU):
        return m.approximate == "none"
    return not isinstance(m, nn.Sequential) or len(m) == 3


class InPlace:
    """The forward pass of `agents.policies.transformer` from a plain network's weights, reduced to what sampling needs.

    Args:
        network: a plain Transformer.
        rows: rows of the first call of `extend`.
        places: positions of the longest context, for which keys and values get room.
    """

    def __init__(self, network: Any, rows: int, places: int):
        self.heads, self.filled, self.D = network.blocks[0].attention.heads, 0, (network.width,)
        self.position, self.offset, self.temperature = network.position, network.offset, network.temperature
        self.blocks = [tuple((m.weight, m.bias) for m in _maps(block)) for block in network.blocks]
        self.norm, self.head = (network.norm.weight, network.norm.bias), (network.head.weight, network.head.bias)
        shape = (len(self.blocks), 2, places, self.heads, network.width // self.heads, rows)
        self.past = network.head.weight.new_empty(shape)

    def extend(self, x: Float[Tensor, "rows T D"], cache: Any, probes: Any) -> tuple[Float[Tensor, "rows V"], Any]:
        """Logits after the last position. Where x has more rows than the past, consecutive rows share one row of the past.

        Args:
            x: embeddings of T new positions.
            cache: handed back as it is; the object itself keeps the past.
            probes: without effect.

        Returns:
            The logits, and the cache.
        """
        if len(x) > self.past.shape[-1]:
            self.past = self.past.repeat_interleave(len(x) // self.past.shape[-1], -1)
        here, seen = slice(self.filled, self.filled + x.shape[1]), slice(self.filled + x.shape[1])
        x, self.filled = x + self.position[here], seen.stop
        for i, (norm1, inward, outward, norm2, up, down) in enumerate(self.blocks):
            keys, values = self.past[i]
            y = linear(layer_norm(x, self.D, *norm1), *inward)
            q, k, v = y.reshape(*y.shape[:-1], 3, self.heads, -1).permute(2, 1, 3, 4, 0)
            keys[here], values[here] = k, v
            if x.shape[1] == 1 or i + 1 == len(self.blocks):  # earlier positions of the last layer are not needed
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
    """Attention from one position of each row. Rows are the innermost axis: few large products instead of many small ones."""
    weights = torch.softmax((keys * (q / math.sqrt(q.shape[1])).contiguous()).sum(2), 0)
    return (values * weights[:, :, None]).sum(0).flatten(0, 1).mT[:, None]


def _maps(block: Any) -> tuple[Any, ...]:
    return block.norm1, block.attention.inward, block.attention.outward, block.norm2, block.mlp[0], block.mlp[2]
