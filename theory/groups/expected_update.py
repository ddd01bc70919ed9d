"""The exact mean of a critic-free update: its parameter gradient, and its costate at every prefix.

A *recipe* is a plain callable `recipe(rewards, mask, group, **fields) -> (weights, entropy weights or None)`, all (rows, T).
Its update is `sum_it w_it grad log pi(c_it) + u_it grad H_it` with these weights w and u. A recipe sees a completion only
through its rewards, its length and the fields that it takes, so completions that agree in these are one *outcome*.

For one prompt with outcome probabilities p_j, all rows of a group being independent draws, the mean weight of a row with
outcome j is a sum over all multisets of G outcomes,

`W_j = (1 / p_j) sum_m P(m) sum_{i in m, outcome j} w_i(m)`,   P(m) multinomial,

and the mean update is `sum_o p(o) sum_t W_t(o) grad log pi(c_t)`, which is the gradient of a surrogate on the prefix tree.
For binary rewards `theory.groups.binary_rewards` has the same means in closed form.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.tokens.completions import completions
from theory.tokens.prefix_tree import DEFAULT_BUDGET, Tree, grow
from theory.tokens.softmax_bounds import entropy
from theory.tokens.tree_gradients import TreeGradients, score_surrogate, whole_tree_gradients

Weights = tuple[Tensor, Tensor | None]
Recipe = Callable[..., Weights]
_CHUNK = 2**19  # numbers of one field in one call of a recipe
_DIGITS = 12  # outcomes whose numbers agree to so many decimals, in units of the field's largest, are one


@dataclass(frozen=True)
class ExpectedUpdate:
    """The mean update and the true gradient.

    Attributes:
        mean: the mean update, with costates at every prefix.
        truth: the gradient of the expected return, likewise.
        weights: `weights[k]` (N_k, C) is E[w_t | prefix, token] of every edge of level k.
    """

    mean: TreeGradients
    truth: TreeGradients
    weights: list[Tensor]

    @property
    def J(self) -> Float[Tensor, ""]:
        """Expected return."""
        return self.truth.J


def expected_update(
    world: TokenMDP,
    policy: TokenPolicy,
    recipe: Recipe,
    group: int,
    sites: Sequence[str] = (),
    *,
    behaviour: TokenPolicy | None = None,
    reference: TokenPolicy | None = None,
    values: Sequence[Tensor] | None = None,
    budget: int = DEFAULT_BUDGET,
) -> ExpectedUpdate:
    """The exact mean of a recipe's update of `policy`, beside the exact gradient.

    The recipe gets the field `ended` where the world has an end token, and more fields as said below. Every further field makes
    more outcomes; in the end every completion is one.

    Args:
        world: a token world small enough for its prefix tree.
        policy: the policy that is updated.
        recipe: as in the module's docstring; one that mixes the groups of a batch is applied to batches of one group.
        group: G, the rows of each prompt.
        sites: where costates are read at every prefix; like value gradients they are divided by `gamma^k P(prefix)`.
        behaviour: the policy that draws the rows, by default `policy`; with it the recipe gets `log_probs` and `old`.
        reference: the policy of a KL penalty; with it the recipe gets `log_probs`, `old` and `reference`.
        values: a critic's V_k of every node, level by level, as in `Tree.V`; the recipe gets `values`, which are `gamma^k V_k`.
        budget: bytes that the multisets, or the prefixes, may take.

    Raises:
        InputError: the group is below 1, or more than `budget` bytes would be needed (seen before they are allocated).
    """
    tree = grow(world, policy, 1.0, sites, budget=budget)
    with torch.no_grad():
        drawn = tree if behaviour is None else grow(world, behaviour, budget=budget)
        compared = None if reference is None else completions(grow(world, reference, budget=budget))
    rows = completions(drawn)
    fields = {"rewards": rows.rewards, "mask": rows.mask}
    if behaviour is not None or reference is not None:
        fields |= {"log_probs": completions(tree).log_probs, "old": rows.log_probs}
    if compared is not None:
        fields["reference"] = compared.log_probs
    if values is not None:
        fields["values"] = _along_completions(tree, values)
    if tree.world.end is not None:
        fields["ended"] = (rows.tokens == tree.world.end).any(-1)
    by_prompt = [
        _completion_weights(recipe, p, {name: field[i] for name, field in fields.items()}, group, budget)
        for i, p in enumerate(rows.p)
    ]
    edges = _edge_means(drawn, torch.stack([weights for weights, _ in by_prompt]))
    entropy_weights = [u for _, u in by_prompt if u is not None]
    bonus = _edge_means(drawn, torch.stack(entropy_weights)) if entropy_weights else None
    mean = whole_tree_gradients(tree, policy, sites, _surrogate(tree, drawn, edges, bonus), keep=True)
    return ExpectedUpdate(mean, whole_tree_gradients(tree, policy, sites, score_surrogate(tree)), edges)


def _along_completions(tree: Tree, values: Sequence[Tensor]) -> Float[Tensor, "prompts L H"]:
    """`gamma^k V_k` of a critic at every prefix of every completion."""
    count, prompts = tree.levels[-1].tokens.numel(), len(tree.levels[0].reach)
    columns = [tree.world.gamma**k * V.detach().repeat_interleave(count // len(V)) for k, V in enumerate(values)]
    return torch.stack(columns, -1).reshape(prompts, -1, len(columns))


def _completion_weights(recipe: Recipe, p: Tensor, fields: dict[str, Tensor], group: int, budget: int) -> Weights:
    """Mean weights (L, H) of all completions of one prompt, by way of their outcomes; in float64, whatever the policy is in."""
    p, fields = p.double(), {name: x.double() if x.is_floating_point() else x for name, x in fields.items()}
    of, outcomes = distinct_outcomes(fields)
    chance = p.new_zeros(len(next(iter(outcomes.values())))).index_add_(0, of, p)
    weights, bonus = expected_weights(recipe, chance, outcomes, group, budget)
    return weights[of], None if bonus is None else bonus[of]


def distinct_outcomes(fields: dict[str, Tensor]) -> tuple[Int[Tensor, "L"], dict[str, Tensor]]:
    """The index of each row's outcome, and the fields of one row of each outcome."""
    columns = [x.reshape(len(x), -1).double() for x in fields.values()]
    table = torch.cat([x / x.abs().max().clamp(min=torch.finfo(x.dtype).tiny) for x in columns], 1)
    unique, of = torch.unique(table.round(decimals=_DIGITS), dim=0, return_inverse=True)
    first = torch.full((len(unique),), len(of), device=of.device)
    first.scatter_reduce_(0, of, torch.arange(len(of), device=of.device), "amin")
    return of, {name: x[first] for name, x in fields.items()}


def expected_weights(
    recipe: Recipe, p: Float[Tensor, "K"], outcomes: dict[str, Tensor], group: int, budget: int = DEFAULT_BUDGET
) -> Weights:
    """Mean weights `W_j`, (K, T), of K outcomes, over all multisets of `group` of them; 0 where p is 0.

    Args:
        recipe: as in the module's docstring.
        p: probabilities of the outcomes.
        outcomes: the fields that the recipe takes, K rows each, `rewards` and `mask` among them.
        group: G.
        budget: bytes that the multisets may take.

    Raises:
        InputError: as `group_multisets`.
    """
    log_p, T = p.log(), outcomes["rewards"].shape[1]
    multisets, log_chance = group_multisets(p, group, budget)
    share = log_chance[:, None] - log_p[multisets]
    sums, has = p.new_zeros(2, len(p), T), [True, True]
    apply = apply_recipe if keeps_groups_apart(recipe, outcomes, multisets) else _apply_one_by_one
    for part in torch.split(torch.arange(len(multisets), device=p.device), max(1, _CHUNK // (group * T))):
        for i, weights in enumerate(apply(recipe, outcomes, multisets[part])):
            has[i] = weights is not None
            if weights is not None:
                scaled = (share[part].exp()[..., None] * weights).flatten(0, 1)
                sums[i].index_add_(0, multisets[part].flatten(), scaled)
    return sums[0], sums[1] if has[1] else None


def group_multisets(
    p: Float[Tensor, "K"], group: int, budget: int = DEFAULT_BUDGET
) -> tuple[Int[Tensor, "M G"], Float[Tensor, "M"]]:
    """All multisets of `group` outcomes of probability > 0, and the logarithms of their probabilities.

    The logarithm is `log G! - log prod counts! + sum log p`; `prod counts!` is the product of every entry's rank among the
    entries equal to it.

    Raises:
        InputError: the group is below 1, or the multisets need more than `budget` bytes.
    """
    if not isinstance(group, int) or group < 1:
        raise InputError(f"group must be a whole number >= 1; got {group!r}")
    alive = (p > 0).nonzero()[:, 0]
    count = math.comb(len(alive) + group - 1, group)
    if 32 * count * group > budget:
        raise InputError(
            f"group={group} with {len(alive)} outcomes makes {count:.4g} multisets, about {32 * count * group / 2**30:.3g} "
            f"GiB of {budget / 2**30:.3g} allowed: take a smaller group or world, or sample"
        )
    # torch.combinations would build all K^G tuples first
    numbers = itertools.chain.from_iterable(itertools.combinations_with_replacement(alive.tolist(), group))
    multisets = torch.from_numpy(np.fromiter(numbers, np.int64, count * group)).to(p.device).reshape(count, group)
    rank, ranks = torch.zeros_like(multisets[:, 0]), []
    for j in range(group):
        again = multisets[:, j] == multisets[:, j - 1] if j else rank > 0
        rank = torch.where(again, rank + 1, 1)
        ranks.append(rank)
    repeated = torch.stack(ranks, 1).double().log().sum(1)
    return multisets, math.lgamma(group + 1) - repeated + p.log()[multisets].sum(1)


def apply_recipe(recipe: Recipe, outcomes: dict[str, Tensor], multisets: Int[Tensor, "M G"]) -> list[Tensor | None]:
    """The recipe's weights on M groups at once, (M, G, T). A recipe averages over groups; the factor 1/M is undone here."""
    M, G = multisets.shape
    index = torch.arange(M, device=multisets.device).repeat_interleave(G)
    rows = {name: x[multisets.flatten()] for name, x in outcomes.items()}
    weights = recipe(rows.pop("rewards"), rows.pop("mask"), index, **rows)
    return [None if x is None else M * x.detach().reshape(M, G, -1) for x in weights]


def _apply_one_by_one(recipe: Recipe, outcomes: dict[str, Tensor], multisets: Tensor) -> list[Tensor | None]:
    """The same for a recipe that mixes the groups of a batch: every group is a batch of its own."""
    single = [apply_recipe(recipe, outcomes, one[None]) for one in multisets]
    columns = [[x for x in column if x is not None] for column in zip(*single, strict=True)]
    return [torch.cat(column) if column else None for column in columns]


def keeps_groups_apart(recipe: Recipe, outcomes: dict[str, Tensor], multisets: Int[Tensor, "M G"]) -> bool:
    """Whether a group's weights do not depend on the other groups of the batch: tried on up to 1000 groups, whole and cut."""
    some = multisets[:: -(-len(multisets) // 1000)]
    parts = [part for part in some.tensor_split(sorted({1, 2, len(some) // 3})) if len(part)]
    whole, cut = apply_recipe(recipe, outcomes, some), [apply_recipe(recipe, outcomes, part) for part in parts]
    for i, together in enumerate(whole):
        apart = [x for x in (part[i] for part in cut) if x is not None]
        if together is not None and not torch.allclose(together, torch.cat(apart), rtol=1e-9, atol=1e-12):
            return False
    return True


def _edge_means(tree: Tree, leaves: Float[Tensor, "prompts L H"]) -> list[Float[Tensor, "N C"]]:
    """For every edge of level k the mean of column k over the completions through that edge."""
    rest, means = leaves.flatten(0, 1), list[Tensor]()
    for k in reversed(range(len(tree.levels))):
        shape = tree.levels[k].share.shape
        means.insert(0, rest[:, k].reshape(shape))
        rest = (tree.levels[k].share[..., None] * rest.reshape(*shape, -1)).sum(1)
    return means


def _surrogate(tree: Tree, drawn: Tree, weights: list[Tensor], bonus: list[Tensor] | None) -> Float[Tensor, ""]:
    """`sum_k sum_edges P(edge) W log pi + sum_k sum_nodes P(node) U H(pi)`; P is that of the policy that draws the rows."""
    total = torch.zeros_like(tree.levels[0].reach[0]).double()
    for k, (level, source) in enumerate(zip(tree.levels, drawn.levels, strict=True)):
        log_pi = torch.log_softmax(level.logits, -1).gather(1, level.tokens)
        reach = source.reach.double()
        total = total + reach @ (source.share * weights[k] * log_pi).sum(-1)
        if bonus is not None:
            total = total + reach @ ((source.share * bonus[k]).sum(-1) * entropy(level.pi))
    return total
