"""Learners that differentiate sampled paths: SVG(k), in the world or through a model that may be wrong, and VGL(lambda)."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents.recipes.learner import Learner, Pathwise
from agents.recipes.relaxed_tokens import RelaxedTokens
from agents.recipes.value_gradient_learning import ValueGradientLearning
from agents.sampling.pathwise import contract_commands
from agents.sampling.rollout import rollout
from agents.sampling.stochastic_value_gradients import replay, svg_costates
from agents.training.command_task import CommandTask
from agents.training.copies import Copies
from agents.training.field_critics import check_fields, curl_of
from agents.training.relaxed_step import check_relaxed, relaxed_gradients
from agents.training.settings import TrainingSettings
from agents.training.tasks import Task
from agents.training.token_task import TokenTask
from agents.training.value_gradient_step import error_weight, field_rows, fit_field
from envs.linear_quadratic import LinearQuadratic
from envs.noise import draw_noise
from envs.world import InputError, World


@runtime_checkable
class SlopeOracle(Protocol):
    """What knows the slopes of a policy's value in states and actions."""

    def critic(self, actor: Copies, index: int, steps: int) -> Callable[..., Tensor]:
        """The exact critic that ends SVG(steps), as `agents.sampling.stochastic_value_gradients.svg_costates` takes it.

        Args:
            actor: the policies.
            index: of the copy whose value is meant.
            steps: 0 for the slope of Q in the action, else for that of V in the state.

        Returns:
            The critic.
        """
        ...


class PathwiseRows(NamedTuple):
    """What one draw of paths gives.

    Attributes:
        gradients: of the expected return, shaped like the actor's parameters.
        returns: mean sampled return of every copy.
        curl: of the critics at the sampled states, before they are fitted to them; NaN without such critics.
    """

    gradients: list[Tensor]
    returns: Float[Tensor, "S"]
    curl: Float[Tensor, "S"]

    @property
    def numbers(self) -> dict[str, Float[Tensor, "S"]]:
        """The fields of a training record that sampled paths fill."""
        return {"loss": -self.returns, "sampled": self.returns, "curl": self.curl}


def path_gradients(
    task: Task,
    learner: Learner,
    actor: Copies,
    setting: TrainingSettings,
    noise: Sequence[torch.Generator],
    oracle: object,
    fit: tuple[Copies, torch.optim.Optimizer] | None,
) -> PathwiseRows:
    """What the learner makes of one draw of paths; VGL's critic is then fitted to them. `check_pathwise` has passed before.

    Args:
        task: the world as the loop sees it.
        learner: SVG, VGL, or one of relaxed tokens.
        actor: the policies.
        setting: number of groups and rows, and the critic's passes.
        noise: one generator for each copy.
        oracle: gives SVG's critics.
        fit: VGL's critic and its optimiser.

    Returns:
        Gradients and returns.
    """
    if isinstance(learner.pathwise, RelaxedTokens):
        gradients, returns = relaxed_gradients(cast(TokenTask, task), learner.pathwise, actor, setting, noise)
        return PathwiseRows(gradients, returns, torch.full_like(returns, math.nan))
    world_task, pathwise = cast(CommandTask, task), learner.pathwise
    if isinstance(pathwise, Pathwise):
        return pathwise_rows(world_task, pathwise, actor, setting, noise, cast(SlopeOracle | None, oracle))
    assert pathwise is not None
    assert fit is not None
    rows = field_rows(world_task, pathwise, actor, fit[0], setting, noise)
    curl = curl_of(fit[0], actor.count, lambda i: rows.states[i])
    fit_field(*fit, rows, error_weight(world_task.world, pathwise.Omega), setting.critic_epochs)
    return PathwiseRows(rows.gradients, rows.returns, curl)


def pathwise_rows(
    task: CommandTask,
    pathwise: Pathwise,
    actor: Copies,
    setting: TrainingSettings,
    noise: Sequence[torch.Generator],
    oracle: SlopeOracle | None,
) -> PathwiseRows:
    """Draw the paths of every copy, and differentiate them as the learner says; a group of paths starts at one state.

    Args:
        task: a world with additive noise.
        pathwise: how the paths are differentiated.
        actor: the policies.
        setting: number of groups and rows.
        noise: one generator for each copy.
        oracle: gives the critics; None where all steps are taken.

    Returns:
        Gradients and returns.
    """
    world, device = task.world.to(), str(actor.like.device)
    model = wrong_model(world, pathwise.model_error, pathwise.model_seed)
    by_copy, returns = list[dict[str, Tensor]](), []
    for i, generator in enumerate(noise):
        policy, drawn = actor.network_of(i), draw_noise(world, setting.prompts * setting.group, task.steps, generator)
        start = drawn.s_0[: setting.prompts].repeat_interleave(setting.group, 0).to(device)
        path = rollout(model if pathwise.imagined else world, policy, drawn.to(device), start)
        returns.append(path.returns.detach().mean())
        path = path if pathwise.imagined else replay(model, policy, path)
        whole = pathwise.steps >= task.steps
        critic = None if whole or oracle is None else oracle.critic(actor, i, pathwise.steps)
        slopes = svg_costates(model, policy, path, None if whole else pathwise.steps, critic)
        by_copy.append({name: x.mean(0) for name, x in contract_commands(policy, path.states, slopes).items()})
    gradients = [torch.stack([each[name] for each in by_copy]) for name in by_copy[0]]
    gradients, no_curl = (
        gradients if actor.count > 1 else [x[0] for x in gradients],
        torch.full((actor.count,), math.nan),
    )
    return PathwiseRows(gradients, torch.stack(returns).double().cpu(), no_curl.double())


def wrong_model(world: World, error: float, seed: int) -> World:
    """The world with other A and B: each is changed in a random direction by `error` times its own Frobenius norm.

    Args:
        world: the true one; itself where the error is 0.
        error: relative size of the change.
        seed: of the direction.

    Returns:
        The model.

    Raises:
        InputError: the world has no matrices A and B to change.
    """
    if error == 0:
        return world
    if type(world) is not LinearQuadratic:
        raise InputError(
            f"model_error must be 0 in a {type(world).__name__}: only a linear world has A and B to change"
        )
    world, rng, changed = world.to(), torch.Generator().manual_seed(seed), dict[str, Any]()
    for name in ("A", "B"):
        own = getattr(world, name)
        direction = torch.randn(own.shape, generator=rng, dtype=own.dtype)
        changed[name] = own + error * own.norm() * direction / direction.norm()
    return world.replace(**changed)


def check_pathwise(
    task: Task,
    learner: Learner,
    setting: TrainingSettings,
    oracle: object,
    policies: Sequence[nn.Module],
    critics: Sequence[nn.Module] | None,
) -> None:
    """Refuse what a learner of sampled paths cannot be run with, before anything is drawn.

    Args:
        task: the world as the loop sees it.
        learner: the recipe.
        setting: steps, sizes, rates.
        oracle: what is exact, where it is known.
        policies: the networks.
        critics: of VGL.

    Raises:
        InputError: the world is of the wrong kind; a penalty, a bonus or an option of token rows is given; the paths would
            be used more than once; the model cannot be made; or a critic is needed that is not known or does not fit.
    """
    pathwise = learner.pathwise
    if pathwise is None:
        return
    if isinstance(pathwise, RelaxedTokens):
        check_relaxed(task, learner.name, setting, policies)
        _check_bare(learner, setting)
        return
    if not isinstance(task, CommandTask):
        raise InputError(f"learner {learner.name!r} differentiates sampled paths: take a linear-quadratic world")
    _check_bare(learner, setting)
    if isinstance(pathwise, ValueGradientLearning):
        error_weight(task.world, pathwise.Omega)
        check_fields(task, pathwise, setting, policies, critics)
        return
    wrong_model(task.world, pathwise.model_error, pathwise.model_seed)
    if pathwise.steps < task.steps and not isinstance(oracle, SlopeOracle):
        raise InputError(
            f"horizon must be >= {task.steps}, all steps, for learner {learner.name!r} where no exact critic is known"
        )


def _check_bare(learner: Learner, setting: TrainingSettings) -> None:
    """Refuse what acts on log-probabilities, and a second use of paths."""
    if learner.kl_reward or learner.kl_loss or learner.entropy:
        raise InputError(
            f"KL terms and entropy must be left out with learner {learner.name!r}: it uses no log-probabilities"
        )
    if learner.drop_truncated or learner.count_dropped or learner.count_environment or not learner.compare_dropped:
        raise InputError(
            f"options about dropped or environment's tokens must be left out with learner {learner.name!r}"
        )
    if learner.off_policy_delta < math.inf or not learner.use_rewards:
        raise InputError(f"off_policy_delta and use_rewards must be left out with learner {learner.name!r}")
    if setting.epochs > 1 or setting.minibatches > 1:
        raise InputError(f"epochs and minibatches must be 1 with learner {learner.name!r}: its paths are used once")
