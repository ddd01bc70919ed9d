"""What a group recipe does on average, exactly: its mean parameter gradient and its mean costate at every prefix.

A recipe is a plain callable `recipe(rewards, mask, group, **fields) -> (weights, entropy weights or None)`, all (rows, T): what
multiplies `grad log pi(c_it)` and `grad H_it` in its update. It sees a completion through its rewards, its length and the
fields it asks for, so completions that agree in these are one *outcome*. For one prompt with outcome probabilities p_j the mean
weight of a row whose outcome is j, the other rows of its group being independent draws, is a sum over all multisets of G
outcomes,

`W_j = (1 / p_j) sum_m P(m) sum_{i in m, outcome j} w_i(m)`,   P(m) multinomial,

and the mean update is `sum_o p(o) sum_t W_t(o) grad log pi(c_t)`: a surrogate on the prefix tree. For binary rewards
`theory.groups.binary_rewards` has the same in closed form.
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
    """The mean update `mean` and the true gradient `truth`, both with parameters, and costates at every prefix.

    `weights[k]` (N_k, C) is the mean weight of the token of every edge: E[w_t | prefix, token].
    """

    mean: TreeGradients
    truth: TreeGradients
    weights: list[Tensor]

    @property
    def J(self) -> Float[Tensor, ""]:
        """Expected return."""
        return self.truth.J


def expected_update(
    world: TokenMDP, policy: TokenPolicy, recipe: Recipe, group: int, sites: Sequence[str] = (), *, behaviour: TokenPolicy | None = None,
    reference: TokenPolicy | None = None, values: Sequence[Tensor] | None = None, budget: int = DEFAULT_BUDGET,
) -> ExpectedUpdate:  # fmt: skip
    """The exact mean of a recipe's update of `policy`, `group` rows for each prompt, against the exact gradient.

    Costates are read at `sites`, at every prefix, over `gamma^k` times its probability as the value gradient is. Rows are
    drawn from `behaviour` (default: the policy itself). A recipe that compares policies gets the fields `log_probs` and `old`
    where `behaviour` or `reference` is given, `reference` with the latter; `values` (a critic's V_k of every node, level by
    level, as in `Tree.V`) come as `gamma^k V_k`; `ended` comes where the world has an end token. All these make more outcomes
    (in the end every completion is one). A recipe that mixes the groups of a batch is taken on batches of one group. Raises
    InputError for a group below 1 and, before allocating, for more than `budget` bytes of multisets or prefixes.
    """
    tree = grow(world, policy, 1.0, sites, budget=budget)
    with torch.no_grad():
        drawn = tree if behaviour is None else grow(world, behaviour, budget=budget)
        compared = None if reference is None else completions(grow(world, reference, budget=budget))
    found = completions(drawn)
    fields = {"rewards": found.rewards, "mask": found.mask}
    if behaviour is not None or reference is not None:
        fields |= {"log_probs": completions(tree).log_probs, "old": found.log_probs}
    if compared is not None:
        fields["reference"] = compared.log_probs
    if values is not None:
        fields["values"] = _along(tree, values)
    if tree.world.end is not None:
        fields["ended"] = (found.tokens == tree.world.end).any(-1)
    rows = [
        _weights_of_prompt(recipe, p, {name: field[i] for name, field in fields.items()}, group, budget)
        for i, p in enumerate(found.p)
    ]
    edges = _up(drawn, torch.stack([weights for weights, _ in rows]))
    extra = [u for _, u in rows if u is not None]
    bonus = _up(drawn, torch.stack(extra)) if extra else None
    mean = whole_tree_gradients(tree, policy, sites, _surrogate(tree, drawn, edges, bonus), keep=True)
    return ExpectedUpdate(mean, whole_tree_gradients(tree, policy, sites, score_surrogate(tree)), edges)


def _along(tree: Tree, values: Sequence[Tensor]) -> Float[Tensor, "prompts L H"]:
    """A critic's values along every completion, as they count toward J."""
    count, prompts = tree.levels[-1].tokens.numel(), len(tree.levels[0].reach)
    rows = [tree.world.gamma**k * V.detach().repeat_interleave(count // len(V)) for k, V in enumerate(values)]
    return torch.stack(rows, -1).unflatten(0, (prompts, -1))


def _weights_of_prompt(recipe: Recipe, p: Tensor, fields: dict[str, Tensor], group: int, budget: int) -> Weights:
    """Mean weight of every completion (L, H), by way of its outcome."""
    of, outcomes = distinct_outcomes(fields)
    chance = p.new_zeros(len(next(iter(outcomes.values())))).index_add_(0, of, p)
    weights, bonus = expected_weights(recipe, chance, outcomes, group, budget)
    return weights[of], None if bonus is None else bonus[of]


def distinct_outcomes(fields: dict[str, Tensor]) -> tuple[Int[Tensor, "L"], dict[str, Tensor]]:
    """Which outcome each row is, and the fields of one row of each."""
    columns = [x.reshape(len(x), -1).double() for x in fields.values()]
    table = torch.cat([x / x.abs().max().clamp(min=torch.finfo(x.dtype).tiny) for x in columns], 1)
    unique, of = torch.unique(table.round(decimals=_DIGITS), dim=0, return_inverse=True)
    first = torch.full((len(unique),), len(of), device=of.device)
    first.scatter_reduce_(0, of, torch.arange(len(of), device=of.device), "amin")
    return of, {name: x[first] for name, x in fields.items()}


def expected_weights(
    recipe: Recipe, p: Float[Tensor, "K"], outcomes: dict[str, Tensor], group: int, budget: int = DEFAULT_BUDGET
) -> Weights:
    """`W_j`, (K, T), of each of K outcomes with probabilities p, over all multisets of `group` of them; 0 where p is 0.

    `outcomes` are the fields of the recipe, K rows each, `rewards` and `mask` among them. Raises InputError as above.
    """
    log_p, T = p.log(), outcomes["rewards"].shape[1]
    multisets, log_chance = group_multisets(p, group, budget)
    share = log_chance[:, None] - log_p[multisets]
    sums, given = p.new_zeros(2, len(p), T), [True, True]
    call = apply_recipe if keeps_groups_apart(recipe, outcomes, multisets) else _apply_one_by_one
    for part in torch.arange(len(multisets), device=p.device).split(max(1, _CHUNK // (group * T))):
        for i, weights in enumerate(call(recipe, outcomes, multisets[part])):
            given[i] = weights is not None
            if weights is not None:
                scaled = (share[part].exp()[..., None] * weights).flatten(0, 1)
                sums[i].index_add_(0, multisets[part].flatten(), scaled)
    return sums[0], sums[1] if given[1] else None


def group_multisets(
    p: Float[Tensor, "K"], group: int, budget: int = DEFAULT_BUDGET
) -> tuple[Int[Tensor, "M G"], Float[Tensor, "M"]]:
    """All multisets of `group` outcomes of probability > 0, and the logarithms of their probabilities.

    `log G! / prod counts! + sum log p`; counts! is the product of the ranks within runs of equal entries.
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
    """The recipe's weights on M groups at once, (M, G, T): it takes the groups' mean, which is undone here."""
    M, G = multisets.shape
    index = torch.arange(M, device=multisets.device).repeat_interleave(G)
    rows = {name: x[multisets.flatten()] for name, x in outcomes.items()}
    found = recipe(rows.pop("rewards"), rows.pop("mask"), index, **rows)
    return [None if x is None else M * x.detach().unflatten(0, (M, G)) for x in found]


def _apply_one_by_one(recipe: Recipe, outcomes: dict[str, Tensor], multisets: Tensor) -> list[Tensor | None]:
    """For a recipe that mixes the groups of a batch: every group is a batch of its own."""
    found = [apply_recipe(recipe, outcomes, one[None]) for one in multisets]
    columns = [[x for x in column if x is not None] for column in zip(*found, strict=True)]
    return [torch.cat(column) if column else None for column in columns]


def keeps_groups_apart(recipe: Recipe, outcomes: dict[str, Tensor], multisets: Int[Tensor, "M G"]) -> bool:
    """Whether a group's weights are the same in whatever batch it comes: seen on up to 1000 groups, whole and in parts."""
    some = multisets[:: -(-len(multisets) // 1000)]
    parts = [part for part in some.tensor_split(sorted({1, 2, len(some) // 3})) if len(part)]
    whole, cut = apply_recipe(recipe, outcomes, some), [apply_recipe(recipe, outcomes, part) for part in parts]
    for i, together in enumerate(whole):
        apart = [x for x in (part[i] for part in cut) if x is not None]
        if together is not None and not torch.allclose(together, torch.cat(apart), rtol=1e-9, atol=1e-12):
            return False
    return True


def _up(tree: Tree, leaves: Float[Tensor, "prompts L H"]) -> list[Float[Tensor, "N C"]]:
    """Column k of the completions' weights, in the mean over everything below each edge of level k."""
    rest, found = leaves.flatten(0, 1), list[Tensor]()
    for k in reversed(range(len(tree.levels))):
        shape = tree.levels[k].share.shape
        found.insert(0, rest[:, k].reshape(shape))
        rest = (tree.levels[k].share[..., None] * rest.reshape(*shape, -1)).sum(1)
    return found


def _surrogate(tree: Tree, drawn: Tree, weights: list[Tensor], bonus: list[Tensor] | None) -> Float[Tensor, ""]:
    """`sum_k sum_edges P(edge) W log pi + sum_k sum_nodes P(node) U H(pi)`; P is that of the policy that draws the rows."""
    total = torch.zeros_like(tree.levels[0].reach[0])
    for k, (level, source) in enumerate(zip(tree.levels, drawn.levels, strict=True)):
        log_pi = torch.log_softmax(level.logits, -1).gather(1, level.tokens)
        total = total + source.reach @ (source.share * weights[k] * log_pi).sum(-1)
        if bonus is not None:
            total = total + source.reach @ ((source.share * bonus[k]).sum(-1) * entropy(level.pi))
    return total
