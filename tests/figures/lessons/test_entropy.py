"""Lesson 5: the exercise by enumeration of completions, and the mistakes that it knows."""

import itertools
import math
import runpy

import numpy as np
import pytest
import torch

import costate
from figures.lessons.catalogue import chosen_lessons

LESSON = costate.world("TokenParity", V=3, horizon=3)
OTHER = costate.world("TokenGarnet", V=3, states=2, horizon=3, gamma=0.8)
SIZES = {"width": 8, "layers": 1, "heads": 2}
KNOBS = {"temperatures": np.geomspace(3, 0.03, 17), "offsets": np.linspace(0, 8, 17)}


def first_limit(H):
    return H / (2 * math.log(2))


def second_limit(H):
    return 1 - math.exp(-H)


def both(H):
    return min(first_limit(H), second_limit(H))


def rows(world, knob):
    """(error, entropy) of every policy: E1 of a token reward is 0, so the error is the slope of the expected return."""
    words = torch.tensor(list(itertools.product(range(world.V), repeat=world.horizon)))
    state, R = world.start_belief(0).expand(len(words), -1), torch.zeros(len(words))
    for t, token in enumerate(words.T):
        R = R + world.gamma**t * torch.stack([s @ world.r[t][:, a] for s, a in zip(state, token, strict=True)])
        state = torch.stack([s @ world.P[:, a] for s, a in zip(state, token, strict=True)])
    policies = costate.random_policies(world, **{knob: KNOBS[knob]}, **SIZES).values()
    return [_error_and_entropy(world, policy, words, R) for policy in policies]


def _error_and_entropy(world, policy, words, R):
    tokens = torch.cat([world.prompts[:1].expand(len(words), -1), words], 1)[:, :-1]
    last, delta = world.prompts.shape[1] - 1, torch.zeros(8, dtype=torch.float64, requires_grad=True)
    x = policy.embed(tokens)
    x = torch.stack([x[:, t] + delta * (t == last) for t in range(x.shape[1])], 1)
    law = policy(x)[:, last:].log_softmax(-1)
    p = law.gather(-1, words[..., None])[..., 0].sum(1).exp()
    error = torch.autograd.grad((p * R).sum(), delta)[0].norm()
    entropy = -(law.exp() * law).sum(-1).mean(1)  # of every completion, over its steps
    return float(error), float((p * entropy).sum().detach())


@pytest.fixture(scope="module", params=["lesson", "other"])
def case(request):
    world = {"lesson": LESSON, "other": OTHER}[request.param]
    return world, {knob: rows(world, knob) for knob in KNOBS}


def growth(case, limit=both, knobs=tuple(KNOBS)):
    """C / C_0 from the enumerated rows."""
    unchanged, H = case[1]["offsets"][0]
    return max(error / limit(H) for knob in knobs for error, H in case[1][knob]) / (unchanged / limit(H))


def test_enumerated_completions_give_the_answer(case):
    answer = growth(case)
    assert costate.check("5", answer, world=case[0])
    assert not costate.check("5", 1.01 * answer, world=case[0])
    assert not costate.check("5", answer, world=LESSON if case[0] is OTHER else OTHER)


def test_each_mistake_has_its_words(case):
    def said(value):
        return costate.check("5", value, world=case[0]).said

    assert said(1 / growth(case)).endswith("this is C_0 over C")
    assert "1 - exp(-H) is smaller" in said(growth(case, first_limit))
    assert "H / (2 ln 2) is smaller" in said(growth(case, second_limit))
    assert "the errors alone" in said(growth(case, lambda H: 1.0))
    assert "temperature are missing" in said(growth(case, knobs=("offsets",)))


@pytest.fixture(scope="module")
def lesson():
    """The names that the notebook leaves."""
    return runpy.run_path(str(chosen_lessons([5])[0].path))


def test_the_error_first_rises_for_both_knobs_and_stays_below_its_bound(lesson):
    for knob, sweep in lesson["sweeps"].items():
        error, H = zip(*rows(LESSON, f"{knob}s"), strict=True)
        assert np.allclose(sweep["error"], error, rtol=1e-9, atol=1e-15)
        assert np.allclose(sweep["entropy"], H)
        assert max(error) > 1.1 * error[0], "lower entropy, larger error"
        assert error[-1] < 0.01 * max(error)
        assert (sweep["error"] <= sweep["tier2"]).all()


def test_the_lesson_leads_to_the_answer(lesson):
    temperature, offset = (lesson["sweeps"][knob] for knob in ("temperature", "offset"))

    def constant(rows):
        H = rows["entropy"]
        return (rows["error"] / np.minimum(H / (2 * np.log(2)), 1 - np.exp(-H))).max()

    answer = max(constant(temperature), constant(offset)) / constant(offset[offset["offset"] == 0])
    assert costate.check("5", answer)
    assert not costate.check("5", lesson["answer"])
