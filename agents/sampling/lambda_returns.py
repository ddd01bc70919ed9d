"""TD(lambda) returns along sampled paths, and the score-function gradient with generalised advantages (GAE)."""

import torch
from jaxtyping import Float
from torch import Tensor

from agents.sampling.pathwise import Gradients, contract_commands
from agents.sampling.rollout import Trajectory
from agents.sampling.score_function import command_scores
from envs.arguments import check_gamma, short
from envs.policy import Policy
from envs.world import InputError, World


def lambda_returns(
    rewards: Float[Tensor, "batch times"], values: Float[Tensor, "..."], gamma: float, lam: float
) -> Float[Tensor, "batch times"]:
    """`R_t = r_t + gamma (lam R_{t+1} + (1 - lam) V_{t+1})`, `R_T = r_T`: lam = 1 is the return, lam = 0 one step and V.

    `R_t - V_t` is GAE's advantage (arXiv:1506.02438), `sum_j (gamma lam)^j delta_{t+j}`. Where the last reward is known, let
    it be the last value.

    Args:
        rewards: r_0 ... r_{T-1}, and the terminal reward at index T, zero where there is none.
        values: a critic's values V_0 ... V_T of the same steps, in the shape of the rewards; V_0 has no effect.
        gamma: the discount.
        lam: lambda, in [0, 1].

    Returns:
        R_0 ... R_T.

    Raises:
        InputError: the shapes differ, or gamma or lam is out of its range.
    """
    check_gamma(gamma)
    if isinstance(lam, bool) or not isinstance(lam, int | float) or not 0 <= lam <= 1:
        raise InputError(f"lam must lie in [0, 1]; got {short(lam)}")
    if values.shape != rewards.shape:
        raise InputError(f"values must have the shape of rewards, {tuple(rewards.shape)}; got {tuple(values.shape)}")
    returns = [rewards[:, -1]]
    for t in reversed(range(rewards.shape[1] - 1)):
        returns.append(rewards[:, t] + gamma * (lam * returns[-1] + (1 - lam) * values[:, t + 1]))
    return torch.stack(returns[::-1], 1)


def gae_gradient(
    world: World, policy: Policy, trajectory: Trajectory, values: Float[Tensor, "..."], lam: float
) -> Gradients:
    """Per-sample score-function gradient `sum_t gamma^t grad_theta log pi(a_t | s_t) (R_t - V_t)`, R the TD(lam) return.

    Its mean is grad_theta J for lam = 1, and for the exact V at every lam, where the noise density is smooth (assumption A3).

    Args:
        world: where the trajectory was sampled.
        policy: that sampled it.
        trajectory: the paths.
        values: a critic's V_t(s_t) at the times 0 ... T.
        lam: lambda, in [0, 1].

    Returns:
        Parameter name -> (batch, *shape of the parameter).

    Raises:
        InputError: as in `lambda_returns`, or the noise is not additive.
    """
    T = trajectory.actions.shape[1]
    values = values.detach()
    advantage = (lambda_returns(trajectory.rewards.detach(), values, world.gamma, lam) - values)[:, :T]
    weight = (world.gamma ** torch.arange(T).to(advantage) * advantage)[..., None]
    return contract_commands(policy, trajectory.states, weight * command_scores(world, trajectory))
