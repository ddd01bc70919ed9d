"""Outcomes of a prompt, groups of them, and the mean weights that a recipe gives them, over all groups.

A *recipe* is a plain callable `recipe(rewards, mask, group, **fields) -> (weights, entropy weights or None)`, all (rows, T). It
sees a completion only through its rewards, its length and the fields that it takes, so completions that agree in these are one
*outcome*. Signals of the world, such as "accuracy", are among the fields where a recipe asks for them by name. Groups are
independent draws, so only the multiset of a group's outcomes counts.

Theory page, section 4: "Exact means of any recipe".
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from envs.arguments import asked_for, takes_numbers, whole
from envs.tables import TAKEN_NAMES
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.tokens.completions import Completions, drawn_signal
from theory.tokens.tree_size import DEFAULT_BUDGET

Weights = tuple[Tensor, Tensor | None]
Recipe = Callable[..., Weights]
_CHUNK = 2**19  # numbers of one field in one call of a recipe
_ROUNDING = (
    64 * torch.finfo(torch.float64).eps
)  # of an entry: numbers that are nearer to each other than this are one value


def further_fields(recipe: Recipe, world: TokenMDP, rows: Completions, budget: int) -> dict[str, Tensor]:
    """What a recipe sees of completions beside rewards and mask, (prompts, L) each.

    `ended` where the world has an end token, `span` (prompts, L, H) where the environment speaks, and the world's
    signals that the recipe asks for: those named in its attribute `signals`, or else by its keyword-only parameters.

    Args:
        recipe: as in the module's docstring.
        world: the token world.
        rows: its completions.
        budget: bytes that the paths of states may need.

    Returns:
        The fields by name.

    Raises:
        InputError: the recipe asks for a signal that the world does not have.
    """
    names = getattr(recipe, "signals", None)
    names = [name for name in asked_for(recipe) if name not in TAKEN_NAMES] if names is None else names
    own = {} if world.end is None else {"ended": (rows.tokens == world.end).any(-1)}
    if world.speech is not None:
        own["span"] = rows.span
    return own | {name: drawn_signal(world, name, budget).to(rows.rewards) for name in names}


def distinct_outcomes(fields: dict[str, Tensor]) -> tuple[Int[Tensor, "L"], dict[str, Tensor]]:
    """The index of each row's outcome, and the fields of one row of each outcome.

    Args:
        fields: by name what a recipe sees, one row for each completion of one prompt.

    Returns:
        For each completion the index of its outcome; and the fields by name, one row for each outcome.
    """
    table = torch.cat([x.reshape(len(x), -1).double() for x in fields.values()], 1)
    unique, of = torch.unique(_equal_values(table), dim=0, return_inverse=True)
    first = torch.full((len(unique),), len(of), device=of.device)
    first.scatter_reduce_(0, of, torch.arange(len(of), device=of.device), "amin")
    return of, {name: x[first] for name, x in fields.items()}


def _equal_values(table: Float[Tensor, "L columns"]) -> Int[Tensor, "L columns"]:
    """For every entry the rank of its value in its column; values that differ by their own rounding alone have one rank.

    Infinities are values, and equal to themselves only.
    """
    ordered, order = table.sort(0)
    before, after = ordered[:-1], ordered[1:]
    close = after - before <= _ROUNDING * torch.maximum(before.abs(), after.abs())
    finite = before.isfinite() & after.isfinite()
    apart = torch.where(finite, ~close, before != after).long()
    rank = torch.cat([torch.zeros_like(order[:1]), apart.cumsum(0)])
    return torch.empty_like(order).scatter_(0, order, rank)


@takes_numbers("p")
def expected_weights(
    recipe: Recipe, p: Float[Tensor, "K"], outcomes: dict[str, Tensor], group: int, budget: int = DEFAULT_BUDGET
) -> Weights:
    """Mean weights `W_j`, (K, T), of K outcomes, over all multisets of `group` of them; 0 where p is 0.

    `W_j = (1 / p_j) sum_m P(m) sum_{i in m, outcome j} w_i(m)`, P(m) multinomial. Every group is a batch of its own.

    Args:
        recipe: as in the module's docstring.
        p: probabilities of the outcomes.
        outcomes: the fields that the recipe takes, K rows each, `rewards` and `mask` among them.
        group: G.
        budget: bytes that the multisets may take.

    Returns:
        Mean weights of the outcomes, and mean weights of the entropy (None where the recipe has none).

    Raises:
        InputError: as `group_multisets`.
    """
    group, log_p, T = whole("group", group, 1), p.log(), outcomes["rewards"].shape[1]
    multisets, log_chance = group_multisets(p, group, budget)
    share = log_chance[:, None] - log_p[multisets]
    sums, has = p.new_zeros(2, len(p), T), [True, True]
    apply = apply_recipe if keeps_groups_apart(recipe, outcomes, multisets) else _apply_one_by_one
    for part in torch.split(torch.arange(len(multisets), device=p.device), max(1, _CHUNK // (group * T))):
        for i, weights in enumerate(apply(recipe, outcomes, multisets[part])):
            has[i] = weights is not None
            if weights is not None:
                check_weights(weights)
                scaled = (share[part].exp()[..., None] * weights).flatten(0, 1)
                sums[i].index_add_(0, multisets[part].flatten(), scaled)
    return sums[0], sums[1] if has[1] else None


@takes_numbers("p")
def group_multisets(
    p: Float[Tensor, "K"], group: int, budget: int = DEFAULT_BUDGET
) -> tuple[Int[Tensor, "M G"], Float[Tensor, "M"]]:
    """All multisets of `group` outcomes of probability > 0, and the logarithms of their probabilities.

    The logarithm is `log G! - log prod counts! + sum log p`; `prod counts!` is the product of every entry's rank among
    the entries equal to it.

    Args:
        p: probabilities of the outcomes.
        group: G.
        budget: bytes that the multisets may take.

    Returns:
        The multisets, as rows of indices in rising order, and the logarithm of the probability of each.

    Raises:
        InputError: the group is below 1, or the multisets need more than `budget` bytes.
    """
    group = whole("group", group, 1)
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
    """The recipe's weights on M groups at once, (M, G, T). A recipe averages over groups; the factor 1/M is undone here.

    Args:
        recipe: as in the module's docstring.
        outcomes: by name the fields that it takes, one row for each outcome.
        multisets: the groups, as rows of indices of outcomes.

    Returns:
        The weights, and those of the entropy (None where the recipe has none).

    Raises:
        InputError: the recipe gives weights of another shape than (rows, T).
    """
    M, G = multisets.shape
    index = torch.arange(M, device=multisets.device).repeat_interleave(G)
    rows = {name: x[multisets.flatten()] for name, x in outcomes.items()}
    weights = recipe(rows.pop("rewards"), mask := rows.pop("mask"), index, **rows)
    for x in weights:
        if x is not None and x.shape != mask.shape:
            raise InputError(
                f"recipe must give weights of shape (rows, T) as mask has, {tuple(mask.shape)} here; got {tuple(x.shape)}"
            )
    return [None if x is None else M * x.detach().reshape(M, G, -1) for x in weights]


def check_weights(weights: Tensor) -> None:
    """Refuse a recipe's weights that are NaN or infinite: they would be silent in the mean.

    Args:
        weights: what a recipe gave.

    Raises:
        InputError: an entry is NaN or infinite.
    """
    if not bool(weights.isfinite().all()):
        raise InputError("recipe gives weights that are NaN or infinite: every entry must be a finite number")


def _apply_one_by_one(recipe: Recipe, outcomes: dict[str, Tensor], multisets: Tensor) -> list[Tensor | None]:
    """The same for a recipe that mixes the groups of a batch: every group is a batch of its own."""
    single = [apply_recipe(recipe, outcomes, one[None]) for one in multisets]
    columns = [[x for x in column if x is not None] for column in zip(*single, strict=True)]
    return [torch.cat(column) if column else None for column in columns]


def keeps_groups_apart(recipe: Recipe, outcomes: dict[str, Tensor], multisets: Int[Tensor, "M G"]) -> bool:
    """Whether a group's weights depend on no other group of the batch: tried on up to 1000 groups, whole and cut.

    Args:
        recipe: as in the module's docstring.
        outcomes: by name the fields that it takes, one row for each outcome.
        multisets: the groups, as rows of indices of outcomes.

    Returns:
        True where all weights agree to rounding.

    Raises:
        InputError: the recipe gives a weight that is NaN or infinite.
    """
    some = multisets[:: -(-len(multisets) // 1000)]
    parts = [part for part in some.tensor_split(sorted({1, 2, len(some) // 3})) if len(part)]
    together = apply_recipe(recipe, outcomes, some)
    for weights in together:
        if weights is not None:
            check_weights(weights)
    try:
        cut = [apply_recipe(recipe, outcomes, part) for part in parts]
    except InputError:  # a batch that large it takes, and a smaller one not
        return False
    for i, weights in enumerate(together):
        apart = [x for x in (part[i] for part in cut) if x is not None]
        if weights is not None and not torch.allclose(weights, torch.cat(apart), rtol=1e-9, atol=1e-12):
            return False
    return True


def adds_up(recipe: Recipe, outcomes: dict[str, Tensor], multisets: Int[Tensor, "M G"]) -> bool:
    """Whether a recipe keeps groups apart once its weights are divided by the number of rows, which it has forgotten.

    Args:
        recipe: as in the module's docstring.
        outcomes: by name the fields that it takes, one row for each outcome.
        multisets: the groups, as rows of indices of outcomes.

    Returns:
        True where that division alone is missing.
    """

    def divided(rewards: Tensor, *more: Tensor, **fields: Tensor) -> Weights:
        weights, entropy = recipe(rewards, *more, **fields)
        return weights / len(rewards), None if entropy is None else entropy / len(rewards)

    return keeps_groups_apart(divided, outcomes, multisets)
