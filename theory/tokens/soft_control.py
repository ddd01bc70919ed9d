"""The optimum of a return with a KL penalty, and where a k3 penalty in the loss ends instead.

`J_b(pi) = E R - b KL(pi || ref)` over completions, R the discounted return.

Theory page, section 6: "KL optimum".
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from envs.record import short_repr
from envs.world import InputError
from theory.tokens.prefix_tree import Tree
from theory.tokens.softmax_bounds import log_softmax
from theory.tokens.tilted_laws import tilted_law


@short_repr
@dataclass(frozen=True)
class SoftOptimum:
    """The policy that maximises J_b, and its values.

    Attributes:
        log_pi: log-probabilities of the next token, level by level.
        W: the best `E R - b KL` that is still to come at every prefix, level by level.
    """

    log_pi: list[Float[Tensor, "N V"]]
    W: list[Float[Tensor, "N"]]


def soft_optimum(reference: Tree, beta: float) -> SoftOptimum:
    """`W_k = b log sum_a ref(a) exp((gamma^k r + W_{k+1}) / b)`, `pi*(a | s) = ref(a) exp((gamma^k r + W_{k+1} - W_k) / b)`.

    Where the environment speaks, W is the mean of what follows.

    Args:
        reference: tree of the reference policy, with every token followed.
        beta: b, the coefficient of the divergence, > 0.

    Returns:
        The optimum; `W[0]` is the value at every prompt.

    Raises:
        InputError: beta is no finite number > 0, or the tree's world pays a hidden readout.
    """
    gamma = reference.world.gamma
    check_beta(beta)
    bonus = [gamma**k * level.rewards / beta for k, level in enumerate(reference.levels)]
    law = tilted_law(reference, [log_softmax(level.logits) for level in reference.levels], bonus=bonus)
    return SoftOptimum(law.log_pi, [beta * Z for Z in law.log_Z])


def rational_optimum(reference: Tree, beta: float) -> list[Float[Tensor, "N V"]]:
    """Where a k3 penalty in the loss ends: `pi(a | s) = b ref(a | s) / (b + V(s) - Q(s, a))`, from the last level up.

    V and Q are of the bare discounted return under this policy itself. At each prefix `b + V` is the number nu above the
    largest Q at which the probabilities sum to 1.

    Args:
        reference: tree of the reference policy, with every token followed.
        beta: b, the coefficient of the penalty, > 0.

    Returns:
        Log-probabilities of the next token, level by level.

    Raises:
        InputError: beta is no finite number > 0.
    """
    check_beta(beta)
    gamma, log_pi = reference.world.gamma, list[Tensor]()
    later = torch.zeros_like(reference.levels[-1].share)
    for k in reversed(range(len(reference.levels))):
        level = reference.levels[k]
        Q = gamma**k * level.rewards.detach() + later
        ref = log_softmax(level.logits).detach()
        own = torch.where(level.own[:, None], rational_tilt(ref, Q, beta), ref)
        log_pi.insert(0, own)
        p = own.exp()
        if k:
            later = torch.where(p > 0, p * Q, 0.0).sum(-1).reshape(reference.levels[k - 1].share.shape)
    return log_pi


def rational_tilt(
    log_ref: Float[Tensor, "N V"], Q: Float[Tensor, "N V"], beta: float, steps: int = 200
) -> Float[Tensor, "N V"]:
    """`log(b ref_a / (nu - Q_a))` with nu such that the probabilities sum to 1, by bisection on `(max Q, max Q + b]`.

    Args:
        log_ref: of the reference.
        Q: values of the tokens.
        beta: b.
        steps: most halvings; it ends when no number lies between the two sides.

    Returns:
        Log-probabilities.
    """
    possible = log_ref > -torch.inf
    gap = torch.where(possible, Q, -torch.inf).amax(-1, keepdim=True) - Q  # of the best token, >= 0 where possible
    low, high = torch.zeros_like(gap[:, :1]), torch.full_like(gap[:, :1], beta)  # of nu - max Q
    for _ in range(steps):
        middle = (low + high) / 2
        total = torch.where(possible, beta * log_ref.exp() / (middle + gap), 0.0).sum(-1, keepdim=True)
        low, high = torch.where(total > 1, middle, low), torch.where(total > 1, high, middle)
    return torch.where(possible, log_softmax(log_ref - (high + gap.clamp(min=0.0)).log()), -torch.inf)


def check_beta(beta: float) -> None:
    """Refuse a coefficient of a penalty that is no finite number > 0.

    Args:
        beta: what the user gave.

    Raises:
        InputError: it is no finite number > 0.
    """
    if isinstance(beta, str) or not 0 < beta < float("inf"):
        raise InputError(f"beta must be a finite number > 0; got {beta!r}")
