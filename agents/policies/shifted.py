"""A policy over tokens whose hidden state at the prompt's last position is shifted: what value-gradient flow moves."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents.policies.wrapped import WrappedPolicy
from envs.arguments import as_numbers, whole
from envs.policy import TokenPolicy
from envs.world import InputError

Seen = tuple[int, Any]  # positions that were read, and the policy's own cache


class Shifted(WrappedPolicy):
    """`pi` with delta added to its hidden state at one site and one position, the last of the prompt.

    It is a policy everywhere: on the prefix tree, in the sampler, in training, on the way to a checkpoint. Its parameters are
    those of pi; delta is a buffer and is not trained.

    Attributes:
        policy: pi.
        site: where in the network delta is added.
        position: of the prompt's last token, counted from 0.
        delta: the shift.

    Args:
        policy: pi, any policy over tokens with sites.
        site: where in the network delta is added, "embedding" for instance.
        delta: the shift, a vector of the policy's width.
        prompt_length: number of tokens of the prompts, `world.prompts.shape[1]`; all prompts of a world have as many.

    Raises:
        InputError: the site does not exist, delta is no vector of finite numbers of the width of an embedding, or the prompt
            length is no whole number >= 1.
    """

    delta: Tensor

    def __init__(self, policy: TokenPolicy, site: str, delta: Float[Tensor, "D"] | Any, prompt_length: int = 1):
        super().__init__(policy)
        if site not in policy.sites:
            raise InputError(f"site {site!r} does not exist in this policy; it has {', '.join(policy.sites) or 'none'}")
        like = next(policy.parameters())
        width = policy.embed(torch.zeros(1, dtype=torch.int64, device=like.device)).shape[-1]
        shift = as_numbers("delta", delta).detach().clone().to(like)
        if tuple(shift.shape) != (width,) or not bool(shift.isfinite().all()):
            raise InputError(f"delta must be a vector of {width} finite numbers; got shape {tuple(shift.shape)}")
        self.site, self.position = site, whole("prompt_length", prompt_length, 1) - 1
        self.register_buffer("delta", shift)

    def __getattr__(self, name: str) -> Any:
        """Sizes, and a hidden readout with the shift, where pi has them."""
        if name == "hidden":
            inner = self.policy.hidden  # AttributeError where pi has none
            return lambda x, cache=None, probes=None: self._called(inner, x, cache, probes)
        return super().__getattr__(name)

    def extend(
        self, x: Float[Tensor, "B T D"], cache: Seen | None = None, probes: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "B V"], Seen]:
        """Logits after the last new position; the cache counts positions, so that a prompt may come in pieces.

        Args:
            x: embeddings of T new positions.
            cache: what an earlier call returned; None at the beginning.
            probes: by site a tensor that is added there, beside the shift.

        Returns:
            The logits, and the new cache.
        """
        return self._called(self.policy.extend, x, cache, probes)

    def forward(
        self, embeddings: Float[Tensor, "B T D"], probes: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "B T V"]:
        """Logits at every position of whole contexts.

        Args:
            embeddings: of all positions.
            probes: by site a tensor that is added there, beside the shift.

        Returns:
            Logits of the token after each position.
        """
        logits: Tensor = self.policy(embeddings, self._shift(embeddings, 0, probes))
        return logits

    def _called(
        self, method: Any, x: Tensor, cache: Seen | None, probes: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, Seen]:
        seen, own = (0, None) if cache is None else cache
        out, longer = method(x, own, self._shift(x, seen, probes))
        return out, (seen + x.shape[1], longer)

    def _shift(self, x: Tensor, seen: int, probes: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
        """The probes, with delta where the new positions hold the prompt's last one."""
        given, here = dict(probes or {}), self.position - seen
        if not 0 <= here < x.shape[1]:
            return given
        shift = nn.functional.pad(self.delta[None], (0, 0, here, x.shape[1] - here - 1)).expand(x.shape[0], -1, -1)
        return given | {self.site: given[self.site] + shift if self.site in given else shift}
