"""Where the gain is centred: a weighted mean by hand, and the centres of a study."""

import numpy as np

from figures.impact.centres import Run, centre, centres_of, mean_centre, own_group
from tests.figures.impact.made_up_study import BUDGETS, RECIPES, TOKENS, study


def one_checkpoint(facts, recipe, group, budget, clean, rng):
    """All of the gain at one checkpoint, which the run names."""
    gain = -np.ones(len(TOKENS))
    gain[place(recipe, group, budget, clean)] = budget
    return gain


def place(recipe, group, budget, clean):
    return 1 + RECIPES.index((recipe, group)) // 2 + BUDGETS.index(budget) + (not clean)


def test_the_centre_is_a_weighted_mean_of_log_tokens():
    centres = centre(np.array([[5.0, 1.0, 3.0, -7.0], [2.0, 0.0, -1.0, 0.0]]), np.array([[0, 2, 8, 16]] * 2))
    assert centres[0] == (1 * 1 + 3 * 3) / 4
    assert np.isnan(centres[1])


def test_every_run_of_a_study_has_its_own_centres():
    centres = centres_of(study(one_checkpoint))
    assert len(centres) == 3 * (6 + 3)  # budgets; recipes and group sizes on either corpus
    for run, values in centres.items():
        at = place(run.recipe, run.group, run.budget, run.corpus == "clean")
        np.testing.assert_allclose(values, np.full(6, np.log2(TOKENS[at])))
    assert own_group(centres, "GRPO") == 8
    assert Run("quality 0.5", "exact, SGD", 1, 8) not in centres


def test_trajectories_without_a_centre_are_left_out_of_the_mean_and_two_are_needed():
    mean = mean_centre(np.array([1.0, np.nan, 3.0]))
    assert (float(mean.mean), float(mean.standard_error), mean.samples) == (2.0, 1.0, 2)
    assert mean_centre(np.array([1.0, np.nan])) is None
