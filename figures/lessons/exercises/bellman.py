"""Exercises of lesson 2. The Hamiltonian of a belief rollout is `r + gamma P lambda`: the table Q."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from envs.registry import make_world
from envs.token_mdp import TokenMDP
from figures.lessons.checking import Exercise
from theory.tokens.dynamic_programming import bellman_costates, tables


def lesson_world() -> TokenMDP:
    """The world of the lesson."""
    world: TokenMDP = make_world("TokenGarnet", V=2, states=3, horizon=8, gamma=0.9)
    return world


def lesson_policy(world: TokenMDP) -> Float[Tensor, "S V"]:
    """The random policy of the lesson."""
    rng = torch.Generator().manual_seed(0)
    return torch.randn(world.S, world.V, generator=rng).double().softmax(-1)


def _asked(world: TokenMDP | None, pi: Tensor | None) -> tuple[TokenMDP, Tensor]:
    world = world or lesson_world()
    return world, lesson_policy(world) if pi is None else pi


def _hamiltonian(world: TokenMDP | None = None, pi: Tensor | None = None) -> Any:
    return tables(*_asked(world, pi)).Q[0]


def _from(world: TokenMDP | None, pi: Tensor | None, time: int, discount: int, earned: float = 1.0) -> Any:
    """`earned r_0 + gamma^discount P lambda_time`."""
    world, pi = _asked(world, pi)
    return earned * world.r[0] + world.gamma**discount * world.P @ bellman_costates(world, pi)[time]


def _weighted(world: TokenMDP | None = None, pi: Tensor | None = None) -> Any:
    return _asked(world, pi)[1] * _hamiltonian(world, pi)


def _advantage(world: TokenMDP | None = None, pi: Tensor | None = None) -> Any:
    return tables(*_asked(world, pi)).advantage[0]


EXERCISES = {
    "2": Exercise(
        "What is the Hamiltonian of time 0, r + gamma P lambda, for every state and token?",
        _hamiltonian,
        {
            "the discount gamma is missing": lambda world=None, pi=None: _from(world, pi, 1, 0),
            "the reward of the step itself is missing": lambda world=None, pi=None: _from(world, pi, 1, 1, 0.0),
            "the costate must be that of the next time": lambda world=None, pi=None: _from(world, pi, 0, 1),
            "gamma counts twice: the costates are already those of the return from their own time on": (
                lambda world=None, pi=None: _from(world, pi, 1, 2)
            ),
            "the action is given, so the policy's probability of it does not enter": _weighted,
            "this is the advantage: nothing is subtracted from the Hamiltonian": _advantage,
        },
    ),
}
