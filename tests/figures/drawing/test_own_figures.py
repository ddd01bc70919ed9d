"""`draw`: a claim's rows inside other people's figures, whose settings and other axes stay as they are."""

import io
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from envs.world import InputError
from figures.claims.continuous import costate_mean
from figures.drawing.colours import COLOURS, EXACT, chosen_colours
from figures.drawing.figures import columns_that_fit
from figures.drawing.style import house_style, new_figure
from figures.report import pictures
from figures.report.pictures import draw
from tests.figures.drawing.readable import unreadable

CHANGED = {
    "font.size": 17,
    "xtick.labelsize": 21,
    "font.family": "monospace",
    "legend.fontsize": 19,
    "axes.grid": False,
}
CHANGED |= {"lines.linewidth": 5, "axes.labelsize": 23, "ytick.major.size": 15, "axes.edgecolor": "red"}


@pytest.fixture(scope="module")
def rows():
    """Rows of the claim `costate_mean` at the preset `tiny`."""
    settings = [replace(setting, samples=200) for setting in costate_mean.settings("tiny")]
    noise = torch.Generator().manual_seed(0)
    return pd.DataFrame([row for setting in settings for row in costate_mean.measure(setting, noise, "cpu")])


def users_figure(layout=None):
    """A figure of four panels with a curve in each."""
    figure = Figure(figsize=(12, 9), layout=layout)
    axes = figure.subplots(2, 2)
    for i, axis in enumerate(axes.flat):
        axis.plot([0, 1, 2], [0, i, 1])
        axis.set(title=f"mine {i}", xlabel="x", ylabel="y")
    return figure, axes


def pixels(figure, dpi=80):
    """The picture as an array."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi=dpi, facecolor="white")
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8).astype(int)


def settings():
    """The user's settings: what a context that changes nothing would put back."""
    return dict(mpl.RcParams(mpl.rcParams))  # noqa: TID251  (read, to see that nobody writes)


def state(axis):
    """What can be seen of axes."""
    lines = [(line.get_xydata().tolist(), line.get_color(), line.get_linewidth()) for line in axis.get_lines()]
    texts = [
        (t.get_text(), t.get_fontsize(), t.get_fontfamily()) for t in (axis.title, axis.xaxis.label, axis.yaxis.label)
    ]
    return lines, texts, axis.get_xlim(), axis.get_ylim(), axis.get_xticks().tolist()


def colours_of(figure):
    return {mpl.colors.to_hex(line.get_color()) for axis in figure.axes for line in axis.get_lines()}


@pytest.mark.parametrize("layout", [None, "constrained", "tight"])
def test_a_drawing_takes_the_place_of_one_panel_and_leaves_the_user_all_else(rows, layout):
    figure, axes = users_figure(layout)
    others = [axes[0, 0], axes[1, 0], axes[1, 1]]
    figure.draw_without_rendering()
    place = axes[0, 1].get_tightbbox()
    before, parameters, places = [state(axis) for axis in others], settings(), [axis.bbox.bounds for axis in others]
    part = draw("costate_mean", rows, ax=axes[0, 1], caption=False)
    assert settings() == parameters
    assert axes[0, 1] not in figure.axes
    assert set(others) < set(figure.axes)
    figure.draw_without_rendering()
    assert [state(axis) for axis in others] == before
    assert np.allclose([axis.bbox.bounds for axis in others], places)
    inside = [text for axis in part.axes if axis not in others for text in (axis.title, axis.xaxis.label)]
    assert len(inside) == 6
    for text in inside:
        box = text.get_window_extent()
        assert box.x0 > place.x0 - 5
        assert box.x1 < figure.bbox.x1 + 5
        assert box.y0 > place.y0 - 5
    assert unreadable(part) == []


@pytest.mark.parametrize("change", ["adjusted", "tight"])
def test_the_panels_stay_in_their_place_when_the_user_moves_the_others(rows, change):
    figure, axes = users_figure()
    part = draw("costate_mean", rows, ax=axes[0, 1])
    figure.draw_without_rendering()
    own = [axis for axis in figure.axes if axis not in axes]
    before = [axis.get_window_extent().bounds for axis in own]
    assert len(own) == 3
    if change == "adjusted":
        figure.subplots_adjust(wspace=0.5)
    else:
        with pytest.warns(UserWarning, match="not compatible with tight_layout"):
            figure.tight_layout()
    figure.draw_without_rendering()
    assert np.allclose([axis.get_window_extent().bounds for axis in own], before)
    assert part.get_figure(root=True) is figure


def test_a_figure_looks_the_same_under_the_users_settings(rows):
    """What Matplotlib looks up only when it draws is fixed beforehand; a figure that is not frozen changes."""
    serif = {"font.family": "serif", "font.serif": "STIXGeneral"}
    for style in (None, serif):
        shown, kept = (draw("costate_mean", rows, width=5, style=style) for _ in range(2))
        with house_style(5, style=style):
            expected = pixels(shown)
        with mpl.rc_context(CHANGED):
            assert np.array_equal(pixels(kept), expected)
    with house_style(5, style={"font.family": "serif"}):
        loose = new_figure(3, 5)
        loose.subplots().set(title="title", xlim=(0, 1))
        expected = pixels(loose)
        loose = new_figure(3, 5)
        loose.subplots().set(title="title", xlim=(0, 1))
    with mpl.rc_context({**CHANGED, "font.serif": ["DejaVu Sans Mono"]}):
        assert not np.array_equal(pixels(loose), expected)


def test_a_palette_is_seen_in_the_drawing_and_nowhere_else(rows):
    ours, red, green = colours_of(draw("costate_mean", rows)), "#ff0000", "#00ff00"
    assert {COLOURS["costate"], COLOURS["control"]} < ours
    for palette in ([red, green], {"costate": "red", "control": green}):
        assert {red, green} == colours_of(draw("costate_mean", rows, palette=palette)) - {"#000000"}
    assert colours_of(draw("costate_mean", rows, palette={"exact": "blue"})) == ours - {"#000000"} | {"#0000ff"}
    import seaborn

    assert set(seaborn.color_palette("deep", 2).as_hex()) < colours_of(draw("costate_mean", rows, palette="deep"))
    assert colours_of(draw("costate_mean", rows)) == ours
    assert same_color(EXACT["color"], "black")


def test_every_colour_with_a_name_is_replaced_by_a_list_of_seven():
    seven = [f"#{i:06x}" for i in range(1, 8)]
    named = dict(chosen_colours(seven).named)
    assert named.pop("exact") == "black"
    assert set(named.values()) == set(seven)
    assert len({named[name] for name in ("costate", "control", "score", "score_value", "score_best", "critic")}) == 6


def test_title_caption_and_style_are_as_asked(rows):
    def texts(**options):
        return [text.get_text().replace("\n", " ") for text in draw("costate_mean", rows, **options).texts]

    claim = costate_mean.CLAIM
    assert [claim.statement, claim.how_to_read] == texts()
    assert claim.statement not in texts(title=False)
    assert claim.how_to_read not in texts(caption=False)
    plain, large = (
        draw("costate_mean", rows),
        draw("costate_mean", rows, style={"font.size": 15, "font.family": "serif"}),
    )
    sizes = [figure.axes[0].xaxis.label.get_fontsize() for figure in (plain, large)]
    assert sizes[1] == pytest.approx(1.5 * sizes[0])
    assert large.axes[0].title.get_fontname() == "DejaVu Serif"
    assert draw("costate_mean", rows, style={"font.size": 15, "axes.labelsize": 7}).axes[0].xaxis.label.get_size() == 7


def test_a_figure_of_its_own_shows_itself_and_one_of_the_users_is_filled(rows):
    own = draw("costate_mean", rows.to_dict("records"), width=3.3)
    assert own.get_figwidth() == pytest.approx(3.3)
    assert own._repr_png_().startswith(b"\x89PNG")
    figure = Figure(figsize=(8, 5))
    FigureCanvasAgg(figure)
    part = draw("costate_mean", rows, figure=figure)
    figure.draw_without_rendering()
    assert part.get_figure(root=True) is figure
    assert len(figure.axes) == 3
    assert unreadable(part) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"palette": {"costtae": "red"}}, "did you mean costate"),
        ({"palette": ["no colour"]}, "is no colour"),
        ({"palette": "no palette"}, "is no palette"),
        ({"style": "absent.mplstyle"}, "is no file"),
        ({"style": {"font.sise": 3}}, "font.sise"),
        ({"width": 0}, "width must be"),
        ({"ax": 1, "figure": 2}, "give one of them"),
        ({"figure": users_figure()[0]}, "has axes already"),
        ({"figure": Figure(figsize=(0.5, 3))}, "at least 1 x 1"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_what_cannot_be_drawn_is_refused_in_one_line(rows, options, said):
    parameters = settings()
    with pytest.raises(InputError, match=said) as refused:
        draw("costate_mean", rows, **options)
    assert "\n" not in str(refused.value)
    assert settings() == parameters


@pytest.mark.parametrize(("table", "said"), [([], "empty"), ([{"a": 1}], "no column part")])
def test_rows_that_are_none_are_refused(table, said):
    with pytest.raises(InputError, match=said):
        draw("costate_mean", table)


def test_rows_of_another_claim_are_refused(rows):
    with pytest.raises(InputError, match="no part of claim chaos"):
        draw("chaos", rows)


def test_panels_wrap_where_the_width_is_small():
    for width, columns in ((10, [1, 2, 3, 4, 7]), (3.3, [1, 1, 1, 2, 3]), (6.75, [1, 2, 3, 4, 7])):
        assert [columns_that_fit(n, width) for n in (1, 2, 3, 4, 7)] == columns
    for width, rows in ((10, 1), (3.3, 3)):
        figure = new_figure(4, width)
        first, _, third = figure.subplots(1, 3, sharey=True)
        third.set_ylim(0, 5)
        assert first.get_ylim() == (0, 5)
        assert first.get_subplotspec().get_gridspec().nrows == rows
    grid = new_figure(4, 3.3).subplots(2, 3, squeeze=False)
    assert grid.shape == (2, 3)
    assert len({axis.get_subplotspec().num1 for axis in grid.flat}) == 6


def test_a_text_that_is_cut_or_covered_would_be_seen(rows, monkeypatch):
    monkeypatch.setattr(pictures, "fit_labels", lambda figure: None)
    bare = draw("costate_mean", rows, width=3.3, style={"font.size": 11})
    bare.draw_without_rendering()
    assert len(unreadable(bare)) > 3
