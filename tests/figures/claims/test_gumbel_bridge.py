"""The claim on Gumbel noise: defects that turn its parts, and its picture."""

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from figures.claims.systems import gumbel_bridge as bridge
from figures.harness.judge import judge
from figures.measures import gumbel_bridge as measures
from figures.measures import gumbel_limits as limits
from theory.tokens.gumbel import NoiseRule
from theory.tokens.gumbel_limits import ScoreMoments, SmallTau


def rows_of(law=(0.7, 0.3), reward="table", taus=(0.4,), samples=40_000, margin=0.2):
    setting = bridge.GumbelBridgeSetting(law, reward, taus, samples, margin)
    return pd.DataFrame(bridge.measure(setting, torch.Generator().manual_seed(0), "cpu"))


def outcomes(**options):
    judged = judge(bridge.CLAIM, rows_of(**options))
    return {name: part.result.outcome for name, part in judged.parts.items()}


def test_a_table_and_a_quadratic_reward_are_as_documented():
    table, quadratic = outcomes(), outcomes(reward="quadratic", law=(0.6, 0.3, 0.1))
    for part in (bridge.SAME, bridge.MEANS, bridge.SPREADS, bridge.GROWTH, bridge.SCORES, bridge.LENGTHS):
        assert table[part] == quadratic[part] == "holds"
    assert table[bridge.CURVATURE] == table[bridge.LATE] == quadratic[bridge.SLOPE] == "holds"
    assert table[bridge.LINEAR] == table[bridge.BEATS] == quadratic[bridge.FISHER] == "fails"


def test_noise_that_is_not_gumbel_is_seen(monkeypatch):
    real = measures.gumbel_noise
    monkeypatch.setattr(measures, "gumbel_noise", lambda shape, rng: 1.1 * real(shape, rng))
    assert outcomes()[bridge.MEANS] == "fails"


@pytest.mark.parametrize("index", range(3))
def test_an_estimator_off_by_a_share_is_seen(monkeypatch, index):
    real = measures.relaxed_estimates
    factors = [1.05 if i == index else 1.0 for i in range(3)]
    wrong = lambda *a: [factor * x for factor, x in zip(factors, real(*a), strict=True)]  # noqa: E731
    monkeypatch.setattr(measures, "relaxed_estimates", wrong)
    found = outcomes()
    assert "fails" in (found[bridge.MEANS], found[bridge.SPREADS])


def test_shares_that_are_not_uniform_are_seen(monkeypatch):
    real = measures.simplex_rule

    def tilted(p, tau):
        rule = real(p, tau)
        weights = rule.weights * (1 + 0.1 * (rule.shares[:, 0] - 0.5))
        return NoiseRule(rule.relaxed, rule.shares, rule.tokens, weights)

    monkeypatch.setattr(measures, "simplex_rule", tilted)
    found = outcomes()
    assert found[bridge.SAME] == found[bridge.SCORES] == found[bridge.LENGTHS] == "fails"


def test_wrong_constants_of_the_limits_are_seen(monkeypatch):
    real = limits.small_tau
    off = lambda *a: SmallTau(*(x if i in (0, 2) else 1.01 * x for i, x in enumerate(vars(real(*a)).values())))  # noqa: E731
    monkeypatch.setattr(limits, "small_tau", off)
    curvature = limits.table_curvature
    monkeypatch.setattr(limits, "table_curvature", lambda p, R: [1.01 * x for x in curvature(p, R)])
    table, quadratic = outcomes(), outcomes(reward="quadratic")
    assert table[bridge.GROWTH] == table[bridge.CURVATURE] == quadratic[bridge.SLOPE] == "fails"


def test_wrong_scores_are_seen(monkeypatch):
    real, lengths = limits.score_fisher, limits.score_moments
    monkeypatch.setattr(limits, "score_fisher", lambda p: (real(p)[0], real(p)[2], real(p)[2]))
    assert outcomes()[bridge.LENGTHS] == "fails"
    monkeypatch.setattr(limits, "score_fisher", real)
    monkeypatch.setattr(
        limits, "score_moments", lambda *a: ScoreMoments(*(1.01 * x for x in vars(lengths(*a)).values()))
    )
    assert outcomes()[bridge.LENGTHS] == "fails"


def test_controls_would_turn_if_what_they_deny_were_true(monkeypatch):
    table = outcomes()
    real, fisher = measures.sampled_variance, limits.score_fisher
    monkeypatch.setattr(limits, "exact_spreads", lambda *a: {"pathwise": 0.5, "REINFORCE": 1.0, "score": 1.0})
    assert table[bridge.BEATS] == "fails"
    assert outcomes()[bridge.BEATS] == "holds"
    one = measures.one_step
    monkeypatch.setattr(bridge, "one_step", lambda p, reward: one(p, "quadratic"))  # its bias is linear
    assert outcomes()[bridge.LINEAR] == "holds"
    concrete = fisher(torch.tensor([0.7, 0.3], dtype=torch.float64))[1]
    monkeypatch.setattr(limits, "score_fisher", lambda p: (fisher(p)[0], concrete, concrete))
    assert outcomes()[bridge.FISHER] == "holds"
    monkeypatch.setattr(limits, "crossing", lambda *a: 0.1)
    assert outcomes()[bridge.LATE] == "fails"
    assert real is measures.sampled_variance


def test_the_picture_marks_the_crossing_and_says_it():
    figure, rows = Figure(), rows_of(taus=(0.2, 0.8), samples=5_000)
    bridge.draw(rows, figure)
    above, below = figure.axes
    assert "above tau = 0.48" in above.get_title()
    assert "9% off" in below.get_title()
    marks = [line.get_xdata()[0] for axis in (above, below) for line in axis.lines if len(set(line.get_xdata())) == 1]
    assert marks == pytest.approx([0.479] * 3, abs=1e-3)
    dashed = [line for axis in (above, below) for line in axis.lines if line.get_linestyle() == "--"]
    assert len(dashed) == 4
    moved = rows.assign(measured=rows["measured"].where(rows["part"] != limits.CROSSING, 0.7))
    other = Figure()
    bridge.draw(moved, other)
    assert "above tau = 0.70" in other.axes[0].get_title()


@pytest.mark.parametrize("kept", [None, "mean along the gradient", "spread", "exact curve", "spreads cross"])
def test_the_picture_is_drawn_of_some_rows(kept):
    rows, figure = rows_of(samples=2_000), Figure()
    bridge.draw(rows[rows["part"] == kept] if kept else rows.iloc[:0], figure)
    figure.draw_without_rendering()
