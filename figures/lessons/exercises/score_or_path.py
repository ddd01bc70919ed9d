"""Exercises of lesson 3. From which horizon on the score function is the quieter estimator, by exact moments."""

from typing import Any

from envs.lq_variants import ChaoticMap
from envs.registry import make_world
from envs.world import InputError
from figures.lessons.checking import Exercise
from theory.continuous.chaotic_map import circle_moments


def exercise_world(beta: float = 2.0) -> ChaoticMap:
    """The map of the exercise, or with another beta one of the lesson."""
    world: ChaoticMap = make_world("ChaoticMap", beta=beta, horizon=30)
    return world


def _first(world: ChaoticMap | None = None, theta: float = 1.0) -> Any:
    """The first horizon at which the score function has the smaller standard deviation."""
    exact = circle_moments(world or exercise_world(), theta)
    wins = (exact.score_sd < exact.pathwise_sd).nonzero()
    if not len(wins):
        raise InputError("world must have a horizon at which the score function wins: take a larger beta or horizon")
    return int(wins[0]) + 1


def _index(world: ChaoticMap | None = None, theta: float = 1.0) -> Any:
    return _first(world, theta) - 1


def _of_the_lesson(world: ChaoticMap | None = None, theta: float = 1.0) -> Any:
    return _first(exercise_world(beta=2.5), theta)


def _backprop_wins(world: ChaoticMap | None = None, theta: float = 1.0) -> Any:
    exact = circle_moments(world or exercise_world(), theta)
    return int((exact.pathwise_sd < exact.score_sd).nonzero()[0]) + 1


EXERCISES = {
    "3": Exercise(
        "Which is the first horizon at which REINFORCE has the smaller standard deviation?",
        _first,
        {
            "one less than it is: entry 0 of the moments belongs to horizon 1": _index,
            "this is the chaotic map of the lesson, and the exercise takes another beta": _of_the_lesson,
            "at this horizon backprop has the smaller standard deviation": _backprop_wins,
        },
        kind=ChaoticMap,
    ),
}
