"""How a network is fed with embeddings: as its input, by `inputs_embeds`, or in the place of its embedding layer's output."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from envs.arguments import short
from envs.world import InputError, one_line

Feed = Callable[[nn.Module, Tensor], Any]  # a network or a copy of it, embeddings (B, T, D) -> what it gives


@dataclass(frozen=True)
class Fed:
    """A network's token table, and how it takes embeddings.

    Attributes:
        table: one row for each token of the network's vocabulary.
        feed: runs the network, or a copy of it, on embeddings.
        reads_ids: whether the network is one of token ids, so that both ways of feeding it can be compared.
    """

    table: Float[Tensor, "vocabulary D"]
    feed: Feed
    reads_ids: bool


def feeding(network: nn.Module, embedding: Any) -> Fed:
    """Find out how a network is fed.

    Args:
        network: any module.
        embedding: a tensor (vocabulary, D) for a network that takes embeddings; the path of the embedding layer for one that
            takes token ids; None for one that takes `inputs_embeds` and has `get_input_embeddings()`, as the models of Hugging
            Face do.

    Returns:
        The token table and the way.

    Raises:
        InputError: the embedding is none of these, or the network lacks what is needed.
    """
    if isinstance(embedding, Tensor):
        if embedding.ndim != 2:
            raise InputError(f"embedding must be a tensor of shape (V, D); got shape {tuple(embedding.shape)}")
        return Fed(embedding, lambda network, x: network(x), False)
    if embedding is None:
        return _by_keyword(network)
    if not isinstance(embedding, str):
        raise InputError(
            f"embedding must be a tensor (V, D), the path of the embedding layer, or None; got {short(embedding)}"
        )
    return _by_hook(network, embedding)


def _by_keyword(network: nn.Module) -> Fed:
    """Hugging Face: `network(inputs_embeds=x)`, without a cache of keys and values."""
    accepted = inspect.signature(network.forward).parameters
    if "inputs_embeds" not in accepted or not hasattr(network, "get_input_embeddings"):
        raise InputError(
            "embedding is needed: the network takes no `inputs_embeds`; give its token table, a tensor (V, D), or, for a "
            "network of token ids, the path of its embedding layer"
        )
    options = {"use_cache": False} if "use_cache" in accepted else {}
    embeddings: Any = network.get_input_embeddings
    return Fed(embeddings().weight, lambda network, x: network(inputs_embeds=x, **options), True)


def _by_hook(network: nn.Module, path: str) -> Fed:
    """A network of token ids: its embedding layer's output is replaced."""
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Embedding)}
    if path not in layers:
        there = ", ".join(repr(name) for name in sorted(layers)) or "none"
        raise InputError(f"embedding {path!r} is no embedding layer of the network; there are {there}")

    def feed(network: nn.Module, x: Tensor) -> Any:
        handle = network.get_submodule(path).register_forward_hook(lambda *_: x)
        try:
            return network(torch.zeros(x.shape[:2], dtype=torch.int64, device=x.device))
        finally:
            handle.remove()

    return Fed(layers[path].weight, feed, True)


def logits_of(given: Any) -> Any:
    """The logits in what a network gives: itself, or its field `logits`.

    Args:
        given: a tensor, or a record with the field.

    Returns:
        The logits, or what was given where it holds none.
    """
    return getattr(given, "logits", given)


def check_ids_alike(network: nn.Module, fed: Fed) -> None:
    """Refuse a network that gives other logits for two token ids than for their embeddings.

    Args:
        network: a network of token ids.
        fed: how it is fed with embeddings.

    Raises:
        InputError: it reads the ids elsewhere too, or changes the table's rows before it uses them.
    """
    ids = torch.arange(2, device=fed.table.device).clamp(max=len(fed.table) - 1)[None]
    with torch.no_grad():
        by_ids, by_rows = logits_of(network(ids)), logits_of(fed.feed(network, fed.table[ids]))
    if not torch.allclose(by_ids, by_rows, rtol=1e-4, atol=1e-5):
        raise InputError(
            f"network gives other logits for token ids than for their embeddings (by up to "
            f"{float((by_ids - by_rows).abs().max()):.2g}): it reads the ids elsewhere too, scales the table, or draws random "
            "numbers; give a network of embeddings, and the table that it is fed with"
        )


def coarsest_precision(network: nn.Module, fed: Fed) -> torch.dtype:
    """The least precise floating-point type in which a network computes something, seen on a context of two tokens.

    Some layers compute in float32 whatever they are given, RMSNorm in Llama for instance.

    Args:
        network: one that drops no units.
        fed: how it is fed with embeddings.

    Returns:
        The type of the table, or a coarser one.

    Raises:
        InputError: the network does not run on what it is fed with.
    """
    seen = {fed.table.dtype}

    def note(t: Tensor) -> Tensor:
        seen.update({t.dtype} if t.is_floating_point() else ())
        return t

    x = (
        fed.table[:1].detach().expand(2, -1)[None].clone().requires_grad_().clone()
    )  # no leaf: a network may write on it
    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            fed.feed(network, x)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        taken = "token ids" if fed.reads_ids else "embeddings"
        other = "the token table" if fed.reads_ids else "the path of its embedding layer"
        raise InputError(
            f"network does not run on {taken} ({one_line(str(error), 120)}): give as embedding {other}, if it takes "
            f"{'embeddings' if fed.reads_ids else 'token ids'}"
        ) from error
    return max(seen, key=lambda dtype: torch.finfo(dtype).eps)
