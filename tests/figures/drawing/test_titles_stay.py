"""A figure that is laid out is drawn once for every file, and looks as Matplotlib draws it when it looks for titles again."""

import pytest
from matplotlib.axes import Axes

from figures.drawing import frame, labels
from figures.drawing.labels import fit_labels, titles_may_move
from figures.drawing.style import house_style, new_figure

LONG = "a title that begins at the left"


def pictures(largest, title=LONG):
    """PNG and SVG of a figure whose y axis reaches a number; 1e9 gives it an exponent below the title."""
    with house_style():
        figure = new_figure(3)
        for axis in figure.subplots(1, 2):
            axis.plot([0, 1, 2], [0.0, 0.3 * largest, largest])
            axis.set(title=title, xlabel="x", ylabel="y")
            if title == LONG:
                axis.set_title(title, loc="left")  # where the exponent stands
        fit_labels(figure)
        return figure, [frame.picture(figure, kind) for kind in ("png", "svg")]


@pytest.fixture
def looking_again(monkeypatch):
    """Figures as they are without what is tested here."""
    monkeypatch.setattr(labels, "_keep_titles", lambda figure: None)
    monkeypatch.setattr(frame, "titles_may_move", lambda figure: True)


@pytest.mark.parametrize("largest", [2.0, 2e9])
def test_the_pictures_are_the_same(largest, request):
    ours = pictures(largest)[1]
    request.getfixturevalue("looking_again")
    assert ours == pictures(largest)[1]


def test_titles_are_looked_for_only_where_an_exponent_may_push_them(monkeypatch):
    drawn = []
    draw = Axes.draw
    monkeypatch.setattr(Axes, "draw", lambda self, renderer: (drawn.append(self), draw(self, renderer)))
    counts = {}
    for largest in (2.0, 2e9):
        drawn.clear()
        figure, _ = pictures(largest, "short")  # and far from the exponent, for now
        assert [axis._autotitlepos is False for axis in figure.axes] == [largest < 1e6] * 2
        counts[largest] = len(drawn) / len(figure.axes)
        assert titles_may_move(figure) == (largest > 1e6)
    assert counts[2.0] == 2, "once for each file"
    assert counts[2e9] > 2
