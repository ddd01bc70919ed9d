import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from envs.world import InputError
from figures.harness.rows import at_least, at_most, equals
from figures.harness.statistics import (
    ERROR_RATE,
    Estimate,
    batches,
    critical_value,
    estimate,
    judge_part,
    pooled,
)


def part(values, target, margin=0.1):
    return pd.DataFrame(equals("p", estimate(values), target, margin=margin, axes=("k",)))


def normal(samples, columns=20, shift=0.0, seed=0):
    return np.random.default_rng(seed).standard_normal((samples, columns)) + shift


def test_planted_truth_holds_planted_error_fails_too_small_a_sample_is_undecided():
    assert judge_part(part(normal(20_000), 0.0)).outcome == "holds"
    assert judge_part(part(normal(20_000, shift=0.1), 0.0)).outcome == "fails"
    assert judge_part(part(normal(50), 0.0)).outcome == "undecided"


def test_one_wrong_entry_among_many_fails_the_part_and_is_named():
    values = normal(20_000, columns=200)
    values[:, 137] += 0.2
    result = judge_part(part(values, 0.0))
    assert result.outcome == "fails"
    assert result.worst["k"] == 137
    assert result.of_limit > 1


def test_a_wrong_entry_within_the_tolerance_for_rounding_is_not_a_failure():
    frame = pd.DataFrame(equals("p", 1e-12, 0.0, tolerance=1e-10))
    assert judge_part(frame).outcome == "holds"
    assert judge_part(frame.assign(tolerance=1e-13)).outcome == "fails"


def test_inequalities_hold_fail_and_are_undecided_by_their_intervals():
    for relation, sign in ((at_least, 1), (at_most, -1)):
        measured = [Estimate(np.array(sign * mean), np.array(1.0), 1000) for mean in (10, 0.5, -0.5, -10)]
        outcomes = [judge_part(pd.DataFrame(relation("p", number, 0.0))).outcome for number in measured]
        assert outcomes == ["holds", "undecided", "undecided", "fails"]


def test_the_family_error_rate_is_kept():
    """1000 families of 30 true comparisons at rate 5%: false alarms within 5 binomial standard errors of at most 5%."""
    rng = np.random.default_rng(5)
    alarms = sum(
        judge_part(part(rng.standard_normal((40, 30)), 0.0, margin=10), error_rate=0.05).outcome == "fails"
        for _ in range(1000)
    )
    assert alarms / 1000 <= 0.05 + 5 * (0.05 * 0.95 / 1000) ** 0.5
    assert alarms > 5  # and the test is not blind


def test_critical_value_is_students_quantile_after_bonferroni():
    assert critical_value(30, 40) == pytest.approx(stats.t.isf(ERROR_RATE / 60, 39))
    assert critical_value(1, 2) > critical_value(1, 200)


def test_estimate_is_mean_and_standard_error_and_needs_two_samples():
    values = normal(100, 3)
    np.testing.assert_allclose(estimate(values).mean, values.mean(0))
    np.testing.assert_allclose(estimate(values).standard_error, stats.sem(values))
    with pytest.raises(InputError, match="samples"):
        estimate(values[:1])


def test_numbers_that_carry_a_gradient_are_taken_as_numbers():
    values = torch.as_tensor(normal(100, 3)).requires_grad_()
    np.testing.assert_array_equal(estimate(values).mean, estimate(values.detach().numpy()).mean)
    (row,) = equals("p", values[0, 0], 2 * values[0, 0], values[0, 1].abs(), tolerance=values[0, 2].abs())
    x, scale, tolerance = values.detach()[0].tolist()
    told = [row[name] for name in ("measured", "target", "scale", "tolerance")]
    assert told == [x, 2 * x, abs(scale), abs(tolerance)]


def test_pooled_batches_are_the_estimate_of_all_samples_together():
    values = normal(1000, 4) ** 3
    whole = estimate(values)
    parts = pooled([estimate(values[:10]), estimate(values[10:400]), estimate(values[400:])])
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.standard_error, whole.standard_error, rtol=1e-12)
    assert parts.samples == 1000


def test_numbers_that_are_not_finite_are_refused_not_judged():
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match="finite"):
            equals("p", np.array([0.1, bad]), 0.0)


@pytest.mark.parametrize(("samples", "size"), [(10, 3), (7, 7), (5, 100), (100_000, 20_000)])
def test_batches_cover_all_samples_and_never_exceed_the_size(samples, size):
    parts = list(batches(samples, size))
    assert sum(parts) == samples
    assert max(parts) <= size
    assert max(parts) - min(parts) <= 1


def test_the_worst_row_is_the_worst_also_beyond_what_is_shown_of_it():
    """Numbers known to rounding are wrong by billions of their limit: the farthest one is told, not the first."""
    rows = pd.DataFrame(at_most("p", np.array([2.0, 9.0, 3.0]), 1.0, tolerance=1e-12))
    result = judge_part(rows)
    assert result.worst["measured"] == 9.0
    assert result.of_limit == 1e9
