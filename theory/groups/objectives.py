"""What a biased update climbs instead of J: objectives of a policy, and slopes along directions of its parameters."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from theory.groups.expected_update import Completions, ExpectedUpdate, completions
from theory.tokens.prefix_tree import Tree

_STEP = 1e-4
Objective = Callable[[Tree], Tensor]


def flat(gradient: Any) -> Float[Tensor, "parameters"]:
    """The parameters' slopes of a `TreeGradients` in one vector."""
    return parameters_to_vector([g.contiguous() for g in gradient.parameters]).detach()


def row_weights(update: ExpectedUpdate, found: Completions) -> Float[Tensor, "L"]:
    """Mean weight W(o) of every completion of the one prompt, read off its last own token; one number a row assumed."""
    count = found.p.numel()
    steps = torch.stack([w.flatten().repeat_interleave(count // w.numel()) for w in update.weights], -1)
    return steps.gather(1, found.mask[0].sum(1, keepdim=True) - 1)[:, 0]


def slope(policy: Any, direction: Float[Tensor, "parameters"], f: Callable[[Any], Tensor]) -> Tensor:
    """Derivative of f(policy) along a direction of its parameters: central differences at h and 2h, error of order h^4.

    f may give several numbers.
    """
    at, moved = parameters_to_vector(policy.parameters()).detach(), copy.deepcopy(policy)
    total = torch.zeros(())
    for multiple, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
        vector_to_parameters(at + multiple * _STEP * direction, moved.parameters())
        with torch.no_grad():
            total = total + weight * f(moved)
    return total / (12 * _STEP)


def length_objective(kappa: float, V: Tensor) -> Objective:
    """`kappa (E[R/|o|] - V E[1/|o|])`, V a constant."""

    def f(tree: Tree) -> Tensor:
        found = completions(tree)
        return kappa * (found.p * (found.returns - V) / found.mask.sum(-1)).sum()

    return f


def frozen_objective(W: Float[Tensor, "L"]) -> Objective:
    """`E[W(o)]`, W a constant for each completion."""
    return lambda tree: (completions(tree).p[0] * W).sum()


def kl_at_prefixes(tree: Tree, reference: Tree, visits: Tree, forward: bool) -> Tensor:
    """`sum over prefixes of P(prefix) KL`, P that of `visits`; forward: KL(ref || pi), else KL(pi || ref).

    Prefixes that lie behind an end token count nothing.
    """
    total, live = torch.zeros_like(tree.J), torch.ones_like(tree.levels[0].reach, dtype=torch.bool)
    for level, ref, seen in zip(tree.levels, reference.levels, visits.levels, strict=True):
        log_pi, log_ref = (torch.log_softmax(x.logits, -1) for x in (level, ref))
        p, q = (log_ref, log_pi) if forward else (log_pi, log_ref)
        total = total + (seen.reach * live * (p.exp() * (p - q)).sum(-1)).sum()
        live = (live[:, None] & (level.tokens != tree.world.end)).flatten()
    return total


def trust_region_objective(drawn: Tree, kappa: float) -> Objective:
    """`kappa sum_k gamma^k sum over prefixes of P_old sum_a pi(a) Q_old(a)`: prefixes as drawn, tokens as now."""

    def f(tree: Tree) -> Tensor:
        pairs = zip(tree.levels, drawn.levels, drawn.Q, strict=True)
        steps = [old.reach @ (level.pi * Q).sum(-1) for level, old, Q in pairs]
        return kappa * sum((drawn.world.gamma**k * step for k, step in enumerate(steps)), torch.zeros_like(steps[0]))

    return f


def win_rate(R: Float[Tensor, "L"], p: Float[Tensor, "L"]) -> Float[Tensor, "L"]:
    """`P(R' < R) - P(R' > R)`: what GRPO's std makes of a return at G = 2; differences of rounding count as ties."""
    gap = R[:, None] - R
    return torch.where(gap.abs() < 1e-9, 0.0, gap.sign()) @ p


def mean_lengths(found: Completions) -> Float[Tensor, "2"]:
    """`E[|o| | success]` and `E[|o| | failure]` of the one prompt, rewards binary."""
    p, R, lengths = found.p[0], found.returns[0], found.mask[0].sum(1).to(found.p)
    chances = torch.stack([p * R, p * (1 - R)])
    return chances @ lengths / chances.sum(1)


def free_drift(W: Float[Tensor, "L"], found: Completions) -> Float[Tensor, "2"]:
    """Speed of both mean lengths under `d log p(o) = W(o) - E W`, every completion free: `Cov(W, |o| | class)`."""
    p, R, lengths = found.p[0], found.returns[0], found.mask[0].sum(1).to(found.p)
    chances = torch.stack([p * R, p * (1 - R)])
    chances = chances / chances.sum(1, keepdim=True)
    return chances @ (W * lengths) - (chances @ W) * (chances @ lengths)
