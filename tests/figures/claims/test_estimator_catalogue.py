"""The claim on the catalogue of estimators: what is documented, planted defects that turn its parts, and its picture."""

import dataclasses

import pandas as pd
import pytest
import torch
from matplotlib.colors import same_color

from figures.claims.systems import estimator_catalogue as claim
from figures.drawing.catalogue import draw_catalogue
from figures.drawing.style import COLOURS, house_style, new_figure
from figures.harness.rows import at_most
from figures.measures import two_draws
from figures.measures.two_draws import pathwise_mean, rebar_of_one_draw
from tests.figures.claims.test_systems import outcomes
from theory.groups import estimators, one_bit
from theory.groups.estimators import ESTIMATORS, moments

DOCUMENTED = {part.name: part.documented for part in claim.CLAIM.parts}
TOKENS = claim.EstimatorCatalogueSetting("stop (2,4)", 0)
BIT = claim.EstimatorCatalogueSetting(claim.ONE_BIT, 0, ells=(-1.0, 0.5), taus=(0.5,))


def test_what_is_documented_at_every_preset_of_settings():
    assert outcomes(claim, TOKENS, BIT) == DOCUMENTED
    assert outcomes(claim, *claim.settings("tiny")) == DOCUMENTED
    assert {s.world for s in claim.settings("quick")} == {*claim.GROUPED, claim.ONE_BIT}
    assert len({s.seed for s in claim.settings("full")}) == 8


def test_bits_alone_and_tokens_alone_judge_what_they_have():
    of_tokens, of_bit = outcomes(claim, TOKENS), outcomes(claim, BIT)
    assert of_tokens[claim.SET] == of_bit[claim.DISARM] == "holds"
    assert of_tokens[claim.DISARM] == of_bit[claim.SET] == "undecided"


def test_a_set_whose_chances_are_those_of_independent_draws_is_seen(monkeypatch):
    def wrong(p):
        (a, b), both = estimators._pairs(p), 1 - p.square().sum()
        return 2 * p[a] * p[b] / both

    monkeypatch.setattr(estimators, "_without_replacement", wrong)
    found = outcomes(claim, TOKENS, BIT)
    assert found[claim.UNBIASED] == found[claim.CLOSED] == "fails"


def test_a_set_without_its_weight_is_seen_in_all_its_parts(monkeypatch):
    def wrong(p, f, s):
        chances, gradients = ESTIMATORS["unordered set, baseline"](p, f, s)
        return chances, 3 * gradients

    real = claim.estimator_table
    monkeypatch.setattr(
        claim, "estimator_table", lambda w, p, i, extra: real(w, p, i, {**extra, "unordered set, baseline": wrong})
    )
    found = outcomes(claim, TOKENS, BIT)
    assert found[claim.UNBIASED] == found[claim.SET] == found[claim.CLOSED] == "fails"


def test_a_wrong_disarm_and_a_wrong_slope_of_rebar_are_seen(monkeypatch):
    real = one_bit.disarm
    monkeypatch.setattr(one_bit, "disarm", lambda *a: (real(*a)[0], 1.5 * real(*a)[1]))
    found = outcomes(claim, TOKENS, BIT)
    assert found[claim.UNBIASED] == found[claim.CLOSED] == "fails"
    monkeypatch.undo()
    laws = one_bit.noise_given_bit
    monkeypatch.setattr(
        one_bit, "noise_given_bit", lambda ell: [x._replace(slope=torch.ones_like(x.slope)) for x in laws(ell)]
    )
    assert outcomes(claim, TOKENS, BIT)[claim.UNBIASED] == "fails"


def test_a_disarm_that_varied_more_would_be_seen(monkeypatch):
    swapped = lambda part, x, bound, **more: at_most(part, bound, x, **more)  # noqa: E731
    monkeypatch.setattr(claim, "at_most", swapped)
    found = outcomes(claim, TOKENS, BIT)
    assert found[claim.DISARM] == found[claim.SET] == "fails"


@pytest.mark.parametrize(
    ("name", "part"), [(two_draws.WEIGHTS_P, claim.IMPORTANCE), (two_draws.INDEPENDENT, claim.REPLACED)]
)
def test_controls_that_were_unbiased_would_be_seen(monkeypatch, name, part):
    monkeypatch.setitem(claim.WRONG, name, ESTIMATORS["RLOO"])
    assert outcomes(claim, TOKENS, BIT)[part] == "holds"
    monkeypatch.setattr(
        claim, "pathwise_mean", lambda ell, f0, f1, tau, relaxed: one_bit.one_bit(ell, f0, f1)["RLOO"].mean[0]
    )
    assert outcomes(claim, TOKENS, BIT)[claim.PATHWISE] == "holds"


def test_the_controls_by_loops():
    p, f, s = (
        torch.tensor([0.2, 0.5, 0.3]).double(),
        torch.tensor([1.0, -1.0, 2.0]).double(),
        torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, 4.0]]).double(),
    )
    for name, weight in ((two_draws.WEIGHTS_P, lambda a: p[a]), (two_draws.INDEPENDENT, lambda a: 0.5)):
        mean = torch.zeros(2).double()
        for a in range(3):
            for b in {0, 1, 2} - {a}:
                mean += p[a] * p[b] / (1 - p[a]) * (weight(a) * f[a] * s[a] + weight(b) * f[b] * s[b])
        torch.testing.assert_close(moments(*two_draws.WRONG[name](p, f, s)).mean, mean)


def test_the_controls_on_one_bit_by_draws():
    """The number of the contract, .2215 against .1880, and both means in standard errors of drawn noise."""
    ell, tau, f0, f1 = 0.5, 0.5, 0.2, 1.0
    assert rebar_of_one_draw(ell, f0, f1, tau) == pytest.approx(0.2215, abs=5e-5)
    rng, count = torch.Generator().manual_seed(0), 400_000
    u = torch.rand(count, generator=rng, dtype=torch.float64)
    z = ell + u.log() - (-u).log1p()
    p, y = torch.sigmoid(torch.tensor(ell).double()), torch.sigmoid(z / tau)
    b, slope = (z > 0).double(), (f1 - f0) * y * (1 - y) / tau
    drawn = {
        "affine": slope,
        "squared": 2 * y * slope,
        "rebar": (f0 + (f1 - f0) * (b - y) - f0) * (b - p) + slope,
    }
    exact = {name: pathwise_mean(ell, f0, f1, tau, name) for name in two_draws.RELAXED}
    exact["rebar"] = rebar_of_one_draw(ell, f0, f1, tau)
    for name, x in drawn.items():
        assert abs(float(x.mean()) - exact[name]) < 4.5 * float(x.std()) / count**0.5, name
        assert abs(float(x.mean()) - float((f1 - f0) * p * (1 - p))) > 10 * float(x.std()) / count**0.5, "biased"


def test_a_relaxed_mean_is_the_slope_of_its_expectation():
    ell, tau, step = -1.0, 0.5, 1e-4

    def expectation(at, c):
        return sum(float(x.chance * x.mean(c(torch.sigmoid(x.z / tau)))) for x in one_bit.noise_given_bit(at))

    for name, (c, _) in two_draws.RELAXED.items():
        slope = 0.8 * (expectation(ell + step, c) - expectation(ell - step, c)) / (2 * step)
        assert pathwise_mean(ell, 0.2, 1.0, tau, name) == pytest.approx(slope, rel=1e-6)


def test_marks_stand_at_their_variance_and_the_title_counts():
    ratios = pd.DataFrame(
        {"estimator": name, "likeliest": x, "measured": y}
        for name, points in {
            "unordered set, baseline": [(0.2, 0.9), (0.9, 0.1), (0.5, 1.2)],
            "unordered set": [(0.2, 3.0)],
            "REINFORCE": [(0.2, 9.0)],
        }.items()
        for x, y in points
    )
    bits = pd.DataFrame(
        [
            {"estimator": "RLOO", "p": 0.5, "tau": None, "measured": 0.0625},
            {"estimator": "DisARM", "p": 0.5, "tau": None, "measured": 0.0},
            {"estimator": "REBAR", "p": 0.5, "tau": 0.1, "measured": 0.07},
            {"estimator": "REBAR", "p": 0.5, "tau": 1.0, "measured": 0.01},
        ]
    )
    with house_style():
        figure = new_figure(4)
        draw_catalogue(figure, ratios, bits)
        left, right = figure.axes
        assert left.get_title() == "blue below RLOO in 2 of 3 policies"

        def marks(axis, colour):
            lines = [x for x in axis.lines if x.get_marker() != "None" and same_color(x.get_color(), COLOURS[colour])]
            return [tuple(xy) for line in lines for xy in line.get_xydata().tolist()]

        assert marks(left, "costate") == [(0.2, 0.9), (0.9, 0.1), (0.5, 1.2)]
        assert marks(left, "score") == [(0.2, 3.0)]
        assert marks(right, "score_best") == [(0.5, 0.01)]
        curves = [line.get_xydata() for line in right.lines if line.get_linestyle() == "--"]
        assert sorted(max(y for _, y in curve) for curve in curves) == pytest.approx([0.0388, 0.0625], abs=1e-4)
        figure = new_figure(4)
        draw_catalogue(figure, ratios[:0], bits[:0])
        assert all(axis.texts[0].get_text() == "no rows here" for axis in figure.axes)


def test_settings_are_fields_that_can_be_changed():
    assert {field.name for field in dataclasses.fields(TOKENS)} >= {"world", "seed", "temperature", "ells", "taus"}
    other = outcomes(claim, dataclasses.replace(TOKENS, spread=1.0), BIT)
    assert other == DOCUMENTED
