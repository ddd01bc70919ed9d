"""The claim about next-token rewards: its fields and ends by a second road, and defects that turn each of its parts."""

import pandas as pd
import pytest
import torch
from matplotlib.colors import same_color
from scipy.integrate import solve_ivp

from agents.policies.prefix_table import PrefixTable
from figures.claims.systems import next_token_reward as claim
from figures.drawing.next_token import draw_next_token
from figures.drawing.style import COLOURS, house_style, new_figure
from figures.harness.judge import judge
from figures.measures import next_token
from theory.groups.binary_rewards import mean_factor
from theory.tokens.next_token import arcsine_optimum, mean_optimum

LAW = claim.NextTokenRewardSetting("(.4, .35, .25)", 0)
CORPUS = claim.NextTokenRewardSetting("copy (2,3)", 0, 1)
DOCUMENTED = {part.name: part.documented for part in claim.CLAIM.parts}


def outcomes(*settings):
    rows = [row for s in settings for row in claim.measure(s, torch.Generator().manual_seed(0), "cpu")]
    return {name: part.result.outcome for name, part in judge(claim.CLAIM, pd.DataFrame(rows)).parts.items()}


def test_one_law_and_one_corpus_come_out_as_documented():
    found = outcomes(LAW, CORPUS, claim.NextTokenRewardSetting("copy (2,3)", 1))
    assert found == DOCUMENTED


@pytest.mark.parametrize("name", next_token.LAWS)
def test_ends_are_those_of_a_flow_in_time(name):
    """Gradient flow of the logits by an integrator, until the law moves no more: no step size, no scale."""
    q = torch.tensor(next_token.LAWS[name], dtype=torch.float64)
    world = next_token.law_world(q)
    start = PrefixTable(world, seed=0)
    arcsine = next_token.LIMITS[next_token.ARCSINE]
    for kappa, end in ((arcsine, arcsine_optimum(q)), (lambda P: mean_factor(P, 8), mean_optimum(q, 8))):

        def pull(t, z, kappa=kappa):
            pi = torch.softmax(torch.tensor(z), 0).clamp(1e-15, 1 - 1e-15)
            moved = q * kappa(pi)
            return (moved - pi @ moved).clamp(-1e3, 1e3).numpy()  # natural gradient: the same places of rest

        z = solve_ivp(pull, (0, 200), start.logits.detach()[0].numpy(), "LSODA", rtol=1e-9, atol=1e-9).y[:, -1]
        assert float((torch.softmax(torch.tensor(z), 0) - end).abs().max()) < 1e-4
        found = next_token.end_of(world, next_token.closed_field(q, kappa), start, kappa)
        assert float((found - end).abs().max()) < 1e-9


def test_a_rate_that_never_rests_says_so(monkeypatch):
    monkeypatch.setattr(next_token, "_MOST", 3)
    q = torch.tensor([0.6, 0.4], dtype=torch.float64)
    kappa, world = next_token.LIMITS[next_token.LIKELIHOOD], next_token.law_world(q)
    field, start = next_token.closed_field(q, kappa), PrefixTable(world, seed=0)
    with pytest.raises(next_token.InputError, match=r"^rate=0.1 has not brought the law to rest in 3 steps"):
        next_token.end_of(world, field, start, kappa, 0.1)


def test_the_sharpened_table_is_more_certain_and_opposed():
    assert next_token.sharpened_cosine(torch.tensor([0.6, 0.4], dtype=torch.float64)) == pytest.approx(-1)
    q = torch.tensor([0.4, 0.35, 0.25], dtype=torch.float64)
    pi = q**2 / (q**2).sum()
    rpt, likelihood = pi * (q - pi @ q), q - pi
    cosine = float(rpt @ likelihood / rpt.norm() / likelihood.norm())
    assert next_token.sharpened_cosine(q) == pytest.approx(cosine, rel=1e-12)


def wrong_factor(monkeypatch):
    name = "mean, G = 4"
    monkeypatch.setitem(next_token.RECIPES, name, next_token.RECIPES[name]._replace(group=5))
    return {claim.FACTORS: "fails"}


def wrong_arcsine(monkeypatch):
    monkeypatch.setattr(claim, "arcsine_optimum", lambda q: q**2 / (q**2).sum())
    return {claim.CRITERION: "fails"}


def wrong_mean(monkeypatch):
    monkeypatch.setattr(claim, "mean_optimum", lambda q, G: mean_optimum(q, G + 1))
    return {claim.CLIMBS: "fails"}


def wrong_slope(monkeypatch):
    real = next_token.truncated_log_objective
    monkeypatch.setattr(next_token, "truncated_log_objective", lambda G: real(G + 1))
    return {claim.CLIMBS: "fails"}


def likelihood_for_rpt(monkeypatch):
    """RPT with the likelihood's factor: then it would end at q and point along its gradient, and the claim would hold."""
    kappa = next_token.LIMITS[next_token.LIKELIHOOD]
    monkeypatch.setitem(next_token.RECIPES, next_token.RPT, next_token.RECIPES[next_token.RPT]._replace(kappa=kappa))
    monkeypatch.setattr(claim, "_FAST", 1.0)
    return {claim.ENDS: "holds", claim.COSINE: "holds", claim.MODE: "fails", claim.FACTORS: "fails"}


def wrong_likelihood(monkeypatch):
    monkeypatch.setitem(claim.LIMITS, next_token.LIKELIHOOD, lambda P: 1 / P**1.01)
    return {claim.AT_Q: "fails", claim.FACTORS: "fails"}


def rpt_in_large_groups(monkeypatch):
    real = claim.by_mean
    monkeypatch.setattr(claim, "by_mean", lambda G: real(G)._replace(kappa=torch.ones_like))
    return {claim.LARGE: "fails", claim.CLIMBS: "fails"}


def likelihood_for_the_bound(monkeypatch):
    monkeypatch.setattr(claim, "jensen_bound", claim.log_likelihood)
    return {claim.JENSEN: "holds"}


DEFECTS = (
    wrong_factor,
    wrong_arcsine,
    wrong_mean,
    wrong_slope,
    likelihood_for_rpt,
    wrong_likelihood,
    rpt_in_large_groups,
    likelihood_for_the_bound,
)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_a_planted_defect_turns_its_parts(defect, monkeypatch):
    turned = defect(monkeypatch)
    found = outcomes(LAW, CORPUS, claim.NextTokenRewardSetting("copy (2,3)", 1))
    assert {name: found[name] for name in turned} == turned
    for name in turned:
        assert DOCUMENTED[name] != turned[name]


def test_every_preset_has_rows_of_every_part_on_both_sides_of_the_criterion():
    for preset in ("tiny", "quick", "full"):
        laws = {s.world for s in claim.settings(preset) if s.world in next_token.LAWS}
        sides = {next_token.LAWS[x][0] ** 2 >= sum(q**2 for q in next_token.LAWS[x][1:]) for x in laws}
        assert sides == {True, False}
        corpora = {(s.world, s.thoughts) for s in claim.settings(preset) if s.world not in next_token.LAWS}
        assert {thoughts for _, thoughts in corpora} == {0, 1}


def test_the_picture_stacks_laws_and_marks_cosines():
    laws = pd.DataFrame(
        {"world": "w", "seed": 0, "recipe": recipe, "token": token, "measured": p, "target": q}
        for recipe, law in (("RPT", (1.0, 0.0)), ("likelihood", (0.7, 0.3)))
        for token, (p, q) in enumerate(zip(law, (0.7, 0.3), strict=True))
    )
    cosines = pd.DataFrame(
        [
            {"recipe": "RPT", "thoughts": 0, "measured": -0.4},
            {"recipe": "likelihood", "thoughts": 1, "measured": 1.0},
            {"recipe": "GRPO, G = 8", "thoughts": 1, "measured": 0.5},  # not shown
        ]
    )
    with house_style():
        figure = new_figure(4)
        draw_next_token(figure, laws, cosines)
        left, right = figure.axes
        places = [(b.get_y() + b.get_height() / 2, b.get_x(), b.get_width()) for b in left.patches]
        bars = sorted((round(y), round(float(x), 9), round(float(width), 9)) for y, x, width in places)
        assert bars == [(0, 0.0, 1.0), (0, 1.0, 0.0), (4, 0.0, 0.7), (4, 0.7, 0.3)]
        assert [line.get_xdata()[0] for line in left.lines if line.get_linestyle() == "--"] == [0.7]
        marks = {}
        for name in ("costate", "control"):
            lines = [x for x in right.lines if x.get_marker() in "os" and same_color(x.get_color(), COLOURS[name])]
            marks[name] = [tuple(map(float, xy)) for line in lines for xy in line.get_xydata()]
        assert marks == {"costate": [(-0.4, -0.13)], "control": [(1.0, 4.13)]}
        assert [label.get_text() for label in left.get_yticklabels()][::4] == ["RPT", "likelihood"]
        empty = new_figure(4)
        draw_next_token(empty, laws[:0], cosines[:0])
        assert len(empty.axes) == 2
