"""The picture of a training run, of rows made by hand: the curl of a critic that is a field, and nothing of it elsewhere."""

import math

import pandas as pd
import pytest
from matplotlib.colors import same_color

from figures.drawing import training_run
from figures.drawing.style import COLOURS
from tests.figures.drawing.readable import unreadable

CURL = {(0, 0): 0.0, (0, 1): 0.4, (1, 0): 0.2, (1, 1): 0.6, (2, 0): 0.1, (2, 1): 0.1}  # (step, seed)


def table(**more):
    rows = [{"step": step, "seed": seed, "J": step - 3.0, "sampled": step - 3.5, "cosine": 0.9} for step, seed in CURL]
    empty = dict.fromkeys(("clipped", "silent", "target_cosine"), math.nan)
    return pd.DataFrame(rows).assign(**(empty | {"entropy": 0.2} | more))


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws a table; gives the figure that was saved, the names of its legend and its caption."""
    kept, save = [], training_run.save
    monkeypatch.setattr(training_run, "save", lambda figure, stem: (save(figure, stem), kept.append(figure)))

    def draw(rows):
        training_run.draw_run(rows, 0.0, "vgl", tmp_path / "curves")
        assert (tmp_path / "curves.png").stat().st_size > 5000
        kept[-1].draw_without_rendering()
        (caption,) = (text.get_text() for text in kept[-1].texts if text.get_gid() == "caption")
        names = [text.get_text() for legend in kept[-1].legends for text in legend.get_texts()]
        return kept[-1], names, caption

    return draw


def test_the_curl_is_drawn_for_each_seed_and_in_the_mean_over_a_dashed_zero(drawn):
    figure, names, caption = drawn(table(curl=list(CURL.values())))
    assert not unreadable(figure)
    assert len(figure.axes) == 3, "no second axis of entropies"
    panel = figure.axes[2]
    lines = [line for line in panel.lines if same_color(line.get_color(), COLOURS["control"])]
    thick = max(lines, key=lambda line: line.get_linewidth())
    assert thick.get_xydata().tolist() == [pytest.approx(xy) for xy in ([0, 0.2], [1, 0.4], [2, 0.1])]
    assert sorted(line.get_ydata().tolist() for line in lines if line is not thick) == [
        [0.0, 0.2, 0.1],
        [0.4, 0.6, 0.1],
    ]
    (dashed,) = (line for line in panel.lines if line not in lines)
    assert list(dashed.get_ydata()) == [0, 0]
    assert panel.get_ylim()[0] < 0 < 0.6 < panel.get_ylim()[1]
    assert "curl of the critic" in names
    assert "curl" in panel.get_ylabel()
    assert "vector field" in caption
    assert "clip" not in caption


@pytest.mark.parametrize("more", [{}, {"curl": math.nan}], ids=["no column", "an empty column"])
def test_without_a_curl_the_panel_is_of_groups_clips_and_entropy(drawn, more):
    figure, names, caption = drawn(table(silent=0.1, clipped=0.2, **more))
    assert not unreadable(figure)
    assert len(figure.axes) == 4
    assert figure.axes[2].get_ylabel() == "share"
    assert "curl of the critic" not in names
    assert "silent groups" in names
    assert "clip" in caption
    assert "vector field" not in caption


def test_a_curl_of_zero_everywhere_is_a_panel_too(drawn):
    figure, _, _ = drawn(table(curl=0.0))
    assert "curl" in figure.axes[2].get_ylabel()
    assert figure.axes[2].get_ylim()[0] < 0 < figure.axes[2].get_ylim()[1]
