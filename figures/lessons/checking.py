"""`check("4b", value)`: is the answer to an exercise right, and if not, how is it off?"""

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from envs.arguments import short
from envs.token_mdp import TokenMDP
from envs.world import InputError, unknown
from figures.lessons.catalogue import LESSONS, Lesson

Answer = str | Float[np.ndarray, "..."]
_PARALLEL = 1e-6  # 1 - |cosine| below which two arrays have one direction


@dataclass(frozen=True)
class Exercise:
    """A question with an exact answer.

    Attributes:
        asked: the question in one sentence.
        answer: computes the answer; a number, an array, or a word. Its keywords are what a teacher may change, a world for
            instance; every one has the lesson's own choice as its default.
        mistakes: what is said of a wrong value -> what that mistake gives, computed with the same keywords.
        tolerance: of a number, relative to the largest entry of the answer.
        kind: of the world, where the exercise takes one.
    """

    asked: str
    answer: Callable[..., Any]
    mistakes: dict[str, Callable[..., Any]]
    tolerance: float = 1e-3
    kind: type = TokenMDP


@dataclass(frozen=True)
class Checked:
    """What `check` found. It is true where the answer is right.

    Attributes:
        exercise: its name.
        right: whether the value is the answer.
        said: how it is off, or that it is right.
    """

    exercise: str
    right: bool
    said: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return f"{self.exercise}: {self.said}"


def exercises(lesson: Lesson) -> dict[str, Exercise]:
    """The exercises of a lesson by name, "4b" for instance; their names begin with its number."""
    known: dict[str, Exercise] = importlib.import_module(f"figures.lessons.exercises.{lesson.name}").EXERCISES
    return known


def _exercise(name: Any) -> Exercise:
    number = re.match(r"\d+", str(name))
    lessons = [lesson for lesson in LESSONS if number and lesson.number == int(number[0])]
    known = {name: exercise for lesson in lessons or LESSONS for name, exercise in exercises(lesson).items()}
    if name not in known:
        raise unknown("exercise", str(name), known)
    return known[name]


def check(exercise: str, value: Any = ..., **changed: Any) -> Checked:
    """Compare your answer to an exercise with the exact one, and say how it is off.

    Args:
        exercise: its name, "4b" for instance.
        value: your answer, a number, an array or a word; `...` while there is none.
        changed: what you changed of the lesson: `world=...`, where the exercise knows that name.

    Returns:
        Whether it is right, and what is wrong (a sign, a factor, a missing discount) where that can be seen.

    Raises:
        InputError: the exercise does not exist, or the value is of another kind or shape than the answer.
    """
    asked = _exercise(exercise)
    takes = inspect.signature(asked.answer).parameters
    for name in changed:
        if name not in takes:
            raise InputError(f"{name} cannot be changed in exercise {exercise}: {', '.join(takes) or 'nothing'} can")
    world = changed.get("world")
    if world is not None and not isinstance(world, asked.kind):
        raise InputError(f"world must be a {asked.kind.__name__} in exercise {exercise}; got {short(world)}")
    if value is ... or value is None:
        return Checked(exercise, False, f"no answer yet. {asked.asked}")
    truth = _as_answer(asked.answer(**changed))
    given = _read(exercise, value, truth)
    if _same(given, truth, asked.tolerance):
        return Checked(exercise, True, "right")
    for words, mistake in asked.mistakes.items():
        if _same(given, _as_answer(mistake(**changed)), asked.tolerance):
            return Checked(exercise, False, f"not yet: {words}")
    return Checked(exercise, False, f"not yet: {_how_far(given, truth)}")


def _as_answer(value: Any) -> Answer:
    if isinstance(value, str):
        return value.strip().lower()
    value = value.detach().cpu() if hasattr(value, "detach") else value
    return np.asarray(value, dtype=float)


def _read(exercise: str, value: Any, truth: Answer) -> Answer:
    """The value as an answer of the truth's kind and shape."""
    if isinstance(value, str) != isinstance(truth, str) or isinstance(value, bool):
        kind = "a word" if isinstance(truth, str) else "a number" if truth.ndim == 0 else "an array of numbers"
        raise InputError(f"value must be {kind} in exercise {exercise}; got {short(value)}")
    try:
        given = _as_answer(value)
    except (TypeError, ValueError):
        raise InputError(f"value must be numbers in exercise {exercise}; got {short(value)}") from None
    if not isinstance(given, str) and not isinstance(truth, str):
        given = given.reshape(()) if given.size == 1 and truth.ndim == 0 else given
        if given.shape != truth.shape:
            raise InputError(f"value must have shape {truth.shape} in exercise {exercise}; got {given.shape}")
        if not np.isfinite(given).all():
            raise InputError(f"value must be finite in exercise {exercise}; got {short(value)}")
    return given


def _same(given: Answer, other: Answer, tolerance: float) -> bool:
    if isinstance(given, str) or isinstance(other, str):
        return isinstance(given, str) and isinstance(other, str) and given == other
    if given.shape != other.shape:
        return False
    return bool((np.abs(given - other) <= tolerance * max(float(np.abs(other).max()), 1e-12)).all())


def _how_far(given: Answer, truth: Answer) -> str:
    """What can be said of any wrong value without giving the answer away."""
    if isinstance(given, str) or isinstance(truth, str):
        return "it is another one"
    size, wanted = float(np.linalg.norm(given)), float(np.linalg.norm(truth))
    if size == 0 or wanted == 0:
        return "it is not 0" if size == 0 else "too large"
    cosine = float((given * truth).sum()) / (size * wanted)
    if cosine < -1 + _PARALLEL:
        return "the sign is wrong" + (", and the size too" if abs(size / wanted - 1) > 0.01 else "")
    if cosine < 1 - _PARALLEL:
        return "it points another way" + (", to the other side" if cosine < 0 else "")
    return ("too large" if size > wanted else "too small") + (" by the same factor everywhere" if truth.ndim else "")
