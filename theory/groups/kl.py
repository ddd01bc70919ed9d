"""Exact KL divergences of a policy from a reference, summed over prefixes, and the gradients of these sums.

Theory page, section 4: "The KL term".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from envs.policy import TokenPolicy
from envs.record import short_repr
from envs.token_mdp import TokenMDP
from theory.differences import flat_parameters
from theory.tokens.completions import prefixes_alive
from theory.tokens.prefix_tree import Level, Tree, grow
from theory.tokens.softmax_bounds import log_softmax

Estimator = Callable[[Tensor], Tensor]  # log(pi / pi_ref) of a token -> its estimate of the divergence


def _divergences(
    level: Level, reference: Float[Tensor, "N V"], estimators: Mapping[str, Estimator]
) -> dict[str, Float[Tensor, "N"]]:
    """At every prefix: "KL" for KL(pi || ref), "forward" for KL(ref || pi), and the mean of each estimator under pi.

    `reference` are the logits of ref. A token that a law forbids adds nothing to a mean under that law.
    """
    log_pi = log_softmax(level.logits)
    log_ref = log_softmax(reference).detach().to(log_pi)
    ratio = torch.where(level.pi > 0, log_pi - log_ref, 0.0)
    means = {name: (level.pi * estimator(ratio)).sum(-1) for name, estimator in estimators.items()}
    forward = torch.where(log_ref.isneginf(), 0.0, log_ref - log_pi)
    return means | {"KL": (level.pi * ratio).sum(-1), "forward": (log_ref.exp() * forward).sum(-1)}


def sequence_kl(tree: Tree, reference: Sequence[Tensor]) -> Float[Tensor, ""]:
    """KL(pi || ref) of whole completions, `sum over prefixes of P(prefix) KL`, P moving with the policy.

    Args:
        tree: of the policy pi.
        reference: logits (N, V) of ref at the prefixes of every level, constants.

    Returns:
        The divergence in nats, attached to autograd's graph.
    """
    total, reach = torch.zeros_like(tree.J), tree.levels[0].reach
    for alive, level, logits in zip(prefixes_alive(tree), tree.levels, reference, strict=True):
        total = total + (alive * reach) @ _divergences(level, logits, {})["KL"]
        reach = (reach[:, None] * level.pi).flatten()
    return total


def kl_at_prefixes(tree: Tree, reference: Tree, visits: Tree, forward: bool) -> Float[Tensor, ""]:
    """`sum over prefixes of P(prefix) KL`; prefixes after an end token do not count.

    Args:
        tree: of the policy pi.
        reference: tree of the reference policy, a constant.
        visits: tree whose prefix probabilities P are taken, constants.
        forward: whether the divergence is KL(ref || pi); else it is KL(pi || ref).

    Returns:
        The sum in nats, attached to autograd's graph.
    """
    total, name = torch.zeros_like(tree.J), "forward" if forward else "KL"
    levels = zip(prefixes_alive(tree), tree.levels, reference.levels, visits.levels, strict=True)
    for alive, level, other, visited in levels:
        total = total + (alive * visited.reach) @ _divergences(level, other.logits, {})[name]
    return total


@short_repr
@dataclass(frozen=True)
class ExactKL:
    """Sums `sum P(prefix) d(pi_k, ref_k)` over the prefixes without an end token, and their gradients as flat vectors.

    d is named "KL" for KL(pi || ref), "forward" for KL(ref || pi), or like the estimator whose mean it is.

    Attributes:
        values: the sums.
        total: their gradients, P moving with the policy.
        fixed: the same with P held fixed.
    """

    values: dict[str, float]
    total: dict[str, Float[Tensor, "parameters"]]
    fixed: dict[str, Float[Tensor, "parameters"]]


def exact_kl(
    world: TokenMDP, policy: TokenPolicy, reference: TokenPolicy, estimators: Mapping[str, Estimator]
) -> ExactKL:
    """Sums and gradients by autograd through the prefix tree; no log-probability is sampled or scored.

    Args:
        world: a token world small enough for its prefix tree.
        policy: pi, in whose parameters the gradients are taken.
        reference: pi_ref.
        estimators: functions of log(pi / pi_ref) by name, whose means are wanted.

    Returns:
        The sums in nats and their gradients, by the names of the divergences.
    """
    tree, compared = grow(world, policy), grow(world, reference)
    alive, reach = prefixes_alive(tree), tree.levels[0].reach
    moving, fixed = dict[str, Tensor](), dict[str, Tensor]()
    for k, (level, other) in enumerate(zip(tree.levels, compared.levels, strict=True)):
        for name, divergence in _divergences(level, other.logits, estimators).items():
            moving[name] = moving.get(name, 0) + (alive[k] * reach) @ divergence
            fixed[name] = fixed.get(name, 0) + (alive[k] * level.reach) @ divergence
        reach = (reach[:, None] * level.pi).flatten()
    parameters = list(policy.parameters())

    def gradients(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        slopes = {name: torch.autograd.grad(x, parameters, retain_graph=True) for name, x in sums.items()}
        return {name: flat_parameters(slope) for name, slope in slopes.items()}

    values = {name: float(x.detach()) for name, x in moving.items()}
    return ExactKL(values, gradients(moving), gradients(fixed))
