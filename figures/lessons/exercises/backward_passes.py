"""Exercises of lesson 4. The mean of E2 at the prompt is the value gradient; E2 is the backward pass of GRPO, too."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.transformer import Transformer
from envs.policy import TokenPolicy
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from figures.lessons.checking import Exercise
from theory.tokens.completions import completion_log_probs, words
from theory.tokens.costates import expected_costates
from theory.tokens.prefix_tree import grow

_SITE = "embedding"
_Loss = Callable[[Tensor, Tensor], Tensor]  # of the returns and of the log-probabilities of every completion's tokens


def lesson_world() -> TokenMDP:
    """The world of the lesson."""
    world: TokenMDP = make_world("TokenParity", V=3, horizon=3)
    return world


def lesson_policy(world: TokenMDP) -> TokenPolicy:
    """The random policy of the lesson."""
    length = world.longest
    return Transformer(world.V, length=length, width=8, layers=1, heads=2)


def _asked(world: TokenMDP | None, policy: TokenPolicy | None) -> tuple[TokenMDP, TokenPolicy]:
    world = world or lesson_world()
    return world, lesson_policy(world) if policy is None else policy


def _mean(name: str, world: TokenMDP | None = None, policy: TokenPolicy | None = None) -> Float[Tensor, "D"]:
    """The mean of a costate at the last position of prompt 0."""
    return expected_costates(*_asked(world, policy), name, _SITE)[0][0, -1]


def _slope(
    loss: _Loss, discounted: bool = True, world: TokenMDP | None = None, policy: TokenPolicy | None = None
) -> Float[Tensor, "D"]:
    """Slope of a wrong loss over all completions of prompt 0, at the same place."""
    world, policy = _asked(world, policy)
    with torch.enable_grad():
        tree = grow(world, policy, sites=(_SITE,))
        log_pi, rewards = completion_log_probs(tree)[0], words(tree).rewards[0]
        if not discounted:
            rewards = rewards / world.gamma ** torch.arange(world.horizon)
        slope = torch.autograd.grad(loss(rewards.sum(-1), log_pi), tree.levels[0].leaves[_SITE])[0]
    return slope[0, -1]


def _weight(log_pi: Float[Tensor, "W H"]) -> Float[Tensor, "W"]:
    """Probability of every completion, a constant."""
    return log_pi.detach().sum(1).exp()


_WRONG_LOSSES: dict[str, _Loss] = {
    "every completion counts once here: weight each with the probability that the policy draws it": (
        lambda R, log_pi: (R * log_pi.sum(1)).sum()
    ),
    "this is a plain mean over the completions, but the policy does not draw all of them equally often": (
        lambda R, log_pi: (R * log_pi.sum(1)).mean()
    ),
    "the weights were differentiated too: hold them constant": (
        lambda R, log_pi: (R * log_pi.sum(1).exp() * log_pi.sum(1)).sum()
    ),
    "the log-probability of the last token alone is in it": (
        lambda R, log_pi: (R * _weight(log_pi) * log_pi[:, -1]).sum()
    ),
    "the log-probability of the first token alone is in it": (
        lambda R, log_pi: (R * _weight(log_pi) * log_pi[:, 0]).sum()
    ),
    "the log-probabilities of a completion must be summed, and here their mean is taken": (
        lambda R, log_pi: (R * _weight(log_pi) * log_pi.mean(1)).sum()
    ),
    "weight and mean at once: the weighted sum over completions is a mean already": (
        lambda R, log_pi: (R * _weight(log_pi) * log_pi.sum(1)).mean()
    ),
}


def _right_loss(R: Tensor, log_pi: Tensor) -> Tensor:
    return (R * _weight(log_pi) * log_pi.sum(1)).sum()


_NO_SLOPE_OF_REWARD = "GRPO never differentiates the return: its advantages are constants"
_NAMES = {
    f"with tokens and return constant nothing is left of it. {_NO_SLOPE_OF_REWARD}": "E1",
    f"no return is averaged over a token in the loss. {_NO_SLOPE_OF_REWARD}": "E1b",
    f"the tokens are whole numbers in both passes. {_NO_SLOPE_OF_REWARD}": "E3",
    f"the rollout feeds drawn tokens on, not probabilities. {_NO_SLOPE_OF_REWARD}": "E4",
    f"no noise is differentiated. {_NO_SLOPE_OF_REWARD}": "E5",
    "its name is a letter and a digit": "score",
}


def _word(word: str) -> str:
    return word


_MISTAKES: dict[str, Callable[..., Any]] = {said: partial(_slope, loss) for said, loss in _WRONG_LOSSES.items()}
_MISTAKES |= {
    "the returns are not discounted": partial(_slope, _right_loss, False),
    "this is E1b: how the first token changes what later tokens earn is not in it": partial(_mean, "E1b"),
}

EXERCISES = {
    "4a": Exercise("What is the gradient in `probe` of the loss whose mean is E2?", partial(_mean, "E2"), _MISTAKES),
    "4b": Exercise(
        "Which costate is GRPO's backward pass: E1, E1b, E2, E3, E4 or E5?",
        partial(_word, "E2"),
        {said: partial(_word, name) for said, name in _NAMES.items()},
    ),
}
