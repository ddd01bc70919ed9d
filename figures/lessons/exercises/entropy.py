"""Exercises of lesson 5. How much a constant for entropy alone must grow, once two knobs change the policy's entropy."""

import functools
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.transformer import Transformer
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from figures.lessons.checking import Exercise
from theory.tokens.error_split import error_split
from theory.tokens.softmax_bounds import gini_entropy_bound

_KNOBS = {"temperature": np.geomspace(3, 0.03, 17).tolist(), "offset": np.linspace(0, 8, 17).tolist()}
_Bound = Callable[[Tensor], Tensor]  # of the entropy


@functools.cache
def lesson_world() -> TokenMDP:
    """The world of the lesson."""
    world: TokenMDP = make_world("TokenParity", V=3, horizon=3)
    return world


@functools.lru_cache(maxsize=4)
def _sweep(world: TokenMDP, knob: str) -> tuple[Float[Tensor, "policies prompts"], Float[Tensor, "policies prompts"]]:
    """Error of E1 and entropy of the lesson's policy at every value of a knob."""
    length = world.longest
    sizes: dict[str, Any] = {"length": length, "width": 8, "layers": 1, "heads": 2}
    policies = [Transformer(world.V, **sizes, **{knob: value}) for value in _KNOBS[knob]]
    splits = [error_split(world, policy, 1.0, "embedding") for policy in policies]
    return torch.stack([split.error for split in splits]), torch.stack([split.entropy for split in splits])


def _growth(bound: _Bound, world: TokenMDP | None = None, knobs: Iterable[str] = _KNOBS) -> float:
    """The constant that all policies need, over that of the policy without a knob."""
    world = world or lesson_world()
    needed = [error / bound(entropy) for error, entropy in (_sweep(world, knob) for knob in knobs)]
    error, entropy = (of_all[_KNOBS["offset"].index(0.0)] for of_all in _sweep(world, "offset"))
    return float(torch.cat(needed).max() / (error / bound(entropy)).max())


def _inverse(world: TokenMDP | None = None) -> float:
    return 1 / _growth(gini_entropy_bound, world)


def _first_alone(entropy: Tensor) -> Tensor:
    return entropy / (2 * math.log(2))


def _second_alone(entropy: Tensor) -> Tensor:
    return 1 - torch.exp(-entropy)


EXERCISES = {
    "5": Exercise(
        "By what factor must the constant grow, from the policy without a knob to all policies of both sweeps?",
        partial(_growth, gini_entropy_bound),
        {
            "this is C_0 over C": _inverse,
            "H / (2 ln 2) alone: where the entropy is large, 1 - exp(-H) is smaller": partial(_growth, _first_alone),
            "1 - exp(-H) alone: where the entropy is small, H / (2 ln 2) is smaller": partial(_growth, _second_alone),
            "the errors alone are compared: each needs a constant for its own entropy": partial(
                _growth, torch.ones_like
            ),
            "the policies of the temperature are missing": partial(_growth, gini_entropy_bound, knobs=("offset",)),
            "the policies of the offset are missing": partial(_growth, gini_entropy_bound, knobs=("temperature",)),
        },
    ),
}
