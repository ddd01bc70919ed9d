"""Learners that differentiate rollouts of relaxed tokens: what one draw gives, and what they refuse."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents.policies.nucleus import Nucleus
from agents.recipes.relaxed_tokens import RelaxedTokens
from agents.sampling.relaxed_tokens import gumbel_noise, relaxed_returns
from agents.training.copies import Copies
from agents.training.settings import TrainingSettings
from agents.training.tasks import Task
from agents.training.token_task import TokenTask
from envs.policy import TokenPolicy
from envs.world import InputError


def relaxed_gradients(
    task: TokenTask,
    relaxed: RelaxedTokens,
    actor: Copies,
    setting: TrainingSettings,
    noise: Sequence[torch.Generator],
) -> tuple[list[Tensor], Float[Tensor, "S"]]:
    """Draw relaxed rollouts of every copy, prompts by their weights, and differentiate their mean return.

    Args:
        task: a token world that `check_relaxed` took.
        relaxed: the temperature.
        actor: the policies.
        setting: number of groups and rows.
        noise: one generator for each copy.

    Returns:
        Gradients shaped like the actor's parameters, and the mean relaxed return of every copy.

    Raises:
        InputError: a policy gives NaN.
    """
    like, rows = actor.like, setting.prompts * setting.group
    world, weights = task.world.to(str(like.device), like.dtype), task.world.weights.cpu()
    which = torch.stack([torch.multinomial(weights, setting.prompts, True, generator=g) for g in noise])
    drawn = torch.stack([gumbel_noise((rows, task.steps, world.V), g) for g in noise])

    def mean_return(policy: TokenPolicy, prompts: Tensor, gumbel: Tensor) -> Tensor:
        return relaxed_returns(world, policy, prompts, gumbel, relaxed.tau).mean()

    returns = actor.run(mean_return, which.to(like.device), drawn.to(like))
    slopes = torch.autograd.grad(returns.sum(), actor.parameters, allow_unused=True, materialize_grads=True)
    return list(slopes), returns.detach().double().cpu()


def check_relaxed(task: Task, name: str, setting: TrainingSettings, policies: Sequence[nn.Module]) -> None:
    """Refuse worlds and policies in which a relaxed token has no meaning, or whose return is not differentiable in it.

    Args:
        task: the world as the loop sees it.
        name: of the learner.
        setting: steps, sizes, rates.
        policies: the networks.

    Raises:
        InputError: the world has no tokens, or the environment speaks in it; the policy samples from a cut law; or a
            precision of the sampler is asked for.
    """
    if not isinstance(task, TokenTask):
        raise InputError(f"learner {name!r} relaxes tokens: take a token world, TokenSumAndStop for instance")
    if task.world.speech is not None:
        raise InputError(
            f"learner {name!r} cannot relax the environment's tokens: take a world in which the environment is silent"
        )
    if any(isinstance(policy, Nucleus) for policy in policies):
        raise InputError(f"top-p must be left out with learner {name!r}: the set of kept tokens jumps (A1)")
    if setting.sampler:
        raise InputError(f"sampler must be left out with learner {name!r}: what is drawn is differentiated as it is")
