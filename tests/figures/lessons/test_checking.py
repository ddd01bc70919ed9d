"""`check` says how a value is off, and refuses in one line what it cannot compare."""

import re

import numpy as np
import pytest
import torch

import costate
from envs.world import InputError
from figures.lessons import checking
from figures.lessons.catalogue import LESSONS, chosen_lessons
from figures.lessons.checking import Exercise, check, exercises

VECTOR = np.array([1.0, -2.0, 0.5])


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    """Three exercises: a number that depends on a keyword, an array, and a word."""
    made = {
        "1a": Exercise("How much?", lambda gamma=0.5: 3 * gamma, {"gamma is missing": lambda gamma=0.5: 3.0}),
        "1b": Exercise("Which way?", lambda: torch.tensor(VECTOR), {}),
        "1c": Exercise("Which one?", lambda: "E2", {"that one is biased": lambda: "E1"}),
        "1d": Exercise("What is left?", lambda: 0.0, {}),
    }
    monkeypatch.setattr(checking, "exercises", lambda lesson: made)


@pytest.mark.parametrize(
    ("name", "value", "right", "said"),
    [
        ("1a", 1.5, True, "right"),
        ("1a", 1.5 * (1 + 5e-4), True, "right"),
        ("1a", torch.tensor([1.5]), True, "right"),
        ("1a", np.float32(1.5), True, "right"),
        ("1a", 1.52, False, "not yet: too large"),
        ("1a", 0.2, False, "not yet: too small"),
        ("1a", 3.0, False, "not yet: gamma is missing"),
        ("1a", -1.5, False, "not yet: the sign is wrong"),
        ("1a", -9, False, "not yet: the sign is wrong, and the size too"),
        ("1a", 0, False, "not yet: it is not 0"),
        ("1b", VECTOR.tolist(), True, "right"),
        ("1b", -VECTOR, False, "not yet: the sign is wrong"),
        ("1b", 2 * VECTOR, False, "not yet: too large by the same factor everywhere"),
        ("1b", VECTOR / 2, False, "not yet: too small by the same factor everywhere"),
        ("1b", VECTOR + np.array([0, 0, 1.0]), False, "not yet: it points another way"),
        ("1b", [-1.0, 0.1, 0.1], False, "not yet: it points another way, to the other side"),
        ("1c", " e2", True, "right"),
        ("1c", "E1", False, "not yet: that one is biased"),
        ("1c", "E9", False, "not yet: it is another one"),
        ("1d", 0.0, True, "right"),
        ("1d", 0.1, False, "not yet: too large"),
        ("1a", ..., False, "no answer yet. How much?"),
        ("1a", None, False, "no answer yet. How much?"),
    ],
)
def test_a_value_is_judged_and_told_how_it_is_off(name, value, right, said):
    found = check(name, value)
    assert (found.right, bool(found), repr(found)) == (right, right, f"{name}: {said}")


def test_what_a_teacher_changed_changes_the_answer_and_its_mistakes():
    assert check("1a", 2.7, gamma=0.9)
    assert repr(check("1a", 3.0, gamma=0.9)) == "1a: not yet: gamma is missing"
    assert not check("1a", 1.5, gamma=0.9)


@pytest.mark.parametrize(
    ("name", "value", "changed", "words"),
    [
        ("1z", 1.0, {}, "exercise '1z' is unknown"),
        ("first", 1.0, {}, "exercise 'first' is unknown"),
        (7, 1.0, {}, "exercise '7' is unknown"),
        ("1a", "much", {}, "value must be a number in exercise 1a"),
        ("1b", "that way", {}, "value must be an array of numbers in exercise 1b"),
        ("1c", 2.0, {}, "value must be a word in exercise 1c"),
        ("1a", [1.0, 2.0], {}, re.escape("value must have shape () in exercise 1a; got (2,)")),
        ("1b", [1.0, 2.0], {}, re.escape("value must have shape (3,) in exercise 1b; got (2,)")),
        ("1a", float("nan"), {}, "value must be finite in exercise 1a"),
        ("1a", {"x": 1}, {}, "value must be numbers in exercise 1a"),
        ("1a", [[1.0], [2.0, 3.0]], {}, "value must be numbers in exercise 1a"),
        ("1a", 1.5, {"beta": 2}, "beta cannot be changed in exercise 1a: gamma can"),
        ("1b", VECTOR, {"world": 2}, "world cannot be changed in exercise 1b: nothing can"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(name, value, changed, words):
    with pytest.raises(InputError, match=f"^{words}") as refused:
        check(name, value, **changed)
    assert "\n" not in str(refused.value)


def test_the_face_has_it():
    assert costate.check is check


def test_lessons_are_numbered_in_order_and_need_earlier_ones():
    assert [lesson.number for lesson in LESSONS] == list(range(1, len(LESSONS) + 1))
    assert all(need < lesson.number for lesson in LESSONS for need in lesson.needs)
    assert 55 <= sum(lesson.minutes for lesson in LESSONS if lesson.in_class) <= 65
    assert chosen_lessons([]) == list(LESSONS)
    assert chosen_lessons([3, 1]) == [LESSONS[0], LESSONS[2]]
    with pytest.raises(InputError, match=r"^lesson 10 does not exist: give numbers from 1 to 9$"):
        chosen_lessons([1, 10])


def test_exercises_begin_with_the_number_of_their_lesson(monkeypatch):
    monkeypatch.setattr(checking, "exercises", exercises)
    for lesson in LESSONS:
        names = exercises(lesson)
        assert names
        assert all(re.fullmatch(rf"{lesson.number}[a-z]?", name) for name in names)
