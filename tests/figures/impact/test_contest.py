"""The contest of predictors on a made-up study: the right runs, strata of corpora, winners counted by hand, loops of fits."""

import numpy as np
import pytest
from scipy import stats

from figures.impact.contest import ONE_SIDED, SPREADS, count_winners, prediction_rows, score_rows, score_study
from figures.impact.numbers import PREDICTORS, PRODUCTS
from figures.impact.predictors import CHOICE, ERROR, RANK
from figures.impact.tables import CLEAN, aligned
from tests.figures.impact.made_up_study import TOKENS, study

PLACES = np.arange(len(TOKENS))


def early_and_late(facts, recipe, group, budget, clean, rng):
    """Another gain after every budget, with noise of its own."""
    return facts["J"] * (budget == 8) + facts["spread"] * (budget > 8) + 0.1 * rng.standard_normal(len(TOKENS))


def cells(rows, budget, corpus=None):
    """Gains of GRPO with its own group, (trajectories, checkpoints), and the facts of the same cells, read row by row."""
    gains, facts = {}, {}
    for row in rows.to_dict("records"):
        key = (row["quality"], row["run"], row["trajectory"], row["checkpoint"])
        if row["kind"] == "checkpoint":
            facts[key] = row
        elif (row["recipe"], row["group"], row["budget"]) == ("GRPO", 8, budget):
            gains[key] = row["gain"]
    keys = sorted(key for key in gains if corpus is None or (key[0] == 1) == (corpus == CLEAN))
    shape = (-1, len(TOKENS))
    return np.reshape([gains[key] for key in keys], shape), {
        name: np.reshape([facts[key][name] for key in keys], shape) for name in (*PREDICTORS, "tokens")
    }


@pytest.mark.parametrize("budget", [8, 32])
def test_scores_are_those_of_the_gains_after_that_many_updates(budget):
    rows = study(early_and_late)
    gain, facts = cells(rows, budget)
    runs, scored = score_study(rows, "GRPO", budget, (RANK,))
    assert sorted(runs.gain.ravel()) == sorted(gain.ravel())
    assert list(scored) == [RANK]
    for name in PREDICTORS:
        truth = stats.spearmanr(facts[name].ravel(), gain.ravel()).statistic
        assert float(scored[RANK].of(name).mean) == pytest.approx(truth, abs=1e-12)
    shown = {row["predictor"]: row["measured"] for row in score_rows(scored, {"recipe": "GRPO"})}
    assert shown == {name: float(scored[RANK].of(name).mean) for name in PREDICTORS}
    other, _ = cells(rows, 40 - budget)
    assert abs(stats.spearmanr(facts["J"].ravel(), other.ravel()).statistic - shown["J"]) > 0.1, "the control"


def at_its_choice(all_of_it):
    """Gains of 1 at the checkpoint that J chooses, or at another one: `all_of_it(clean, rng)`."""

    def gain(facts, recipe, group, budget, clean, rng):
        chosen = facts["J"].argmax()
        return 1.0 * (chosen == PLACES if all_of_it(clean, rng) else (chosen + 1) % len(TOKENS) == PLACES)

    return gain


def test_trajectories_are_drawn_within_their_corpus():
    """The share is 1 on one corpus and 0 on the other: as many of each are in every resample, and the mean has no error."""
    by_corpus = score_study(study(at_its_choice(lambda clean, rng: clean)), "GRPO", 8, (CHOICE,))[1][CHOICE].of("J")
    assert float(by_corpus.mean) == 0.5
    assert float(by_corpus.standard_error) == 0
    by_chance = study(at_its_choice(lambda clean, rng: rng.uniform() < 0.5))
    assert float(score_study(by_chance, "GRPO", 8, (CHOICE,))[1][CHOICE].of("J").standard_error) > 0.05, "the control"


def test_a_product_wins_where_it_beats_both_factors_and_every_null():
    worst = dict.fromkeys(PREDICTORS, 1.0)
    assert count_winners(worst) == 0, "a tie is no victory"
    error = worst | dict.fromkeys(PRODUCTS, 0.5)
    assert count_winners(error) == len(PRODUCTS) == 12
    assert count_winners(error | {"costate": 0.4}) == 8, "four products have that factor"
    assert count_winners(error | {"best_of": 0.4}) == 9, "three products have that one"
    for null in (*SPREADS, *ONE_SIDED):
        assert count_winners(error | {null: 0.4}) == 0
        assert count_winners(error | {null: 0.4, "snr x best_of": 0.3}) == 1
    assert count_winners(error | {"gradient^2": 0.1}) == 12, "what is no rival"


def test_what_the_picture_shows_is_a_loop_of_fits_to_all_other_trajectories():
    rows = study(early_and_late)
    told = prediction_rows(aligned(rows, "GRPO", budget=16, known=list(PREDICTORS)), ("spread", "J"), "spread")
    gain, facts = cells(rows, 16)
    predicted = {"measured": gain}
    for name in ("spread", "J"):
        predicted[name] = np.empty_like(gain)
        for t in range(len(gain)):
            others = [s for s in range(len(gain)) if s != t]
            line = stats.linregress(facts[name][others].ravel(), gain[others].ravel())
            predicted[name][t] = line.intercept + line.slope * facts[name][t]
    clean = facts["tokens"].shape[0] // 2  # those of quality 0.5 come first
    for corpus, some in ((CLEAN, slice(clean, None)), ("quality 0.5", slice(None, clean))):
        for name, values in predicted.items():
            curve = [
                row for row in told if (row["part"], row["corpus"], row.get("predictor")) == ("curve", corpus, name)
            ]
            assert [row["tokens"] for row in curve] == TOKENS
            assert [row["measured"] for row in curve] == pytest.approx(values[some].mean(0).tolist(), rel=1e-9)
            error = stats.sem(values[some], 0)
            assert [row["standard_error"] for row in curve] == pytest.approx(error.tolist(), rel=1e-9, abs=1e-15)
        points = [(row["measured"], row["target"]) for row in told if (row["part"], row["corpus"]) == ("point", corpus)]
        truth = sorted(zip(gain[some].ravel(), predicted["spread"][some].ravel(), strict=True))
        assert np.array(sorted(points)) == pytest.approx(np.array(truth), rel=1e-9)
    own = stats.linregress(facts["spread"].ravel(), gain.ravel())
    seen = own.intercept + own.slope * facts["spread"]
    assert np.abs(seen - predicted["spread"]).max() > 1e-4, "the control: a line through all of them"


def test_all_scores_share_their_resamples_so_that_differences_are_paired():
    rows = study(early_and_late)
    (_, one), (_, other) = (score_study(rows, "GRPO", 16, scores) for scores in ((ERROR,), (RANK, ERROR)))
    for name in PREDICTORS:
        np.testing.assert_array_equal(one[ERROR].resampled[name], other[ERROR].resampled[name])
