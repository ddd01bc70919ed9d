"""What a biased update climbs instead of J: objectives of a policy, and slopes along directions of its parameters."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from theory.groups.expected_update import ExpectedUpdate
from theory.tokens.completions import Completions, completions
from theory.tokens.prefix_tree import Tree

Objective = Callable[[Tree], Tensor]


def row_weights(update: ExpectedUpdate, found: Completions) -> Float[Tensor, "L"]:
    """Mean weight W(o) of every completion of the one prompt, read off its last own token; one number a row assumed."""
    count = found.p.numel()
    steps = torch.stack([w.flatten().repeat_interleave(count // w.numel()) for w in update.weights], -1)
    return steps.gather(1, found.mask[0].sum(1, keepdim=True) - 1)[:, 0]


def length_objective(kappa: float, V: Tensor) -> Objective:
    """`kappa (E[R/|o|] - V E[1/|o|])`, V a constant."""

    def f(tree: Tree) -> Tensor:
        found = completions(tree)
        return kappa * (found.p * (found.returns - V) / found.mask.sum(-1)).sum()

    return f


def frozen_objective(W: Float[Tensor, "L"]) -> Objective:
    """`E[W(o)]`, W a constant for each completion."""
    return lambda tree: (completions(tree).p[0] * W).sum()


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
