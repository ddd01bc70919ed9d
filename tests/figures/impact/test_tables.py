"""From rows of the study to aligned arrays: names of corpora, every trajectory with its own numbers, peaks."""

import numpy as np
import pandas as pd
import pytest

from envs.world import InputError
from figures.impact.tables import (
    CLEAN,
    aligned,
    budgets_of,
    corpus_names,
    peak_of_the_others,
    teaches_all,
    two_corpora,
    was_run,
)
from tests.figures.impact.made_up_study import TOKENS, study

PLAIN = {"quality": 1.0, "noise": 0.0, "coverage": 1.0, "width": 16, "names": "say,copy,add"}


def gain_is_J(facts, *_):
    return facts["J"]


def test_corpora_are_named_by_what_differs_from_the_clean_one():
    rows = pd.DataFrame(
        [PLAIN, {**PLAIN, "quality": 0.5}, {**PLAIN, "noise": 0.2, "width": 32}, {**PLAIN, "names": "copy"}],
        index=[7, 3, 3, 0],
    )
    names = corpus_names(rows)
    assert names.tolist() == [CLEAN, "quality 0.5", "noise 0.2, width 32", "copy"]
    assert names.index.tolist() == [7, 3, 3, 0]
    assert corpus_names(rows[2:3]).tolist() == ["noise 0.2"]  # a width that all share is no difference
    assert [teaches_all(name) for name in (*names, "coverage 0.6")] == [True, False, False, True, False]
    assert two_corpora(["copy", "quality 0.5", CLEAN]) == [CLEAN, "quality 0.5"]
    assert two_corpora(["copy", "noise 0.2", "width 32"]) == ["copy", "noise 0.2"]


def test_aligned_runs_keep_every_trajectory_with_its_own_numbers():
    rows = study(gain_is_J)
    runs = aligned(rows.sample(frac=1, random_state=1), "GRPO", group=8, budget=16, known=["J"])
    np.testing.assert_allclose(runs.gain, runs.known["J"])
    assert (runs.tokens == TOKENS).all()
    assert runs.corpora == [CLEAN, "quality 0.5"]
    assert aligned(rows, "GRPO", group=2).of(CLEAN).gain.shape == (6, len(TOKENS))
    assert budgets_of(rows, "exact, SGD") == [8, 16, 32]


def test_the_recipes_that_were_run_are_those_of_any_row():
    rows = study(gain_is_J)
    assert was_run(rows, "exact, SGD", "never", "GRPO") == ["exact, SGD", "GRPO"]
    assert was_run(rows[rows["recipe"] != "GRPO"], "GRPO", "RLOO") == ["RLOO"]


def code_of(facts, recipe, group, budget, clean, rng):
    """A number that names the run: two digits of the group, two of the budget."""
    return 100 * group + budget + 0 * facts["J"]


def test_without_a_group_or_a_budget_the_first_group_and_the_largest_budget_are_taken():
    rows = study(code_of)
    assert set(aligned(rows, "GRPO").gain.flat) == {832}
    assert set(aligned(rows, "GRPO", group=32).gain.flat) == {3232}
    assert set(aligned(rows, "GRPO", budget=16).gain.flat) == {816}
    backwards = rows.sort_values(["group", "budget"], ascending=False)
    assert set(aligned(backwards, "GRPO").gain.flat) == {3232}, "the first group is that of the first row"
    assert budgets_of(backwards, "GRPO") == [8, 16, 32]


def test_runs_that_are_not_there_or_do_not_align_are_refused():
    rows = study(gain_is_J)
    with pytest.raises(InputError, match="not run"):
        aligned(rows, "GRPO", group=5)
    with pytest.raises(InputError, match="different numbers of checkpoints"):
        aligned(rows[(rows["tokens"] > 0) | (rows["trajectory"] > 0)], "GRPO", group=8)


def test_every_corpus_keeps_its_own_tokens():
    rows = study(gain_is_J)
    longer = rows.assign(tokens=rows["tokens"] * np.where(rows["quality"] == 1, 1, 4))
    assert aligned(longer, "GRPO").of("quality 0.5").tokens[0].tolist() == [4 * t for t in TOKENS]
    assert aligned(longer, "GRPO").of(CLEAN).tokens[0].tolist() == TOKENS


def test_the_peak_is_placed_by_the_others():
    gain = np.array([[0.0, 9.0, 0.0], [0.0, 1.0, 2.0], [0.0, 1.0, 3.0]])
    assert peak_of_the_others(gain).tolist() == [2, 1, 1]
