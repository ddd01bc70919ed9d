"""Exercises of lesson 1. Costates are linear in the states, so that their mean is the costate of the path without noise."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.linear import ClosedPath, LinearPolicy
from agents.sampling.rollout import rollout
from envs.linear_quadratic import LinearQuadratic
from envs.noise import Noise
from envs.policy import Policy
from envs.registry import make_world
from envs.world import InputError
from figures.lessons.checking import Exercise
from theory.continuous.costates import autograd_costates


def lesson_world() -> LinearQuadratic:
    """The world of the lesson."""
    world: LinearQuadratic = make_world("LQScalar", horizon=12)
    return world


def mean_costate(world: LinearQuadratic | None, gain: float, start: float, cut: bool) -> Float[Tensor, ""]:
    """`E lambda_0` of a path that begins in `start`, with or without the policy's path."""
    world = (world or lesson_world()).to()
    if world.horizon is None or (world.n, world.m) != (1, 1):
        raise InputError("world must have a horizon, one state and one action in exercise 1: take an LQScalar")
    steps, zeros = world.horizon or 0, torch.zeros(1, world.horizon or 0, 1, dtype=torch.float64)
    policy: Policy = LinearPolicy(torch.tensor([[gain]], dtype=torch.float64))
    policy = ClosedPath(policy, "all") if cut else policy
    quiet = Noise(torch.full((1, 1), start, dtype=torch.float64), zeros, zeros[:, :steps])
    with torch.enable_grad():
        path = rollout(world, policy, quiet)
        return autograd_costates(path.returns, path.state_probe, world.gamma)[0, 0, 0].detach()


def _cut(world: LinearQuadratic | None = None, gain: float = 0.6, start: float = 1.0) -> Any:
    return mean_costate(world, gain, start, cut=True)


def _whole(world: LinearQuadratic | None = None, gain: float = 0.6, start: float = 1.0) -> Any:
    return mean_costate(world, gain, start, cut=False)


def _undiscounted(world: LinearQuadratic | None = None, gain: float = 0.6, start: float = 1.0) -> Any:
    return mean_costate(replace(world or lesson_world(), gamma=1.0), gain, start, cut=True)


def _open_loop(world: LinearQuadratic | None = None, gain: float = 0.6, start: float = 1.0) -> Any:
    return mean_costate(world, 0.0, start, cut=True)


EXERCISES = {
    "1": Exercise(
        "What is the exact mean costate at time 0 of a path that begins in s = 1, when the policy's path is cut?",
        _cut,
        {
            "this is the value gradient: the policy's path is still in it": _whole,
            "the discount gamma is missing": _undiscounted,
            "the states must still follow the policy: only the derivative through it is cut": _open_loop,
        },
        kind=LinearQuadratic,
    ),
}
