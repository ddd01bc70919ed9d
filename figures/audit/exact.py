"""The exact mean update of an audited loss, over all groups that a policy can draw, and what it is beside the exact gradient.

A loss of log-probabilities is a recipe for `theory.groups.expected_update`. The slopes of a loss of logits are averaged here
over all multisets of completions. The policy is a table, so that every direction of the update can be seen.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.prefix_table import PrefixTable
from envs.token_mdp import TokenMDP
from envs.token_tasks import parity, sum_and_stop
from figures.audit.contract import Subject
from figures.audit.probes import probe
from figures.audit.rows import Rows
from theory.groups.expected_update import expected_update
from theory.groups.outcomes import group_multisets
from theory.tokens.completions import Words, words
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_gradients import score_surrogate, whole_tree_gradients
from theory.tokens.tree_size import DEFAULT_BUDGET

_CHUNK = 4096  # groups in one call of a loss of logits
_PIECE = 2048  # rows in one call of a loss of log-probabilities


class Place(NamedTuple):
    """A world and a policy in which means are taken.

    Attributes:
        name: of the world.
        world: with few completions.
        seed: of the table.
        lifted: entries (row, token) of the table that are raised by 3.
    """

    name: str
    world: TokenMDP
    seed: int
    lifted: tuple[tuple[int, int], ...] = ()

    @property
    def policy(self) -> PrefixTable:
        """The table."""
        logits = PrefixTable(self.world, seed=self.seed).logits.detach().clone()
        for row, token in self.lifted:
            logits[row, token] += 3.0
        return PrefixTable(self.world, logits)


def places() -> list[Place]:
    """Lengths and truncation; one length; two prompts whose success rates are far apart."""
    return [
        Place("stop (2,3)", sum_and_stop(2, 3), 1),
        Place("parity (2,3)", parity(2, 3), 0),
        # prompts 1 and 2 in rows 0 and 1; "1, stop" is what succeeds at the first
        Place("two prompts, stop (3,2)", sum_and_stop(3, 2), 1, ((0, 1), (2 + 1, 3))),
    ]


class AsRecipe:
    """A loss as a recipe: minus its slopes in log-probabilities and entropies are the weights of the update.

    Args:
        subject: the loss.
        bonus: whether the entropies' weights are among the recipe's.
    """

    signals = ()  # it asks for nothing beside the usual fields

    def __init__(self, subject: Subject, bonus: bool = True):
        self.subject, self.bonus, self.over = subject, bonus, groups_over(subject)

    def __call__(self, rewards: Tensor, mask: Tensor, group: Tensor, **fields: Tensor) -> tuple[Tensor, Tensor | None]:
        """The weights of a batch.

        Args:
            rewards: of every step.
            mask: True for the tokens.
            group: number of each row's group.
            fields: log_probs, old, and where there is a reference policy, reference; ended.

        Returns:
            The weights of log-probabilities, and of entropies (None where the loss takes none).
        """
        log_probs = fields["log_probs"]
        ended = fields.get("ended", torch.ones(len(group), dtype=torch.bool))
        nothing = torch.zeros(len(group), 1 + mask.shape[1], 1, dtype=log_probs.dtype)
        reference = fields.get("reference", log_probs)
        numbers = (log_probs, fields["old"], reference, torch.zeros_like(log_probs), rewards, mask, group, ended)
        rows = Rows(*numbers, nothing, nothing[..., 0].long())
        count = int(group.max()) + 1 if self.over == "sum" else 1
        parts = [self.subject.slopes(rows.take(index)) for index in self._pieces(group)]
        share = [len(x.weights) / len(group) if self.over == "mean" else 1 / count for x in parts]
        w = torch.where(mask, torch.cat([s * x.weights for s, x in zip(share, parts, strict=True)]), 0.0)
        entropies = [s * x.entropy for s, x in zip(share, parts, strict=True) if x.entropy is not None]
        if not entropies or not self.bonus:
            return w, None
        return w, torch.where(mask, torch.cat(entropies), 0.0)

    def _pieces(self, group: Tensor) -> list[slice]:
        """Whole groups, so few rows at a time that a table of rows by rows fits into memory; all rows where groups mix."""
        sizes = torch.bincount(group)
        one_size = bool((sizes == sizes[0]).all()) and bool((group[1:] >= group[:-1]).all())
        step = max(1, _PIECE // int(sizes[0])) * int(sizes[0]) if one_size and self.over != "coupled" else len(group)
        return [slice(i, i + step) for i in range(0, len(group), step)]


def mean_field(
    subject: Subject,
    world: TokenMDP,
    policy: PrefixTable,
    reference: PrefixTable | None = None,
    group: int = 4,
    prompts: int | Sequence[int] = 1,
    bonus: bool = True,
) -> Float[Tensor, "parameters"]:
    """The mean update of the table's logits, flat; rows are drawn by the policy itself.

    Args:
        subject: the loss.
        world: with few completions.
        policy: the table.
        reference: of the KL term; by default the policy itself.
        group: G.
        prompts: groups of a batch, as in `expected_update`; of a loss of logits always 1.
        bonus: whether an entropy bonus counts.

    Returns:
        The mean over all groups (or batches).

    Raises:
        InputError: there are too many groups for the memory.
    """
    other = policy if reference is None else reference
    if "logits" in subject.asks:
        return _of_logits(subject, world, policy, other, group)
    update = expected_update(
        world, policy, AsRecipe(subject, bonus), group, behaviour=policy, reference=other, prompts=prompts
    )
    return update.mean.flat


def _of_logits(
    subject: Subject, world: TokenMDP, policy: PrefixTable, reference: PrefixTable, group: int
) -> Float[Tensor, "parameters"]:
    """`sum over prompts and words of P(word) <E[G | word], logits of the table along the word>`, differentiated."""
    with torch.no_grad():
        own, other = words(grow(world, policy)), words(grow(world, reference))
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(own.tokens)):
        contexts = torch.cat([world.prompts[i].expand(len(own.tokens[i]), -1), own.tokens[i]], 1)
        z = policy(policy.embed(contexts[:, :-1]))
        mean = _mean_slopes(subject, _rows_of(world, own, other, i, contexts, z.detach()), own.p[i], group)
        total = total + world.weights[i] * (own.p[i] @ (mean[:, :-1] * z).sum((1, 2)))
    return torch.autograd.grad(total, [policy.logits])[0].flatten()


def _rows_of(world: TokenMDP, own: Words, other: Words, i: int, contexts: Tensor, z: Tensor) -> Rows:
    """All words of a prompt as rows; the place after the last token has logits of 0."""
    log_pi = torch.log_softmax(z[:, -own.mask.shape[-1] :], -1)
    entropy = -(log_pi.exp() * log_pi).sum(-1)
    ended = torch.ones(len(contexts), dtype=torch.bool) if world.end is None else (own.tokens[i] == world.end).any(-1)
    logits = torch.cat([z, torch.zeros_like(z[:, :1])], 1)
    index = torch.zeros(len(contexts), dtype=torch.long)
    log_probs, reference = own.log_probs[i], other.log_probs[i]
    return Rows(log_probs, log_probs, reference, entropy, own.rewards[i], own.mask[i], index, ended, logits, contexts)


def _mean_slopes(subject: Subject, table: Rows, p: Float[Tensor, "K"], group: int) -> Float[Tensor, "K places V"]:
    """E[G | word] of a row of a group of `group` independent rows."""
    multisets, log_chance = group_multisets(p, group, DEFAULT_BUDGET)
    total = torch.zeros_like(table.logits)
    over = groups_over(subject)
    size = 1 if over == "coupled" else _CHUNK
    for part in torch.split(torch.arange(len(multisets)), size):
        index = multisets[part].flatten()
        labels = torch.arange(len(part)).repeat_interleave(group)
        rows = Rows(**{**table.take(index).tables(), "group": labels})
        slopes = subject.slopes(rows).logits
        assert slopes is not None  # a loss of logits has them
        share = (log_chance[part][:, None] - p.log()[multisets[part]]).exp().flatten()
        share = share * len(part) if over == "mean" else share
        total.index_add_(0, index, share[:, None, None] * slopes)
    return total


class Mean(NamedTuple):
    """The mean update at one place, beside the gradient of the expected return.

    Attributes:
        cosine: of the two.
        scale: kappa, if they are parallel.
        bias: |mean - scale truth| / |scale truth|; infinite where the scale is 0.
        prompts: scale for each prompt, at the prompt's own prefixes.
        prompt_bias: bias for each prompt, likewise.
    """

    cosine: float
    scale: float
    bias: float
    prompts: tuple[float, ...]
    prompt_bias: tuple[float, ...]


def mean_update(subject: Subject, place: Place, group: int = 4, prompts: int | Sequence[int] = 1) -> Mean:
    """Compare the mean update at a place, an entropy bonus aside, with the exact gradient.

    Args:
        subject: the loss.
        place: world and policy.
        group: G.
        prompts: groups of a batch.

    Returns:
        How the two stand to each other, as a whole and prompt by prompt.

    Raises:
        InputError: as `mean_field`.
    """
    policy = place.policy
    tree = grow(place.world, policy)
    truth = whole_tree_gradients(tree, policy, (), score_surrogate(tree)).flat
    mean = mean_field(subject, place.world, policy, group=group, prompts=prompts, bonus=False)
    owner = _owners(place.world, len(policy.prompts), len(policy.logits)).repeat_interleave(policy.V)
    parts = [_against(mean[owner == i], truth[owner == i]) for i in range(len(policy.prompts))]
    cosine, scale, bias = _against(mean, truth)
    return Mean(cosine, scale, bias, tuple(x[1] for x in parts), tuple(x[2] for x in parts))


def _against(mean: Tensor, truth: Tensor) -> tuple[float, float, float]:
    scale = float(mean @ truth / (truth @ truth))
    rest = float((mean - scale * truth).norm())
    size = abs(scale) * float(truth.norm())
    cosine = float(mean @ truth / (mean.norm() * truth.norm()).clamp(min=1e-300))
    return cosine, scale, rest / size if size > 0 else (torch.inf if rest > 0 else 0.0)


def _owners(world: TokenMDP, prompts: int, rows: int) -> Tensor:
    """The prompt of every row of the table."""
    owner = torch.zeros(rows, dtype=torch.long)
    owner[:prompts] = torch.arange(prompts)
    for i in range((rows - prompts) // world.V):
        owner[prompts + i * world.V : prompts + (i + 1) * world.V] = owner[i]
    return owner


def groups_over(subject: Subject) -> str:
    """How a batch's weights come from those of its groups alone.

    Args:
        subject: the loss.

    Returns:
        "mean", "sum", or "coupled" where a group's weights depend on the other groups.
    """
    rows = probe(3, 4, moved=0.1)
    together, alone = (
        subject.slopes(rows).weights,
        [subject.slopes(rows.take(rows.group == g)).weights for g in range(3)],
    )
    for name, factor in (("mean", 3), ("sum", 1)):
        if torch.allclose(factor * together, torch.cat(alone), rtol=1e-9, atol=1e-12):
            return name
    return "coupled"
