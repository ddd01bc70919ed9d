"""Titles and labels that state a finding say what the rows say: true rows and false ones, made by hand."""

import numpy as np
import pandas as pd
import pytest

from figures.drawing.batch_cuts import cut_matrix
from figures.drawing.bias_and_spread import draw_bias_and_spread, error_panel
from figures.drawing.caps import draw_caps
from figures.drawing.costate_errors import Drawn, draw_errors
from figures.drawing.costate_means import draw_means
from figures.drawing.costate_roads import Road, draw_roads
from figures.drawing.group_variance import draw_variances
from figures.drawing.impact import left_out_panel, peak_told
from figures.drawing.kappa import draw_kappas
from figures.drawing.large_vocabulary import draw_large_vocabulary
from figures.drawing.lost_shares import draw_lost_shares
from figures.drawing.style import house_style, new_figure
from figures.impact.contest import CRITERION


@pytest.fixture
def figure():
    with house_style():
        yield new_figure(5)


def titles(figure):
    return [" ".join(axis.get_title().split()) for axis in figure.axes]


def words(axis):
    return [text.get_text() for text in axis.texts]


def dots(axis, marker):
    """Points with this marker, in order."""
    return sorted(tuple(xy) for line in axis.lines if line.get_marker() == marker for xy in line.get_xydata().tolist())


@pytest.mark.parametrize(("gap", "off"), [(0.0, 0), (1.0, 4)])
def test_moments_outside_the_band_are_counted(gap, off, figure):
    shared = {"system": "s", "standard_error": 0.01, "tolerance": 0.0, "samples": 1000}
    rows = [
        {**shared, "part": part, "t": t, "measured": m, "target": 0.0}
        for part, m in (("whole", gap), ("cut", 1.0))
        for t in range(4)
    ]
    rows += [
        {**shared, "part": "shown", "shown": kind, "t": t, "measured": 3.0 + t, "target": 2.0}
        for kind in ("whole", "cut")
        for t in range(2)
    ]
    draw_means(figure, pd.DataFrame(rows), "shown", "whole", "cut")
    above = figure.axes[0]
    assert titles(figure) == ["s", "", f"total derivative: {off} of 4 off path cut: 4 of 4 off"]
    (exact,) = [line for line in above.lines if line.get_linestyle() == "--"]
    assert exact.get_xydata().tolist() == [[0, 2], [1, 2]]
    assert dots(above, "o") == dots(above, "x") == [(0, 3), (1, 4)]


ROADS = {"a": Road("one", "costate", "o", 6, True), "b": Road("other", "control", "x", 6, False)}


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (1e-13, 0.5, ["s: other off", "agree: 1 of 1 control agrees: 0 of 1"]),
        (1e-3, 1e-15, ["s: one off", "agree: 0 of 1 control agrees: 1 of 1"]),
        (1e-13, 1e-15, ["s: all agree", "agree: 1 of 1 control agrees: 1 of 1"]),
    ],
)
def test_which_roads_agree_is_told(one, other, told, figure):
    shared = {"system": "s", "t": 0, "tolerance": 1e-12, "target": 0.0}
    rows = [{**shared, "part": "a", "measured": one}, {**shared, "part": "b", "measured": other}]
    rows += [{**shared, "part": "shown", "shown": part, "measured": 2.0, "target": 1.0, "scale": 1.0} for part in ROADS]
    draw_roads(figure, pd.DataFrame(rows), "shown", ROADS)
    path, nothing, right = figure.axes
    assert titles(figure) == [told[0], "", told[1]]
    assert words(nothing) == ["no rows here"]
    assert dots(path, "o") == [(0, 2)]
    (dot,) = dots(right, "o")
    assert dot[0] == pytest.approx(one / 1e-12)


@pytest.mark.parametrize(
    ("free", "end", "told"),
    [
        (0.0, 0.0, ["lost: 20% to 20%; w: nothing", "before the end: nothing lost in 2 of 2"]),
        (0.4, 0.1, ["lost: 20% to 40%", "before the end: nothing lost in 0 of 2"]),
    ],
)
def test_what_closed_edges_cost_is_told(free, end, told, figure):
    rows = [
        {"world": world, "trained": False, "closed": closed, "k": k, "measured": share * part}
        for world, share in (("v (1,2)", 0.2), ("w (1,2)", free))
        for closed, part in (("all", 1), ("layer 1", 0.5))
        for k in (0, 1)
    ]
    table = pd.DataFrame(rows)
    table.loc[table["k"] == 1, "measured"] = end
    draw_lost_shares(figure, table, 1e-9)
    left, right = figure.axes
    assert titles(figure) == told
    assert {round(x, 6) for x, _ in dots(left, "o")} == {0.2, free}
    assert {round(x, 6) for x, _ in dots(left, "s")} == {0.1, free / 2}
    assert set(words(right)) == {"v", "w"}


def relaxed(biases, spreads):
    case = {"world": "w", "temperature": 1.0, "seed": 0, "samples": 100, "tau_g": 1.0}
    rows = [
        {**case, "part": "spread", "costate": name, "measured": x, "standard_error": 0.0} for name, x in spreads.items()
    ]
    return pd.DataFrame(
        rows
        + [
            {**case, "part": "sampled bias", "costate": name, "measured": x, "standard_error": 0.0}
            for name, x in biases.items()
        ]
    )


@pytest.mark.parametrize(
    ("bias", "spread", "told"),
    [
        (0.5, 0.1, "least error, 1 sample: ReinMax; 64 samples: score E2"),
        (0.0, 0.1, "least error, 1 sample: ReinMax; 64 samples: ReinMax"),
        (0.5, 9.0, "least error, 1 sample: score E2; 64 samples: score E2"),
    ],
)
def test_the_costate_with_the_least_error_is_told(bias, spread, told, figure):
    axis = error_panel(figure.subplots(), relaxed({"score": 0.0, "reinmax": bias}, {"score": 2.0, "reinmax": spread}))
    assert " ".join(axis.get_title().split()) == told
    lines = {line.get_linewidth(): line.get_ydata() for line in axis.lines}
    assert lines[2.0] == pytest.approx(2 / np.sqrt(2.0 ** np.arange(7)))
    assert lines[1.4][-1] == pytest.approx(np.hypot(bias, spread / 8))


def test_an_error_that_chance_makes_is_taken_off_the_bias(figure):
    rows = relaxed({"score": 0.3}, {"score": 2.0}).assign(standard_error=0.3)
    assert error_panel(figure.subplots(), rows).lines[0].get_ydata()[-1] == pytest.approx(2 / 8)


def test_exact_biases_are_told_at_the_largest_alpha_and_over_temperatures(figure):
    shared = {"part": "bias", "world": "w", "seed": 0, "costate": "reinmax"}
    rows = [
        {**shared, "alpha": alpha, "temperature": tau, "measured": 0.1 * alpha * tau}
        for alpha in (0.0, 1.0)
        for tau in (1.0, 3.0)
    ]
    draw_bias_and_spread(pd.DataFrame(rows).assign(samples=2), figure)
    assert titles(figure)[:2] == [
        "exact bias by alpha: 20% to 20% at alpha = 1",
        "exact bias by temperature: 10% to 30%",
    ]


@pytest.mark.parametrize(
    ("factor", "told"),
    [
        (1.0, ["on kappa: 2 of 2 scales", "under the limit: 1/1, control 0/1"]),
        (1.1, ["on kappa: 0 of 2 scales", "under the limit: 0/1, control 0/1"]),
    ],
)
def test_scales_on_their_kappa_are_counted(factor, told, figure):
    scales = pd.DataFrame(
        {"P": 0.5, "recipe": ["GRPO", "RLOO"], "G": 4, "target": [1.6, 1.0], "measured": [1.6 * factor, factor]}
    )
    gaps = pd.DataFrame({"part": ["a", "b"], "H": 0.5, "measured": [factor - 1, 0.2]})
    draw_kappas(figure, scales, gaps, {"a": ("costate", "o"), "b": ("control", "x")}, 1e-9)
    left = figure.axes[0]
    assert titles(figure)[:2] == told
    assert [text.get_text() for text in left.get_yticklabels()] == ["RLOO", "GRPO"]
    assert dots(left, "o") == [(factor, 0), (1.6 * factor, 1)]
    assert dots(left, "|") == [(1.0, 0), (1.6, 1)]


@pytest.mark.parametrize(
    ("largest", "told"),
    [(0.9, "0 of 2 above the cap: largest prompt 0.90"), (1.2, "2 of 2 above the cap: largest prompt 1.20")],
)
def test_prompts_above_the_cap_are_counted(largest, told, figure):
    rows = [
        {"corpus": "c", "tokens": tokens, "part": part, "measured": x * (1 + tokens), "standard_error": 0.0}
        for tokens in (0, 1000)
        for part, x in (("costate", 0.1), ("cap", 0.4), ("alignment", 0.0002))
    ]
    rows += [
        {"corpus": "c", "tokens": t, "part": "kept", "measured": largest, "standard_error": 0.0} for t in (0, 1000)
    ]
    draw_caps(figure, pd.DataFrame(rows), ["c"], "kept")
    assert titles(figure) == ["c: 25% of the cap at the peak", told]
    assert words(figure.axes[0]) == ["cap", "signal"]
    assert figure.axes[1].get_ylim()[1] > largest


@pytest.mark.parametrize(("own", "names"), [(12.0, {"dr_grpo = rloo"}), (18.0, {"dr_grpo", "rloo"})])
def test_a_variance_is_told_in_units_of_the_oracle_s(own, names, figure):
    noise = [
        {"world": "w", "G": G, "learner": learner, "oracle": 10.0 / G, "rescaled": x}
        for G in (2, 4)
        for learner, x in (("rloo", 12.0), ("dr_grpo", own))
    ]
    excess = pd.DataFrame(
        {"world": "w", "G": [2, 4], "measured": [4.0, 1.0], "target": [4.0, 0.7], "standard_error": 0.1}
    )
    slopes = pd.DataFrame({"world": ["w"], "measured": [-2.0], "target": [-2.51], "standard_error": [0.05]})
    draw_variances(figure, pd.DataFrame(noise), excess, slopes, ["w"])
    assert titles(figure) == ["w: rloo 1.20 at G = 4", "excess of rloo: exact slope -2.51"]
    assert set(words(figure.axes[0])) == names
    assert words(figure.axes[1]) == ["w\nslope -2.00 ± 0.10"]


@pytest.mark.parametrize(
    ("off", "told"),
    [
        (0.2, "equal: exact with row sum; up to 20% off with token mean"),
        (0.0, "equal: exact with row sum, token mean"),
        (None, "equal: exact with row sum"),
    ],
)
def test_which_normalisers_add_up_is_told(off, told, figure):
    rows = [{"normaliser": "row sum", "cut": cut, "measured": x} for cut, x in (("a", 1e-15), ("b", 0.5))]
    rows += [] if off is None else [{"normaliser": "token mean", "cut": "a", "measured": off}]
    axis = cut_matrix(figure.subplots(), pd.DataFrame(rows), {"equal": ["a"], "other": ["b"]}, 1e-9)
    assert " ".join(axis.get_title().split()) == told
    assert {"0", "50%"} <= set(words(axis))
    (rule,) = [line for line in axis.lines]
    assert set(rule.get_ydata()) == {0.5}, "between the families"


@pytest.mark.parametrize(
    ("errors", "told", "names"),
    [
        ({"a": [0.5, 1.0], "b": [0.0, 0.0]}, "dense reward: A 50-100% off; B exact", {"A", "B"}),
        ({"a": [0.7, 0.7], "b": [0.7, 0.7]}, "dense reward: A and B 70% off", {"A = B"}),
    ],
)
def test_how_far_costates_are_off_is_told(errors, told, names, figure):
    series = {"a": Drawn(("pa",), "A", "costate", "o"), "b": Drawn(("pb",), "B", "control", "s")}
    rows = [
        {"reward": "dense", "part": f"p{name}", "steps": k + 1, "measured": x}
        for name, own in errors.items()
        for k, x in enumerate(own)
    ]
    draw_errors(figure, pd.DataFrame(rows), ["dense", "terminal"], series, 1e-9)
    left, right = figure.axes
    assert titles(figure)[0] == told
    assert names <= set(words(left))
    assert words(right) == ["no rows here"]
    assert dots(left, "o")[0] == (1, errors["a"][0])


@pytest.mark.parametrize(
    ("ratio", "error", "told"),
    [
        (8.0, 0.25, ["near uniform: other rewards, up to 8 times the error", "1/4 is reached", "||J||: no bound"]),
        (0.1, 0.05, ["near uniform: other rewards, up to 10 times the error", "1/4 is not reached", "||J||: a bound"]),
    ],
)
def test_what_bounds_the_error_of_a_vocabulary_is_told(ratio, error, told, figure):
    rows = [
        {"bound": "tier 1", "policy": "near uniform", "rewards": rewards, "V": V, "measured": x, "target": 0.2}
        for V in (8, 64)
        for rewards, x in (("related", 0.01 * ratio), ("unrelated", 0.01))
    ]
    clusters = pd.DataFrame({"policy": "two clusters", "V": [8, 64], "measured": error, "target": 0.1})
    draw_large_vocabulary(figure, pd.DataFrame(rows), clusters, clusters)
    _, middle, right = titles(figure)
    assert middle == told[0]
    assert right.endswith(told[1])
    assert told[2] in words(figure.axes[2])


@pytest.mark.parametrize(
    ("predicted", "told"),
    [
        ([1.0, 3.0, 2.0], "peak predicted"),
        ([3.0, 1.0, 1.0], "peak predicted too early"),
        ([1.0, 1.0, 3.0], "peak predicted too late"),
    ],
)
def test_a_peak_at_another_checkpoint_is_told(predicted, told):
    columns = {"tokens": [0, 10, 100] * 2, "predictor": ["measured"] * 3 + [CRITERION] * 3}
    assert peak_told(pd.DataFrame({**columns, "measured": [0.0, 5.0, 4.0, *predicted]}), CRITERION) == told


def test_the_left_out_error_stands_above_the_points(figure):
    points = pd.DataFrame({"corpus": "c", "target": [0.0, 1.0], "measured": [0.1, 0.8]})
    axis = left_out_panel(figure.subplots(), points, {CRITERION: 0.25, "spread": 0.5})
    assert axis.get_title() == "left-out error 0.25,\nof P(1-P) 0.50"
    assert dots(axis, "o") == [(0.0, 0.1), (1.0, 0.8)]
