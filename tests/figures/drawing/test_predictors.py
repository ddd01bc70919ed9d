"""The table of predictors, as a picture and on the page: order, rank, numbers; other rows are refused."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from envs.world import InputError
from figures.drawing.predictors import KINDS, draw_predictors, kind_of, scores_of
from figures.impact.contest import CRITERION
from figures.impact.numbers import PREDICTORS
from figures.impact.predictors import ERROR, RANK
from figures.report.tables import predictor_table
from tests.figures.drawing.readable import unreadable


def rows_with(error, recipe="GRPO", largest=True):
    """Scores of all predictors: the error of the judged one as asked, those of the others 0.1, 0.2, ..."""
    others = [name for name in PREDICTORS if name != CRITERION]
    errors = {CRITERION: error, **{name: 0.1 * (i + 1) for i, name in enumerate(others)}}
    shared = {"recipe": recipe, "largest": largest, "standard_error": 0.01}
    return [
        {**shared, "part": part, "predictor": name, "measured": x if part == ERROR else 1 - x / 10}
        for part in (ERROR, RANK)
        for name, x in errors.items()
    ]


@pytest.mark.parametrize(("error", "rank"), [(0.05, 1), (0.25, 3), (9.0, 25)])
@pytest.mark.parametrize("score", [ERROR, RANK])
def test_the_best_stands_on_top_and_the_judged_one_is_told_and_marked(error, rank, score):
    axis = draw_predictors(rows_with(error), score=score)
    assert axis.get_title() == f"the judged product is number {rank} of {len(PREDICTORS)}"
    labels = [text.get_text() for text in axis.get_yticklabels()]
    assert labels[-rank] == PREDICTORS[CRITERION]
    (band,) = axis.patches
    assert band.get_y() == len(PREDICTORS) - rank - 0.5
    points = [
        xy for line in axis.lines if line.get_marker() != "None" and len(line.get_xdata()) for xy in line.get_xydata()
    ]
    heights = {round(y): x for x, y in points if abs(y - round(y)) < 1e-9}
    ordered = [heights[i] for i in range(len(PREDICTORS))]
    assert ordered == sorted(ordered, reverse=score == ERROR)


def test_rows_of_other_recipes_and_budgets_are_left_out():
    mixed = pd.DataFrame(rows_with(0.05) + rows_with(9.0, recipe="RLOO") + rows_with(9.0, largest=False))
    assert scores_of(mixed, ERROR).index[0] == CRITERION
    assert len(scores_of(mixed, ERROR)) == len(PREDICTORS)
    with pytest.raises(InputError, match="give the rows of claim impact_product"):
        draw_predictors(rows_with(0.05, recipe="RLOO"))
    with pytest.raises(InputError, match="give the rows of claim impact_product"):
        draw_predictors([{"part": "a"}])
    with pytest.raises(InputError, match="score 'left-out eror' is unknown; did you mean left-out error"):
        draw_predictors(mixed, score="left-out eror")


def test_axes_that_are_low_show_the_best_and_say_so():
    axis = draw_predictors(rows_with(0.25), Figure(figsize=(6, 2)).subplots())
    shown = len(axis.get_yticks())
    assert 1 <= shown < len(PREDICTORS)
    assert f"; the best {shown}" in " ".join(axis.get_title().split())


@pytest.mark.parametrize("width", [3.3, 6.0])
def test_a_figure_of_its_own_can_be_read(width):
    figure = draw_predictors(rows_with(0.25), width=width).figure
    figure.draw_without_rendering()
    assert unreadable(figure) == []


def test_every_predictor_is_of_one_kind():
    assert {kind_of(name) for name in PREDICTORS} == set(KINDS)
    assert sum(len(names) for names, _ in KINDS.values()) == len(PREDICTORS)


@pytest.mark.parametrize(("error", "rank"), [(0.05, 1), (0.25, 3)])
def test_the_page_has_the_same_table_in_numbers(error, rank):
    table = predictor_table(pd.DataFrame(rows_with(error)))
    assert table.marked == rank - 1
    assert table.lines[table.marked] == (
        PREDICTORS[CRITERION],
        "signal x headroom",
        f"{error:.2f} ± 0.02",
        f"{1 - error / 10:.2f} ± 0.02",
    )
    assert f"number {rank}" in table.caption
    assert len(table.lines) == len(PREDICTORS)
    assert predictor_table(pd.DataFrame(rows_with(error, recipe="RLOO"))) is None
