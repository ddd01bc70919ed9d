"""Exercise of lesson 9: headroom of a checkpoint, a mean over prompts and not a number of the mean prompt."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from envs.registry import make_world
from envs.token_mdp import TokenMDP
from envs.world import InputError
from figures.impact.pretrained import pretrain
from figures.lessons.checking import Exercise
from theory.tokens.prefix_tree import grow

TOKENS, TRIES = 20480, 4


@lru_cache(maxsize=8)
def _chances(world: TokenMDP | None, tokens: int) -> tuple[Tensor, Tensor]:
    """Weights and success probabilities of the prompts at a checkpoint of the clean corpus."""
    world = world or make_world("TokenSkills", modulus=3, horizon=2, names="say,copy,add")
    path = pretrain(world)
    if tokens not in path:
        raise InputError(f"tokens must be those of a checkpoint, {', '.join(map(str, path))}; got {tokens}")
    with torch.no_grad():
        return world.weights, grow(world, path[tokens]).V[0].double()


def _headroom(world: TokenMDP | None = None, tokens: int = TOKENS, k: int = TRIES) -> Any:
    weights, p = _chances(world, tokens)
    return float(weights @ (1 - (1 - p) ** k - p))


def _eight(world: TokenMDP | None = None, tokens: int = TOKENS, k: int = TRIES) -> Any:
    return _headroom(world, tokens, 2 * k)


def _of_the_mean(world: TokenMDP | None = None, tokens: int = TOKENS, k: int = TRIES) -> Any:
    weights, p = _chances(world, tokens)
    return float(1 - (1 - weights @ p) ** k - weights @ p)


def _best_alone(world: TokenMDP | None = None, tokens: int = TOKENS, k: int = TRIES) -> Any:
    weights, p = _chances(world, tokens)
    return float(weights @ (1 - (1 - p) ** k))


def _rest(world: TokenMDP | None = None, tokens: int = TOKENS, k: int = TRIES) -> Any:
    weights, p = _chances(world, tokens)
    return float(1 - weights @ p)


def _all_right(world: TokenMDP | None = None, tokens: int = TOKENS, k: int = TRIES) -> Any:
    weights, p = _chances(world, tokens)
    return float(weights @ (p**k - p))


def _first(world: TokenMDP | None = None, tokens: int = TOKENS, k: int = TRIES) -> Any:
    return _headroom(world, 0, k)


EXERCISES = {
    "9": Exercise(
        "What is pass@4 minus pass@1, the mean over prompts, after 20480 tokens?",
        _headroom,
        {
            "this is with 8 tries": _eight,
            "this is the headroom of a prompt with the mean success probability: the mean comes last": _of_the_mean,
            "this is pass@4: pass@1 is still in it": _best_alone,
            "this is 1 - J, all that is left; not what 4 tries reach": _rest,
            "p to the power 4 is the chance that all 4 tries are right: one is enough": _all_right,
            "this is the network before pretraining": _first,
        },
    ),
}
