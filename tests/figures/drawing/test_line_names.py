"""Names beside the ends of lines: beside their own line, apart from each other, inside the axes, on both scales."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from figures.drawing.line_names import LineEnd, name_lines


def named(scale, ends, room=0.45):
    axis = Figure(figsize=(4, 3)).subplots()
    for y in ends.values():
        axis.plot([1, 10], [1, y])
    axis.set(xscale=scale, yscale=scale)
    before = axis.get_ylim(), axis.get_xlim()[1]
    name_lines(axis, [LineEnd(10, y, name, "black") for name, y in ends.items()], room)
    axis.figure.draw_without_rendering()
    return axis, before


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_each_name_stands_beside_its_end_and_none_on_another(scale):
    axis, (y_limits, right) = named(scale, {"low": 1.0, "nearly low": 1.01, "high": 9.0})
    assert axis.get_ylim() == y_limits
    assert axis.get_xlim()[1] > right
    texts = {text.get_text(): text.get_window_extent() for text in axis.texts}
    boxes, frame = list(texts.values()), axis.get_window_extent()
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(frame.x0 < box.x0 and box.x1 < frame.x1 for box in boxes)
    for name, y in (("low", 1.0), ("high", 9.0)):
        end = axis.transData.transform((10, y))
        assert texts[name].x0 > end[0]
        assert np.isclose((texts[name].y0 + texts[name].y1) / 2, end[1], atol=3)
    assert texts["nearly low"].y0 > texts["low"].y0


def test_no_lines_need_no_room():
    axis, (_, right) = named("linear", {})
    assert axis.get_xlim()[1] == right
    assert not axis.texts
