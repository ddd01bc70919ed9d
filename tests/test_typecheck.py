"""The faster decorator of `tests.typecheck` refuses the calls that jaxtyping's own refuses, and no others."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import jaxtyping
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from agents.recipes.learners import grpo
from tests import typecheck

DECORATORS = {"ours": typecheck.checked, "jaxtyping's": partial(typecheck._by_signature, typechecker=typecheck.check)}


def product(A: Float[Tensor, "n m"], x: Float[Tensor, "m"], scale: float = 1.0, name: str = "") -> Float[Tensor, "n"]:
    y = scale * (A @ x)
    return y[:, None] if name == "a column" else y[1:] if name == "short" else y


def each(x: Float[Tensor, "n"], times: int) -> Iterator[int]:
    yield from range(times)


def pair():
    """A new class at each call: the decorators change a class in place."""

    @dataclass
    class Pair:
        left: Float[Tensor, "n"]
        right: Float[Tensor, "n"]
        label: str = ""

    return Pair


A, X = torch.ones(3, 2), torch.ones(2)
CALLS = {
    "right": (product, (A, X), True),
    "a whole number for a float": (product, (A, X, 2), True),
    "sizes that differ": (product, (A, torch.ones(3)), False),
    "an axis more": (product, (A, X[None]), False),
    "whole numbers for floats": (product, (A, X.long()), False),
    "a word for a number": (product, (A, X, "2"), False),
    "an axis more in the result": (product, (A, X, 1.0, "a column"), False),
    "a result of another size": (product, (A, X, 1.0, "short"), False),
    "a right pair": (pair, (X, X), True),
    "a pair of two sizes": (pair, (X, A[:, 0]), False),
    "a pair with a number for its label": (pair, (X, X, 1), False),
    "a right generator": (each, (X, 2), True),
    "a generator of a matrix": (each, (A, 2), False),
}


@pytest.mark.parametrize("decorate", DECORATORS.values(), ids=DECORATORS)
@pytest.mark.parametrize("name", CALLS)
def test_the_same_calls_are_refused(name, decorate):
    thing, arguments, right = CALLS[name]
    made = decorate(pair() if thing is pair else thing)
    if right:
        made(*arguments)
    else:
        with pytest.raises(jaxtyping.TypeCheckError):
            made(*arguments)


def test_the_packages_are_checked_and_the_switch_of_jaxtyping_turns_it_off():
    with pytest.raises(jaxtyping.TypeCheckError, match="violates type hint"):
        grpo(3)
    assert typecheck.checked(lambda x: x)(1) == 1
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        assert len(typecheck.checked(product)(A, X, 1.0, "short")) == 2
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_the_first_calls_of_every_test_are_checked():
    own = typecheck.checked(product)
    for _ in range(typecheck.CALLS):
        own(A, X)
    with pytest.raises(RuntimeError):  # torch's own error: the call is let through
        own(A, torch.ones(3))
    typecheck.next_test()
    with pytest.raises(TypeError):
        own(A, torch.ones(3))
