"""The claim about soft thoughts: its outcomes on small settings, and defects that turn its parts."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from figures.claims.systems import soft_thoughts as claim
from figures.harness.judge import judge
from figures.measures import noise_ratios
from figures.measures import soft_thoughts as measures
from theory.tokens.noise_scores import NoiseRatio, noise_ratio
from theory.tokens.soft_thoughts import SoftSuccess, discrete_success, soft_success

SIZES = {"nodes": 40, "taus": (0.003, 0.1), "trained": (0.5,), "groups": 3000}


def point(case, world="two answers", seed=1, **changes):
    return replace(claim.SoftThoughtsSetting(case, seed, world, **SIZES), **changes)


def rows_of(*settings):
    return pd.DataFrame([row for s in settings for row in claim.measure(s, torch.Generator().manual_seed(0), "cpu")])


def outcomes(*settings):
    return {name: part.result.outcome for name, part in judge(claim.CLAIM, rows_of(*settings)).parts.items()}


def test_small_settings_have_the_documented_outcomes_and_a_picture():
    settings = [point(claim.LIMITS), point(claim.UPDATES), point(claim.FORMS, "stop (3,3)"), point(claim.RATIOS)]
    found, documented = outcomes(*settings), {part.name: part.documented for part in claim.CLAIM.parts}
    assert found == documented
    figure = Figure()
    claim.draw(rows_of(*settings[::2]), figure)
    assert len(figure.axes) == 2


def test_the_codes_form_is_off_the_gradient_of_what_it_samples_and_the_whole_density_is_not():
    rows = rows_of(point(claim.CODE, "six answers", seed=0, groups=2000)).set_index("form")["measured"]
    assert rows["whole density"] < 15
    assert rows["the code's"] > 30


@pytest.mark.parametrize("off", [1.01, 0.5])
def test_another_factor_is_seen(monkeypatch, off):
    real = measures.grpo_kappa
    monkeypatch.setattr(measures, "grpo_kappa", lambda P, G: off * real(P, G))
    wrong = outcomes(point(claim.UPDATES))
    assert wrong[claim.MEAN] == "fails"
    assert wrong[claim.ROADS] == "holds"
    assert (wrong[claim.SAMPLED] == "fails") == (off == 0.5)


def test_a_score_of_one_thought_alone_is_seen(monkeypatch):
    def lost(policy, prompt, tau, thoughts, nodes, answer=1):
        right = soft_success(policy, prompt, tau, thoughts, nodes, answer)
        return SoftSuccess(
            right.P, right.pathwise, soft_success(policy, prompt, tau, thoughts - 1, nodes, answer).score
        )

    monkeypatch.setattr(claim, "soft_success", lost)
    assert outcomes(point(claim.UPDATES))[claim.ROADS] == "fails"


def test_limits_that_are_exchanged_are_seen(monkeypatch):
    right = outcomes(point(claim.LIMITS))
    assert right[claim.TO_TOKENS] == right[claim.TO_MEAN] == "holds"
    mean = claim.mean_success
    monkeypatch.setattr(claim, "mean_success", discrete_success)
    monkeypatch.setattr(claim, "discrete_success", mean)
    wrong = outcomes(point(claim.LIMITS))
    assert wrong[claim.TO_TOKENS] == wrong[claim.TO_MEAN] == "fails"
    assert wrong[claim.GAUSS_TO_TOKENS] == "holds"


def test_a_mask_without_a_floor_turns_nothing(monkeypatch):
    monkeypatch.setattr(claim, "FLOOR", -math.inf)
    assert outcomes(point(claim.FORMS, "lock (3,4)"))[claim.MASK] == "holds"


def test_other_moments_and_another_clamp_are_seen(monkeypatch):
    def tokens(old, new):
        exact = noise_ratio(old, new)
        return NoiseRatio((old.exp() * (old - new)).sum(-1), exact.second_moment)

    monkeypatch.setattr(noise_ratios, "noise_ratio", tokens)
    wrong = outcomes(point(claim.RATIOS))
    assert wrong[claim.MOMENTS] == "fails"
    assert wrong[claim.TOKEN_KL] == "holds"
    monkeypatch.setattr(noise_ratios, "CLAMP", (-40.0, 40.0))
    wide = outcomes(point(claim.RATIOS))
    assert wide[claim.CLAMPED] == wide[claim.CHANCES] == "holds"
