"""Lesson 3: the exercise by Fourier series that are carried backwards in time, and the mistakes that it knows."""

import contextlib
import io
import runpy

import numpy as np
import pytest

import costate
from figures.lessons.catalogue import chosen_lessons

EXERCISE = costate.world("ChaoticMap", beta=2.0, horizon=30)
OTHER = costate.world("ChaoticMap", beta=2.3, horizon=12, sd=0.4, start=0.3)
GRID = 256


def spreads(world, theta, horizon):
    """Standard deviations of backprop and REINFORCE.

    The mean of a periodic f over the noise of one step is exact for each of its Fourier modes: `E e^{ik xi} = e^{-(k sd)^2/2}`,
    and a factor xi / sd^2 in the mean is one of i k, its square one of 1/sd^2 - k^2.
    """
    s, k = np.arange(GRID) * 2 * np.pi / GRID, np.fft.fftfreq(GRID, 1 / GRID)
    factors = [np.ones(GRID), 1j * k, 1 / world.sd**2 - k**2]

    def after_a_step(f, at, power=0):
        modes = np.fft.fft(f) / GRID * np.exp(-((k * world.sd) ** 2) / 2) * factors[power]
        ahead = world.beta * np.sin(np.atleast_1d(at)) + theta
        return np.real(np.exp(1j * np.outer(ahead, k)) @ modes)

    # means given s of the return's slope and square, times powers of what later steps add
    slope, square = [-np.sin(s), np.sin(s) ** 2], [np.cos(s), np.cos(s) ** 2]
    A1, B1 = slope[0], 0 * s  # dR/ds_t, dR/dtheta of the steps after t
    AA, AB, BB = slope[1], 0 * s, 0 * s
    f, fS, g, gS, gSS = square[0], 0 * s, square[1], 0 * s, 0 * s
    for t in reversed(range(horizon)):
        at = s if t else np.array([world.start])
        b = world.beta * np.cos(at)
        A1, B1 = b * after_a_step(A1, at), after_a_step(A1 + B1, at)
        AA, AB, BB = (
            b**2 * after_a_step(AA, at),
            b * after_a_step(AA + AB, at),
            after_a_step(AA + 2 * AB + BB, at),
        )
        f, fS = after_a_step(f, at), after_a_step(fS, at) + after_a_step(f, at, 1)
        g, gS, gSS = (
            after_a_step(g, at),
            after_a_step(gS, at) + after_a_step(g, at, 1),
            after_a_step(gSS, at) + 2 * after_a_step(gS, at, 1) + after_a_step(g, at, 2),
        )
    assert np.isclose(B1[0], fS[0]), "both estimators have the mean dJ/dtheta"
    return np.sqrt(BB[0] - B1[0] ** 2), np.sqrt(gSS[0] - fS[0] ** 2)


def first(world, theta=1.0):
    return next(T for T in range(1, world.horizon + 1) if np.diff(spreads(world, theta, T)) < 0)


@pytest.mark.parametrize(("world", "theta"), [(EXERCISE, 1.0), (OTHER, 0.8)])
def test_fourier_series_give_the_answer(world, theta):
    answer = first(world, theta)
    assert costate.check("3", answer, world=world, theta=theta)
    assert costate.check("3", float(answer), world=world, theta=theta)
    assert not costate.check("3", answer + 1, world=world, theta=theta)
    assert "entry 0 of the moments" in costate.check("3", answer - 1, world=world, theta=theta).said
    exact = costate.exact(world, theta)
    assert np.allclose(spreads(world, theta, 7), (exact.pathwise_sd[6], exact.score_sd[6]), rtol=1e-8)
    assert not np.allclose(spreads(world, theta, 7), (exact.pathwise_sd[7], exact.score_sd[7]), rtol=0.01)


def test_each_other_mistake_has_its_words():
    lesson = first(costate.world("ChaoticMap", beta=2.5, horizon=20))
    assert "takes another beta" in costate.check("3", lesson).said
    assert "backprop has the smaller" in costate.check("3", 1).said
    assert costate.check("3", 30).said == "not yet: too large"


def test_a_map_without_an_answer_is_refused_in_one_line():
    tame = costate.world("ChaoticMap", beta=0.5, horizon=20)
    with pytest.raises(costate.InputError, match=r"^world must have .* take a larger beta or horizon$"):
        costate.check("3", 5, world=tame)


@pytest.fixture(scope="module")
def lesson():
    """The names that the notebook leaves, and what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        names = runpy.run_path(str(chosen_lessons([3])[0].path))
    return names | {"printed": printed.getvalue()}


def test_the_lesson_leads_to_the_answer(lesson):
    exact = costate.exact(costate.world("ChaoticMap", beta=2.0, horizon=30), lesson["theta"])
    answer = next(T + 1 for T in range(30) if exact.score_sd[T] < exact.pathwise_sd[T])
    assert costate.check("3", answer)
    assert not costate.check("3", lesson["answer"])
    assert "tame, T = 20: REINFORCE needs" in lesson["printed"]


def test_the_sampled_spreads_of_the_tame_map_agree_with_the_exact_ones(lesson):
    """A standard deviation of n paths has a relative error of sqrt((kurtosis - 1) / 4n); kurtosis here is below 9."""
    exact = [spreads(lesson["worlds"]["tame"], lesson["theta"], T) for T in range(1, 21)]
    off = np.abs(lesson["spreads"]["tame"].numpy() / exact - 1)
    assert off.max() < 5 * (8 / (4 * lesson["paths"])) ** 0.5
    assert np.abs(lesson["spreads"]["chaotic"].numpy() / exact - 1).max() > 1, "the control: the other map"
