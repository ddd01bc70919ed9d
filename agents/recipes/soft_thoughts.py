"""Soft thoughts as a way to draw rows: relaxed tokens with Gumbel noise that are fed on before the answer is sampled."""

import math
from dataclasses import dataclass

from envs.arguments import short, whole
from envs.world import InputError

# SofT-GRPO's code (zz1358m/SofT-GRPO-master, commit 2b9d8ec)
CLAMP = (-1.5, 3.0)  # of the noise, when it is drawn and in the loss
FLOOR = -3.0  # log-probability above which a token counts in the loss
TOP_K, TOP_P, ADDED = 5, 0.95, 1e-6  # tokens that thoughts are made of; what is added to their probabilities


@dataclass(frozen=True)
class SoftThoughts:
    """How a row thinks: `u = log p + g`, g Gumbel noise, and `softmax(u / tau)` is fed on.

    Attributes:
        thoughts: how many relaxed tokens come before the answer.
        tau: temperature of the relaxed tokens; 0.1 in the paper's code.
        official: False for the whole noise density, the sum over all tokens. True for the form of the paper's code: p is cut
            to the 5 likeliest tokens and then to those of mass 0.95; g is clamped to (-1.5, 3); the loss takes the mean over
            the tokens with log p > -3, its noise is clamped too, and the inputs of the network carry no gradient.

    Raises:
        InputError: thoughts is no whole number >= 1, or tau no finite number > 0.
    """

    thoughts: int = 2
    tau: float = 0.5
    official: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        whole("thoughts", self.thoughts, 1)
        if not 0 < self.tau < math.inf:
            raise InputError(f"tau must be a finite number > 0, a temperature; got {short(self.tau)}")
