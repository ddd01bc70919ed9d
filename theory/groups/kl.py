"""Exact KL divergences of a policy from a reference, prefix by prefix, and the gradients of their sums."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from theory.differences import flat_parameters
from theory.tokens.completions import completions
from theory.tokens.prefix_tree import Level, Tree, grow

Estimator = Callable[[Tensor], Tensor]  # log(pi / pi_ref) of a token -> its estimate of the divergence


def prefixes_alive(tree: Tree) -> list[Float[Tensor, "N"]]:
    """1 for prefixes without an end token, 0 for those after one, level by level."""
    mask = completions(tree).mask.flatten(0, 1).to(tree.levels[0].reach)
    return [mask[:: len(mask) // len(level.reach), k] for k, level in enumerate(tree.levels)]


def _divergences(level: Level, reference: Level, estimators: Mapping[str, Estimator]) -> dict[str, Float[Tensor, "N"]]:
    """At every prefix: "KL" KL(pi || ref), "forward" KL(ref || pi), and the mean of each estimator under pi."""
    log_pi, log_ref = torch.log_softmax(level.logits, -1), torch.log_softmax(reference.logits, -1).detach()
    means = {name: (level.pi * kind(log_pi - log_ref)).sum(-1) for name, kind in estimators.items()}
    return means | {
        "KL": (level.pi * (log_pi - log_ref)).sum(-1),
        "forward": (log_ref.exp() * (log_ref - log_pi)).sum(-1),
    }


def kl_at_prefixes(tree: Tree, reference: Tree, visits: Tree, forward: bool) -> Float[Tensor, ""]:
    """`sum over prefixes of P(prefix) KL`, P that of `visits`; forward: KL(ref || pi), else KL(pi || ref).

    Prefixes after an end token do not count.
    """
    total, name = torch.zeros_like(tree.J), "forward" if forward else "KL"
    levels = zip(prefixes_alive(tree), tree.levels, reference.levels, visits.levels, strict=True)
    for alive, level, other, visited in levels:
        total = total + (alive * visited.reach) @ _divergences(level, other, {})[name]
    return total


@dataclass(frozen=True)
class ExactKL:
    """Derivatives of sums over prefixes before the end token, `sum P(prefix) d(pi_k, ref_k)`, flat in the parameters.

    Attributes:
        whole: by name of d, "KL" for KL(pi || ref) or an estimator's for its mean; P moves with the policy.
        given: the same with P held fixed, and "forward" for KL(ref || pi).
        values: the sums themselves.
    """

    whole: dict[str, Float[Tensor, "parameters"]]
    given: dict[str, Float[Tensor, "parameters"]]
    values: dict[str, float]


def exact_kl(
    world: TokenMDP, policy: TokenPolicy, reference: TokenPolicy, estimators: Mapping[str, Estimator]
) -> ExactKL:
    """Sums and gradients by autograd through the prefix tree; no log-probability is sampled or scored.

    Args:
        world: a token world small enough for its prefix tree.
        policy: pi, in whose parameters the gradients are taken.
        reference: pi_ref.
        estimators: functions of log(pi / pi_ref) by name, whose means are wanted.
    """
    tree, compared = grow(world, policy), grow(world, reference)
    alive, reach = prefixes_alive(tree), tree.levels[0].reach
    moving, fixed = dict[str, Tensor](), dict[str, Tensor]()
    for k, (level, other) in enumerate(zip(tree.levels, compared.levels, strict=True)):
        for name, divergence in _divergences(level, other, estimators).items():
            moving[name] = moving.get(name, 0) + (alive[k] * reach) @ divergence
            fixed[name] = fixed.get(name, 0) + (alive[k] * level.reach) @ divergence
        reach = (reach[:, None] * level.pi).flatten()
    parameters = list(policy.parameters())

    def slopes(total: Tensor) -> Tensor:
        return flat_parameters(torch.autograd.grad(total, parameters, retain_graph=True))

    return ExactKL(
        {name: slopes(x) for name, x in moving.items()},
        {name: slopes(x) for name, x in fixed.items()},
        {name: float(x.detach()) for name, x in moving.items()},
    )
