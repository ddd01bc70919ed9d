"""The gradient of a learner's loss on a sampled batch, and the same gradient accumulated over micro-batches.

A *cut* divides the rows of a batch into parts; the gradient of every part, taken as a batch of its own, is then averaged.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from agents.recipes.batch import Batch
from agents.recipes.learners import Learner
from agents.sampling.completions import context_log_probs, sample_completions
from envs.policy import ContextPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from figures.harness.claim import knob

Part = Int[Tensor, "rows"]
ALL_ROWS = slice(None)
# the cuts of a batch of 8 groups, as the figure names them
EVEN_CUTS = ("8 x 1\ngroup", "4 x 2\ngroups", "4 + 4\ngroups")
UNEVEN_CUTS = UNWEIGHTED, BY_GROUPS, BY_TOKENS = ("5 + 3", "5 + 3,\nby groups", "5 + 3,\nby tokens")
HALVED_CUTS = ANEW, ADVANTAGES_KEPT, ALL_KEPT = ("halved\ngroups", "halved,\nA before", "halved,\nall before")
CUTS = (*EVEN_CUTS, *UNEVEN_CUTS, *HALVED_CUTS)


@dataclass(frozen=True)
class BatchSplitSetting:
    """One policy, some steps of exact ascent from a random one, and one sampled batch of 8 groups.

    Attributes:
        seed, ascended: of the policy.
        world: where the batch is sampled.
        rows: of a group.
        lengths: of the clipped steps that are taken part by part.
        exact_groups: numbers of groups at which the bias of the token mean is computed.
    """

    seed: int
    ascended: int = 4
    world: str = knob("stop (3,3)")
    rows: int = knob(8)
    lengths: tuple[float, ...] = knob((0.1, 0.03, 0.01))
    exact_groups: tuple[int, ...] = knob((1, 2, 4, 8, 16, 32, 64))

    def __post_init__(self) -> None:
        """Refuse groups that cannot be halved."""
        if self.rows < 4 or self.rows % 2:
            raise InputError(f"rows must be an even number >= 4, of a group; got {self.rows}")


@dataclass(frozen=True)
class Sampled:
    """A policy, contexts whose last H tokens were drawn from it, and the batch of these rows."""

    policy: ContextPolicy
    contexts: Int[Tensor, "rows T"]
    batch: Batch

    def log_probs(self, part: Part | slice) -> Float[Tensor, "part H"]:
        """`log pi` of the drawn tokens, which carries the gradient; 0 after an end token."""
        log_probs, _ = context_log_probs(self.policy, self.contexts[part], self.batch.mask.shape[1])
        return torch.where(self.batch.mask[part], log_probs, 0.0)


def sample_batch(world: TokenMDP, policy: ContextPolicy, groups: int, rows: int, rng: torch.Generator) -> Sampled:
    """Draw `groups` groups of `rows` rows each; the groups take the world's prompts in turn."""
    sample = sample_completions(world, policy, torch.arange(groups) % len(world.prompts), rows, rng)
    return Sampled(policy, sample.contexts, sample.batch())


def gradient(sampled: Sampled, learner: Learner, part: Part | slice = ALL_ROWS) -> Float[Tensor, "parameters"]:
    """Minus the gradient of the learner's loss on the rows `part`, taken as a batch of their own."""
    loss = learner.loss(sampled.log_probs(part), None, sampled.batch.rows(part))
    slopes = torch.autograd.grad(loss, list(sampled.policy.parameters()), allow_unused=True, materialize_grads=True)
    return -parameters_to_vector([slope.contiguous() for slope in slopes])


Fix = Callable[[Learner, Part], Learner]  # the learner that a part uses, with some numbers of the whole batch


def unchanged(learner: Learner, part: Part) -> Learner:
    """The learner itself: it computes everything from the part."""
    return learner


def accumulated(
    sampled: Sampled,
    learner: Learner,
    parts: Sequence[Part],
    shares: Sequence[float] | None = None,
    fix: Fix = unchanged,
) -> Float[Tensor, "parameters"]:
    """`sum_m share_m gradient(part_m)`.

    Args:
        sampled: the batch.
        learner: the recipe.
        parts: rows of each part.
        shares: weights of the parts; without them every part has the same, `1 / len(parts)`.
        fix: which numbers are taken from the whole batch.
    """
    shares = shares or [1 / len(parts)] * len(parts)
    gradients = [share * gradient(sampled, fix(learner, part), part) for part, share in zip(parts, shares, strict=True)]
    return torch.stack(gradients).sum(0)


def advantages_kept(sampled: Sampled, learner: Learner) -> Fix:
    """Every part uses the advantages of the whole batch."""
    kept = learner.advantages(sampled.batch, torch.zeros_like(sampled.batch.rewards))
    return lambda own, part: replace(own, advantage=lambda rewards, mask, group: kept[part])


def weights_kept(sampled: Sampled, learner: Learner) -> Fix:
    """Every part uses advantages and normaliser's weights of the whole batch: parts are then summed, not averaged."""
    advantages = advantages_kept(sampled, learner)
    weights = learner.normalise(sampled.batch.mask, sampled.batch.group)
    return lambda own, part: replace(advantages(own, part), normalise=lambda mask, group: weights[part])


def whole_groups(batch: Batch, *counts: int) -> list[Part]:
    """Parts of `counts` whole groups each, in order."""
    groups = torch.split(torch.arange(sum(counts), device=batch.group.device), list(counts))
    return [torch.isin(batch.group, part).nonzero()[:, 0] for part in groups]


def equal_parts(batch: Batch, count: int) -> list[Part]:
    """`count` parts of equally many whole groups each, in order."""
    return whole_groups(batch, *[int(batch.group.max() + 1) // count] * count)


def halved_groups(batch: Batch) -> list[Part]:
    """Two parts that hold half of every group each, its rows in turn."""
    place = torch.stack([(batch.group[:i] == g).sum() for i, g in enumerate(batch.group)])
    return [(place % 2 == half).nonzero()[:, 0] for half in (0, 1)]


def shares(batch: Batch, parts: Sequence[Part], of: str) -> list[float]:
    """Every part's share of the batch's "tokens" or "groups"."""
    sizes = {
        "tokens": [float(batch.mask[part].sum()) for part in parts],
        "groups": [float(len(torch.unique(batch.group[part]))) for part in parts],
    }[of]
    return [x / sum(sizes) for x in sizes]


def gradients_by_cut(sampled: Sampled, learner: Learner) -> dict[str, Float[Tensor, "parameters"]]:
    """The accumulated gradient of a batch of 8 groups, for each of `CUTS`."""
    batch = sampled.batch
    kept, all_kept = advantages_kept(sampled, learner), weights_kept(sampled, learner)
    even = [equal_parts(batch, count) for count in (8, 4, 2)]
    uneven, halves = whole_groups(batch, 5, 3), halved_groups(batch)
    return {
        **{cut: accumulated(sampled, learner, parts) for cut, parts in zip(EVEN_CUTS, even, strict=True)},
        UNWEIGHTED: accumulated(sampled, learner, uneven),
        BY_GROUPS: accumulated(sampled, learner, uneven, shares(batch, uneven, "groups")),
        BY_TOKENS: accumulated(sampled, learner, uneven, shares(batch, uneven, "tokens")),
        ANEW: accumulated(sampled, learner, halves),
        ADVANTAGES_KEPT: accumulated(sampled, learner, halves, fix=kept),
        ALL_KEPT: accumulated(sampled, learner, halves, [1.0, 1.0], all_kept),
    }


def gap(x: Tensor, whole: Tensor) -> float:
    """`|x - whole| / |whole|`."""
    return float((x - whole).norm() / whole.norm())


def stepwise(sampled: Sampled, learner: Learner, parts: Sequence[Part], rate: float) -> Float[Tensor, "parameters"]:
    """Change of the parameters after one gradient step on each part in turn, as with PPO's minibatches.

    `old` stays the log-probabilities of the policy before the first step.
    """
    policy = copy.deepcopy(sampled.policy)
    old = sampled.log_probs(ALL_ROWS).detach()
    moving = Sampled(policy, sampled.contexts, replace(sampled.batch, old=old))
    start = parameters_to_vector(policy.parameters()).detach()
    for part in parts:
        now = parameters_to_vector(policy.parameters()).detach()
        vector_to_parameters(now + rate * gradient(moving, learner, part), policy.parameters())
    return parameters_to_vector(policy.parameters()).detach() - start
