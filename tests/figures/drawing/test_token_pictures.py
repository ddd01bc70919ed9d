"""What the pictures of the token claims and of attention paths show of rows made by hand: number, place and colour."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color, to_rgb

from figures.drawing.attention_path import ATTENTION, CLOSED, DYNAMICS, OPEN, draw_attention_path
from figures.drawing.entropy_knobs import draw_sweeps
from figures.drawing.error_bound import draw_bounds
from figures.drawing.error_map import draw_map
from figures.drawing.style import COLOURS, house_style, new_figure
from figures.measures.attention_errors import E1, E1B, READOUT, ZERO


@pytest.fixture
def figure():
    with house_style():
        yield new_figure(4)


def dashed(axis):
    """Points of the dashed lines that are no straight rule across the panel."""
    return [line.get_xydata().tolist() for line in axis.lines if line.get_linestyle() == "--" and len(line.get_xdata())]


def marks(axis, marker):
    """Points with this marker, in order."""
    return sorted(tuple(xy) for line in axis.lines if line.get_marker() == marker for xy in line.get_xydata().tolist())


def test_the_parts_of_an_attention_path_stand_on_each_other_and_what_is_exact_is_dashed(figure):
    exact = {OPEN: (3.0, 5.0), CLOSED: (1.0, 4.0), DYNAMICS: (2.0, 1.5), ATTENTION: (1.0, 3.5)}
    rows = [
        {"pull": pull, "t": t, "i": i, "shown": kind, "target": (1.0 if i else 0.1) * values[t], "standard_error": 0.1}
        for pull in (0.0, 2.0)
        for i in (0, 1)
        for kind, values in exact.items()
        for t in (0, 1)
    ]
    rows = pd.DataFrame(rows).assign(measured=lambda r: r["target"] + 0.25)
    bias = pd.DataFrame({"pull": [0.0, 2.0], "measured": [1.0, 3.0], "scale": 4.0, "standard_error": 0.2})
    draw_attention_path(figure, rows, bias, bias.assign(measured=[1.2, 2.8]))
    left, middle, right = figure.axes
    bars = [(bar.get_y(), bar.get_height()) for bar in left.patches]
    assert bars == [(0.0, 2.0), (0.0, 1.5), (2.0, 1.0), (1.5, 3.5)]
    assert [bar.get_label() for bar in left.containers[:2]] == [DYNAMICS, ATTENTION]
    ground = [to_rgb(bar.get_facecolor()) for bar in left.patches]
    assert ground == [to_rgb(COLOURS[name]) for name in ("dynamics", "dynamics", "attention", "attention")]
    for axis, kind, marker in ((left, OPEN, "o"), (middle, CLOSED, "x")):
        assert dashed(axis) == [[[0, 3.0], [1, 5.0]]], "grad V, whatever is open"
        assert marks(axis, marker) == [(t, exact[kind][t] + 0.25) for t in (0, 1)]
    (dotted,) = [line for line in middle.lines if line.get_linestyle() == ":"]
    assert dotted.get_ydata().tolist() == [1.0, 4.0]
    (dotted,) = [line for line in right.lines if line.get_linestyle() == ":"]
    assert dotted.get_xydata() == pytest.approx(np.array([[0.0, 0.3], [2.0, 0.7]]))
    assert marks(right, "x") == [(0.0, 0.25), (2.0, 0.75)]


def test_the_map_counts_and_crosses_what_exceeds_the_constant(figure):
    shared = {"world": "w", "seed": 0, "alpha": 0.5, "part": "alone"}
    tested = [
        {**shared, "costate": E1, "family": "offset", "value": 1, "H": 0.1, "gap": 0.02, "measured": 3.0},
        {**shared, "costate": E1B, "family": "offset", "value": 1, "H": 0.1, "gap": 0.02, "measured": 0.2},
        {**shared, "costate": E1B, "family": "trained", "value": 2, "H": 0.5, "gap": 0.1, "measured": 0.5},
        {**shared, "costate": E1B, "family": "offset", "value": 3, "H": 0.9, "gap": 0.3, "measured": 0.7},
        {**shared, "costate": ZERO, "family": "trained", "value": 4, "H": 0.7, "gap": 0.2, "measured": 9.0},
    ]
    bound = [{**row, "part": "tier 3", "measured": row["measured"] / 10} for row in tested]
    draw_map(pd.DataFrame(tested + bound), figure, "tier 3", "alone")
    left, middle, right = figure.axes
    assert left.get_title() == "one constant: 25 % above 1"
    assert middle.get_title() == "D osc(Q) kept: <= 0.3"
    for axis, factor in ((left, 1.0), (middle, 0.1)):
        drawn = {(round(x, 6), (E1, E1B, ZERO)[round(y)]) for marker in "os^" for x, y in marks(axis, marker)}
        assert drawn == {(round(factor * row["measured"], 6), row["costate"]) for row in tested}
    assert [text.get_text().split(",")[0].split(":")[0] for text in left.get_yticklabels()] == ["E1", "E1b", "E1 = 0"]
    assert marks(right, ".") == [(0.1, 0.02), (0.5, 0.1), (0.7, 0.2), (0.9, 0.3)]
    assert marks(right, "x") == [(0.1, 0.02), (0.7, 0.2)]
    (rim,) = dashed(right)
    assert [y for _, y in rim] == pytest.approx([min(H / (2 * np.log(2)), 1 - np.exp(-H)) for H, _ in rim])


def test_a_sweep_is_coloured_where_the_error_rises_and_ranks_are_filled_for_the_error_that_is_shown(figure):
    H, errors = [2.0, 1.5, 1.0, 0.5], {0: [1.0, 3.0, 2.0, 1.0], 1: [4.0, 3.0, 2.0, 1.0]}
    rows = [
        {"knob": "offset", "world": "w", "seed": seed, "costate": READOUT, "H": h, "measured": e}
        for seed, error in errors.items()
        for h, e in zip(H, error, strict=True)
    ]
    rows += [{**row, "costate": ZERO, "measured": 50.0 + i} for i, row in enumerate(rows)]
    ranks = {
        name: pd.DataFrame({"knob": "offset", "costate": [READOUT, ZERO], "measured": [x, x - 0.4]})
        for name, x in (("entropy", 0.3), ("bound", 0.9))
    }
    draw_sweeps(figure, pd.DataFrame(rows), ranks)
    left, right = figure.axes
    coloured = [line for line in left.lines if same_color(line.get_color(), COLOURS["costate"])]
    assert [line.get_xydata().tolist() for line in coloured] == [[[2.0, 1.0], [1.5, 3.0]]]
    assert left.get_title() == "lowered by offset: error rises for 1 of 2"
    assert left.get_ylabel() == "error of E1, hidden readout"
    filled = {
        (round(float(line.get_xdata()[0]), 6), round(float(line.get_ydata()[0]))): line.get_markerfacecolor()
        for line in right.lines
        if line.get_marker() == "s" and len(line.get_xdata())
    }
    assert set(filled) == {(0.3, 0), (0.9, 1), (-0.1, 0), (0.5, 1)}
    for (x, _), colour in filled.items():
        assert same_color(colour, "white") == (x in (-0.1, 0.5))


def test_shares_of_the_bound_stand_in_the_strip_of_their_tier_and_world(figure):
    rows = [
        {"tier": tier, "costate": costate, "world": world, "measured": 0.2 * tier, "target": 2.0 + k}
        for tier in (1, 2, 3)
        for k, (costate, world) in enumerate(((E1, "a"), (E1B, "b")))
    ]
    half = pd.DataFrame({"tier": [2], "costate": [E1], "world": ["a"], "measured": [3.0], "target": [2.0]})
    draw_bounds(figure, pd.DataFrame(rows), half)
    left, right = figure.axes
    strips = [text.get_text().split("\n")[0] for text in left.get_yticklabels()]
    seen = {(round(x, 6), strips[round(y)]) for marker in "os" for x, y in marks(left, marker)}
    wanted = {(round(row["measured"] / row["target"], 6), f"tier {row['tier']}") for row in rows}
    assert seen == wanted | {(1.5, "half of tier 2")}
    worlds = [text.get_text() for text in right.get_yticklabels()]
    by_world = {(round(x, 6), worlds[round(y)]) for marker in "os" for x, y in marks(right, marker)}
    assert by_world == {(round(0.4 / 2, 6), "a"), (round(0.4 / 3, 6), "b")}
    assert left.get_title() == "no tier is exceeded: at most 0.3"
