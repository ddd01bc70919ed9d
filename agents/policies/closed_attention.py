"""A transformer policy with some attention edges closed to autograd, to see which edge carries which credit."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.transformer import Transformer
from envs.policy import TokenPolicy
from envs.world import InputError

Closed = Callable[[int, int], Any]  # (layer, distance >= 1) -> True, False, or one of them per head


class ClosedAttention:
    """A policy with bitwise the same logits, in which closed edges carry no derivative.

    An edge joins a position to an earlier one, `distance` = 1, 2, ... before it, in one layer and head. Where
    `closed(layer, distance)` is True (for all heads, or in a list of one entry for each head), the earlier position's key and
    value are constants for the later one. A position's own key and value (distance 0) are never closed. Contexts are read one
    position at a time, so edges inside a prompt are closed too.

    Args:
        policy: a `Transformer`.
        closed: (layer, distance) -> True, False, or one of them for each head.

    Raises:
        InputError: the policy is not a `Transformer`; later, where `closed` gives another number of entries.
    """

    def __init__(self, policy: TokenPolicy, closed: Closed):
        if not isinstance(policy, Transformer):
            raise InputError("policy must be a Transformer: the keys and values of other networks are not accessible")
        self.policy, self.closed = policy, closed
        self.width, self.layers = policy.width, policy.layers
        self.embed, self.parameters, self.sites = policy.embed, policy.parameters, policy.sites

    def extend(
        self, x: Float[Tensor, "B T D"], cache: Any = None, probes: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "B V"], Any]:
        """Logits after the last of the new positions, and the cache, in which every edge is open.

        Args:
            x: embeddings of T new positions.
            cache: what an earlier call returned; None at the beginning.
            probes: by site a tensor that is added there.

        Returns:
            The logits, and the new cache.

        Raises:
            InputError: `closed` gives another number of entries than there are heads.
        """
        return self._read(self.policy.extend, x, cache, probes or {})

    def hidden(
        self, x: Float[Tensor, "B T D"], cache: Any = None, probes: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "B D"], Any]:
        """The last hidden state and the cache, as `extend`.

        Args:
            x: embeddings of T new positions.
            cache: what an earlier call returned; None at the beginning.
            probes: by site a tensor that is added there.

        Returns:
            The hidden state, and the new cache.

        Raises:
            InputError: as in `extend`.
        """
        return self._read(self.policy.hidden, x, cache, probes or {})

    def _read(self, read: Any, x: Tensor, cache: Any, probes: Mapping[str, Tensor]) -> tuple[Tensor, Any]:
        for t in range(x.shape[1]):
            here = {site: probe[:, t : t + 1] for site, probe in probes.items()}
            gated = [self._gated(layer, chunks) for layer, chunks in enumerate(cache or [])]
            out, longer = read(x[:, t : t + 1], gated or None, here)
            cache = [_reopened(old, new) for old, new in zip(cache or [[]] * len(longer), longer, strict=True)]
        return out, cache

    def _gated(self, layer: int, chunks: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """The chunks with the derivative of closed edges removed."""
        gated, distance = [], sum(k.shape[2] for k, _ in chunks)
        for k, v in chunks:
            gates = [self._gate(layer, distance - j, k) for j in range(k.shape[2])]
            distance -= k.shape[2]
            gate = torch.stack(gates, -1)[..., None]
            key, value = (part.detach() + gate * (part - part.detach()) for part in (k, v))
            gated.append((key, value))
        return gated

    def _gate(self, layer: int, distance: int, k: Tensor) -> Float[Tensor, "heads"]:
        """1 for heads whose edge is open, 0 for closed ones."""
        closed, heads = self.closed(layer, distance), k.shape[1]
        flags = [closed] * heads if isinstance(closed, bool) else list(closed or ())
        if len(flags) != heads:
            raise InputError(f"closed must give True, False, or one of them per head ({heads}); got {closed!r}")
        return k.new_tensor([0.0 if flag else 1.0 for flag in flags])


def _reopened(old: list[Any], new: list[Any]) -> list[Any]:
    """The new chunks of a layer, with the entries that were there before taken from the old ones, which are not gated."""
    if len(new) > len(old):
        return [*old, new[-1]]
    joined = tuple(torch.cat([before, after[:, :, -1:]], 2) for before, after in zip(old[-1], new[-1], strict=True))
    return [*old[:-1], joined]


def everything(layer: int, distance: int) -> bool:
    """Close all edges.

    Args:
        layer: index of the layer; without effect.
        distance: how far back the edge goes; without effect.

    Returns:
        True.
    """
    return True


def beyond(longest: int) -> Closed:
    """Close the edges longer than `longest`.

    Args:
        longest: the longest distance that stays open.

    Returns:
        The rule, for `ClosedAttention`.
    """
    return lambda layer, distance: distance > longest


def in_layer(closed: int) -> Closed:
    """Close all edges of the layer with this index.

    Args:
        closed: index of the layer.

    Returns:
        The rule, for `ClosedAttention`.
    """
    return lambda layer, distance: layer == closed


def in_head(closed: int, heads: int) -> Closed:
    """Close all edges of the head with this index, in every layer.

    Args:
        closed: index of the head.
        heads: how many there are.

    Returns:
        The rule, for `ClosedAttention`.

    Raises:
        InputError: there is no such head.
    """
    if not 0 <= closed < heads:
        raise InputError(f"head {closed} does not exist: they are 0 ... {heads - 1}")
    return lambda layer, distance: [head == closed for head in range(heads)]
