"""Distillation of a table towards teachers by exact mean updates: the ways, and the objective that they are measured by."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.prefix_table import PrefixTable
from agents.recipes.learners import Penalty, build_learner
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from figures.measures.tables import Field, ascent, mean_field, prefix_chances
from theory.groups.kl import kl_at_prefixes, sequence_kl
from theory.tokens.prefix_tree import Tree, grow

Weights = Float[Tensor, "teachers"]


def at_prefixes(world: TokenMDP, teachers: list[PrefixTable], weights: Weights, forward: bool = False) -> Field:
    """Minus the slope of `sum_i w_i sum P(prefix) KL(pi || E_i)` with the chances P held fixed: all tokens of every prefix.

    Args:
        world: the token world.
        teachers: E_i.
        weights: w_i.
        forward: KL(E_i || pi) in its place.
    """
    trees = [_tree(world, teacher) for teacher in teachers]

    def field(policy: PrefixTable) -> Tensor:
        tree = grow(world, policy)
        terms = torch.stack([kl_at_prefixes(tree, other, tree, forward) for other in trees])
        (slope,) = torch.autograd.grad(-(weights @ terms), [policy.logits])
        return slope.flatten()

    return field


def by_penalty(world: TokenMDP, teachers: list[PrefixTable], weights: Weights, place: str, estimator: str) -> Field:
    """The exact mean update of REINFORCE whose only signals are penalties of weight w_i, at `place`, against the teachers."""
    silent, fields = replace(world, r=0 * world.r), list[Field]()
    for teacher, weight in zip(teachers, weights.tolist(), strict=True):
        penalty: dict[str, Any] = {place: Penalty(estimator, weight)}
        fields.append(mean_field(silent, build_learner("reinforce", **penalty), reference=teacher))
    return lambda policy: torch.stack([field(policy) for field in fields]).sum(0)


def end_of(
    world: TokenMDP, field: Field, start: PrefixTable, law: Tensor | None = None, rate: float = 1.0
) -> PrefixTable:
    """Where a field brings a table; the scale is each prefix's chance times a law of tokens, by default the table's own."""

    def scale(policy: PrefixTable) -> Tensor:
        own = torch.softmax(policy.logits.detach(), -1) if law is None else law
        return prefix_chances(world, policy) * own

    return ascent(world, field, start, scale, rate)[-1]


def mixture(teachers: list[PrefixTable], weights: Weights) -> Float[Tensor, "rows V"]:
    """`sum_i w_i E_i` after every prefix: where KL(E_i || pi) in the loss ends."""
    laws = torch.stack([torch.softmax(teacher.logits.detach(), -1) for teacher in teachers])
    return torch.einsum("i,irv->rv", weights, laws)


def objective(world: TokenMDP, policy: TokenPolicy, teachers: list[PrefixTable], weights: Weights) -> float:
    """`sum_i w_i KL(pi || E_i)` of whole completions, in nats."""
    tree = _tree(world, policy)
    logits = [[level.logits for level in _tree(world, teacher).levels] for teacher in teachers]
    return float(sum(w * sequence_kl(tree, own) for w, own in zip(weights.tolist(), logits, strict=True)))


def _tree(world: TokenMDP, policy: TokenPolicy) -> Tree:
    with torch.no_grad():
        return grow(world, policy)
