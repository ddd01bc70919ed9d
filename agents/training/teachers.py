"""Teachers in the place of the reference policy: what a KL term pulls the policy to (on-policy distillation)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agents.recipes.learner import Learner, Penalty
from agents.training.tasks import Rollouts, Task
from envs.world import InputError


class Teachers:
    """Fixed policies E_i with weights w_i that sum to one; they answer `sum_i w_i log E_i` of the tokens of rows.

    The KL terms that depend on log(pi / E) by their slope alone, and linearly, may be taken against this mean at once: they are
    then `sum_i w_i` times the term against E_i. They are k1 in the reward or in the loss, k2 in the loss, and k3 in the loss
    with `importance`. k2 in the loss is on-policy distillation with the tokens that were sampled; its mean is that of the loss
    over the full vocabulary, `-sum_i w_i grad KL(pi || E_i)` at visited prefixes.

    Args:
        policies: E_i, over the tokens of the world.
        weights: w_i; by default all alike.

    Raises:
        InputError: there is no teacher, or the weights are not one number >= 0 for each teacher that sum to one.
    """

    def __init__(self, policies: Sequence[Any], weights: Sequence[float] | None = None):
        self.policies = list(policies)
        count = len(self.policies)
        self.weights = [1 / count for _ in policies] if weights is None else [float(w) for w in weights]
        if not count or len(self.weights) != count:
            raise InputError(f"weights must be one for each of the {count} teachers; got {len(self.weights)}")
        if not all(w >= 0 for w in self.weights) or not math.isclose(sum(self.weights), 1, abs_tol=1e-9):
            raise InputError(f"weights of the teachers must be >= 0 and sum to one; got {self.weights}")

    def check(self, learner: Learner) -> None:
        """Refuse a learner without a KL term, or with one that several teachers cannot be joined in.

        Args:
            learner: the recipe.

        Raises:
            InputError: as said.
        """
        if not learner.needs_reference:
            raise InputError("teachers need a KL term that pulls to them: k2 in the loss is on-policy distillation")
        for place, penalty in (("reward", learner.kl_reward), ("loss", learner.kl_loss)):
            if penalty is not None and len(self.policies) > 1 and not _is_linear(place, penalty):
                name = penalty.estimator
                raise InputError(
                    f"{name} in the {place} takes one teacher: for several k1, or k2 or rho k3 in the loss"
                )

    def log_probs(self, task: Task, rows: Rollouts) -> Float[Tensor, "S rows T"]:
        """The weighted mean of the teachers' log-probabilities.

        Args:
            task: the world as the loop sees it.
            rows: drawn by the policies in training.

        Returns:
            One number for every token.
        """
        copies = len(rows.rewards)
        seen = [x.flatten(0, 1) for x in rows.seen]
        total = torch.zeros_like(rows.rewards).flatten(0, 1)
        with torch.no_grad():
            for policy, weight in zip(self.policies, self.weights, strict=True):
                if weight:
                    total = total + weight * task.log_probs(policy, *seen)[0].to(total)
        joined: Tensor = total.unflatten(0, (copies, -1))
        return joined


def _is_linear(place: str, penalty: Penalty) -> bool:
    """Whether the penalty acts linearly in log(pi / E): its value in the reward, its slope in the loss."""
    if penalty.estimator == "k3":
        return place == "loss" and penalty.importance
    return penalty.estimator == "k1" or (place == "loss" and not penalty.importance)
