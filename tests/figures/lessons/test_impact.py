"""Lesson 9: headroom from sampled answers and from listed ones, and what the notebook's picture says."""

import copy
import math

import numpy as np
import pytest

import costate
from figures.impact import pretrained
from figures.lessons.exercises import impact
from figures.lessons.exercises.impact import EXERCISES
from tests.figures.lessons.notebook_cells import run_cells

TOKENS = 20480


@pytest.fixture(scope="module", autouse=True)
def trained_once():
    """The same pretraining, asked for again by the exercise and by the notebook, is not done again."""
    known = {}

    def pretrain(world, *numbers, **options):
        answers = [x.numpy().tobytes() for x in (world.P, world.r, world.prompts)]
        asked = (*answers, world.horizon, numbers, tuple(options.items()))
        if asked not in known:
            known[asked] = pretrained.pretrain(world, *numbers, **options)
        return copy.deepcopy(known[asked])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(impact, "pretrain", pretrain)
        patch.setattr(costate, "pretrain", pretrain)
        yield


@pytest.fixture(scope="module")
def world():
    return costate.world("TokenSkills", modulus=3, horizon=2, names="say,copy,add")


@pytest.fixture(scope="module")
def chances(world):
    """Success probability of every prompt after so many tokens."""
    path = costate.pretrain(world)
    return {tokens: costate.exact(world, path[tokens]).V[0].double().numpy() for tokens in (0, TOKENS)}


def pass_at(k, p):
    """The chance of a right answer among k, as a sum over the try at which the first one comes."""
    return sum(p * (1 - p) ** tries for tries in range(k))


def test_the_answer_is_the_mean_over_prompts(chances):
    p = chances[TOKENS]
    value = np.mean(pass_at(4, p) - p)
    assert costate.check("9", value)
    assert costate.check("9", 1.01 * value).said == "not yet: too large"
    assert costate.check("9", -value).said == "not yet: the sign is wrong"


def test_sampled_answers_agree_within_their_standard_errors(chances):
    p = chances[TOKENS]
    right = np.random.default_rng(0).random((20_000, len(p), 4)) < p[:, None]
    samples = (right.any(-1).astype(float) - right[..., 0]).mean(1)
    error = samples.std() / math.sqrt(len(samples))
    assert abs(samples.mean() - EXERCISES["9"].answer()) < 4 * error
    assert abs(samples.mean() - (pass_at(4, p.mean()) - p.mean())) > 4 * error


def test_each_mistake_gets_its_own_words(chances):
    p = chances[TOKENS]
    for value, words in (
        (np.mean(pass_at(8, p) - p), "8 tries"),
        (pass_at(4, p.mean()) - p.mean(), "the mean comes last"),
        (np.mean(pass_at(4, p)), "pass@1 is still in it"),
        (1 - p.mean(), "all that is left"),
        (np.mean(p**4 - p), "one is enough"),
        (np.mean(pass_at(4, chances[0]) - chances[0]), "before pretraining"),
    ):
        assert words in costate.check("9", value).said


def test_another_world_is_taken():
    other = costate.world("TokenCopy", V=2, length=2)
    path = costate.pretrain(other)
    tokens = sorted(path)[2]
    p = costate.exact(other, path[tokens]).V[0].double().numpy()
    assert costate.check("9", np.mean(pass_at(3, p) - p), world=other, tokens=tokens, k=3)
    with pytest.raises(costate.InputError, match="tokens must be those of a checkpoint"):
        costate.check("9", 0.1, world=other, tokens=1)


def test_the_notebook_shows_what_it_says():
    table = run_cells(9)["table"]
    clean, guessed = table.loc["clean"], table.loc["half guessed"]
    ends = {clean.index[0], clean.index[-1]}
    assert clean["gain"].idxmax() not in ends
    assert clean["predicted"].idxmax() not in ends
    assert guessed["gain"].idxmax() > clean["gain"].idxmax()
    assert guessed["predicted"].idxmax() > clean["predicted"].idxmax()
    assert TOKENS in clean.index
