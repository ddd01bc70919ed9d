"""The environment's side of a batch of completions: it follows their abstract states and says its own tokens."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from agents.sampling.tokens import first_beyond
from envs.token_mdp import TokenMDP


def next_states(
    world: TokenMDP, state: Int[Tensor, "rows"], c: Int[Tensor, "rows"], uniforms: Float[Tensor, "rows"] | None
) -> Int[Tensor, "rows"]:
    """Draws `z' ~ P[z, c]`: the first state whose cumulative probability exceeds the uniform number.

    Args:
        world: the token world.
        state: the abstract state of each row.
        c: the token that was said in it.
        uniforms: numbers on [0, 1); None is enough where every token leads to one state for sure.

    Returns:
        The next states.
    """
    chance = world.P[state, c]
    if world.deterministic or uniforms is None:
        surely: Tensor = chance.argmax(-1)
        return surely
    return first_beyond(chance, uniforms[:, None].to(chance))[:, 0]


class Speaker:
    """The environment of some rows, called once a step by the sampler (`agents.sampling.tokens`).

    Args:
        world: a world with `speech`, on the device of the rows.
        prompt: each row's index among the world's prompts.
        uniforms: numbers on [0, 1) that draw the abstract states; None where every token leads to one state for sure.
    """

    def __init__(self, world: TokenMDP, prompt: Int[Tensor, "rows"], uniforms: Float[Tensor, "rows H"] | None):
        self.world, self.uniforms, self.state = world, uniforms, world.starts[prompt]

    def __call__(
        self, k: int, tokens: Int[Tensor, "rows 1"], u: Float[Tensor, "rows 1"]
    ) -> tuple[Int[Tensor, "rows 1"], Bool[Tensor, "rows 1"]]:
        """What is said at step k: the policy's tokens, or draws from `speech` by the same uniforms u; and whose it is.

        Args:
            k: the step.
            tokens: what the policy would say.
            u: the uniforms that its tokens were drawn with.

        Returns:
            What is said, and True where it is the policy's.
        """
        speaking = self.world.speaking[self.state][:, None]
        tokens = torch.where(speaking, first_beyond(self.world.speech[self.state], u), tokens)
        drawn = None if self.uniforms is None else self.uniforms[:, k]
        self.state = next_states(self.world, self.state, tokens[:, 0], drawn)
        return tokens, ~speaking


def speaker(world: TokenMDP, prompt: Int[Tensor, "rows"], uniforms: Float[Tensor, "rows H"] | None) -> Speaker | None:
    """The environment of some rows; None in a world in which the policy alone speaks.

    Args:
        world: the token world, on the device of the rows.
        prompt: each row's index among the world's prompts.
        uniforms: numbers on [0, 1) that draw the abstract states; None where every token leads to one state for sure.

    Returns:
        The environment, or None.
    """
    return None if world.speech is None else Speaker(world, prompt, uniforms)
