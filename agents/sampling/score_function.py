"""The score-function (REINFORCE) policy gradient with its baselines, one value per sample."""

import torch
from jaxtyping import Float
from torch import Tensor

from agents.sampling.pathwise import Gradients, contract_commands
from agents.sampling.rollout import Trajectory
from envs.noise import log_density
from envs.policy import Policy
from envs.world import InputError, World


def command_scores(world: World, trajectory: Trajectory) -> Float[Tensor, "batch T m"]:
    """`grad_u log pi(a_t | s_t)` with `pi(a | s) = p(a - u)`: the score of the additive noise at the executed action.

    Args:
        world: where the paths were sampled.
        trajectory: the paths.

    Returns:
        One vector for each command.

    Raises:
        InputError: the world does not execute a = u + xi (assumption A2), so that p(a - u) is not the policy's density.
    """
    check_additive(world, trajectory.states[:, :-1].detach(), trajectory.commands.detach())
    xi = (trajectory.actions - trajectory.commands).detach()
    shift = torch.zeros_like(xi).requires_grad_()
    (score,) = torch.autograd.grad(log_density(world, xi - shift).sum(), shift)
    return score


def check_additive(world: World, states: Float[Tensor, "*batch n"], u: Float[Tensor, "*batch m"]) -> None:
    """Refuse a world that does not execute `a = u + xi` at these states and commands.

    Args:
        world: where actions are executed.
        states: where it is tried.
        u: the commands that it is tried with.

    Raises:
        InputError: the world executes another action.
    """
    push = torch.full_like(u, 0.37)
    if not torch.allclose(world.to(str(u.device), u.dtype).act(states, u, push), u + push):
        raise InputError(
            "world must execute a = u + xi for the score function: rounded or scaled noise has another density"
        )


def score_function_gradient(
    world: World,
    policy: Policy,
    trajectory: Trajectory,
    baseline: Float[Tensor, "batch T"] | Float[Tensor, "T"] | Float[Tensor, ""] | float = 0.0,
) -> Gradients:
    """Per-sample score-function gradient `sum_t gamma^t grad_theta log pi(a_t|s_t) (R_t - b_t)`.

    Its mean is grad_theta J where the noise density is smooth (assumption A3).

    Args:
        world: where the trajectory was sampled.
        policy: that sampled it.
        trajectory: the paths.
        baseline: b_t, which must not depend on a_t: 0, the value V_t(s_t), or `best_constant_baseline` of other samples.

    Returns:
        Parameter name -> (batch, *shape of the parameter).

    Raises:
        InputError: the baseline has another shape, or the noise is not additive.
    """
    batch, T = trajectory.actions.shape[:2]
    if isinstance(baseline, Tensor) and tuple(baseline.shape) not in ((), (T,), (batch, T)):
        raise InputError(f"baseline must be a number, ({T},) or ({batch}, {T}); got shape {tuple(baseline.shape)}")
    advantage = trajectory.rewards_to_go()[:, :T].detach() - baseline
    discount = world.gamma ** torch.arange(T, dtype=advantage.dtype, device=advantage.device)
    weight = (discount * advantage)[..., None]
    return contract_commands(policy, trajectory.states, weight * command_scores(world, trajectory))


def best_constant_baseline(world: World, policy: Policy, pilot: Trajectory) -> Float[Tensor, "T"]:
    """The constant b_t of least variance for each step, `E[|g_t|^2 R_t] / E[|g_t|^2]`, `g_t = grad_theta log pi(a_t|s_t)`.

    It is estimated from the paths `pilot`; use it on *other* paths, else the gradient estimate is biased.

    Args:
        world: where the paths were sampled.
        policy: that sampled them.
        pilot: the paths.

    Returns:
        One constant for each step, in return units.

    Raises:
        InputError: as in `command_scores`.
    """
    scores, returns = command_scores(world, pilot), pilot.rewards_to_go().detach()
    levels = []
    for t in range(scores.shape[1]):
        only_t = torch.zeros_like(scores)
        only_t[:, t] = scores[:, t]
        gradients = contract_commands(policy, pilot.states, only_t)
        size = torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()]).sum(0)
        levels.append((size @ returns[:, t]) / size.sum())
    return torch.stack(levels)
