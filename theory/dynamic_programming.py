"""Exact answers of a token world under a policy that reads the abstract state: tables, visitation, gradients.

The policy comes as plain probabilities pi, (S, V), or (H, S, V) where it changes with the step. Finite horizon H, or
discounted and endless (one table r of shape (S, V), gamma < 1).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacfwd
from torch.nn.attention import SDPBackend, sdpa_kernel

from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.softmax_bounds import (
    check_probabilities,
    covariance,
    diameter,
    entropy,
    gini,
    gini_entropy_bound,
    jacobian_norm,
    oscillation,
    spread_factor,
)


@dataclass(frozen=True)
class Tables:
    """`V[k, z]` for k = 0..H (V_H = 0), `Q[k, z, a]`, the advantage `Q - V`, and `visits[k, z] = P(z_k = z)`."""

    V: Float[Tensor, "times S"]
    Q: Float[Tensor, "H S V"]
    visits: Float[Tensor, "H S"]
    J: Float[Tensor, ""]

    @property
    def advantage(self) -> Float[Tensor, "H S V"]:
        """`A = Q - V`."""
        return self.Q - self.V[:-1, :, None]


def _by_step(world: TokenMDP, pi: Tensor) -> Tensor:
    H, S, V = world.r.shape
    if tuple(pi.shape) not in ((S, V), (H, S, V)):
        raise InputError(f"pi must have shape {(S, V)} or {(H, S, V)}; got {tuple(pi.shape)}")
    return check_probabilities(pi).expand(H, S, V)


def tables(world: TokenMDP, pi: Float[Tensor, "*time S V"]) -> Tables:
    """Values by backward induction, visitation forward.

    `Q_k = r_k + gamma P V_{k+1}`, `V_k = sum_a pi_k Q_k`, `d_{k+1} = d_k P_pi`, `d_0` the start states by prompt weight.
    """
    pi = _by_step(world, pi)
    V: list[Tensor] = [torch.zeros_like(world.r[0, :, 0])]
    Q: list[Tensor] = []
    for k in reversed(range(world.horizon)):
        Q.insert(0, world.r[k] + world.gamma * world.P @ V[0])
        V.insert(0, (pi[k] * Q[0]).sum(-1))
    d = [world.weights @ world.start_belief(torch.arange(len(world.prompts)))]
    for k in range(world.horizon - 1):
        d.append(torch.einsum("z,za,zay->y", d[-1], pi[k], world.P))
    return Tables(torch.stack(V), torch.stack(Q), torch.stack(d), d[0] @ V[0])


def endless_tables(world: TokenMDP, pi: Float[Tensor, "S V"]) -> tuple[Tensor, Tensor, Tensor]:
    """`V = (I - gamma P_pi)^{-1} r_pi`, `Q = r + gamma P V`, and the discounted visitation `sum_t gamma^t P(z_t = z)`.

    The world's first reward table is taken for every step. Raises InputError unless gamma < 1 and pi is one table.
    """
    if not world.gamma < 1:
        raise InputError(f"gamma must be < 1 for an endless token world; got {world.gamma}")
    if tuple(pi.shape) != (world.S, world.V):
        raise InputError(f"pi must have shape {(world.S, world.V)} in an endless world; got {tuple(pi.shape)}")
    check_probabilities(pi)
    P_pi = torch.einsum("za,zay->zy", pi, world.P)
    operator = torch.eye(world.S, dtype=pi.dtype) - world.gamma * P_pi
    V = torch.linalg.solve(operator, (pi * world.r[0]).sum(-1))
    start = world.weights @ world.start_belief(torch.arange(len(world.prompts)))
    return V, world.r[0] + world.gamma * world.P @ V, torch.linalg.solve(operator.mT, start)


def bellman_costates(world: TokenMDP, pi: Float[Tensor, "*time S V"]) -> Float[Tensor, "times S"]:
    """The costate recursion on the simplex of states, `lambda_k = r_pi + gamma P_pi lambda_{k+1}`, `lambda_H = 0`.

    On the simplex the return is linear in the belief, so its derivative in the belief is the table of values: the adjoint
    equation *is* the Bellman equation.
    """
    pi = _by_step(world, pi)
    costates = [torch.zeros_like(world.r[0, :, 0])]
    for k in reversed(range(world.horizon)):
        r_pi, P_pi = (pi[k] * world.r[k]).sum(-1), torch.einsum("za,zay->zy", pi[k], world.P)
        costates.insert(0, r_pi + world.gamma * P_pi @ costates[0])
    return torch.stack(costates)


def logit_gradient(world: TokenMDP, pi: Float[Tensor, "*time S V"]) -> Float[Tensor, "H S V"]:
    """Exact policy gradient in the logits of every step: `dJ/dz_k(s, a) = gamma^k d_k(s) pi_k(a|s) A_k(s, a)`."""
    found, by_step = tables(world, pi), _by_step(world, pi)
    discount = world.gamma ** torch.arange(world.horizon, dtype=by_step.dtype)
    return (discount[:, None] * found.visits)[..., None] * by_step * found.advantage


@dataclass(frozen=True)
class StateReadingSplit:
    """Value gradient of one prompt under a state-reading policy at alpha = 1, with the tiers of its bound.

    With a token reward and alpha = 1 the attention costate E1 is 0, so the error is the norm of the value gradient and
    equals the summed covariances. `tiers` as in `theory.error_split`; `naive` is the product of norms that a composition of
    linear maps suggests, `sum gamma^k E[ ||w||_2 ||J||_2 ||Q||_2 ]`: valid, and useless for a large vocabulary.
    """

    J: Float[Tensor, ""]
    value_gradient: Float[Tensor, "D"]
    tiers: Float[Tensor, "tiers"]
    naive: Float[Tensor, ""]
    entropy: Float[Tensor, ""]
    gini: Float[Tensor, ""]


def state_reading_split(
    world: TokenMDP, logits: Callable[[Tensor, int], Tensor], width: int, prompt: int = 0
) -> StateReadingSplit:
    """Dynamic programming over H x S contexts at alpha = 1: linear in V but for the exact diameter in the tiers, V^2.

    `logits(delta, k)` gives the (S, V) logits at step k with `delta` (D,) added at the prompt. Forward mode gives
    `w_k(z, a) = d logits / d delta`, then `grad V = sum_k gamma^k sum_z d_k(z) Cov_{pi_k(z)}(w_k(z), Q_k(z))`.
    """
    delta = torch.zeros(width, dtype=world.P.dtype)
    pi = torch.stack([torch.softmax(logits(delta, k), -1).detach() for k in range(world.horizon)])
    found = tables(world, pi)
    d = world.start_belief(prompt)
    J, terms, tiers, naive, means = found.V[0] @ d, [], [], [], []
    for k in range(world.horizon):
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no forward mode
            w = jacfwd(lambda x, k=k: logits(x, k))(delta).detach()
        weight = world.gamma**k * d
        per_state, product = _state_terms(pi[k], w, found.Q[k])
        terms.append(weight @ covariance(pi[k], w, found.Q[k]))
        tiers.append(weight @ per_state)
        naive.append(weight @ product)
        means.append(torch.stack([d @ entropy(pi[k]), d @ gini(pi[k])]))
        d = torch.einsum("z,za,zay->y", d, pi[k], world.P)
    gradient = torch.stack(terms).sum(0)
    H, G = torch.stack(means).mean(0)
    return StateReadingSplit(
        J, gradient, torch.cat([gradient.norm()[None], torch.stack(tiers).sum(0)]), torch.stack(naive).sum(), H, G
    )


def _state_terms(pi: Tensor, w: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """Tiers 1 to 3 (S, 3) and the naive product of norms (S,)."""
    reach = diameter(w) * oscillation(Q)
    bounds = [spread_factor(g) for g in (gini(pi), gini_entropy_bound(entropy(pi)))]
    tiers = torch.stack([covariance(pi, w, Q).norm(dim=-1), reach * bounds[0], reach * bounds[1]], -1)
    return tiers, torch.linalg.matrix_norm(w, 2) * jacobian_norm(pi) * Q.norm(dim=-1)
