"""The README's picture: what it shows is what it says."""

import numpy as np
import pytest
import torch

from figures.drawing.style import house_style, new_figure
from figures.report.front import draw_front


@pytest.fixture(scope="module")
def panels():
    with house_style():
        figure = new_figure(3.6)
        draw_front(figure, torch.Generator().manual_seed(1))
    return figure.axes


def dashed(axis):
    return [line for line in axis.lines if line.get_linestyle() == "--" and len(line.get_xdata())]


def named(axis, start):
    return next(line for line in axis.lines if str(line.get_label()).startswith(start))


def test_the_mean_of_the_paths_is_the_value_gradient_and_one_path_is_not(panels):
    (exact,) = dashed(panels[0])
    (bars,) = panels[0].containers
    (mean, _, (errors,)) = bars.lines
    half = np.array([segment[1, 1] - segment[0, 1] for segment in errors.get_segments()]) / 2  # two standard errors
    off = np.abs(mean.get_ydata() - exact.get_ydata()) / half
    assert off.max() < 2  # four standard errors, thirteen times
    one = named(panels[0], "costate of one path")
    assert np.abs(one.get_ydata() - exact.get_ydata()).max() > 10 * half.max()


def test_one_backward_pass_lies_on_the_diagonal_and_the_other_does_not(panels):
    right, wrong = (named(panels[1], start) for start in ("E2", "E1b"))
    np.testing.assert_allclose(right.get_ydata(), right.get_xdata(), atol=1e-12)
    off = np.linalg.norm(wrong.get_ydata() - wrong.get_xdata()) / np.linalg.norm(wrong.get_xdata())
    assert off > 0.3


def test_every_kappa_lies_on_its_curve(panels):
    curves = dashed(panels[2])
    points = [line for line in panels[2].lines if line.get_linestyle() == "None"]
    assert len(curves) == 3
    assert len(points) == 18
    for i, point in enumerate(points):
        curve = curves[i // 6]
        (P,), (kappa,) = point.get_data()
        assert kappa == pytest.approx(np.interp(P, curve.get_xdata(), curve.get_ydata()), abs=0.02)
    assert max(line.get_ydata()[0] for line in points) > 3
