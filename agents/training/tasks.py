"""A world as the training loop sees it: draw groups of rows with some copies of a policy, and say their log-probabilities.

`TokenTask` for token worlds, `CommandTask` for linear-quadratic ones (one group: G noisy rollouts from one start state).
Shapes: S copies (seeds) on the first axis, rows = prompts x group, T steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from agents.recipes.batch import Batch
from agents.recipes.learner import Learner
from agents.training.copies import Copies
from envs.record import short_repr


@short_repr
@dataclass(frozen=True)
class Rollouts:
    """Drawn rows, all constants.

    Attributes:
        seen: what log-probabilities are computed from, the copies on the first axis.
        observations: what a critic reads.
        rewards: what each step adds to the return.
        mask: True for the policy's steps.
        old: log-probabilities of the policy that drew the rows.
        group: number of each row's group, the same for all copies.
        ended: False for rows that were cut at the horizon.
        prompt: each row's index among the world's prompts, or start states.
        span: True for all steps of the completion, the environment's among them.
        extras: by name what a learner asked for, (S, rows).
    """

    seen: tuple[Tensor, ...]
    observations: Float[Tensor, "S rows places features"]
    rewards: Float[Tensor, "S rows T"]
    mask: Bool[Tensor, "S rows T"]
    old: Float[Tensor, "S rows T"]
    group: Int[Tensor, "rows"]
    ended: Bool[Tensor, "S rows"]
    prompt: Int[Tensor, "S rows"]
    span: Bool[Tensor, "S rows T"]
    extras: dict[str, Tensor] = field(default_factory=dict)

    @property
    def groups(self) -> int:
        """Number of groups of one copy."""
        return int(self.group.max()) + 1

    def batch(self, copy: int, rows: Tensor | slice = slice(None), **fields: Tensor | None) -> Batch:
        """Some rows of one copy, as a learner takes them.

        Args:
            copy: index of the copy.
            rows: which of its rows.
            fields: further fields of the batch, (S, rows, T).

        Returns:
            The batch.
        """
        chosen = {name: None if x is None else x[copy] for name, x in fields.items()}
        chosen |= {"old": self.old[copy], "ended": self.ended[copy], "span": self.span[copy]}
        extras = {name: x[copy] for name, x in self.extras.items()}
        whole = Batch(self.rewards[copy], self.mask[copy], self.group, extras=extras, **chosen)
        return whole if isinstance(rows, slice) else whole.rows(rows)

    def joined(self, rows: Tensor | slice = slice(None), **fields: Tensor | None) -> Batch:
        """Some rows of all copies as one batch, (S * rows, T), whose groups are those of all copies.

        Args:
            rows: which rows of each copy.
            fields: further fields of the batch, (S, rows, T).

        Returns:
            The batch.
        """
        tables = {
            "rewards": self.rewards,
            "mask": self.mask,
            "old": self.old,
            "ended": self.ended,
            "span": self.span,
        } | fields
        flat: dict[str, Any] = {k: None if x is None else x[:, rows].flatten(0, 1) for k, x in tables.items()}
        own = self.group[rows] if isinstance(rows, slice) else torch.unique(self.group[rows], return_inverse=True)[1]
        count = int(own.max()) + 1
        group = (own + count * torch.arange(len(self.rewards), device=own.device)[:, None]).flatten()
        return Batch(group=group, **flat, extras={name: x[:, rows].flatten() for name, x in self.extras.items()})

    def slopes(
        self,
        learner: Learner,
        log_probs: Tensor,
        entropy: Tensor,
        rows: Tensor | slice,
        fields: dict[str, Tensor | None],
    ) -> tuple[Float[Tensor, "S"], Float[Tensor, "S rows T"], Float[Tensor, "S rows T"] | None]:
        """Each copy's loss on some of its rows, and minus its slopes in log-probabilities and entropies.

        A learner whose groups do not mix takes the rows of all copies in one call, in which every copy's loss is
        divided by S once more; others take one copy after the other.

        Args:
            learner: the recipe.
            log_probs: log pi of the steps, (S, rows, T).
            entropy: entropies of pi before the steps, (S, rows, T).
            rows: which rows these are.
            fields: further fields of the batch, of all rows.

        Returns:
            Losses, the weights w, and the weights u (None without a bonus), as in
            `agents.recipes.learner.Learner.slopes`.

        Raises:
            InputError: as in `agents.recipes.learner.Learner.row_losses`.
        """
        copies = len(self.rewards)
        if copies > 1 and learner.keeps_groups_apart:
            batch = self.joined(rows, **fields)
            losses, weights, bonus = learner.slopes(log_probs.flatten(0, 1), entropy.flatten(0, 1), batch)
            weights = copies * weights.unflatten(0, (copies, -1))
            bonus = None if bonus is None else copies * bonus.unflatten(0, (copies, -1))
            return copies * losses.unflatten(0, (copies, -1)).sum(1), weights, bonus
        each = [learner.slopes(log_probs[i], entropy[i], self.batch(i, rows, **fields)) for i in range(copies)]
        bonuses = [bonus for _, _, bonus in each if bonus is not None]
        losses = torch.stack([row_losses.sum() for row_losses, _, _ in each])
        return losses, torch.stack([weights for _, weights, _ in each]), torch.stack(bonuses) if bonuses else None


@runtime_checkable
class Task(Protocol):
    """A kind of world for the training loop.

    Attributes:
        steps: T.
        features: numbers that a critic reads at each place.
        any_precision: whether rows may be drawn in another precision than the policy's own.
        signals: what the world can tell of a row beside its rewards.
        may_cost: whether a row's return may be below 0.
    """

    steps: int
    features: int
    any_precision: bool
    signals: Sequence[str]
    may_cost: bool

    def draw(
        self, actor: Copies, prompts: int, group: int, noise: list[torch.Generator], signals: Sequence[str] = ()
    ) -> Rollouts:
        """`group` rows for each of `prompts` prompts (or start states), every copy from its own generator; and some signals.

        Args:
            actor: the policies.
            prompts: groups of each copy.
            group: rows of a group.
            noise: one generator for each copy.
            signals: names of what is asked for beside the rewards.

        Returns:
            The rows.
        """
        ...

    def log_probs(self, network: Any, *seen: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies of one copy's rows, (rows, T), with their gradient.

        Args:
            network: one policy.
            seen: what `Rollouts.seen` holds of its rows.

        Returns:
            Log-probabilities and entropies, in nats.
        """
        ...

    def log_probs_of_all(self, actor: Copies, group: int, *seen: Tensor) -> tuple[Tensor, Tensor]:
        """The same of all copies' rows, (S, rows, T).

        Args:
            actor: the policies.
            group: rows of a group; the rows are whole groups.
            seen: what `Rollouts.seen` holds of the rows.

        Returns:
            Log-probabilities and entropies, in nats.
        """
        ...
