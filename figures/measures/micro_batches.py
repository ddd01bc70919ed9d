"""A sampled batch of a real policy, its loss's gradient, and the same accumulated over micro-batches.

Also the exact mean of the update whose terms are divided by the number of tokens in a batch of several groups.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.polynomial.polynomial import polypow
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from agents.recipes.batch import Batch
from agents.recipes.learners import Learner
from agents.recipes.surrogates import row_sum
from agents.sampling.completions import context_log_probs, sample_completions
from envs.policy import ContextPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.groups.expected_update import ExpectedUpdate, expected_update
from theory.tokens.completions import completions
from theory.tokens.prefix_tree import grow

Part = Int[Tensor, "rows"]


@dataclass(frozen=True)
class Sampled:
    """A policy, contexts (rows, T) of which the last H tokens were drawn, and the batch that they make."""

    policy: ContextPolicy
    contexts: Int[Tensor, "rows T"]
    batch: Batch

    def log_probs(self, part: Part | slice) -> Float[Tensor, "part H"]:
        """`log pi` of the drawn tokens, carrying the gradient; 0 behind an end token."""
        log_probs, _ = context_log_probs(self.policy, self.contexts[part], self.batch.mask.shape[1])
        return torch.where(self.batch.mask[part], log_probs, 0.0)


def sample_batch(world: TokenMDP, policy: ContextPolicy, groups: int, rows: int, rng: torch.Generator) -> Sampled:
    """Groups of so many rows each, the world's prompts in turn."""
    sample = sample_completions(world, policy, torch.arange(groups) % len(world.prompts), rows, rng)
    return Sampled(policy, sample.contexts, sample.batch())


def gradient(sampled: Sampled, learner: Learner, part: Part | slice = slice(None)) -> Float[Tensor, "parameters"]:
    """Minus the gradient of the learner's loss on some of the rows, taken as a batch of their own."""
    loss = learner.loss(sampled.log_probs(part), None, sampled.batch.rows(part))
    slopes = torch.autograd.grad(loss, list(sampled.policy.parameters()), allow_unused=True, materialize_grads=True)
    return -parameters_to_vector([slope.contiguous() for slope in slopes])


Fix = Callable[[Learner, Part], Learner]


def accumulated(
    sampled: Sampled, learner: Learner, parts: Sequence[Part], shares: Sequence[float] | None = None,
    fix: Fix = lambda learner, part: learner,
) -> Float[Tensor, "parameters"]:  # fmt: skip
    """`sum_m share_m gradient(part_m)`, the plain mean without shares; `fix` is what a part knows of the whole batch."""
    shares = shares or [1 / len(parts)] * len(parts)
    found = [share * gradient(sampled, fix(learner, part), part) for part, share in zip(parts, shares, strict=True)]
    return torch.stack(found).sum(0)


def advantages_kept(sampled: Sampled, learner: Learner) -> Fix:
    """Advantages of the whole batch, computed before the cut."""
    kept = learner.advantages(sampled.batch, torch.zeros_like(sampled.batch.rewards))
    return lambda own, part: replace(own, advantage=lambda rewards, mask, group: kept[part])


def weights_kept(sampled: Sampled, learner: Learner) -> Fix:
    """Advantages and the normaliser's weights of the whole batch: parts are then summed, not averaged."""
    advantages = advantages_kept(sampled, learner)
    weights = learner.normalise(sampled.batch.mask, sampled.batch.group)
    return lambda own, part: replace(advantages(own, part), normalise=lambda mask, group: weights[part])


def whole_groups(batch: Batch, *counts: int) -> list[Part]:
    """Parts of so many whole groups each, in order."""
    groups = torch.arange(sum(counts)).split(list(counts))
    return [torch.isin(batch.group, part).nonzero()[:, 0] for part in groups]


def halved_groups(batch: Batch) -> list[Part]:
    """Two parts that hold half of every group: its rows in turn."""
    place = torch.stack([(batch.group[:i] == g).sum() for i, g in enumerate(batch.group)])
    return [(place % 2 == half).nonzero()[:, 0] for half in (0, 1)]


def shares(batch: Batch, parts: Sequence[Part], of: str) -> list[float]:
    """Every part's share of the batch's "tokens" or "groups"."""
    sizes = {
        "tokens": [float(batch.mask[part].sum()) for part in parts],
        "groups": [float(len(batch.group[part].unique())) for part in parts],
    }[of]
    return [x / sum(sizes) for x in sizes]


def gap(found: Tensor, whole: Tensor) -> float:
    """`|found - whole| / |whole|`."""
    return float((found - whole).norm() / whole.norm())


def stepwise(sampled: Sampled, learner: Learner, parts: Sequence[Part], rate: float) -> Float[Tensor, "parameters"]:
    """How the parameters move when one gradient step follows each part (PPO's minibatches), `old` being the start's."""
    policy = copy.deepcopy(sampled.policy)
    old = sampled.log_probs(slice(None)).detach()
    moving = Sampled(policy, sampled.contexts, replace(sampled.batch, old=old))
    start = parameters_to_vector(policy.parameters()).detach()
    for part in parts:
        now = parameters_to_vector(policy.parameters()).detach()
        vector_to_parameters(now + rate * gradient(moving, learner, part), policy.parameters())
    return parameters_to_vector(policy.parameters()).detach() - start


def expected_token_mean(
    world: TokenMDP, policy: ContextPolicy, learner: Learner, group: int, groups: int
) -> ExpectedUpdate:
    """The exact mean of the learner's first update, every term divided by the tokens of `groups` groups, times their rows.

    The other groups, of prompts drawn by the world's weights, enter through the law of their length alone: that of a
    group is the power of its rows' (a polynomial in the length), and `1 / (L + S)` is averaged over S given L.
    Raises InputError for fewer than one group.
    """
    if groups < 1:
        raise InputError(f"groups must be a whole number >= 1; got {groups!r}")
    with torch.no_grad():
        found = completions(grow(world, policy))
    law = found.p.new_zeros(len(found.p), world.horizon + 1).scatter_add_(1, found.mask.sum(-1), found.p)
    powers = np.stack([polypow(row.numpy(), group) for row in law])
    of_group = world.weights.numpy() @ powers
    others = torch.as_tensor(polypow(of_group, groups - 1) if groups > 1 else [1.0]).to(law)
    own = torch.arange(1, group * world.horizon + 1)[:, None]
    inverse = group * groups * (others / (own + torch.arange(len(others)))).sum(1)

    def normalise(mask: Tensor, index: Tensor) -> Tensor:
        lengths = torch.zeros_like(torch.bincount(index)).index_add_(0, index, mask.sum(1))
        return row_sum(mask, index) * inverse[lengths - 1][index][:, None]

    return expected_update(world, policy, replace(learner, normalise=normalise), group)
