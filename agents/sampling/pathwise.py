"""The pathwise (reparametrised) policy gradient: backpropagation through the world, one value per sample."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from agents.sampling.rollout import Trajectory
from envs.policy import Policy
from envs.world import InputError, World

Gradients = dict[str, Tensor]
StateGradient = Callable[[Tensor, int], Tensor]


def contract_commands(
    policy: Policy, states: Float[Tensor, "batch times n"], cotangents: Float[Tensor, "batch T m"]
) -> Gradients:
    """Per-sample `sum_t (d_theta mu(history_t))' v_t` for every parameter: the step that both estimators share.

    The histories are constants: no gradient goes into the states.

    Args:
        policy: a `torch.nn.Module`.
        states: of the paths.
        cotangents: v_t, one vector for each command.

    Returns:
        Parameter name -> (batch, *shape of the parameter).

    Raises:
        InputError: the policy is no module, has no parameters, or does not use them for its command.
    """
    if not isinstance(policy, nn.Module):
        raise InputError("policy must be a torch.nn.Module: its parameters are what the gradient is taken in")
    parameters = {name: p.detach() for name, p in policy.named_parameters()}
    if not parameters:
        raise InputError("policy has no parameters: there is nothing to take a gradient in")
    window = policy.window

    def inner(values: Gradients, path: Tensor, v: Tensor) -> Tensor:
        total = torch.zeros((), dtype=v.dtype, device=v.device)
        for t in range(v.shape[0]):
            history = path[max(0, t + 1 - window) if window else 0 : t + 1]
            total = total + (functional_call(policy, values, (history[None], t))[0] * v[t]).sum()
        if not total.requires_grad:
            raise InputError(
                "policy computes its command without its parameters (no_grad, detach?): gradient undefined"
            )
        return total

    per_sample: Gradients = vmap(grad(inner), in_dims=(None, 0, 0))(parameters, states.detach(), cotangents.detach())
    return per_sample


def command_costates(trajectory: Trajectory) -> Float[Tensor, "batch T m"]:
    """`dR_0/du_t = gamma^t (r_a + gamma f_a' lambda_{t+1})` along each path, by one backward pass.

    Args:
        trajectory: the paths, attached to autograd's graph.

    Returns:
        One vector for each command, discounted to time 0.

    Raises:
        InputError: the trajectory carries no gradient.
    """
    if not trajectory.returns.requires_grad:
        raise InputError("trajectory carries no gradient: sample and differentiate it outside torch.no_grad()")
    (slope,) = torch.autograd.grad(trajectory.returns.sum(), trajectory.command_probe, retain_graph=True)
    return slope


def pathwise_gradient(policy: Policy, trajectory: Trajectory) -> Gradients:
    """Per-sample pathwise gradient `sum_t gamma^t (d_theta mu_t)' (r_a + gamma f_a' lambda_{t+1})`.

    Its mean is grad_theta J where rollout and reward are differentiable and the noise is additive (assumptions A1, A2, A5).

    Args:
        policy: that sampled the paths.
        trajectory: the paths, attached to autograd's graph.

    Returns:
        Parameter name -> (batch, *shape of the parameter).

    Raises:
        InputError: as in `contract_commands` and `command_costates`.
    """
    return contract_commands(policy, trajectory.states, command_costates(trajectory))


def critic_gradient(world: World, policy: Policy, trajectory: Trajectory, state_gradient: StateGradient) -> Gradients:
    """The pathwise gradient with a critic's `grad V(s_{t+1})` in the place of the sampled costate `lambda_{t+1}`.

    `sum_t gamma^t (d_theta mu_t)' (r_a + gamma f_a' grad V_{t+1}(s_{t+1}))`. With the exact value gradient the mean is
    unchanged. Assumes additive noise, so that d a / d u is the identity.

    Args:
        world: where the trajectory was sampled.
        policy: that sampled it.
        trajectory: the paths.
        state_gradient: the critic, (states (batch, n), t) -> (batch, n).

    Returns:
        Parameter name -> (batch, *shape of the parameter).
    """
    states = trajectory.states.detach()
    ahead = torch.stack([state_gradient(states[:, t + 1], t + 1) for t in range(trajectory.actions.shape[1])], 1)
    return contract_commands(policy, states, critic_costates(world, trajectory, ahead))


def critic_costates(
    world: World, trajectory: Trajectory, ahead: Float[Tensor, "batch T n"]
) -> Float[Tensor, "batch T m"]:
    """`gamma^t (r_a + gamma f_a' ahead_t)` along each path: `command_costates` with a critic in the place of `lambda_{t+1}`.

    Args:
        world: whose rewards and steps are differentiated, at the states and actions of the paths.
        trajectory: the paths.
        ahead: what stands for `lambda_{t+1}`, at t = 0 ... T-1.

    Returns:
        One vector for each command, discounted to time 0.
    """
    states, actions = trajectory.states.detach(), trajectory.actions.detach().requires_grad_()
    world = world.to(str(states.device), states.dtype)
    T = actions.shape[1]
    own = world.reward(states[:, :-1], actions)
    # The process noise of the sampled step is left out: f_a does not depend on it, because it is additive.
    following = world.transition(states[:, :-1], actions, torch.zeros_like(states[:, 1:]))
    (slope,) = torch.autograd.grad((own + world.gamma * (following * ahead.detach()).sum(-1)).sum(), actions)
    discount = world.gamma ** torch.arange(T, dtype=states.dtype, device=states.device)
    return discount[:, None] * slope
