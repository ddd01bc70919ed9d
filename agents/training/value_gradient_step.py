"""The step of VGL(lambda): paths, targets for a critic that is a vector field, the actor's gradient on it, the critic's fit."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.linear_field import field_loss
from agents.recipes.value_gradient_learning import ValueGradientLearning
from agents.sampling.pathwise import contract_commands, critic_costates
from agents.sampling.rollout import Trajectory, rollout
from agents.sampling.value_gradient_targets import path_targets
from agents.training.command_task import CommandTask
from agents.training.copies import Copies
from agents.training.field_critics import curl_of
from agents.training.settings import TrainingSettings
from agents.training.tasks import Task
from envs.linear_quadratic import LinearQuadratic
from envs.noise import Noise, draw_noise
from envs.policy import Policy
from envs.world import InputError, World


class FieldRows(NamedTuple):
    """What one draw of paths gives.

    Attributes:
        gradients: the actor's update, shaped like its parameters.
        returns: mean sampled return of every copy.
        states: of the paths.
        targets: what the critic is fitted to at these states.
    """

    gradients: list[Tensor]
    returns: Float[Tensor, "S"]
    states: Float[Tensor, "S rows times n"]
    targets: Float[Tensor, "S rows times n"]


def field_rows(
    task: CommandTask,
    learning: ValueGradientLearning,
    actor: Copies,
    critic: Copies,
    setting: TrainingSettings,
    noise: Sequence[torch.Generator],
) -> FieldRows:
    """Draw the paths of every copy, and differentiate them with its field.

    The actor's update is the mean of `sum_t gamma^t (d_theta mu_t)' (r_a + gamma f_a' (lam G'_{t+1} + (1 - lam) G~_{t+1}))`, G'
    the targets and G~ the critic as it is before its own update. So its mean over the noise is exact at a fixed critic
    (`theory.continuous.lambda_gradient`).

    Args:
        task: a world with additive noise.
        learning: lambda.
        actor: the policies.
        critic: their fields.
        setting: number of groups and rows.
        noise: one generator for each copy.

    Returns:
        Gradients, returns, and what the critic is fitted to.
    """
    world, lam = task.world.to(), learning.lam
    by_copy, kept = list[dict[str, Tensor]](), list[tuple[Tensor, Tensor, Tensor]]()
    for i, generator in enumerate(noise):
        policy, field = actor.network_of(i), critic.network_of(i)
        path, drawn = draw_path(task, policy, setting, generator, str(actor.like.device))
        targets = path_targets(world, policy, path.states, drawn, field, lam)
        ahead = lam * targets + (1 - lam) * field.along(path.states).detach()
        slopes = critic_costates(world, path, ahead[:, 1:])
        by_copy.append({name: x.mean(0) for name, x in contract_commands(policy, path.states, slopes).items()})
        kept.append((path.returns.mean(), path.states, targets))
    returns, states, targets = (torch.stack(x) for x in zip(*kept, strict=True))
    gradients = [torch.stack([each[name] for each in by_copy]) for name in by_copy[0]]
    gradients = gradients if actor.count > 1 else [x[0] for x in gradients]
    return FieldRows(gradients, returns.double().cpu(), states, targets)


def draw_path(
    task: CommandTask, policy: Policy, setting: TrainingSettings, noise: torch.Generator, device: str
) -> tuple[Trajectory, Noise]:
    """Paths of one policy; each group of paths starts at one state.

    Args:
        task: a world with additive noise.
        policy: that acts.
        setting: number of groups and rows.
        noise: moved on.
        device: of the paths.

    Returns:
        The paths, without a gradient, and the noise that made them.
    """
    world = task.world.to()
    drawn = draw_noise(world, setting.prompts * setting.group, task.steps, noise).to(device)
    with torch.no_grad():
        start = drawn.s_0[: setting.prompts].repeat_interleave(setting.group, 0)
        return rollout(world, policy, drawn, start), drawn


def next_curl(
    task: Task, actor: Copies, critic: Copies | None, setting: TrainingSettings, noise: Sequence[torch.Generator]
) -> Float[Tensor, "S"]:
    """The curl of the critics at the states that another step would draw; the generators stay where they are.

    Args:
        task: the world as the loop sees it.
        actor: the policies.
        critic: their fields, or another critic, or none.
        setting: number of groups and rows.
        noise: one generator for each copy.

    Returns:
        One number for each copy; NaN where the critic is no field.
    """

    def states(i: int) -> Tensor:
        ahead = torch.Generator().set_state(noise[i].get_state())
        assert isinstance(task, CommandTask)  # fields are critics in worlds of commands alone
        return draw_path(task, actor.network_of(i), setting, ahead, str(actor.like.device))[0].states

    return curl_of(critic, actor.count, states)


def fit_field(
    critic: Copies, optimiser: torch.optim.Optimizer, rows: FieldRows, Omega: Tensor | None, epochs: int
) -> None:
    """Steps of the critic's optimiser on `field_loss`, each copy on its own paths; the targets stay as they were drawn.

    Args:
        critic: the fields.
        optimiser: of their parameters, elementwise.
        rows: states and targets.
        Omega: weight of the error; None for the identity.
        epochs: number of steps.
    """
    for _ in range(epochs):
        fields = critic.run(lambda field, states: field.along(states), rows.states)
        losses = [field_loss(G, g, Omega) for G, g in zip(fields, rows.targets, strict=True)]
        slopes = torch.autograd.grad(torch.stack(losses).sum(), critic.parameters)
        for p, slope in zip(critic.parameters, slopes, strict=True):
            p.grad = slope
        optimiser.step()


def error_weight(world: World, name: str) -> Tensor | None:
    """The matrix Omega that a learner names.

    Args:
        world: of the paths.
        name: "identity" or "commands".

    Returns:
        The matrix, `B B'` for commands; None for the identity.

    Raises:
        InputError: the world has no matrix B.
    """
    if name == "identity":
        return None
    if not isinstance(world, LinearQuadratic):
        raise InputError(f"Omega must be identity in a {type(world).__name__}: only a linear world has a matrix B")
    B = world.to().B
    weight: Tensor = B @ B.mT
    return weight
