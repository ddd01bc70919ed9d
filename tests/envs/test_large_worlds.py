"""Worlds that are too large are refused with their numbers, before anything is allocated."""

import numpy as np
import pytest

from envs import token_tasks
from envs.linear_quadratic import scalar
from envs.registry import make_world
from envs.skills import skills
from envs.stacked_history import stack_history
from tests.envs.refusals import refused
from tests.typecheck import unchecked

TOO_LARGE = {
    "arithmetic": (lambda: token_tasks.arithmetic(10**6), "modulus=1000000"),
    "arithmetic by name": (lambda: make_world("TokenArithmetic", modulus=200), "modulus=200"),
    "skills": (lambda: skills(50), "modulus=50"),
    "skills by name": (lambda: make_world("TokenSkills", modulus=50), "modulus=50"),
    "copy": (lambda: token_tasks.copy(10, 20), "V=10"),
    "reverse": (lambda: token_tasks.reverse(4, 12, sparse=False), "V=4"),
    "lock": (lambda: token_tasks.combination_lock(10**9, 4), "V=1000000000"),
    "parity": (lambda: token_tasks.parity(2, 10**12), "V=2"),
    "distractor": (lambda: token_tasks.distractor(10**9, 5), "V=1000000000"),
    "garnet": (lambda: token_tasks.garnet(V=100, states=10_000), "V=100"),
    "sums": (lambda: token_tasks.sum_and_stop(5000, 3), "modulus=5000"),
    "history": (lambda: stack_history(scalar(horizon=5), 10**6), "window=1000000"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_it_is_refused_before_it_is_built(name, monkeypatch):
    build, named = TOO_LARGE[name]
    for allocator in ("zeros", "eye", "repeat"):
        monkeypatch.setattr(np, allocator, lambda *arguments, **options: pytest.fail("allocated"))
    with refused(named):
        build()


def test_what_fits_is_built():
    assert token_tasks.arithmetic(12, 2).S == 289
    assert skills(6, 2, "say,copy").V == 8
    assert stack_history(scalar(horizon=5), 100).n == 100


@unchecked()
@pytest.mark.parametrize("size", [2.5, "3", True, None])
def test_sizes_are_whole_numbers(size):
    for build, name in ((token_tasks.arithmetic, "modulus"), (token_tasks.parity, "V"), (skills, "modulus")):
        with refused(name):
            build(size)
    assert token_tasks.parity(np.int64(2), np.int32(3)).horizon == 3
