"""Whether a network is a function from a context to logits, tried on a few contexts."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from envs.policy import ContextPolicy
from envs.world import InputError


def check_network(policy: Any, contexts: Int[Tensor, "B T"]) -> None:
    """Refuse a network that is no function from a context to logits: exact answers would mean nothing.

    Args:
        policy: over tokens.
        contexts: (B, T) whole numbers, at least two rows and two positions.

    Raises:
        InputError: the network draws random numbers, keeps a state, writes on its input, lets the rows of a batch touch each
            other, reads ahead, or gives NaN or infinity.
    """
    x = policy.embed(contexts).detach()
    given, before = x.clone(), torch.get_rng_state()
    with torch.no_grad():
        reading = partial(read, policy)
        first = reading(x)
        if not torch.equal(x, given):
            raise InputError("the network writes on its input: it must leave the embeddings as they are (x = x + ...)")
        if bool(torch.softmax(first, -1).isnan().any()):  # -infinity forbids a token and is sound
            raise InputError("the network gives logits that are NaN or infinite")
        alone = [reading(x[i : i + 1]) for i in range(len(x))]
        if not torch.equal(first, reading(x)):
            raise InputError("the network gives two answers for one input: it draws random numbers or keeps a state")
    if not torch.equal(before, torch.get_rng_state()):
        raise InputError(
            "the network draws from torch's global generator: exact answers need one without random numbers"
        )
    if not alike(first, torch.cat(alone)):  # every row: without batch_first=True the first one depends on no other
        raise InputError(
            "the network mixes the rows of a batch: each row's logits must depend on that row alone (batch_first=True)"
        )
    if isinstance(policy, ContextPolicy) and not alike(first[:, :-1], reading(x[:, :-1])):
        raise InputError("the network reads ahead: logits must depend on earlier positions only (a causal mask)")


def read(policy: Any, x: Float[Tensor, "B T D"]) -> Tensor:
    """Logits at all positions where the policy gives them, else after the last.

    Args:
        policy: over tokens.
        x: embeddings of whole contexts.

    Returns:
        Logits, the vocabulary last.
    """
    logits: Tensor = policy(x) if isinstance(policy, ContextPolicy) else policy.extend(x, None, {})[0]
    return logits


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether two answers of a network are the same up to rounding, also of single precision.

    Args:
        one: logits.
        other: logits.

    Returns:
        True where shapes and numbers agree.
    """
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-6, atol=1e-6)
