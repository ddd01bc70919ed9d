"""A teacher swaps the world of a lesson by one line: another size runs to its end, another kind is refused in one line."""

import inspect
import re

import pytest

import costate
from figures.lessons.catalogue import LESSONS
from figures.lessons.checking import exercises
from tests.figures.lessons.notebook_cells import code_cells, exercise_cells, run_cells

# lesson -> a world of the same kind and another size
SWAPS = {
    1: 'costate.world("LQScalar", horizon=5, gamma=0.8)',
    2: 'costate.world("TokenGarnet", V=3, states=7, horizon=4, gamma=0.7)',
    3: 'costate.world("ChaoticMap", beta=0.3, horizon=8, sd=0.5)',
    4: 'costate.world("TokenGarnet", V=2, states=3, horizon=2, gamma=0.8)',
    5: 'costate.world("TokenParity", V=2, horizon=3)',
    6: 'costate.world("TokenLock", V=2, horizon=3)',
    7: 'costate.world("TokenCopy", V=3, length=2)',
    8: 'costate.world("TokenSumAndStop", horizon=3)',
    9: 'costate.world("TokenCopy", V=2, length=1)',
}
WRONG = {
    number: 'costate.world("TokenParity")' if number in (1, 3) else 'costate.world("LQScalar")' for number in SWAPS
}
# the one line: below its comment, or the tame map of lesson 3
LINE = re.compile(r"(?<=# the world of this lesson: change it here\n)world = .*|(?<=^tame = ).*", re.M)


def swapped(number, world):
    """The names that a lesson leaves behind with another world in its one line."""
    lines = []

    def swap(source):
        lines.extend(LINE.findall(source))
        return LINE.sub(world if number == 3 else f"world = {world}", source)

    names = run_cells(number, swap)
    assert len(lines) == 1
    return names


@pytest.mark.parametrize("number", SWAPS)
def test_another_size_runs_to_the_end_and_is_what_the_exercise_judges(number):
    assert set(SWAPS) == {lesson.number for lesson in LESSONS}
    names = swapped(number, SWAPS[number])
    world = names["worlds"]["tame"] if number == 3 else names["world"]
    assert repr(world) == repr(eval(SWAPS[number], {"costate": costate}))
    own = LINE.search("\n".join(code_cells(number)))[0].removeprefix("world = ")
    assert repr(world) != repr(eval(own, {"costate": costate})), "the control: it is not the lesson's own"


@pytest.mark.parametrize("number", WRONG)
def test_another_kind_is_refused_in_one_line(number):
    with pytest.raises(costate.InputError) as refused:
        swapped(number, WRONG[number])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_an_exercise_that_depends_on_the_world_is_given_the_world(lesson):
    cells = exercise_cells(lesson.number)
    for name, exercise in exercises(lesson).items():
        (cell,) = [cell for cell in cells if f'check("{name}"' in cell]
        takes = "world" in inspect.signature(exercise.answer).parameters and lesson.number != 3  # 3 names its own map
        assert ("world=world" in cell) == takes, name


@pytest.mark.parametrize("world", [3, "TokenParity", 'costate.world("LQScalar", horizon=None)', "WRONG"])
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_check_refuses_another_kind_of_world_in_one_line(lesson, world):
    if world in ("WRONG", 'costate.world("LQScalar", horizon=None)'):
        world = eval(WRONG[lesson.number] if world == "WRONG" else world, {"costate": costate})
    for name in exercises(lesson):
        with pytest.raises(costate.InputError, match=r"^world (must|cannot)") as refused:
            costate.check(name, 1.0, world=world)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_every_exercise_refuses_what_is_no_answer_in_one_line(lesson):
    for name, exercise in exercises(lesson).items():
        word = isinstance(exercise.answer(), str)
        for value in (
            True,
            {"a": 1},
            object(),
            1 + 2j,
            *((1.0,) if word else ("text", float("nan"), [[1.0], [2.0, 3.0]])),
        ):
            with pytest.raises(costate.InputError, match=r"^value must ") as refused:
                costate.check(name, value)
            assert "\n" not in str(refused.value)
        if word:
            assert costate.check(name, "text").said.startswith("not yet")
