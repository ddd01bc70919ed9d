"""Top-p (nucleus) sampling as a policy: the smallest set of tokens with a given mass is kept, all others are forbidden."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from agents.policies.wrapped import WrappedPolicy
from envs.policy import TokenPolicy
from envs.world import InputError

_ROUNDING = 1e-6  # of a sum of probabilities in single precision


class Nucleus(WrappedPolicy):
    """`pi_p(a) = pi(a) / Z` on the nucleus of pi and 0 outside it; Z is the mass of the nucleus.

    The nucleus is the smallest set of likeliest tokens with a mass of at least `top_p`; among tokens that are equally likely
    the first come first. No gradient flows through the choice of the set: where a set changes, the policy jumps.

    Its parameters, sites and sizes are those of pi, so that it can stand wherever pi can: on the prefix tree, in the sampler,
    in training (`costate train --top-p`, where the sets that rows were drawn from are kept for all passes over these rows).

    Attributes:
        policy: pi.
        top_p: the least mass.

    Args:
        policy: pi, any policy over tokens.
        top_p: the least mass, above 0 and at most 1; at 1 every token is kept.

    Raises:
        InputError: top_p lies outside (0, 1].
    """

    def __init__(self, policy: TokenPolicy, top_p: float):
        super().__init__(policy)
        self.top_p = checked_top_p(top_p)

    def extend(
        self, x: Float[Tensor, "B T D"], cache: Any = None, probes: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "B V"], Any]:
        """Logits after the last new position, minus infinity outside the nucleus, and pi's cache.

        Args:
            x: embeddings of T new positions.
            cache: what an earlier call returned; None at the beginning.
            probes: by site a tensor that is added there.

        Returns:
            The logits, and the new cache.
        """
        logits, cache = self.policy.extend(x, cache, probes)
        return truncated(logits, nucleus(logits, self.top_p)), cache

    def forward(
        self, embeddings: Float[Tensor, "B T D"], probes: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "B T V"]:
        """Logits at every position of whole contexts, minus infinity outside the nuclei.

        Args:
            embeddings: of all positions.
            probes: by site a tensor that is added there.

        Returns:
            Logits of the token after each position.
        """
        logits = self.policy(embeddings, probes)
        return truncated(logits, nucleus(logits, self.top_p))


def nucleus(logits: Float[Tensor, "*batch V"], top_p: float) -> Bool[Tensor, "*batch V"]:
    """The smallest sets of likeliest tokens whose mass is at least top_p; a mass that misses it by less than 1e-6 counts.

    Args:
        logits: over V tokens (last axis).
        top_p: the least mass.

    Returns:
        True for the tokens in the set.

    Raises:
        InputError: top_p lies outside (0, 1].
    """
    if checked_top_p(top_p) == 1:
        return torch.ones_like(logits, dtype=torch.bool)
    p, order = torch.softmax(logits.detach().double(), -1).sort(dim=-1, descending=True, stable=True)
    before = p.cumsum(-1) - p  # mass of the likelier ones
    kept = before < top_p - min(top_p / 2, _ROUNDING)
    return torch.zeros_like(kept).scatter(-1, order, kept)


def truncated(logits: Float[Tensor, "*batch V"], kept: Bool[Tensor, "*batch V"]) -> Float[Tensor, "*batch V"]:
    """The logits, minus infinity for the tokens that are not kept.

    Args:
        logits: over V tokens (last axis).
        kept: True for the tokens that are kept.

    Returns:
        The logits, of which `log_softmax` makes the law given that a kept token is said.
    """
    return logits.masked_fill(~kept, -torch.inf)


def logits_within(cut: Nucleus, tokens: Int[Tensor, "B places"], kept: Bool[Tensor, "B T V"]) -> Float[Tensor, "B T V"]:
    """Logits of pi at the last T positions, within sets that are given in the place of its own nuclei.

    Args:
        cut: the policy under top-p.
        tokens: contexts.
        kept: the sets, for instance those that the rows were drawn from.

    Returns:
        The logits, minus infinity outside the sets.
    """
    return truncated(cut.policy(cut.embed(tokens), {})[:, -kept.shape[-2] :], kept)


def checked_top_p(top_p: Any) -> float:
    """Refuse a mass outside (0, 1].

    Args:
        top_p: the least mass of a nucleus.

    Returns:
        The same number.

    Raises:
        InputError: it is none.
    """
    if isinstance(top_p, bool) or not isinstance(top_p, int | float) or not 0 < top_p <= 1:
        raise InputError(f"top_p must lie in (0, 1], the least mass of the tokens that are kept; got {top_p!r}")
    return float(top_p)
