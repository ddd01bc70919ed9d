"""However many marks are drawn, a vector picture stays small; where there are few, nothing becomes an image."""

import numpy as np
import pytest

from figures.drawing.crowds import MOST_MARKS, rasterise_crowds
from figures.drawing.frame import picture
from figures.drawing.style import house_style, new_figure


def crowd(marks, kind="line", formats=("svg",)):
    """The figure, two panels, so many marks in the first and ten in the second; and its pictures."""
    with house_style():
        figure = new_figure(3)
        axes = figure.subplots(1, 2)
        for axis, number in zip(axes, (marks, 10), strict=True):
            x, y = np.linspace(0, 1, number), np.modf(np.arange(number) * 0.6180339887)[0]
            if kind == "line":
                axis.plot(x, y, "o")
            elif kind == "points":
                axis.scatter(x, y, c=y)
            elif kind == "bars":
                axis.errorbar(x, y, 0.1 * y, fmt="none")
            else:
                axis.pcolormesh(np.broadcast_to(y, (2, number)))
        axes[0].set(title="a crowd")
        return figure, *(picture(figure, name) for name in formats)


@pytest.mark.parametrize("kind", ["line", "points", "bars", "cells"])
def test_a_crowd_becomes_an_image_and_its_words_stay_words(kind):
    (figure, small), (_, large) = (crowd(marks, kind) for marks in (20, 8 * MOST_MARKS))  # vectors: 2 MB and more
    assert b"<image" not in small
    assert large.count(b"<image") == 1
    assert len(large) < 400_000
    assert b"a crowd" in large
    assert not any(artist.get_rasterized() for axis in figure.axes for artist in axis.get_children())


@pytest.mark.parametrize("kind", ["line", "points", "bars"])
def test_without_it_the_file_grows_with_the_marks(kind, monkeypatch):
    monkeypatch.setattr("figures.drawing.frame.rasterise_crowds", lambda figure: 0)
    assert len(crowd(8 * MOST_MARKS, kind)[1]) > 1_000_000


def test_only_the_most_crowded_panels_change_and_png_does_not():
    formats = ("svg", "png")
    figure, _, png = crowd(2 * MOST_MARKS, formats=formats)
    crowded, other = ([line.get_rasterized() for line in axis.lines] for axis in figure.axes)
    assert (crowded, other) == ([True], [False])
    assert rasterise_crowds(crowd(MOST_MARKS // 2)[0]) == 0
    assert rasterise_crowds(figure) == 1
    assert png == crowd(2 * MOST_MARKS, formats=formats)[2]


def test_the_same_rows_still_give_the_same_bytes():
    assert crowd(2 * MOST_MARKS)[1] == crowd(2 * MOST_MARKS)[1]
