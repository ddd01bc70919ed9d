"""The pictures for teaching inside a user's figure: the other axes and all settings stay as they are."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import costate
from figures.drawing.style import house_style
from tests.figures.drawing.readable import colliding
from tests.figures.drawing.test_predictors import rows_with

WORLD = costate.TokenMDP.from_rewards([[0.3, -1.0], [0.0, 2.0]])
POLICY = costate.Transformer(WORLD.V, width=8, length=3)
PATHS = costate.sampled_paths(costate.world("LQScalar", horizon=5), [[0.6]], 40)
PICTURES = {
    "path": lambda **options: costate.draw_path(PATHS.costates, PATHS.gradient, **options),
    "tree": lambda **options: costate.draw_tree(costate.prefix_tree(WORLD, POLICY), **options),
    "arrows": lambda **options: costate.draw_arrows({"grad V": [1.0, 0.0, 0.0], "E1b": [0.3, 0.4, 0.1]}, **options),
    "predictors": lambda **options: costate.draw_predictors(rows_with(0.25), **options),
}


def seen(axis):
    lines = [(line.get_xydata().tolist(), line.get_color()) for line in axis.lines]
    return lines, axis.get_title(), axis.get_xlim(), axis.get_ylim(), axis.title.get_fontsize(), len(axis.patches)


def users_figure(layout=None):
    figure = Figure(figsize=(11, 8), layout=layout)
    axes = figure.subplots(2, 2)
    for i, axis in enumerate(axes.flat):
        axis.plot([0, 1], [0, i])
        axis.set(title=f"mine {i}")
    axes[0, 1].clear()
    return figure, axes


def settings():
    return dict(mpl.RcParams(mpl.rcParams))  # noqa: TID251  (read, to see that nobody writes)


@pytest.mark.parametrize("layout", [None, "constrained"])
@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_the_users_axes_are_drawn_on_and_all_else_stays(draw, layout):
    figure, axes = users_figure(layout)
    others = [axes[0, 0], axes[1, 0], axes[1, 1]]
    before, parameters, grad = [seen(axis) for axis in others], settings(), torch.is_grad_enabled()
    assert draw(ax=axes[0, 1]) is axes[0, 1]
    assert settings() == parameters
    assert torch.is_grad_enabled() == grad
    assert [seen(axis) for axis in others] == before
    assert figure.axes == list(axes.flat)
    assert axes[0, 1].get_title()
    assert colliding(axes[0, 1]) == []
    axes[0, 0].set_title("changed")
    assert [seen(axis) for axis in others] != before, "the control"


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_the_users_settings_hold_on_the_users_axes_and_ours_on_our_own(draw):
    def size(font, **options):
        with mpl.rc_context({"font.size": font}):
            ax = Figure(figsize=(9, 7)).subplots() if options.pop("users") else None
            return draw(ax=ax).title.get_fontsize()

    assert size(16, users=True) == pytest.approx(2 * size(8, users=True))
    assert size(16, users=False) == size(8, users=False)


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_a_figure_of_its_own_is_saved_alike_under_any_settings(draw, tmp_path):
    first, second = draw(), draw()
    with house_style(first.figure.get_figwidth()):
        first.figure.savefig(tmp_path / "a.png", dpi=60)
    with mpl.rc_context({"font.size": 20, "font.family": "monospace", "xtick.labelsize": 21}):
        second.figure.savefig(tmp_path / "b.png", dpi=60)
    a, b = (mpl.image.imread(tmp_path / f"{name}.png") for name in "ab")
    assert a.shape == b.shape
    assert np.abs(a - b).max() < 0.02
    assert first.figure._repr_png_().startswith(b"\x89PNG")
