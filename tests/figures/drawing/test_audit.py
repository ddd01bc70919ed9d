"""The table of audits: every cell has its sign, nothing stands on anything else, at a slide's size and in a column."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from envs.world import InputError
from figures.audit.brief import SIGNS, brief
from figures.drawing.audit import draw_audits, save_audits
from figures.drawing.audit_layout import extent, headline, split_rows, wrap
from figures.drawing.audited_loss import draw_bias, draw_slopes, draw_weights, silent_where
from tests.figures.audit.made_up import CLIPPED, SHOWN, findings, record
from tests.figures.drawing.readable import colliding

FOUR = [
    record("suite:grpo"),
    record("trl:grpo loss_type=dapo", silent=12.0),
    record("verl:grpo+gspo", bias=0.0, recipe="leave one out; row sum"),
    record("torchrl:grpo", bias=0.063, recipe="sample std + 1e-06; token mean"),
]


def texts(axis):
    return [text.get_text() for text in axis.texts]


@pytest.mark.parametrize("width", [3.3, 6.0, 10.0])
def test_nothing_is_cut_and_no_text_stands_on_another(width):
    axis = draw_audits(FOUR, title="GRPO in four libraries", width=width)
    assert colliding(axis) == []
    assert axis.figure.get_figwidth() == width
    wide = extent("a text that is much too wide for its cell", 9.0)
    axis.text(0, axis.get_ylim()[0] / 2, "a text over all others" * 5, fontsize=20)
    assert wide > 1
    assert colliding(axis) != [], "the control"


def test_every_shown_cell_has_a_sign_a_colour_and_its_words():
    axis, (shown, alike) = draw_audits(FOUR), split_rows(FOUR)
    assert shown == ["silent groups", "mean update", "recipe"]
    assert alike == ["All hold: climbs, padding.", "Alike: clip on the right side: -.2; split: groups."]
    said = texts(axis)
    counts = {sign: said.count(sign) - 1 for sign in SIGNS.values()}  # once in the key
    assert counts == {SIGNS["holds"]: 3, SIGNS["choice"]: 8, SIGNS["defect"]: 1}
    assert {"bias 0.4", "exact", "bias 0.063", "12 x a signal"} <= {text.replace("\n", " ") for text in said}
    cells = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    assert len(cells) == 12 + 3
    assert len({patch.get_facecolor() for patch in cells}) == 3


def test_the_sentence_counts_losses_and_a_declaration_apart():
    assert headline(FOUR) == "1 of 4 losses breaks a property that no loss may break"
    assert headline(FOUR[2:]) == "None of 2 losses breaks a property that no loss may break"
    mean = replace(
        findings()[4], status="defect", declared="unbiased=True", words="declared unbiased=True, but it is not"
    )
    wrong = replace(FOUR[0], findings=(*findings()[:4], mean))
    assert headline([wrong, *FOUR[1:]]).endswith("; 1 more is not what was declared")
    assert brief(mean) == "not unbiased=True"
    assert headline([FOUR[0]]) == "suite:grpo: no property is broken"


def test_one_loss_is_told_in_whole_sentences():
    axis = draw_audits(FOUR[1])
    said = " ".join(texts(axis)).replace("\n", " ")
    assert all(finding.words in said for finding in FOUR[1].findings)
    assert colliding(axis) == []


def test_axes_of_the_users_are_drawn_on_and_the_picture_is_saved(tmp_path):
    own = Figure(figsize=(9, 5)).subplots()
    assert draw_audits(FOUR, own) is own
    assert len(own.texts) > 20
    save_audits(FOUR, tmp_path / "audit.png")
    assert (tmp_path / "audit.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="width must be a number of inches"):
        draw_audits(FOUR, width=0)


def test_lines_are_broken_where_they_may_be():
    assert wrap("KL(pi||ref) -.2 +.28", 0.0, 8) == ["KL(pi||", "ref)", "-.2", "+.28"]
    assert wrap("verl:grpo+gspo", 0.0, 8) == ["verl:", "grpo+", "gspo"]
    assert wrap("one line", 9.0, 8) == ["one line"]
    assert extent("wider", 8, bold=True) > extent("wider", 8) > extent("wide", 8) > 0


def test_the_pictures_of_a_loss_show_its_numbers():
    figure = Figure(figsize=(5, 3))
    draw_weights(figure, SHOWN)
    left, right = figure.axes
    assert [t.get_text() for t in left.texts] == ["0.5", "0.5", "-0.5"]
    assert [t.get_text() for t in right.texts] == ["0.4", "0.4", "-0.5"]
    assert [t.get_text() for t in left.get_yticklabels()] == ["group 0, R = 1", "group 0, R = 0"]
    draw_slopes(lines := Figure(), SHOWN)
    drawn = {line.get_label(): line.get_ydata() for line in lines.axes[0].lines}
    np.testing.assert_array_equal(drawn["rows with A > 0"], CLIPPED["A > 0"])
    assert silent_where(SHOWN) == "silent: A > 0 above ratio 1, A < 0 below ratio 1"
    assert silent_where(replace(SHOWN, slopes={"A > 0": [1.0] * 5})) == "no ratio silences a row"
    draw_bias(bias := Figure(), SHOWN)
    assert bias.axes[0].get_title() == "off the gradient by up to 0.1"
