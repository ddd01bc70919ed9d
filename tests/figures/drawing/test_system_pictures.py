"""What the pictures of three claims on reference systems show of rows made by hand: number, place and colour."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color

from figures.drawing.curl import draw_curls
from figures.drawing.distillation import draw_distillation
from figures.drawing.kl_ends import draw_ends
from figures.drawing.style import COLOURS, house_style, new_figure


@pytest.fixture
def figure():
    with house_style():
        yield new_figure(4)


def marks(axis, colour, marker):
    """Points of lines with this colour and marker, in order."""
    lines = [x for x in axis.lines if x.get_marker() == marker and same_color(x.get_color(), COLOURS[colour])]
    return sorted(tuple(xy) for line in lines for xy in line.get_xydata().tolist())


def test_ways_lie_on_the_simplex_and_ends_stand_at_their_distance(figure):
    laws = {
        "k1 in the reward": ([1.0, 0.0, 0.0], [0.5, 0.5, 0.0]),
        "k3 in the loss": ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]),
    }
    paths = pd.DataFrame(
        {
            "penalty": penalty,
            "beta": beta,
            "seed": 0,
            "step": step,
            "token": token,
            "measured": p if beta == 0.3 else 1 / 3,
        }
        for penalty, steps in laws.items()
        for beta in (1.0, 0.3)
        for step, law in enumerate(steps)
        for token, p in enumerate(law)
    )
    ends = pd.DataFrame(
        [
            {"penalty": "k1 in the reward", "world": "a", "measured": 1e-13},
            {"penalty": "k3 in the loss", "world": "a", "measured": 0.2},
            {"penalty": "k3 in the loss", "world": "b", "measured": 0.05},
            {"penalty": "token by token", "world": "b", "measured": 0.5},
        ]
    )
    draw_ends(figure, paths, ends)
    left, right = figure.axes
    assert left.get_title() == "one start, two ends (b = 0.3)"
    assert marks(left, "costate", "o") == [(0.5, 0.0)]
    assert marks(left, "control", "s") == [pytest.approx((0.5, 3**0.5 / 2))]
    names = [text.get_text() for text in right.get_yticklabels()]
    seen = {
        (look, round(x, 6), names[round(y)])
        for look, marker in (("costate", "o"), ("control", "s"), ("score_value", "^"))
        for x, y in marks(right, look, marker)
    }
    assert seen == {("costate", 0.0, "a"), ("control", 0.2, "a"), ("control", 0.05, "b"), ("score_value", 0.5, "b")}


def test_a_recipe_is_blue_where_its_curl_is_rounding_and_the_title_counts(figure):
    values = {("A", "w"): 1e-11, ("A", "v"): 1e-10, ("B", "w"): 1e-11, ("B", "v"): 0.4, ("C", "w"): 0.2}
    rows = pd.DataFrame({"recipe": r, "world": w, "measured": x} for (r, w), x in values.items())
    axis = draw_curls(figure.subplots(), rows)
    assert axis.get_title().startswith("1 of 3 recipes")
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert names == ["B", "C", "A"]
    seen = {}
    for points in axis.collections:
        for (x, y), colour in zip(points.get_offsets().tolist(), points.get_facecolors(), strict=False):
            seen[names[round(y)], round(x, 6)] = "costate" if same_color(colour, COLOURS["costate"]) else "control"
    assert seen == {("A", 0.0): "costate", ("B", 0.0): "costate", ("B", 0.4): "control", ("C", 0.2): "control"}


def test_distillation_stands_above_the_minimiser_and_k1_on_it(figure):
    excess = pd.DataFrame(
        {"world": world, "teachers": count, "way": way, "measured": x * (1 + k)}
        for k, world in enumerate(("a", "b"))
        for count, way, x in (
            (1, "on-policy distillation", 0),
            (2, "on-policy distillation", 0.1),
            (2, "k1 in the reward", 0),
        )
    )
    draw_distillation(figure, excess, excess.assign(measured=2 * excess["measured"]))
    for axis, factor in zip(figure.axes, (1, 2), strict=True):
        for k, marker in enumerate("os"):
            red, blue = marks(axis, "control", marker), marks(axis, "costate", marker)
            assert [round(x) for x, _ in red] == [0, 1]
            assert [y for _, y in red] == pytest.approx([0.0, 0.1 * factor * (1 + k)])
            assert [(round(x), y) for x, y in blue] == [(1, 0.0)]
        (dashed,) = [line for line in axis.lines if line.get_linestyle() == "--" and len(line.get_xdata())]
        assert np.asarray(dashed.get_ydata()).tolist() == [0, 0]


@pytest.mark.parametrize("draw", [draw_ends, draw_distillation])
def test_no_rows_are_said(figure, draw):
    nothing = pd.DataFrame(columns=["penalty", "world", "measured", "beta", "seed", "teachers", "way"])
    draw(figure, nothing, nothing)
    assert all(axis.texts[0].get_text() == "no rows here" for axis in figure.axes)
