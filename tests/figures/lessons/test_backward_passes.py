"""Lesson 4: the exercises by finite differences and by samples, and the mistakes that they know."""

import itertools
import runpy

import pytest
import torch

import costate
from figures.lessons.catalogue import chosen_lessons

LESSON = costate.world("TokenParity", V=3, horizon=3)
OTHER = costate.world("TokenGarnet", V=2, states=3, horizon=3, gamma=0.8)  # pays at every step, and discounts


def policy(world):
    return next(iter(costate.random_policies(world, width=8, layers=1, heads=2).values()))


def log_probs(world, mind, words, delta, last):
    """Log-probability of every token of every completion, with a vector added to the embedding of the prompt's end."""
    tokens = torch.cat([world.prompts[:1].expand(len(words), -1), words], 1)[:, :-1]
    embedded = mind.embed(tokens)
    shifted = torch.stack([embedded[:, t] + delta * (t == last) for t in range(tokens.shape[1])], 1)
    return mind(shifted)[:, last:].log_softmax(-1).gather(-1, words[..., None])[..., 0]


def returns(world, words, gamma):
    """Expected return of every completion, summed over the states on the way."""
    totals = []
    for word in words.tolist():
        state, total = world.start_belief(0), 0.0
        for t, token in enumerate(word):
            total += gamma**t * float(state @ world.r[t][:, token])
            state = state @ world.P[:, token]
        totals.append(total)
    return torch.tensor(totals, dtype=torch.float64)


def setting(world, gamma=None):
    words = torch.tensor(list(itertools.product(range(world.V), repeat=world.horizon)))
    R = returns(world, words, world.gamma if gamma is None else gamma)
    mind, last = policy(world), world.prompts.shape[1] - 1
    return words, R, lambda delta: log_probs(world, mind, words, delta, last)


def slope(world, loss, gamma=None):
    """Gradient of a loss in the vector that is added."""
    _, R, law = setting(world, gamma)
    delta = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    log_pi = law(delta)
    return torch.autograd.grad(loss(R, log_pi, log_pi.sum(1).exp().detach()), delta)[0]


def right(R, log_pi, p):
    return (p * R * log_pi.sum(1)).sum()


@pytest.mark.parametrize("world", [LESSON, OTHER])
def test_central_differences_of_the_expected_return_are_the_answer(world):
    _, R, law = setting(world)
    with torch.no_grad():
        V = [[float(law(s * 1e-4 * e).sum(1).exp() @ R) for s in (1, -1)] for e in torch.eye(8).double()]
    answer = torch.tensor([(up - down) / 2e-4 for up, down in V])
    assert costate.check("4a", answer, world=world, policy=policy(world))
    assert not costate.check("4a", answer + 0.01 * answer.norm(), world=world)
    assert not costate.check("4a", answer, world=LESSON if world is OTHER else OTHER)
    assert "sign is wrong" in costate.check("4a", -answer, world=world).said


MISTAKES = {
    "counts once here": lambda R, log_pi, p: (R * log_pi.sum(1)).sum(),
    "plain mean": lambda R, log_pi, p: (R * log_pi.sum(1)).mean(),
    "hold them constant": lambda R, log_pi, p: (log_pi.sum(1).exp() * R * log_pi.sum(1)).sum(),
    "last token alone": lambda R, log_pi, p: (p * R * log_pi[:, -1]).sum(),
    "first token alone": lambda R, log_pi, p: (p * R * log_pi[:, 0]).sum(),
    "must be summed": lambda R, log_pi, p: (p * R * log_pi.mean(1)).sum(),
    "at once": lambda R, log_pi, p: (p * R * log_pi.sum(1)).mean(),
}


@pytest.mark.parametrize("world", [LESSON, OTHER])
@pytest.mark.parametrize("said", MISTAKES)
def test_each_mistake_has_its_words(world, said):
    assert said in costate.check("4a", slope(world, MISTAKES[said]), world=world).said
    assert costate.check("4a", slope(world, right), world=world)


def test_a_missing_discount_and_E1b_have_their_words():
    assert "not discounted" in costate.check("4a", slope(OTHER, right, gamma=1.0), world=OTHER).said
    own = costate.expected_costates(OTHER, policy(OTHER), "E1b", "embedding")[0][0, -1]
    assert "E1b" in costate.check("4a", own, world=OTHER).said


def test_grpo_steps_on_the_mean_of_E2_and_of_nothing_else():
    """Groups of two, rewards 0 and 1: the advantage is half the sign of the difference, over its standard deviation."""
    _, R, law = setting(LESSON)
    rng, groups = torch.Generator().manual_seed(1), 4000
    delta = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    log_pi = law(delta).sum(1)
    drawn = torch.multinomial(log_pi.detach().exp(), 2 * groups, replacement=True, generator=rng).reshape(groups, 2)
    scores = torch.stack([torch.autograd.grad(x, delta, retain_graph=True)[0] for x in log_pi])
    A = R[drawn] - R[drawn].mean(1, keepdim=True)
    A = A / A.abs().clamp(min=1e-9)
    steps = (A[..., None] * scores[drawn]).sum(1)
    off = {
        name: _errors(steps, costate.expected_costates(LESSON, policy(LESSON), name, "embedding")[0][0, -1])
        for name in ("E1b", "E2", "E3", "E4")
    }
    assert off["E2"] < 4
    assert min(off["E1b"], off["E4"]) > 8, "the control: these point elsewhere"
    assert costate.check("4b", "E2")
    assert costate.check("4b", " e2 ")


def _errors(steps, direction):
    """Largest component of the mean step across a direction, in standard errors."""
    across = steps - (steps @ direction)[:, None] * direction / direction.square().sum()
    return float((across.mean(0).abs() / (across.std(0) / len(across) ** 0.5)).max())


@pytest.mark.parametrize("name", ["E1", "E1b", "E3", "E4", "E5", "score"])
def test_each_other_name_has_its_words(name):
    said = costate.check("4b", name).said
    assert said.startswith("not yet")
    assert "another one" not in said


def test_the_lesson_leads_to_the_answer():
    lesson = runpy.run_path(str(chosen_lessons([4])[0].path))
    log_pi = lesson["log_pi"].sum(1)
    loss = (log_pi.detach().exp() * lesson["returns"] * log_pi).sum()
    assert costate.check("4a", torch.autograd.grad(loss, lesson["probe"])[0])
    assert not costate.check("4b", lesson["answer"])
