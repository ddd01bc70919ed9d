"""`draw_arrows`: coordinates are inner products, the plane holds what it should, labels say what is zero, small or equal."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

import costate
from figures.drawing.arrow_plane import arrow_plane
from tests.figures.drawing.readable import colliding, unreadable

REWARDS = [[0.3, -1.0, 0.2], [0.0, 2.0, 0.7], [0.1, 0.1, -0.4]]
NAMES = ("E1", "E1b", "E2", "E3", "E4")
RNG = np.random.default_rng(1)
MADE_UP = {name: RNG.normal(size=5) for name in ("grad V", "a", "b", "c")}


def vectors(alpha=1.0, temperature=0.4, names=NAMES):
    """grad V and the exact means of estimators at the prompt."""
    world = costate.TokenMDP.from_rewards(REWARDS)
    policy = costate.Transformer(world.V, width=8, length=3, temperature=temperature)
    found = {"grad V": costate.exact(world, policy, sites="layer1", alpha=alpha).costates["layer1"][0][0, -1]}
    return found | {n: costate.expected_costates(world, policy, n, "layer1", alpha)[0][0, -1] for n in names}


def tips(axis):
    """Where arrows and dots end, by name."""
    arrows = {text.get_gid(): np.array(text.xy) for text in axis.texts if text.get_gid()}
    return arrows | {line.get_gid(): line.get_xydata()[0] for line in axis.lines if line.get_gid()}


def labels(axis):
    return [text.get_text() for text in axis.texts if text.get_text()]


def entries(axis):
    return [text.get_text().replace("\n", " ") for text in axis.get_legend().get_texts()]


def test_coordinates_are_inner_products_with_the_reference_and_with_one_orthogonal_direction():
    axis, g = costate.draw_arrows(MADE_UP), MADE_UP["grad V"]
    found = tips(axis)
    assert found["grad V"] == pytest.approx([1, 0])
    for name, vector in MADE_UP.items():
        assert found[name][0] == pytest.approx(vector @ g / (g @ g))
    rest = np.stack([MADE_UP[name] - found[name][0] * g for name in "abc"]) / np.linalg.norm(g)
    second = np.array([found[name][1] for name in "abc"])
    assert np.sum(second**2) == pytest.approx(np.linalg.eigvalsh(rest @ rest.T)[-1]), (
        "most of the rest, by the Gram matrix"
    )
    direction = np.linalg.lstsq(rest, second, rcond=None)[0]
    direction /= np.linalg.norm(direction)
    assert abs(direction @ g) < 1e-9
    assert np.allclose(rest @ direction, second)
    turned = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
    for name, tip in tips(costate.draw_arrows({n: turned @ v for n, v in MADE_UP.items()})).items():
        assert tip == pytest.approx(found[name]), "a rotation of all changes nothing"
    squeezed = tips(costate.draw_arrows({n: v * (1, 1, 1, 1, 3) for n, v in MADE_UP.items()}))
    assert any(abs(squeezed[name] - found[name]).max() > 0.1 for name in "abc"), "the control"


def test_the_legend_says_how_much_of_a_vector_lies_in_the_plane():
    spread = {"grad V": [1.0, 0, 0, 0], "a": [0.5, 3.0, 0, 0], "b": [0.6, 0, 0.8, 0]}
    axis = costate.draw_arrows(spread)
    plane = arrow_plane(spread, None, None)
    assert plane.arrows["b"].share == pytest.approx(0.6)
    assert entries(axis) == ["grad V, exact", "a", "b, 60 % in the plane"]
    pale = {text.get_gid(): text.arrowprops["alpha"] for text in axis.texts if text.get_gid()}
    assert pale == pytest.approx({"grad V": 1, "a": 1, "b": 0.6})
    other = costate.draw_arrows(spread, basis=([1, 0, 0, 0], [1, 0, 1, 0]))
    assert tips(other)["b"] == pytest.approx([0.6, 0.8])
    assert entries(other)[1].endswith("16 % in the plane")
    assert other.get_xlabel().startswith("along the first vector of the basis")
    assert tips(costate.draw_arrows(spread, reference="b"))["b"] == pytest.approx([1, 0])


def test_at_alpha_one_e1_is_zero_and_e2_is_the_value_gradient():
    found = vectors()
    axis = costate.draw_arrows(found)
    assert axis.get_title().replace("\n", " ") == "E2 is grad V; E1, E1b, E3 and E4 are not"
    assert {"E1 = 0", "grad V = E2"} <= set(labels(axis))
    assert tips(axis)["E1"] == pytest.approx([0, 0])
    assert f"|grad V| = {float(found['grad V'].norm()):.2g}" in axis.get_xlabel()
    half = costate.draw_arrows(vectors(alpha=0.5, names=(*NAMES, "total")))
    assert half.get_title().replace("\n", " ") == "total is grad V; E1, E1b, E2, E3 and E4 are not"
    assert "E1 = 0" not in labels(half)
    assert "E1: through attention alone" in entries(half)
    exact = next(text for text in axis.texts if text.get_gid() == "grad V")
    assert exact.arrowprops["linestyle"] == "--"


def test_both_axes_have_one_scale_and_what_is_too_short_is_named_with_its_length():
    short = {"grad V": [1.0, 0.0], "a": [0.004, 0.003], "zero": [0.0, 0.0], "rounding": [1e-17, 0], "b": [0.5, 0.5]}
    for size in ((4, 3), (9, 3), (4, 7)):
        axis = costate.draw_arrows(short, ax=Figure(figsize=size, layout="constrained").subplots())
        ends = axis.transData.transform([(0, 0), (1, 0), (0, 1)])
        assert ends[1, 0] - ends[0, 0] == pytest.approx(ends[2, 1] - ends[0, 1], rel=0.01)
        assert "a: 0.005 |grad V|" in labels(axis)
        assert "zero = rounding = 0" in labels(axis)
        assert [line.get_gid() for line in axis.lines if line.get_gid()] == ["a", "zero", "rounding"]
    with pytest.raises(costate.InputError, match=r"'b'.* is 100 times as long as 'grad V'"):
        costate.draw_arrows({"grad V": [1.0, 0.0], "b": [0.0, 100.0]})
    assert tips(costate.draw_arrows({"b": [0.0, 100.0], "grad V": [1.0, 0.0]}))["grad V"] == pytest.approx([0, 0.01])


def test_few_dimensions_few_vectors_and_a_reference_of_zero():
    assert tips(costate.draw_arrows({"g": [2.0], "a": [-1.0]}))["a"] == pytest.approx([-0.5, 0])
    assert costate.draw_arrows({"g": [0.0, 2.0]}).get_title() == "g"
    alike = costate.draw_arrows({"g": [0.0, 2.0], "a": [0.0, 2.0]})
    assert alike.get_title() == "a is g"
    none = costate.draw_arrows({"g": [0.0, 0.0], "a": [0.0, 2.0]})
    assert tips(none)["a"] == pytest.approx([2, 0])
    assert none.get_xlabel() == "along the main direction"


def test_samples_are_drawn_as_their_mean_with_two_standard_errors():
    samples = torch.tensor(RNG.normal((1.0, 0.5), (0.3, 0.1), size=(400, 2)))
    axis = costate.draw_arrows({"g": [1.0, 0.0], "E5": samples})
    assert np.abs(tips(axis)["E5"]) == pytest.approx(samples.mean(0).abs().numpy())
    (ellipse,) = [patch for patch in axis.patches if isinstance(patch, Ellipse)]
    wide, high = sorted((ellipse.width, ellipse.height), reverse=True)
    assert wide == pytest.approx(4 * 0.3 / 20, rel=0.15)
    assert high == pytest.approx(4 * 0.1 / 20, rel=0.15)
    assert "mean of 400" in entries(axis)[1]
    assert axis.get_title() == "g", "a sampled mean is not judged"


@pytest.mark.parametrize("width", [3.3, 10.0])
@pytest.mark.parametrize(("alpha", "temperature"), [(1.0, 0.4), (0.5, 0.4), (1.0, 20.0), (1.0, 0.08)])
def test_no_label_stands_on_another(alpha, temperature, width):
    axis = costate.draw_arrows(vectors(alpha, temperature, (*NAMES, "total", "reinmax")), width=width)
    assert unreadable(axis.figure) == []
    assert colliding(axis) == []
    for text in axis.texts:
        text.xy = (0, 0)
    assert len(colliding(axis)) > 0, "the control: around one point they collide"


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ({}, {}, "at least one entry"),
        ([1.0, 2.0], {}, "must be a dictionary"),
        ({"g": [1.0, 2.0], "a": [1.0]}, {}, "with the D of 'g', 2; got shape"),
        ({"g": [[[1.0, 2.0]]]}, {}, "take one prefix and one position"),
        ({"g": [1.0, float("nan")]}, {}, "holds NaN"),
        ({"g": [0.0, 0.0], "a": [0.0, 0.0]}, {}, "are all 0"),
        ({"g": [1.0, 0.0]}, {"reference": "h"}, "reference: vector"),
        ({"g": [1.0, 0.0]}, {"basis": [[1.0, 0.0], [2.0, 0.0]]}, "different directions"),
        ({"g": [1.0, 0.0]}, {"basis": [[1.0, 0.0]]}, "two vectors of 2 numbers"),
        ({"g": [1.0, 0.0]}, {"basis": 3}, "two vectors"),
        ({str(i): [1.0, i] for i in range(13)}, {}, "at most 12"),
        (
            {"g": [1.0, 0.0], "a": [0.5, 0.5]},
            {"ax": Figure(figsize=(2, 0.5)).subplots()},
            "enlarge it, or legend=False",
        ),
        ({"g": [1.0, 0.0]}, {"width": "wide"}, "width must be"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(given, options, said):
    with pytest.raises(costate.InputError, match=said) as refused:
        costate.draw_arrows(given, **options)
    assert "\n" not in str(refused.value)
