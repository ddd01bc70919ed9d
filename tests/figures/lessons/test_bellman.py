"""Lesson 2: the exercise by enumeration of paths, and the mistakes that it knows."""

import runpy

import pytest
import torch

import costate
from figures.lessons.catalogue import chosen_lessons

LESSON = costate.world("TokenGarnet", V=2, states=3, horizon=8, gamma=0.9)
OTHER = costate.world("TokenGarnet", V=3, states=4, horizon=3, gamma=0.7, seed=2)


def policy(world):
    rng = torch.Generator().manual_seed(0)
    return torch.randn(world.S, world.V, generator=rng).double().softmax(-1)


def by_paths(world, s, a, gamma, first=0, earned=1.0):
    """Expected return after token `a` in state `s` at time `first`: a sum over every path that may follow."""
    pi, P, r = policy(world).tolist(), world.P.tolist(), world.r.tolist()

    def follow(t, s):
        if t == world.horizon:
            return 0.0
        return sum(pi[s][a] * after(t, s, a) for a in range(world.V))

    def after(t, s, a):
        chances = enumerate(P[s][a])
        return r[t][s][a] + gamma * sum(chance * follow(t + 1, s2) for s2, chance in chances if chance)

    return after(first, s, a) - (1 - earned) * r[first][s][a]


def table(world, gamma=None, **options):
    gamma = world.gamma if gamma is None else gamma
    return [[by_paths(world, s, a, gamma, **options) for a in range(world.V)] for s in range(world.S)]


def test_a_sum_over_all_paths_is_the_answer():
    small = costate.world("TokenGarnet", V=2, states=3, horizon=4, gamma=0.9)
    for world in (small, OTHER):
        answer = torch.tensor(table(world))
        assert costate.check("2", answer, world=world)
        assert not costate.check("2", answer + 0.01, world=world)
        assert not costate.check("2", answer, world=world, pi=torch.full_like(policy(world), 1 / world.V))
        assert costate.check("2", table(world, earned=0.0), world=world).said.endswith("of the step itself is missing")


@pytest.mark.parametrize("world", [LESSON, OTHER])
def test_the_mean_of_sampled_paths_is_the_answer(world):
    """Paths that begin with token 1 in state 0, in standard errors."""
    rng, pi, paths = torch.Generator().manual_seed(3), policy(world), 20_000
    s, a, total = torch.zeros(paths, dtype=torch.long), torch.ones(paths, dtype=torch.long), torch.zeros(paths)
    for t in range(world.horizon):
        total = total + world.gamma**t * world.r[t][s, a]
        s = torch.multinomial(world.P[s, a], 1, generator=rng)[:, 0]
        a = torch.multinomial(pi[s], 1, generator=rng)[:, 0]
    answer = torch.tensor(student(world))
    assert abs(total.mean() - answer[0, 1]) < 4 * total.std() / paths**0.5
    assert abs(total.mean() - answer[1, 0]) > 8 * total.std() / paths**0.5, "the control: another state and token"


def student(world, gamma=None, time=1):
    """`r + gamma P lambda` with the recursion that the lesson states."""
    pi, gamma = policy(world), world.gamma if gamma is None else gamma
    costates = [torch.zeros(world.S, dtype=torch.float64)]
    for t in reversed(range(world.horizon)):
        costates.insert(
            0, (pi * world.r[t]).sum(1) + world.gamma * torch.einsum("sa,say->sy", pi, world.P) @ costates[0]
        )
    return (world.r[0] + gamma * world.P @ costates[time]).tolist()


@pytest.mark.parametrize("world", [LESSON, OTHER])
def test_each_mistake_has_its_words(world):
    def said(value):
        return costate.check("2", value, world=world).said

    right = torch.tensor(student(world))
    assert said(right) == "right"
    assert "discount gamma is missing" in said(student(world, gamma=1.0))
    assert "gamma counts twice" in said(student(world, gamma=world.gamma**2))
    assert "that of the next time" in said(student(world, time=0))
    assert "probability of it does not enter" in said(policy(world) * right)
    assert "advantage" in said(right - (policy(world) * right).sum(1, keepdim=True))
    assert "sign is wrong" in said(-right)


def test_the_lesson_leads_to_the_answer():
    lesson = runpy.run_path(str(chosen_lessons([2])[0].path))
    world, costates = lesson["world"], lesson["costates"]
    assert costate.check("2", world.r[0] + world.gamma * world.P @ costates[1])
    assert not costate.check("2", lesson["answer"])
    assert lesson["off"] < 1e-12
    assert lesson["moved"] < 1e-12
