"""The batch that an audited loss is called with: rows of sampled tokens, everything a loss may ask for by name."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from envs.record import short_repr


@short_repr
@dataclass(frozen=True)
class Rows:
    """Sampled completions, one in each row, as `agents.recipes.batch.Batch` has them, with the policy's numbers beside them.

    Attributes:
        log_probs: log pi of the tokens.
        old_log_probs: log pi of the policy that drew them.
        ref_log_probs: log pi of the reference policy.
        entropy: entropy of pi before each token, in nats.
        rewards: what each step adds to the return.
        mask: True for the tokens of the completion.
        group: number of the row's group.
        ended: False for rows that were cut at the horizon.
        logits: logits after every place of prompt and completion; log_probs and entropy follow from them.
        tokens: of prompt and completion.
    """

    log_probs: Float[Tensor, "rows T"]
    old_log_probs: Float[Tensor, "rows T"]
    ref_log_probs: Float[Tensor, "rows T"]
    entropy: Float[Tensor, "rows T"]
    rewards: Float[Tensor, "rows T"]
    mask: Bool[Tensor, "rows T"]
    group: Int[Tensor, "rows"]
    ended: Bool[Tensor, "rows"]
    logits: Float[Tensor, "rows places V"]
    tokens: Int[Tensor, "rows places"]

    @property
    def returns(self) -> Float[Tensor, "rows"]:
        """The sum of each row's rewards."""
        return self.rewards.sum(1)

    @property
    def prompt(self) -> int:
        """Tokens of the prompt, the same number in all rows."""
        return self.tokens.shape[1] - self.mask.shape[1]

    def take(self, index: Tensor | slice) -> "Rows":
        """Some rows, in the order of the index; groups keep their labels.

        Args:
            index: numbers of rows, booleans, or a slice.

        Returns:
            The rows.
        """
        return Rows(**{name: x[index] for name, x in self.tables().items()})

    def tables(self) -> dict[str, Any]:
        """The tensors by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def to(self, dtype: torch.dtype) -> "Rows":
        """Floats in another precision.

        Args:
            dtype: the precision.

        Returns:
            The rows.
        """
        return Rows(**{name: x.to(dtype) if x.is_floating_point() else x for name, x in self.tables().items()})

    def padded(self, columns: int, fill: float) -> "Rows":
        """More columns at the end that belong to no completion, and `fill` in every place of the policy's numbers without one.

        Args:
            columns: how many.
            fill: what log-probabilities, entropies and logits hold there; rewards are 0 there.

        Returns:
            The rows.
        """
        mask = _wider(self.mask, columns, 0)
        numbers = {
            name: torch.where(mask, _wider(getattr(self, name), columns, fill), fill)
            for name in ("log_probs", "old_log_probs", "ref_log_probs", "entropy")
        }
        said = torch.ones_like(self.tokens[:, : self.prompt - 1]).bool()
        used = torch.cat([said, mask, torch.zeros_like(mask[:, :1])], 1)  # places whose next token belongs to the row
        wide = torch.nn.functional.pad(self.logits, (0, 0, 0, columns))
        logits = torch.where(used[..., None], wide, fill if math.isfinite(fill) else 0.0)  # a network gives no others
        tokens, rewards = _wider(self.tokens, columns, 0), _wider(self.rewards, columns, 0)
        return replace(self, **numbers, rewards=rewards, mask=mask, logits=logits, tokens=tokens)


def _wider(x: Tensor, columns: int, fill: float) -> Tensor:
    return torch.nn.functional.pad(x, (0, columns), value=fill)
