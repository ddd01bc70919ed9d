"""Parts of a figure one by one: shared axes of wrapped panels, ticks that are left out, colours in turn, names of files."""

import pytest
from matplotlib.figure import Figure

from figures.drawing.colours import COLOURS, EXACT, chosen_colours, use_colours
from figures.drawing.frame import scale_marks
from figures.drawing.labels import fit_panels, overlaps
from figures.drawing.style import house_style, new_figure
from figures.report.pictures import _stem


def joined(axis, other, side):
    return getattr(axis, f"get_shared_{side}_axes")().joined(axis, other)


@pytest.mark.parametrize("width", [10, 3.3], ids=["wide", "narrow"])
def test_wrapped_panels_share_the_axes_that_were_named(width):
    """As in Matplotlib, which draws the wide figure."""
    axes = new_figure(4, width).subplots(2, 3, sharex="col", sharey="row")
    assert axes.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            for k in range(2):
                for m in range(3):
                    assert joined(axes[i, j], axes[k, m], "y") == (i == k)
                    assert joined(axes[i, j], axes[k, m], "x") == (j == m)


def test_a_shared_axis_is_labelled_in_the_first_column_alone():
    axes = new_figure(4, 3.3).subplots(1, 7, sharey=True)
    columns = [axis.get_subplotspec().colspan.start for axis in axes]
    assert set(columns) == {0, 1, 2}
    for axis, column in zip(axes, columns, strict=True):
        axis.plot([0, 1], [0, 1])
        assert axis.yaxis.get_tick_params()["labelleft"] == (column == 0)


def test_a_colour_that_is_replaced_is_replaced_in_turn_too():
    ours = chosen_colours(None)
    where = ours.cycle.index(ours.named["costate"])
    for palette in ({"costate": "red"}, ["red"]):
        chosen = chosen_colours(palette)
        assert chosen.named["costate"] == chosen.cycle[where] == "red"
        assert chosen.cycle[:where] + chosen.cycle[where + 1 :] == ours.cycle[:where] + ours.cycle[where + 1 :]
    names = ["costate", "control", "score", "score_value", "score_best", "critic", "reference"]
    seven = [f"#00000{i}" for i in range(7)]
    assert [chosen_colours(seven).named[name] for name in names] == seven


def test_colours_come_back_also_after_an_error():
    before = COLOURS["costate"], EXACT["color"]

    def fail_inside():
        with use_colours(chosen_colours({"costate": "red", "exact": "blue"})):
            assert (COLOURS["costate"], EXACT["color"]) == ("red", "blue")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert (COLOURS["costate"], EXACT["color"]) == before


def test_marks_are_scaled_by_one_factor():
    axis = Figure().subplots()
    (line,) = axis.plot([0, 1], [0, 1], "o-", lw=3, ms=8, mew=2)
    bars = axis.errorbar([0], [0], [1], fmt="none", elinewidth=4).lines[2][0]
    scale_marks([axis], 0.5)
    assert (line.get_linewidth(), line.get_markersize(), line.get_markeredgewidth()) == (1.5, 4, 1)
    assert list(bars.get_linewidth()) == [2]


def test_numbers_that_overlap_are_left_out_and_zero_stays():
    with house_style():
        figure = new_figure(2, 2)
        axis = figure.subplots()
        axis.set(
            xlim=(-3e6, 5e6), xticks=[x * 1e6 for x in range(-3, 6)], xticklabels=[f"{x}000000" for x in range(-3, 6)]
        )
        figure.draw_without_rendering()
        assert overlaps(axis.xaxis)
        assert fit_panels([axis])
        kept = axis.get_xticks().tolist()
    assert 0 in kept
    assert 5e6 in kept
    assert 1 < len(kept) < 9


def test_files_of_two_values_never_have_the_same_name():
    taken = set()
    for value in (1.0, -1.0, "a (2,3)", "a 2 3", "A-2-3", "", "+"):
        taken.add(_stem(value, taken, "claim"))
    names = {"1_0", "minus_1_0", "a_2_3", "a_2_3_2", "a_2_3_3", "empty", "empty_2"}
    assert taken == {f"claim-{name}" for name in names}
    assert all("/" not in name for name in taken)
