"""How a learner differentiates rollouts of relaxed tokens, in place of log-probabilities."""

import math
from dataclasses import dataclass

from envs.world import InputError


@dataclass(frozen=True)
class RelaxedTokens:
    """Gumbel noise on the logits, and a softmax in the place of the largest entry.

    Attributes:
        tau: temperature of the softmax.

    Raises:
        InputError: tau is no finite number > 0.
    """

    tau: float = 0.5

    def __post_init__(self) -> None:
        """Check the temperature."""
        if not 0 < self.tau < math.inf:
            raise InputError(
                f"tau must be a finite number > 0, the temperature of the relaxed tokens; got {self.tau!r}"
            )
