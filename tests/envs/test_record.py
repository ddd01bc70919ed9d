"""The short repr: numbers as they are, arrays by their shapes, long collections by their length."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from envs.linear_quadratic import scalar
from envs.record import short_repr


@short_repr
@dataclass(frozen=True)
class Box:
    x: Any
    hidden: int = field(default=7, repr=False)
    rest: Any = None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1 / 3, "x=0.3333"),
        (torch.tensor(-2 / 3), "x=-0.6667"),
        (np.zeros((2, 3)), "x (2, 3)"),
        (torch.zeros(1), "x (1,)"),
        (7, "x=7"),
        ("name", "x='name'"),
        ([torch.zeros(2)] * 3, "x of 3"),
        ((Box(1), Box(2)), "x of 2"),
        ([], "x=[]"),
        ((1, 2), "x=(1, 2)"),
        ({"a": torch.zeros(2), "b": None}, "x={a, b}"),
        (dict.fromkeys(range(12), 0), f"x={{{', '.join(map(str, range(12)))}}}"),
        (dict.fromkeys(range(13), 0), "x of 13"),
    ],
)
def test_a_field_shows_its_value_its_shape_or_its_length(value, text):
    assert repr(Box(value)) == f"Box({text})"
    assert repr(Box(value, rest=0.5)) == f"Box({text}, rest=0.5)"


def test_none_is_left_out_and_the_class_is_the_same():
    assert repr(Box(None)) == "Box()"
    assert "None" not in repr(scalar(horizon=3))
    assert Box(1) == Box(1) != Box(2)
