"""A faster forward pass of several plain Transformers at once, for training: one large product for all copies of a map.

`torch.func.vmap` over one network gives the same logits to rounding; it can neither fuse attention nor share the positions that
rows have in common. Shapes: S copies, P groups of consecutive rows, T positions, D width.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding, gelu, layer_norm, scaled_dot_product_attention

from agents.policies.knobs import divided
from agents.policies.transformer import Embedding
from agents.sampling.fast_transformer import is_plain


def can_be_stacked(network: Any) -> bool:
    """Whether this is a plain Transformer over tokens with a head of its own.

    Args:
        network: any policy.

    Returns:
        True or False.
    """
    return is_plain(network) and isinstance(network.embedding, Embedding) and network.head.bias is not None


class StackedTransformer:
    """The forward pass of S plain Transformers.

    Args:
        network: one of them, for what they have in common.
        values: by name their stacked parameters, (S, ...).
    """

    def __init__(self, network: Any, values: Mapping[str, Tensor]):
        self.network, self.values = network, values
        self.heads = network.blocks[0].attention.heads

    def logits(self, tokens: Int[Tensor, "S rows T"], steps: int, group: int = 1) -> Float[Tensor, "S rows steps V"]:
        """Logits at the last `steps` positions of whole contexts.

        Args:
            tokens: the contexts.
            steps: how many positions.
            group: of so many consecutive rows the first `T - steps + 1` tokens are the same, and run once for all of them.

        Returns:
            The logits, with their gradient.
        """
        rows, places = tokens.shape[1:]
        known, kept = (places, steps) if group == 1 else (places - steps + 1, 1)
        starts, rest = tokens[:, ::group, :known], tokens[..., known:]
        x = torch.cat([self._embed(starts, 0), self._embed(rest, known)], 1)
        for i in range(self.network.layers):
            last = i + 1 == self.network.layers
            x = self._block(f"blocks.{i}", x, starts.shape[1:], rest.shape[1:], kept if last else known)
        z = divided(self._map("head", self._norm("norm", x)) + self.network.offset, self.network.temperature)
        split = starts.shape[1] * kept
        first = z[:, :split].unflatten(1, (-1, kept)).repeat_interleave(group, 1)
        return torch.cat([first, z[:, split:].unflatten(1, (rows, places - known))], 2)

    def _embed(self, tokens: Tensor, start: int) -> Float[Tensor, "S positions D"]:
        """Embeddings of the tokens and of their positions, which begin at `start`."""
        table, places = self.values["embedding.weight"], tokens.shape[2]
        copies, V, _ = table.shape
        rows = tokens + V * torch.arange(copies, device=tokens.device)[:, None, None]
        x = embedding(rows, table.flatten(0, 1)) + self.values["position"][:, None, start : start + places]
        return x.flatten(1, 2)

    def _map(self, name: str, x: Tensor) -> Tensor:
        bias = self.values[f"{name}.bias"][:, None]
        return torch.baddbmm(bias, x, self.values[f"{name}.weight"].mT)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = (self.values[f"{name}.{part}"][:, None] for part in ("weight", "bias"))
        return torch.addcmul(bias, layer_norm(x, x.shape[-1:]), weight)

    def _block(
        self, name: str, x: Tensor, starts: tuple[int, ...], rest: tuple[int, ...], kept: int
    ) -> Float[Tensor, "S positions D"]:
        """One block; of the positions of the starts it gives the last `kept`, which is all that a last block needs."""
        q, k, v = self._map(f"{name}.attention.inward", self._norm(f"{name}.norm1", x)).chunk(3, -1)
        attended = self._attend(q, k, v, starts, rest, kept)
        split = starts[0] * starts[1]
        if kept < starts[1]:
            first = x[:, :split].unflatten(1, starts)[:, :, -kept:].flatten(1, 2)
            x = torch.cat([first, x[:, split:]], 1)
        x = x + self._map(f"{name}.attention.outward", attended)
        return x + self._map(f"{name}.mlp.2", gelu(self._map(f"{name}.mlp.0", self._norm(f"{name}.norm2", x))))

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, starts: tuple[int, ...], rest: tuple[int, ...], kept: int
    ) -> Float[Tensor, "S positions D"]:
        """Causal attention: from the starts to themselves, and from the rest of every row to its start and to itself."""
        copies, split, known = len(q), starts[0] * starts[1], starts[1]
        q1, k1, v1 = (self._by_head(x[:, :split], starts) for x in (q, k, v))
        mask = None if kept == known else _causal(kept, known, q.device)
        out = scaled_dot_product_attention(q1[:, :, -kept:], k1, v1, mask, is_causal=mask is None)
        first = out.transpose(1, 2).reshape(copies, starts[0] * kept, -1)
        if not rest[1]:
            return first
        group = rest[0] // starts[0]
        q2, k2, v2 = (self._by_head(x[:, split:], rest) for x in (q, k, v))
        keys, values = (torch.cat([a.repeat_interleave(group, 0), b], 2) for a, b in ((k1, k2), (v1, v2)))
        out = scaled_dot_product_attention(q2, keys, values, _causal(rest[1], known + rest[1], q.device))
        return torch.cat([first, out.transpose(1, 2).reshape(copies, rest[0] * rest[1], -1)], 1)

    def _by_head(self, x: Tensor, shape: tuple[int, ...]) -> Float[Tensor, "S_rows heads T d"]:
        return x.reshape(len(x) * shape[0], shape[1], self.heads, -1).transpose(1, 2)


def _causal(queries: int, keys: int, device: torch.device) -> Tensor:
    """Which keys each of the last positions sees."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
