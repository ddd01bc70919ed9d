"""What a training run is asked for and what it says: settings, records, and the oracle that knows what is exact."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from agents.recipes.learner import Target
from agents.training.copies import Copies
from agents.training.tasks import Rollouts
from envs.arguments import check_bytes
from envs.world import InputError


class SamplerMismatch(UserWarning):
    """The policy that drew the rows is not the policy that is trained."""


@runtime_checkable
class Oracle(Protocol):
    """What is known exactly of S policies in a world."""

    def answers(self, actor: Copies) -> tuple[Float[Tensor, "S"], Float[Tensor, "S"], list[Tensor]]:
        """Expected returns, mean entropies per step, and the gradients of the returns, shaped like the actor's parameters."""
        ...

    def gradient(self, actor: Copies) -> tuple[Float[Tensor, "S"], list[Tensor]]:
        """Expected returns and their gradients alone, which may take less time."""
        ...

    def target_gradient(self, actor: Copies, target: Target, reference: Copies | None) -> list[Tensor] | None:
        """The gradients of another target than the returns, against a reference policy's copies; None where it is not known."""
        ...

    def values(self, actor: Copies, rows: Rollouts) -> Float[Tensor, "S rows T"]:
        """`gamma^k V_k` before each step."""
        ...


@dataclass(frozen=True)
class TrainingSettings:
    """How a learner is run: `prompts` groups of `group` rows a step, `epochs` passes over them in `minibatches` parts.

    Every `every` steps the exact answers are recorded. `max_norm` cuts the gradient's norm, each seed's own, where it is not
    0; `sampler` is the precision that rows are drawn in ("" for the policy's own), as inference engines have theirs.
    """

    steps: int = 200
    prompts: int = 8
    group: int = 8
    epochs: int = 1
    minibatches: int = 1
    rate: float = 0.002
    optimiser: str = "adam"
    critic_rate: float = 0.01
    critic_epochs: int = 4
    max_norm: float = 0.0
    every: int = 10
    sampler: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        for name in ("steps", "prompts", "group", "epochs", "minibatches", "critic_epochs", "every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number >= 1; got {getattr(self, name)!r}")
        for name in ("rate", "critic_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be a finite number > 0; got {getattr(self, name)!r}")
        if not 0 <= self.max_norm < math.inf:
            raise InputError(f"max_norm must be finite and >= 0, 0 for no limit; got {self.max_norm!r}")
        if self.minibatches > self.prompts:
            raise InputError(
                f"minibatches must be at most prompts={self.prompts}: groups are not cut; got {self.minibatches}"
            )
        if self.optimiser not in ("adam", "sgd"):
            raise InputError(f"optimiser must be adam or sgd; got {self.optimiser!r}")
        if self.sampler not in ("", "float64", "float32", "bfloat16"):
            raise InputError(f"sampler must be float64, float32 or bfloat16; got {self.sampler!r}")

    def check_size(self, steps: int, features: int, copies: int = 1) -> None:
        """Refuse rows whose observations, `copies * rows * steps * features` numbers, need more memory than is allowed."""
        rows = self.prompts * self.group
        remedy = "take fewer prompts (or start states) or a smaller group"
        check_bytes(
            8 * copies * rows * steps * features, f"prompts={self.prompts} of group={self.group} make rows", remedy
        )


@dataclass(frozen=True)
class Record:
    """One step, one number a seed, before its update; `J`, `entropy` and `cosine` are exact, NaN where not asked for.

    `sampled` is the mean return of the rows drawn; `clipped` the share of tokens whose first slope was not 0 and that
    some pass found silenced; `silent` the share of groups without a signal; `ratio_error` how far the largest ratio was
    from 1 before the first step; `cosine` that of the step's first gradient to the true one, `target_cosine` that to the exact
    gradient of what the recipe is meant to climb, NaN where that is the return or is not known.
    """

    step: int
    rows: int
    loss: Float[Tensor, "S"]
    sampled: Float[Tensor, "S"]
    clipped: Float[Tensor, "S"]
    silent: Float[Tensor, "S"]
    ratio_error: Float[Tensor, "S"]
    J: Float[Tensor, "S"]
    entropy: Float[Tensor, "S"]
    cosine: Float[Tensor, "S"]
    target_cosine: Float[Tensor, "S"]
