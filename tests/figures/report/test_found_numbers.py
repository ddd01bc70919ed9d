"""Sentences with numbers, from rows made by hand: every number of a sentence is worked out here, and its place checked."""

import math
from pathlib import Path

import pandas as pd
import pytest

from figures.harness.rows import report
from figures.harness.statistics import Estimate
from figures.report import found_numbers as found


def rows(*made):
    """Rows (part, measured, labels); a pair in the place of `measured` is a number with its standard error."""
    table = []
    for part, x, labels in made:
        measured = Estimate(*x, 100) if isinstance(x, tuple) else x
        table += report(part, measured, labels=labels)
    return pd.DataFrame(table)


def test_the_variances_are_those_of_the_critic_and_of_all_kinds_of_scores():
    part = "variance over pathwise"
    told = found.estimator_variance(
        rows(
            (part, 0.5, {"estimator": "critic"}),
            (part, 1.25, {"estimator": "critic"}),
            (part, 3.0, {"estimator": "score"}),
            (part, 1234.0, {"estimator": "score best"}),
            (part, 7.0, {"estimator": "pathwise"}),
            ("another part", 99.0, {"estimator": "critic"}),
        )
    )
    assert "critic has 0.50 to 1.25 and" in told
    assert "baseline) 3.00 to 1,234, over" in told


def test_the_explosion_is_a_ratio_of_deviations_and_the_growth_a_factor():
    told = found.chaos(
        rows(
            ("pathwise explodes", math.log(40.0), {"T": 12, "map": "chaotic"}),
            ("growth = top eigenvalue", 2.345, {"map": "chaotic", "T": 99}),
            ("growth = top eigenvalue", 0.7, {"map": "calm", "T": 99}),
        )
    )
    assert "At T = 12 " in told
    assert "is 40 times" in told
    assert "factor of 2.35 per step" in told


def test_the_error_of_a_kind_of_reward_is_the_median():
    part = "E1b = value gradient"
    numbers = {"dense": (0.1, 0.2, 0.9), "readout": (2.0,)}
    told = found.attention_costate_biased(
        rows(*((part, x, {"reward": reward}) for reward, own in numbers.items() for x in own), ("else", 8.0, {}))
    )
    assert "by kind of reward: dense 0.20, readout 2.00." in told


def test_correlations_stand_with_what_they_are_with():
    numbers = {"temperature": ((0.9, 0.7), (0.2, 0.4)), "offset": ((-0.5,), (0.6,))}
    told = found.entropy_knobs(
        rows(
            *(
                (f"rank correlation with {x}", number, {"knob": knob, "costate": "E1"})
                for knob, pair in numbers.items()
                for x, own in zip(("entropy", "bound"), pair, strict=True)
                for number in own
            )
        )
    )
    assert "0.80 with entropy and 0.30 with the bound (temperature, E1)" in told
    assert "-0.50 with entropy and 0.60 with the bound (offset, E1)" in told


def test_the_share_that_is_lost_is_told_at_the_prompt_and_one_token_later():
    def lost(x, world, k, closed="all"):
        return "share lost", x, {"world": world, "k": k, "closed": closed}

    told = found.attention_transport(
        rows(
            lost(0.5, "a", 0),
            lost(0.75, "a", 0),
            lost(1.0, "b", 0),
            lost(9.0, "a", 0, "none"),
            lost(0.25, "a", 1),
            lost(0.3, "b", 1),
            lost(8.0, "b", 2),
        )
    )
    assert "by world: a 0.50 to 0.75, b 1.00." in told
    assert "it is up to 0.30." in told


def test_the_largest_errors_are_told_by_costate_beside_both_bounds():
    constant, bound = "gap and entropy alone", "tier 3 is never exceeded"
    told = found.error_map(
        rows(
            (constant, 3.0, {"costate": "E1", "family": "offset"}),
            (constant, 500.4, {"costate": "E1", "family": "offset"}),
            (constant, 2.0, {"costate": "E1", "family": "trained"}),
            (constant, 7.0, {"costate": "E1b", "family": "offset"}),
            (bound, 0.25, {"costate": "E1", "family": "offset"}),
            (bound, 0.75, {"costate": "E1b", "family": "trained"}),
        )
    )
    assert "changed. E1: offset 500, trained 2.00; E1b: offset 7.00. In" in told
    assert "it is 0.75." in told


def test_differences_stand_with_their_intervals_and_their_learners():
    parts = ("critic-free against learned critic", "exact critic against critic-free", "no baseline does as well")
    told = found.critic_or_not(
        rows(
            *(
                (part, 0.1 * i, {"world": "w", "low": 0.1 * i - 1, "high": 0.1 * i + 1, "learner": f"L{i}"})
                for i, part in enumerate(parts)
            )
        )
    )
    assert "L0: w 0.00 (-1.00 to 1.00). L1: w 0.10 (-0.90 to 1.10). L2: w 0.20 (-0.80 to 1.20)." in told


def test_gains_are_those_of_grpo_after_the_largest_budget_in_the_order_of_the_tokens():
    def curve(x, tokens, budget=8, recipe="GRPO"):
        return "curve", x, {"corpus": "clean", "tokens": tokens, "budget": budget, "recipe": recipe}

    told = found.impact_inverted_u(
        rows(
            curve(0.3, 900),
            curve(0.1, 0),
            curve(0.6, 400),
            curve(7.0, 400, budget=2),
            curve(8.0, 400, recipe="exact"),
        )
    )
    assert "clean: 0.10 from the first draw, 0.60 at the peak (400 tokens), 0.30 from the last checkpoint." in told


def test_shifts_of_the_peak_are_those_of_grpo():
    corpus, budget, group = (
        "a half-wrong corpus: later",
        "a larger budget: earlier",
        "sixteen times the group: earlier by a doubling",
    )
    told = found.what_moves_the_peak(
        rows(
            (corpus, 1.5, {"recipe": "GRPO"}),
            (corpus, 2.5, {"recipe": "GRPO"}),
            (corpus, 99.0, {"recipe": "exact"}),
            (budget, 77.0, {"recipe": "exact"}),
            (budget, (-0.75, 0.25), {"recipe": "GRPO"}),
            (group, (-1.0, 0.5), {"recipe": "GRPO"}),
        )
    )
    assert "1.50 to 2.50 with the worse corpus" in told
    assert "-0.75 +- 0.25 with the larger budget" in told
    assert "-1.00 +- 0.50 with the larger groups (mean over budgets)" in told


@pytest.mark.parametrize(
    ("number", "text"), [(-0.001, "0.00"), (99.994, "99.99"), (-1234.4, "-1,234"), (100.0, "100"), (0.125, "0.12")]
)
def test_a_number_has_two_digits_after_the_point_and_no_minus_before_a_zero(number, text):
    assert found._number(number) == text


def test_the_flows_efficiencies_are_spans_and_the_gains_means_by_optimiser_and_alpha():
    prompts = [(f"efficiency of {what}", x, {}) for what, x in (("a small step", 0.25), ("the best small shift", 1.0))]
    prompts += [("efficiency of a small step", 0.5, {}), ("efficiency of the best small shift", 0.9, {})]
    steps = {"system": "lock", "seed": 0, "prompt": 0}
    path = [("efficiency", 0.4, {**steps, "step": 0}), ("efficiency", 0.125, {**steps, "step": 9})]
    path += [("efficiency", 0.375, {**steps, "prompt": 1, "step": 9})]
    gains = [
        ("gain of ten particles", x, {"optimiser": name, "alpha": alpha})
        for name, alpha, x in (
            ("plain", 0.1, 8.0),
            ("plain", 0.1, 4.0),
            ("plain", 1.0, 3.0),
            ("adam", 0.1, 2.0),
            ("adam", 1.0, 1.5),
        )
    ]
    told = found.value_gradient_flow(rows(*prompts, *path, *gains))
    assert "0.25 to 0.50 for a small step" in told
    assert "0.12 to 0.38 at the end" in told
    assert "0.90 to 1.00 for a small step in the best" in told
    assert "alpha 0.1: plain steps 6.00, Adam 2.00; alpha 1: plain steps 3.00, Adam 1.50" in told


def test_every_teller_is_tried_here():
    tried = set(found.NUMBERS) - {"signal_cap"}  # tests/figures/report/test_findings.py
    source = Path(__file__).read_text()
    assert {name for name in tried if f"found.{name}(" not in source} == set()
