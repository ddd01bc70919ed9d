"""A token policy whose hidden state at the end of the prompt is shifted, for slopes and exact flows on a prefix tree.

Theory page, section 3: "The exact split of the value gradient".
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from envs.policy import TokenPolicy


class ShiftedPrompt:
    """A policy that adds delta at a site to the last positions of the roots of a tree, which its first call reads.

    Autograd and forward mode pass through delta.

    Attributes:
        policy: the policy.
        site: where in the network delta is added.
        delta: of the last positions; one for all roots, or one for each of them.

    Args:
        policy: the policy.
        site: where in the network delta is added.
        delta: of the last positions; one for all roots, or one for each of them.
    """

    def __init__(self, policy: TokenPolicy, site: str, delta: Float[Tensor, "*roots positions D"]):
        self.policy, self.site, self.delta = policy, site, delta
        self.embed, self.parameters, self.sites = policy.embed, policy.parameters, policy.sites
        self.width, self.layers = getattr(policy, "width", 1), getattr(policy, "layers", 1)
        if hasattr(policy, "hidden"):
            self.hidden = policy.hidden

    def extend(
        self, x: Float[Tensor, "B T D"], cache: Any = None, probes: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "B V"], Any]:
        """Add delta in the first call, which reads the roots, and in no later one.

        Args:
            x: embeddings of T new positions.
            cache: what an earlier call returned; None at the beginning.
            probes: by site a tensor that is added there; those of the first call are left out.

        Returns:
            The logits after the last position, and the new cache.
        """
        if cache is not None:
            return self.policy.extend(x, cache, probes)
        before = x.shape[1] - self.delta.shape[-2]
        shift = torch.nn.functional.pad(self.delta, (0, 0, before, 0)).expand_as(x)
        return self.policy.extend(x, cache, {self.site: shift})
