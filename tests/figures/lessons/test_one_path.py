"""Lesson 1: the exercise by hand, by sampling, and the mistakes that it knows."""

import numpy as np
import pytest

import costate
from tests.figures.lessons.notebook_cells import run_cells

LESSON = costate.world("LQScalar", horizon=12)
OTHER = costate.world("LQScalar", horizon=5, gamma=0.8)


def by_hand(world, gain=0.6, start=1.0, discount=None, follows=True, cut=True):
    """The recursion that the lesson states, one number at a time."""
    A, B, Q, R, Q_f = (float(np.asarray(getattr(world, name)).squeeze()) for name in ("A", "B", "Q", "R", "Q_f"))
    gamma = world.gamma if discount is None else discount
    states = [start]
    for _ in range(world.horizon):
        states.append((A - B * gain * follows) * states[-1])
    mu = -2 * Q_f * states[-1]
    for state in reversed(states[:-1]):
        through = 0 if cut else -2 * R * gain**2 * state - gamma * B * gain * mu
        mu = -2 * Q * state + gamma * A * mu + through
    return mu


@pytest.mark.parametrize("world", [LESSON, OTHER])
def test_the_recursion_by_hand_is_the_answer(world):
    answer = by_hand(world)
    assert costate.check("1", answer, world=world)
    assert not costate.check("1", answer * 1.01, world=world)
    assert costate.check("1", by_hand(world, 0.3, 2.0), world=world, gain=0.3, start=2.0)


def test_the_mean_of_sampled_cut_paths_is_the_answer():
    paths = costate.sampled_paths(LESSON, [[0.6]], paths=4000, start=[1.0], cut=True, seed=5)
    first = paths.frame().iloc[0]
    assert abs(first["mean"] - by_hand(LESSON)) < 4 * first["standard_error"]
    assert abs(first["gradient"] - by_hand(LESSON)) > 8 * first["standard_error"], (
        "the control: it is no value gradient"
    )


@pytest.mark.parametrize("world", [LESSON, OTHER])
def test_each_mistake_has_its_words(world):
    def said(value):
        return costate.check("1", value, world=world).said

    assert "this is the value gradient" in said(by_hand(world, cut=False))
    assert "discount" in said(by_hand(world, discount=1.0))
    assert "must still follow the policy" in said(by_hand(world, follows=False))
    assert "sign is wrong" in said(-by_hand(world))


def test_the_lesson_leads_to_the_answer(capsys):
    """As a student does it, with the notebook's own world and the recursion that the exercise states."""
    lesson = run_cells(1)
    world, s, K = lesson["world"], [1.0], lesson["K"][0][0]
    for _ in range(world.horizon):
        s.append((world.A - world.B * K).item() * s[-1])
    mu = -2 * world.Q_f * s[-1]
    for t in reversed(range(world.horizon)):
        mu = -2 * world.Q * s[t] + world.gamma * world.A * mu
    assert costate.check("1", mu, world=world)
    assert abs(lesson["off"]) < 5
    assert "standard errors away" in capsys.readouterr().out
