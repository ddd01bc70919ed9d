"""What the picture of value-gradient flow shows of rows made by hand: place, colour, dashes and title."""

import pandas as pd
import pytest

from figures.drawing.style import COLOURS, house_style, new_figure
from figures.drawing.value_flow import draw_value_flow
from figures.measures import flow_laws, flow_prompts
from tests.figures.drawing.test_system_pictures import marks


@pytest.fixture
def figure():
    with house_style():
        yield new_figure(4)


def row(part, measured, **labels):
    return {"part": part, "measured": measured, "seed": 0, "system": "one", **labels}


def dashed(axis):
    return [line for line in axis.lines if line.get_linestyle() == "--" and len(line.get_xdata())]


def test_distances_and_efficiencies_stand_where_they_are(figure):
    rows = [
        row(flow_laws.DISTANCE, 0.5, t=0.1),
        row(flow_laws.DIVERGENCE, 2.0, t=0.1),
        row(flow_laws.DISTANCE, 0.9, t=0.1, seed=1),
        *(row(flow_laws.EXACT_DISTANCE, y, t=t) for t, y in ((0.1, 0.5), (1.0, 0.8))),
        *(row(flow_laws.EXACT_DIVERGENCE, y, t=t) for t, y in ((1.0, 9.0), (0.1, 2.0))),
        *(row(flow_prompts.EFFICIENCY, y, kl=x, prompt=0, step=k) for k, (x, y) in enumerate(((0, 0.3), (0.2, 0.25)))),
        row(flow_prompts.EFFICIENCY, 0.9, kl=0.1, prompt=1, step=1),
        row(flow_prompts.LIMIT, 0.31, prompt=0),
        row(flow_prompts.LIMIT, 0.62, prompt=0, system="two"),
        row(flow_prompts.EFFICIENCY, 0.62, kl=0.0, prompt=0, step=0, system="two"),
    ]
    draw_value_flow(figure, pd.DataFrame(rows))
    left, right = figure.axes
    assert marks(left, "costate", "o") == [(0.1, 0.5)]
    assert marks(left, "control", "o") == [(0.1, 2.0)]
    assert [line.get_xydata().tolist() for line in dashed(left)] == [[[0.1, 0.5], [1.0, 0.8]], [[0.1, 2.0], [1.0, 9.0]]]
    (line,) = [x for x in right.lines if x.get_label() == "one"]
    assert line.get_xydata().tolist() == [[0, 0.3], [0.2, 0.25]]
    assert [x.get_ydata()[0] for x in dashed(right)] == [0.31, 0.62]
    assert "31 to 62 %" in right.get_title()
    assert COLOURS["costate"] != COLOURS["control"]


@pytest.mark.parametrize("part", [flow_laws.DISTANCE, flow_prompts.EFFICIENCY])
def test_a_panel_without_rows_says_so(figure, part):
    draw_value_flow(figure, pd.DataFrame([row(part, 0.5, t=0.1, kl=0.1, prompt=0, step=0)]))
    empty = figure.axes[1 if part == flow_laws.DISTANCE else 0]
    assert empty.texts[0].get_text() == "no rows here"
