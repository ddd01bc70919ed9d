"""Token worlds in which a policy thinks in relaxed tokens before it answers, as the training loop sees them."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agents.recipes.soft_thoughts import SoftThoughts
from agents.sampling.environment import speaker
from agents.sampling.soft_thoughts import after_thoughts, draw_soft, soft_log_probs, soft_noise
from agents.training.copies import Copies
from agents.training.token_task import TokenTask
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP


class SoftThoughtTask(TokenTask):
    """A token world whose rows have soft thoughts as their first steps. A ratio of a thought is one of noise densities.

    Args:
        world: the token world; it hears the answer alone.
        soft: how rows think.

    Raises:
        InputError: the world pays a hidden readout.
    """

    def __init__(self, world: TokenMDP, soft: SoftThoughts):
        super().__init__(world)
        self.soft, self.steps = soft, soft.thoughts + world.horizon

    def _noise(self, world: TokenMDP, rows: int, rng: torch.Generator) -> tuple[Tensor | None, ...]:
        return soft_noise(world, rows, self.soft, rng)

    def _drawn(
        self, actor: Copies, world: TokenMDP, index: Tensor, group: int, numbers: list[Tensor]
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor]:
        """Thoughts and answers; log-probabilities are those of the pass that training takes too, in the sampler's precision."""
        with torch.no_grad():
            draw = partial(_draw_copy, world=world, soft=self.soft, group=group)
            u, tokens, own = actor.run(draw, index, *numbers)
            contexts = torch.cat([world.prompts[index.repeat_interleave(group, 1)], tokens], -1)
            old = actor.run(self.log_probs, contexts, u)[0]
        return (contexts, u), tokens, own, old

    def _steps(self, table: Tensor, fill: float) -> Tensor:
        return after_thoughts(table, self.soft.thoughts, fill)

    def log_probs(self, network: Any, *seen: Tensor) -> tuple[Tensor, Tensor]:
        """One pass over whole contexts, the thoughts between prompt and answer.

        Args:
            network: one policy.
            seen: contexts of tokens, and u of the thoughts.

        Returns:
            Log densities of the noise and log-probabilities of the tokens; entropies in nats, 0 for thoughts.
        """
        contexts, u = seen
        return soft_log_probs(network, contexts, u, self.world.horizon, self.soft)

    def log_probs_of_all(self, actor: Copies, group: int, *seen: Tensor) -> tuple[Tensor, Tensor]:
        """The same of all copies' rows.

        Args:
            actor: the policies.
            group: rows of a group.
            seen: contexts of tokens, and u of the thoughts, the copies on the first axis.

        Returns:
            As `log_probs`.

        Raises:
            InputError: a number of a copy is NaN.
        """
        log_probs, entropy = actor.run(self.log_probs, *seen)
        return log_probs, entropy


def _draw_copy(
    network: TokenPolicy,
    index: Int[Tensor, "prompts"],
    gumbels: Float[Tensor, "rows N V"],
    uniforms: Float[Tensor, "rows H"],
    *of_states: Tensor,
    world: TokenMDP,
    soft: SoftThoughts,
    group: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Thoughts and answers of one of several copies, under `vmap`."""
    environment = speaker(world, index.repeat_interleave(group), *(of_states or (None,)))
    return draw_soft(network, world.prompts[index], gumbels, uniforms, soft, group, environment)
