"""Exact answers of a token world under a policy that reads the abstract state: tables, visitation, gradients.

The policy is given by its probabilities pi, of shape (S, V), or (H, S, V) if it changes with the step. The horizon is H, or
endless with gamma < 1 and one table r of shape (S, V). In the states in which the environment speaks, its law takes the place
of pi's rows, which count nothing.

Theory page, section 3: "The bridge from the continuous claim to tokens".
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from envs.arguments import takes_numbers
from envs.record import short_repr
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.tokens.softmax_bounds import check_probabilities


@short_repr
@dataclass(frozen=True)
class Tables:
    """`V[k, z]` for k = 0..H (V_H = 0), `Q[k, z, a]`, the advantage `Q - V`, and `visits[k, z] = P(z_k = z)`.

    Attributes:
        V: value of every abstract state at the times 0 ... H; the last row is 0.
        Q: value of every abstract state after every token.
        visits: probability of every abstract state at each step.
        J: expected return.
    """

    V: Float[Tensor, "times S"]
    Q: Float[Tensor, "H S V"]
    visits: Float[Tensor, "H S"]
    J: Float[Tensor, ""]

    @property
    def advantage(self) -> Float[Tensor, "H S V"]:
        """`A = Q - V`."""
        return self.Q - self.V[:-1, :, None]


def _check_paid_by_table(world: TokenMDP) -> None:
    if world.readout is not None:
        raise InputError("readout is paid by the policy's hidden state, which no table knows: use a prefix tree")


@takes_numbers("pi")
def _by_step(world: TokenMDP, pi: Tensor) -> Tensor:
    _check_paid_by_table(world)
    H, S, V = world.r.shape
    if tuple(pi.shape) not in ((S, V), (H, S, V)):
        raise InputError(f"pi must have shape {(S, V)} or {(H, S, V)}; got {tuple(pi.shape)}")
    return with_speech(world, check_probabilities(pi).expand(H, S, V))


def with_speech(world: TokenMDP, pi: Float[Tensor, "*steps S V"]) -> Float[Tensor, "*steps S V"]:
    """The law of the next token in every state: pi, or the environment's where it speaks.

    Args:
        world: the token world.
        pi: probabilities of the policy's tokens in every abstract state.

    Returns:
        Probabilities in the shape of pi.
    """
    if world.speech is None:
        return pi
    return torch.where(world.speaking[:, None], world.speech, pi)


@takes_numbers("pi")
def tables(world: TokenMDP, pi: Float[Tensor, "*time S V"]) -> Tables:
    """Values by backward induction, visitation by forward recursion.

    `Q_k = r_k + gamma P V_{k+1}`, `V_k = sum_a pi_k Q_k`; `d_{k+1} = d_k P_pi`, with `d_0` the distribution of start
    states.

    Args:
        world: the token world, with a finite horizon.
        pi: probabilities of the tokens in every abstract state, one table or one for each step.

    Returns:
        Values and visitation.

    Raises:
        InputError: pi does not fit or is no probability, or the world pays a hidden readout.
    """
    pi = _by_step(world, pi)
    V: list[Tensor] = [torch.zeros_like(world.r[0, :, 0])]
    Q: list[Tensor] = []
    for k in reversed(range(world.horizon)):
        Q.insert(0, world.r[k] + world.gamma * world.P @ V[0])
        V.insert(0, (pi[k] * Q[0]).sum(-1))
    d = [world.weights @ world.start_belief(torch.arange(len(world.prompts), device=world.starts.device))]
    for k in range(world.horizon - 1):
        d.append(torch.einsum("z,za,zay->y", d[-1], pi[k], world.P))
    return Tables(torch.stack(V), torch.stack(Q), torch.stack(d), d[0] @ V[0])


@takes_numbers("pi")
def endless_tables(world: TokenMDP, pi: Float[Tensor, "S V"]) -> tuple[Tensor, Tensor, Tensor]:
    """`V = (I - gamma P_pi)^{-1} r_pi`, `Q = r + gamma P V`, and the discounted visitation `sum_t gamma^t P(z_t = z)`.

    The world's first reward table is used at every step.

    Args:
        world: the token world; its horizon does not count.
        pi: probabilities of the tokens in every abstract state.

    Returns:
        V (S,), Q (S, V) and the visitation (S,), which sums to `1 / (1 - gamma)`.

    Raises:
        InputError: gamma is 1, pi is no table of probabilities, or the world pays a hidden readout.
    """
    _check_paid_by_table(world)
    if not world.gamma < 1:
        raise InputError(f"gamma must be < 1 for an endless token world; got {world.gamma}")
    if tuple(pi.shape) != (world.S, world.V):
        raise InputError(f"pi must have shape {(world.S, world.V)} in an endless world; got {tuple(pi.shape)}")
    pi = with_speech(world, check_probabilities(pi))
    P_pi = torch.einsum("za,zay->zy", pi, world.P)
    operator = torch.eye(world.S, dtype=pi.dtype, device=pi.device) - world.gamma * P_pi
    V = torch.linalg.solve(operator, (pi * world.r[0]).sum(-1))
    start = world.weights @ world.start_belief(torch.arange(len(world.prompts), device=world.starts.device))
    return V, world.r[0] + world.gamma * world.P @ V, torch.linalg.solve(operator.mT, start)


@takes_numbers("pi")
def bellman_costates(world: TokenMDP, pi: Float[Tensor, "*time S V"]) -> Float[Tensor, "times S"]:
    """The costate recursion on the simplex of states, `lambda_k = r_pi + gamma P_pi lambda_{k+1}`, `lambda_H = 0`.

    On the simplex the return is linear in the belief, so its derivative in the belief is the table of values: the
    adjoint equation *is* the Bellman equation.

    Args:
        world: the token world, with a finite horizon.
        pi: probabilities of the tokens in every abstract state, one table or one for each step.

    Returns:
        The costate in every abstract state at the times 0 ... H; the last row is 0.

    Raises:
        InputError: as in `tables`.
    """
    pi = _by_step(world, pi)
    costates = [torch.zeros_like(world.r[0, :, 0])]
    for k in reversed(range(world.horizon)):
        r_pi, P_pi = (pi[k] * world.r[k]).sum(-1), torch.einsum("za,zay->zy", pi[k], world.P)
        costates.insert(0, r_pi + world.gamma * P_pi @ costates[0])
    return torch.stack(costates)


@takes_numbers("pi")
def logit_gradient(world: TokenMDP, pi: Float[Tensor, "*time S V"]) -> Float[Tensor, "H S V"]:
    """Exact policy gradient in the logits of every step: `dJ/dz_k(s, a) = gamma^k d_k(s) pi_k(a|s) A_k(s, a)`.

    It is 0 in the states in which the environment speaks.

    Args:
        world: the token world, with a finite horizon.
        pi: probabilities of the tokens in every abstract state, one table or one for each step.

    Returns:
        The gradient in every logit.

    Raises:
        InputError: as in `tables`.
    """
    exact, by_step = tables(world, pi), _by_step(world, pi)
    discount = world.gamma ** torch.arange(world.horizon, dtype=by_step.dtype, device=by_step.device)
    return (discount[:, None] * exact.visits * ~world.speaking)[..., None] * by_step * exact.advantage


def best_words(world: TokenMDP) -> Int[Tensor, "prompts H"]:
    """The completion of highest return for every prompt, the first of several: `a_k = argmax_a r_k + gamma P V*_{k+1}`.

    Args:
        world: a token world without chance.

    Returns:
        The tokens of the best completion.

    Raises:
        InputError: a token leads by chance, or the environment says tokens by chance, so that no fixed completion is
            optimal; or the world pays a hidden readout.
    """
    _check_paid_by_table(world)
    surely_said = world.speech is None or bool((world.speech[world.speaking].amax(-1) == 1).all())
    if not (world.deterministic and surely_said):
        raise InputError("world must be deterministic: where a token leads by chance no fixed word is best")
    best: list[Tensor] = []
    V = torch.zeros_like(world.r[0, :, 0])
    for k in reversed(range(world.horizon)):
        Q = world.r[k] + world.gamma * world.P @ V
        if world.speech is not None:
            Q = torch.where(world.speaking[:, None] & (world.speech == 0), -torch.inf, Q)
        best.insert(0, Q.argmax(-1))
        V = Q.amax(-1)
    z, words = world.starts, []
    for choice in best:
        words.append(choice[z])
        z = world.P[z, choice[z]].argmax(-1)
    return torch.stack(words, 1)
