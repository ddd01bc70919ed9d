"""The claim about power sampling: its roads to the law, defects that turn a part, and its picture on rows made by hand."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from matplotlib.colors import same_color

from agents.policies.prefix_table import PrefixTable
from agents.sampling import power_sampling as sampler
from figures.claims.systems import power_sampling as claim
from figures.drawing.power_sampling import draw_power_sampling
from figures.drawing.style import COLOURS, house_style, new_figure
from figures.harness.judge import judge
from figures.measures import power_sampling as measures
from figures.measures.token_systems import build_world
from theory.tokens import power_sampling as theory
from theory.tokens.completions import words
from theory.tokens.power_sampling import texts

STOP = claim.PowerSamplingSetting("stop (2,3)", 2.0, 0, 3000)
LOCK = replace(STOP, world="lock (2,3)")


def outcomes(*settings):
    rows = [row for s in settings for row in claim.measure(s, torch.Generator().manual_seed(0), "cpu")]
    return {name: part.result.outcome for name, part in judge(claim.CLAIM, pd.DataFrame(rows)).parts.items()}


def test_all_parts_come_out_as_documented_on_two_worlds():
    seen = outcomes(STOP, LOCK)
    assert seen == {part.name: part.documented for part in claim.CLAIM.parts}


def test_returns_are_the_means_over_texts_with_their_weights():
    world, alpha = build_world("garnet (3,3)"), 3.0
    tree = measures.tree_of(world, PrefixTable(world, seed=2))
    among, J, R = texts(tree, alpha), measures.returns(tree, alpha), words(tree).returns
    assert J["J of the power"] == pytest.approx(float((among.power * R).sum()), rel=1e-12)
    assert J["J at temperature"] == pytest.approx(float((among.cold * R).sum()), rel=1e-12)
    assert J["J of p"] == pytest.approx(float((words(tree).p * R).sum()), rel=1e-12)
    assert len({round(x, 4) for x in J.values()}) == 3


@pytest.mark.parametrize("road", ["soft_optimum", "power_law"])
def test_a_road_that_leads_to_another_power_turns_the_tilt(monkeypatch, road):
    real = getattr(measures, road)
    monkeypatch.setattr(measures, road, lambda tree, x: real(tree, 1.001 * x))
    assert outcomes(STOP)[claim.TILT] == "fails"


def test_forgotten_lengths_turn_the_stationary_law(monkeypatch):
    def wrong(tree, alpha, T, rule="hastings", *rest):
        return theory.chain(tree, alpha, T, "no factor" if rule == "hastings" else rule, *rest)

    for module in (claim, measures):
        monkeypatch.setattr(module, "chain", wrong)
        monkeypatch.setattr(module, "spectral_gap", lambda K, law: torch.full(law.shape[:1], 0.1).double())
    assert outcomes(STOP)[claim.STATIONARY] == "fails"


def test_a_bound_without_the_lengths_would_be_seen(monkeypatch):
    assert outcomes(STOP, LOCK)[claim.GAP] == "holds"
    monkeypatch.setattr(claim, "gap_bound", lambda among: theory.gap_bound(among) / 1000)
    assert outcomes(STOP, LOCK)[claim.GAP] == "fails"


def test_likelihoods_of_another_temperature_turn_the_ratio(monkeypatch):
    real = measures.temperature_law
    monkeypatch.setattr(measures, "temperature_law", lambda tree, alpha: real(tree, 1.01 * alpha))
    assert outcomes(LOCK)[claim.RATIO] == "fails"


def test_a_sampler_that_accepts_always_turns_the_drawn_texts(monkeypatch):
    setting = replace(STOP, alpha=4.0, rows=10_000)
    own = sampler._between
    monkeypatch.setattr(sampler, "_between", lambda log_Z, first, length: 0 * own(log_Z, first, length))
    assert outcomes(setting)[claim.DRAWN] == "fails"


def test_algorithm_1_with_another_chain_does_not_end_at_the_power(monkeypatch):
    real = measures.block_stages
    monkeypatch.setattr(
        measures, "block_stages", lambda tree, alpha, B, N, rule: real(tree, alpha, B, N, rule, torch.ones_like)
    )
    assert outcomes(LOCK)[claim.APPROACH] == "fails"


def test_a_rule_that_keeps_the_power_would_be_seen(monkeypatch):
    real = measures.moved
    monkeypatch.setattr(
        measures, "moved", lambda tree, alpha, rule, accept: real(tree, alpha, "hastings", theory.metropolis)
    )
    seen = outcomes(STOP)
    assert seen[claim.CUT] == seen[claim.NO_FACTOR] == seen[claim.ALWAYS] == "holds"


def made_up(chain, world, values, ended, alpha=2.0, seed=0):
    at = {"world": world, "alpha": alpha, "seed": seed, "block": 3, "chain": chain, "power_ended": 0.9}
    return [
        {**at, "steps": n, "enough": n == 500, "measured": x, "ended": share}
        for n, x, share in zip((0, 10, 500), values, ended, strict=True)
    ]


def test_the_picture_shows_both_rules_of_worlds_that_end_at_the_largest_power():
    right, wrong = measures.TEXTBOOK, measures.PUBLISHED
    away = made_up(right, "a", (0.8, 0.1, 0.0), (0.3, 0.7, 0.9)) + made_up(wrong, "a", (0.8, 0.6, 0.5), (0.3, 0.2, 0.1))
    away += made_up(right, "endless", (0.4, 0.3, 0.0), (0, 0, 0)) + made_up(
        right, "a", (0.7, 0.2, 0.1), (1, 1, 1), alpha=1.0
    )
    drawn = [
        {"world": "a", "alpha": 2.0, "seed": 0, "block": 3, "chain": chain, "steps": 10, "of": of, "measured": x}
        for chain, of, x in ((right, measures.ENDED, 0.71), (wrong, measures.ENDED, 0.19), (right, "log p", -2.0))
    ]
    with house_style():
        figure = new_figure(4)
        draw_power_sampling(figure, pd.DataFrame(away), pd.DataFrame(drawn).assign(standard_error=0.01))
        left, other = figure.axes
        seen = {
            tuple(line.get_ydata()): [
                name for name in ("costate", "control") if same_color(line.get_color(), COLOURS[name])
            ]
            for line in left.lines
            if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"
        }
        assert seen == {(0.8, 0.1): ["costate"], (0.8, 0.6): ["control"]}
        points = sorted(float(c.lines[0].get_ydata()[0]) for c in other.containers)
        assert points == [0.19, 0.71]
        dashed = [float(line.get_ydata()[0]) for line in other.lines if line.get_linestyle() == "--"]
        assert dashed == [0.9]
        assert (left.get_title(), other.get_title()) == ("N = 10: 0.10 against 0.60 or more", "a, alpha = 2")
        empty = new_figure(4)
        draw_power_sampling(empty, pd.DataFrame(away)[:0], pd.DataFrame(drawn)[:0])
        assert all("no rows here" in axis.texts[0].get_text() for axis in empty.axes)
