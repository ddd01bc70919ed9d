"""Tables over prefixes (`agents.policies.prefix_table`) as policies of claims: their fields of updates, and where these end."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.prefix_table import PrefixTable
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.groups.expected_update import expected_update
from theory.groups.outcomes import Recipe
from theory.tokens.completions import words
from theory.tokens.prefix_tree import grow

Field = Callable[[PrefixTable], Tensor]  # a mean update as a function of the policy, flat
_MOST = 4000


def table_of(world: TokenMDP, log_pi: Sequence[Tensor]) -> PrefixTable:
    """The table of a law that is given prefix by prefix, level by level."""
    return PrefixTable(world, [x.detach().to(world.P.device) for x in log_pi]).to(world.P.device)


def mean_field(world: TokenMDP, recipe: Recipe, group: int = 1, reference: TokenPolicy | None = None) -> Field:
    """The exact mean update of a recipe, as a function of the table."""
    return lambda policy: expected_update(world, policy, recipe, group, reference=reference).mean.flat


def of_logits(world: TokenMDP, field: Field) -> Callable[[Tensor], Tensor]:
    """The field as a function of the flat logits, as `theory.curl` takes it."""
    return lambda x: field(PrefixTable(world, x.reshape(-1, world.V)).to(x.device))


def word_distance(world: TokenMDP, first: TokenPolicy, second: TokenPolicy) -> float:
    """Total variation between the laws of completions of two policies, mean over the prompts.

    What is said after an end token is no part of a completion: there the first policy's law stands for both.
    """
    with torch.no_grad():
        mine, other = words(grow(world, first)), words(grow(world, second))
    own = [torch.where(x.mask, x.log_probs, 0.0).sum(-1) for x in (mine, other)]
    rest = torch.where(mine.mask, 0.0, mine.log_law).sum(-1)
    p, q = ((x + rest).exp() for x in own)
    return float(world.weights @ (p - q).abs().sum(-1)) / 2


def ascent(
    world: TokenMDP,
    field: Field,
    start: PrefixTable,
    scale: Callable[[PrefixTable], Tensor],
    rate: float = 0.5,
    tolerance: float = 1e-12,
) -> list[PrefixTable]:
    """The policies on the way from a table to where a field is at rest: `logits += rate * field / scale`.

    Any positive scale has the same places of rest. It ends where no logit would move by more than `tolerance`, apart from
    what all logits of a row have in common.

    Raises:
        InputError: it has not come to rest after many steps.
    """
    path = [start]
    for _ in range(_MOST):
        move = field(path[-1]).reshape(start.logits.shape) / scale(path[-1])
        move = move - move.mean(-1, keepdim=True)
        if float(move.abs().max()) < tolerance:
            return path
        path.append(table_of(world, [path[-1].logits.detach() + rate * move]))
    raise InputError(f"rate={rate} has not brought the update to rest in {_MOST} steps: take a smaller one")


def prefix_chances(world: TokenMDP, policy: PrefixTable) -> Float[Tensor, "rows 1"]:
    """Probability of every prefix, row by row of the table; the world's prompts must differ."""
    with torch.no_grad():
        return torch.cat([level.reach for level in grow(world, policy).levels])[:, None]
