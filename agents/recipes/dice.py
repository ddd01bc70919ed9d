"""Objectives of sampled rows that may be differentiated any number of times: the magic box and DiCE (arXiv:1802.05098).

A surrogate such as `agents.recipes.surrogates.score` has the right gradient and no more: its second derivative is not an
estimate of the Hessian. The objective here has the return's derivatives of every order in its mean, rows drawn from the policy
itself. Steps that the policy does not take are masked.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from envs.world import InputError


def magic_box(log_probs: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """`exp(l - stop(l))`: 1, with the derivatives of a probability ratio.

    Args:
        log_probs: sums of log-probabilities, attached to autograd's graph.

    Returns:
        Ones, attached.
    """
    return (log_probs - log_probs.detach()).exp()


def dice(
    log_probs: Float[Tensor, "*rows T"],
    rewards: Float[Tensor, "..."],
    mask: Bool[Tensor, "..."],
    values: Float[Tensor, "..."] | None = None,
    past: bool = True,
) -> Float[Tensor, "*rows"]:
    """`sum_t r_t box(sum_{k<=t} log pi(c_k)) + sum_t box(sum_{k<t} log pi(c_k)) (1 - box(log pi(c_t))) b_t` of every row.

    Its value is the return. The second sum is the optional baseline: it is 0, with mean 0 at every order. Without `past` the
    box before it is left out, as in DiCE's paper: unbiased too at first and second order, with a larger spread at second order.

    Args:
        log_probs: log pi of the steps, attached to autograd's graph; any number where the mask is False.
        rewards: what each step adds to the return, `gamma^k r_k`; like mask and values of the shape of log_probs.
        mask: True for the policy's steps.
        values: b, a critic's `gamma^k V_k` before each step; None for no baseline.
        past: whether a baseline is multiplied by the box of the steps before it.

    Returns:
        One number for each row, to be maximised: their mean estimates the expected return and all of its derivatives.

    Raises:
        InputError: log_probs, rewards, mask and values have different shapes.
    """
    for name, table in (("rewards", rewards), ("mask", mask), ("values", values)):
        if table is not None and table.shape != log_probs.shape:
            raise InputError(
                f"{name} must have the shape of log_probs, {tuple(log_probs.shape)}; got {tuple(table.shape)}"
            )
    own = torch.where(mask, log_probs, 0.0)
    so_far = own.cumsum(-1)
    total = (rewards.detach() * magic_box(so_far)).sum(-1)
    if values is None:
        return total
    baseline = torch.where(mask, values.detach(), 0.0) * (1 - magic_box(own))
    return total + (magic_box(so_far - own) * baseline if past else baseline).sum(-1)
