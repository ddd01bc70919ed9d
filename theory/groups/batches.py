"""Mean weights of a recipe over batches of several groups, which a recipe that mixes the groups of a batch depends on.

A batch holds `prompts` groups of G rows. With batches b, their probabilities P(b), and the weights w(b) of their rows, the mean
weight of a row of prompt q with outcome j is

`W_qj = sum_b P(b) sum_{rows of b: prompt q, outcome j} w(b) / (weight_q p_qj)`,

where weight_q is the world's weight of the prompt. Groups of one prompt can change places: only
multisets of groups are tried.

Theory page, section 4: "Exact means of any recipe".
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import whole
from envs.world import InputError
from theory.groups.outcomes import (
    Recipe,
    Weights,
    adds_up,
    check_weights,
    expected_weights,
    group_multisets,
    keeps_groups_apart,
)
from theory.tokens.tree_size import DEFAULT_BUDGET

MOST_BATCHES = 10**6  # each is a call of the recipe


class PromptOutcomes(NamedTuple):
    """The K outcomes of a prompt: their probabilities and the fields that a recipe sees, K rows each.

    Attributes:
        p: probabilities of the outcomes; they sum to 1.
        fields: by name what the recipe sees, one row for each outcome; `rewards` and `mask` are among them.
    """

    p: Float[Tensor, "K"]
    fields: dict[str, Tensor]


class _Groups(NamedTuple):
    """All groups of every prompt, as rows of one table of the outcomes of all prompts."""

    table: dict[str, Tensor]
    first: list[int]  # where each prompt's outcomes begin
    multisets: list[Tensor]
    log_chance: list[Tensor]


def mean_weights(
    recipe: Recipe,
    outcomes: Sequence[PromptOutcomes],
    weights: Float[Tensor, "prompts"],
    group: int,
    prompts: int | Sequence[int] | None = None,
    budget: int = DEFAULT_BUDGET,
) -> list[Weights]:
    """Mean weights (K, T) of every prompt's outcomes, over all groups or all batches.

    Args:
        recipe: as in `theory.groups.expected_update`.
        outcomes: of every prompt.
        weights: the world's weights of the prompts.
        group: G, the rows of each prompt.
        prompts: the groups of a batch: a number of prompts drawn by their weights, or the indices of those that a batch
            always holds. Only a recipe that mixes groups needs it.
        budget: bytes that the multisets may take.

    Returns:
        For every prompt the mean weights of its outcomes, and those of the entropy (None where the recipe has none).

    Raises:
        InputError: group or prompts are no whole numbers in range, the recipe mixes groups and prompts is missing,
            there are more than `MOST_BATCHES` batches, or the multisets need more than the budget.
    """
    group = whole("group", group, 1)
    groups = _groups(outcomes, group, budget)
    batch = _checked(prompts, weights)
    if batch == 1 or keeps_groups_apart(recipe, groups.table, torch.cat(groups.multisets)):
        alone = [expected_weights(recipe, *each, group, budget) for each in outcomes]
        return alone if not isinstance(batch, list) else [_scaled(w, batch, q, weights) for q, w in enumerate(alone)]
    if batch is None:
        raise InputError(
            "recipe adds up over the rows of a batch: divide its weights by the number of rows, len(rewards)"
            if adds_up(recipe, groups.table, torch.cat(groups.multisets))
            else "recipe mixes the groups of a batch: give prompts, how many groups a batch holds or a list of their prompts"
        )
    return _enumerated(recipe, outcomes, groups, weights, batch)


def _groups(outcomes: Sequence[PromptOutcomes], group: int, budget: int) -> _Groups:
    first = [0, *itertools.accumulate(len(each.p) for each in outcomes)]
    both = [group_multisets(each.p, group, budget) for each in outcomes]
    table = {name: torch.cat([each.fields[name] for each in outcomes]) for name in outcomes[0].fields}
    return _Groups(table, first, [m + start for (m, _), start in zip(both, first, strict=False)], [c for _, c in both])


def _checked(prompts: int | Sequence[int] | None, weights: Tensor) -> int | list[int] | None:
    """The batch as a number or a sorted list of prompts."""
    if prompts is None:
        return None
    if not isinstance(prompts, Iterable):
        return whole("prompts", prompts, 1, "or indices of prompts")
    chosen = sorted(whole("prompts", q, 0) for q in prompts)
    if not chosen or not all(q < len(weights) and float(weights[q]) > 0 for q in chosen):
        raise InputError(
            f"prompts must be indices of prompts of weight > 0, among 0 ... {len(weights) - 1}; got {list(prompts)}"
        )
    return chosen


def _scaled(weights: Weights, batch: list[int], q: int, world: Tensor) -> Weights:
    """Weights of groups that do not mix, in a batch that holds prompt q as often as `batch` says and not by its weight."""
    factor = batch.count(q) / len(batch) / float(world[q]) if q in batch else 0.0
    return factor * weights[0], None if weights[1] is None else factor * weights[1]


def _enumerated(
    recipe: Recipe, outcomes: Sequence[PromptOutcomes], groups: _Groups, weights: Tensor, batch: int | list[int]
) -> list[Weights]:
    """The sum over all batches, one call of the recipe each."""
    mixtures = _mixtures(batch, weights)
    count = sum(math.prod(math.comb(len(groups.multisets[q]) + n - 1, n) for q, n in m.items()) for m, _ in mixtures)
    if count > MOST_BATCHES:
        raise InputError(
            f"prompts={batch} with groups of {groups.multisets[0].shape[1]} makes {count:.4g} batches, at most "
            f"{MOST_BATCHES:.4g} are tried: take fewer prompts, a smaller group or world, or sample"
        )
    T = groups.table["rewards"].shape[1]
    sums, has = weights.new_zeros(2, groups.first[-1], T), [True, True]
    for mixture, share in mixtures:
        for rows, log_chance in _batches(groups, mixture):
            index = torch.arange(len(rows), device=rows.device).repeat_interleave(rows.shape[1])
            fields = {name: x[rows.flatten()] for name, x in groups.table.items()}
            for i, w in enumerate(recipe(fields.pop("rewards"), fields.pop("mask"), index, **fields)):
                has[i] = w is not None
                if w is not None:
                    check_weights(w)
                    sums[i].index_add_(0, rows.flatten(), share * math.exp(log_chance) * w.detach().to(sums))
    by_prompt = []
    for q, each in enumerate(outcomes):
        own, chance = slice(groups.first[q], groups.first[q + 1]), (weights[q] * each.p)[:, None]
        each_sum = [
            torch.where(chance > 0, x[own] / chance.clamp(min=torch.finfo(chance.dtype).tiny), 0.0) for x in sums
        ]
        by_prompt.append((each_sum[0], each_sum[1] if has[1] else None))
    return by_prompt


def _mixtures(batch: int | list[int], weights: Tensor) -> list[tuple[Counter[int], float]]:
    """How often a batch holds each prompt, and how likely that is."""
    if isinstance(batch, list):
        return [(Counter(batch), 1.0)]
    alive = [q for q, weight in enumerate(weights.tolist()) if weight > 0]
    mixtures = []
    for prompts in itertools.combinations_with_replacement(alive, batch):
        counts = Counter(prompts)
        log_share = math.lgamma(batch + 1) + sum(
            n * math.log(float(weights[q])) - math.lgamma(n + 1) for q, n in counts.items()
        )
        mixtures.append((counts, math.exp(log_share)))
    return mixtures


def _batches(groups: _Groups, mixture: Counter[int]) -> Iterator[tuple[Tensor, float]]:
    """Batches (groups, G) with these prompts, and the logarithms of their probabilities."""
    choices = [itertools.combinations_with_replacement(range(len(groups.multisets[q])), n) for q, n in mixture.items()]
    log_chance = {q: groups.log_chance[q].tolist() for q in mixture}
    for chosen in itertools.product(*choices):
        rows, total = [], 0.0
        for (q, n), numbers in zip(mixture.items(), chosen, strict=True):
            rows.append(groups.multisets[q][list(numbers)])
            ways = math.lgamma(n + 1) - sum(math.lgamma(m + 1) for m in Counter(numbers).values())
            total += ways + sum(log_chance[q][i] for i in numbers)
        yield torch.cat(rows), total
