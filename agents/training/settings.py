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
from envs.record import short_repr
from envs.world import InputError


class SamplerMismatch(UserWarning):
    """The policy that drew the rows is not the policy that is trained."""


@runtime_checkable
class Oracle(Protocol):
    """What is known exactly of S policies in a world."""

    def answers(self, actor: Copies) -> tuple[Float[Tensor, "S"], Float[Tensor, "S"], list[Tensor]]:
        """Expected returns, mean entropies per step, and the gradients of the returns, shaped like the actor's parameters.

        Args:
            actor: the policies.

        Returns:
            Returns, entropies in nats, and gradients.
        """
        ...

    def gradient(self, actor: Copies) -> tuple[Float[Tensor, "S"], list[Tensor]]:
        """Expected returns and their gradients alone, which may take less time.

        Args:
            actor: the policies.

        Returns:
            Returns and gradients.
        """
        ...

    def target_gradient(self, actor: Copies, target: Target, reference: Copies | None) -> list[Tensor] | None:
        """The gradients of another target than the returns, against a reference policy's copies; None where it is not known.

        Args:
            actor: the policies.
            target: what the recipe is meant to climb.
            reference: the reference policies; None where there are none.

        Returns:
            Gradients shaped like the actor's parameters, or None.
        """
        ...

    def values(self, actor: Copies, rows: Rollouts) -> Float[Tensor, "S rows T"]:
        """`gamma^k V_k` before each step.

        Args:
            actor: the policies.
            rows: what was drawn.

        Returns:
            The values.
        """
        ...


@dataclass(frozen=True)
class TrainingSettings:
    """How a learner is run: `prompts` groups of `group` rows a step, `epochs` passes over them in `minibatches` parts.

    Attributes:
        steps: number of steps, each with one draw of rows.
        prompts: groups of a step.
        group: rows of a group.
        epochs: passes over the rows of a step.
        minibatches: parts into which the groups of a pass are cut.
        rate: step size of the optimiser.
        optimiser: "adam" or "sgd".
        critic_rate: step size of a learned critic's Adam.
        critic_epochs: passes of a learned critic over the rows of a step, each one fit to all of them.
        max_norm: limit of the gradient's norm, each seed's own; 0 for none.
        every: exact answers are recorded at every so many steps.
        sampler: precision that rows are drawn in, "float64", "float32" or "bfloat16", as inference engines have theirs;
            "" for the policy's own.

    Raises:
        InputError: a number is out of its range, or a name is unknown.
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
        """Refuse rows whose observations, `copies * rows * steps * features` numbers, need more memory than is allowed.

        Args:
            steps: T.
            features: numbers that a critic reads at each place.
            copies: number of policies.

        Raises:
            InputError: more memory is needed than is allowed.
        """
        rows = self.prompts * self.group
        remedy = "take fewer prompts (or start states) or a smaller group"
        check_bytes(
            8 * copies * rows * steps * features, f"prompts={self.prompts} of group={self.group} make rows", remedy
        )


@short_repr
@dataclass(frozen=True)
class Record:
    """One step, one number for each seed, before its update; NaN where a number is not known or not asked for.

    Attributes:
        step: number of updates before this one.
        rows: rows drawn so far by each seed.
        loss: mean loss of the step's minibatches.
        sampled: mean return of the rows drawn.
        clipped: share of tokens whose first slope was not 0 and that some pass found silenced.
        silent: share of groups without a signal.
        ratio_error: how far the largest ratio pi / pi_old was from 1 before the first update.
        J: exact expected return.
        entropy: exact mean entropy for each step of the policy, in nats.
        cosine: of the step's first gradient to the exact gradient of J.
        target_cosine: of the same to the exact gradient of what the recipe is meant to climb; NaN where that is J or is
            not known.
        curl: of a critic that is a vector field G: `|X - X'| / |X|` of its derivatives X in the state, both norms over all
            times, and for a network over the states of the rows drawn (of the rows that another step would draw, in the last
            record); NaN for other critics.
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
    curl: Float[Tensor, "S"]
