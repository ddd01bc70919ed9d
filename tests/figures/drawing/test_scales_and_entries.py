"""Zeros at zero, ticks with air between them, entries over their exact values, angles in words, colours with one meaning."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from figures.drawing import labels
from figures.drawing.entries import Mark, entries_panel, first_of, same_heights
from figures.drawing.impact import gain_panel, known_panel
from figures.drawing.normalisation import angle_panel, drift_panel
from figures.drawing.off_policy import angle_table
from figures.drawing.panels import gap_panel
from figures.drawing.scales import log_with_zero
from figures.drawing.style import EXACT, house_style, new_figure


def heights(axis, values):
    """Where numbers lie, as shares of the panel's height."""
    points = [(axis.get_xlim()[0], value) for value in values]
    return axis.transAxes.inverted().transform(axis.transData.transform(points))[:, 1]


def dashed(axis):
    return [line for line in axis.lines if line.get_linestyle() == "--"]


@pytest.mark.parametrize("numbers", [[0.0, 3e-16, 1e-10, 0.5], [0.0, 0.09, 7.0], [0.0, 1e-40, 1e-12]])
def test_a_zero_is_drawn_at_its_tick_and_below_all_others(numbers):
    axis = Figure().subplots()
    axis.plot(range(len(numbers)), numbers, "o")
    log_with_zero(axis, numbers)
    at = heights(axis, sorted(numbers))
    assert 0 < at[0] < 0.25
    assert (np.diff(at) >= 0).all()
    assert at[-1] < 1
    assert 0.0 in axis.get_yticks()
    assert (
        at[1] - at[0] > 0.04 or sorted(numbers)[1] < 1e-17
    )  # what is below rounding is drawn near 0, not apart from it


def test_without_a_zero_the_scale_is_logarithmic_and_without_a_number_linear():
    axes = Figure().subplots(1, 2)
    log_with_zero(axes[0], [1e-3, 2.0])
    log_with_zero(axes[1], [0.0, 0.0])
    assert [axis.get_yscale() for axis in axes] == ["log", "linear"]
    assert 0 < heights(axes[1], [0.0])[0] < 0.25
    with np.errstate(divide="ignore"):
        assert (
            not np.isfinite(heights(axes[0], [0.0])[0]) or heights(axes[0], [0.0])[0] < -1
        )  # the control: no place for 0


def test_what_counts_as_zero_can_be_chosen():
    axis = Figure().subplots()
    log_with_zero(axis, [1e-16, 0.09, 7.0], rounding=1e-9)
    zero, rounding, least = heights(axis, [0.0, 1e-16, 0.09])
    assert rounding == pytest.approx(zero, abs=1e-9)
    assert least > zero + 0.1


def test_gaps_are_drawn_where_they_are():
    rows = pd.DataFrame({"part": ["a", "a", "b"], "world": ["x", "y", "x"], "measured": [0.0, 2e-16, 0.3]})
    axis = Figure().subplots()
    gap_panel(axis, rows, "world", {"a": ("costate", "o"), "b": ("control", "x")}, 1e-10)
    assert [line.get_ydata().tolist() for line in axis.lines[:2]] == [[0.0, 2e-16], [0.3]]
    assert dashed(axis)[0].get_ydata()[0] == 1e-10
    assert heights(axis, [0.0])[0] > 0


def test_entries_lie_over_their_exact_values_in_rising_order():
    rows = pd.DataFrame(
        {"entry": [7, 8, 9] * 2, "target": [2.0, -1.0, 0.5] * 2, "standard_error": [0.0] * 3 + [0.1] * 3}
    )
    rows = rows.assign(measured=[2.0, -1.0, 0.5, 1.5, 0.0, 0.4], shown=["right"] * 3 + ["wrong"] * 3)
    axis = Figure().subplots()
    entries_panel(
        axis, rows, "entry", {"right": Mark("costate", "o", "r"), "wrong": Mark("control", "x", "w", open=True)}
    )
    (exact,) = dashed(axis)
    assert exact.get_ydata().tolist() == [-1.0, 0.5, 2.0]
    right, wrong = (container.lines[0] for container in axis.containers)
    for line, measured in ((right, {7: 2.0, 8: -1.0, 9: 0.5}), (wrong, {7: 1.5, 8: 0.0, 9: 0.4})):
        places = {8: 0, 9: 1, 7: 2}
        assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == {places[e]: y for e, y in measured.items()}
    (bars,) = axis.containers[1].lines[2]
    assert sorted(np.ptp(segment[:, 1]) for segment in bars.get_segments()) == pytest.approx([0.4] * 3)
    assert entries_panel(Figure().subplots(), rows[:0], "entry", {}).texts[0].get_text() == "no rows here"


def test_the_first_setting_is_chosen_and_panels_share_a_range():
    rows = pd.DataFrame({"world": ["b", "a", "b"], "seed": [1, 1, 2]})
    assert len(first_of(rows, "world", "seed", "absent")) == 1
    assert len(first_of(rows[:0], "world")) == 0
    low, high, empty = Figure().subplots(1, 3)
    low.plot([0, 1], [-1, 0])
    high.plot([0, 1], [0, 5])
    same_heights([low, high, empty])
    assert low.get_ylim() == high.get_ylim() != empty.get_ylim()


def test_labels_that_touch_are_read_as_one_and_taken_apart(monkeypatch):
    """0 and 1 stand on each other with a pixel between their boxes."""
    with house_style():
        figure = new_figure(3, 3)
        axis = figure.subplots()
        figure.draw_without_rendering()
        letter = axis.get_yticklabels()[0].get_window_extent().height
        axis.set(ylim=(0, axis.bbox.height / (letter + 1)), yticks=[0, 1], yticklabels=["0", "1"])
        figure.set_layout_engine("none")
        figure.draw_without_rendering()
        assert labels.overlaps(axis.yaxis)
        with monkeypatch.context() as before:
            before.setattr(labels, "_AIR", 0.0)
            assert not labels.overlaps(axis.yaxis)
        assert labels.fit_panels([axis])
        assert axis.get_yticks().tolist() == [0]


def test_angles_are_written_in_degrees_with_a_star_where_a_clip_acts():
    rows = pd.DataFrame({"learner": ["grpo", "grpo", "whole row", "whole row"], "at": [1, 2, 1, 2]})
    rows = rows.assign(cosine=[np.cos(0.1), -0.5, 1 - 1e-16, 1.0], silenced=[0.0, 0.2, 0.0, 0.0])
    axis = Figure().subplots()
    angle_table(axis, rows, "at")
    assert [text.get_text() for text in axis.texts] == ["0", "0", "5.7", "120*"]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["whole row", "grpo"]


def test_angles_to_the_gradient_and_a_title_that_says_only_what_is_drawn():
    rows = pd.DataFrame({"breaker": ["b", "b"], "part": ["b", "mended"], "cosine": [0.0, 1.0]})
    axis = Figure().subplots()
    angle_panel(axis, rows, ["b", "absent"], "mended")
    assert [line.get_xdata()[0] for line in axis.lines] == pytest.approx([90.0, 0.0, 0.0])
    drift = pd.DataFrame({"class": ["success", "failure"] * 2, "seed": [0, 0, 1, 1], "world": "w", "ascended": 0})
    for last, said in ((0.3, True), (-0.3, False)):
        own = drift.assign(measured=[-1.0, 2.0, 1.0, last], target=0.0)
        assert ("lengthens" in drift_panel(Figure().subplots(), own).get_title()) == said


def test_a_colour_has_one_meaning_in_the_picture_of_the_gains():
    known = pd.DataFrame({"part": ["J", "pass_at_k", "H"], "tokens": 1.0, "measured": 0.5})
    curve = pd.DataFrame({"budget": [6, 12, 24], "recipe": ["GRPO", "RLOO", "exact, Adam"], "tokens": [1.0] * 3})
    curve = curve.assign(measured=0.1, standard_error=0.0)
    with house_style():
        left, middle, right = Figure().subplots(1, 3)
        known_panel(left, known, "")
        gain_panel(middle, curve, "budget", "")
        gain_panel(right, curve, "recipe", "")
    colours = [
        {to_rgb(line.get_color()) for line in axis.lines if line.get_marker() not in ("None", "")}
        for axis in (left, middle, right)
    ]
    assert len(colours[0]) == 3
    assert len(colours[1]) == 1  # one recipe, whose budgets are shades
    assert colours[1] < colours[2]
    assert colours[0].isdisjoint(colours[2])
    shades = [container.lines[0].get_alpha() for container in middle.containers]
    assert shades == sorted(shades)
    assert shades[-1] == 1
    assert EXACT["linestyle"] == "--"
