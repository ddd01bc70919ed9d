"""Claims on value-gradient learning: every part is turned by a planted defect."""

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from figures.claims.systems import greedy_value_gradient as greedy
from figures.claims.systems import value_gradient_learning as fixed
from figures.drawing.greedy_sweeps import draw_sweeps
from figures.drawing.target_errors import draw_target_errors
from figures.harness.judge import judge
from figures.measures import greedy_sweeps, value_gradient_paths, value_gradient_sweeps
from figures.measures.linear_systems import SYSTEMS

SETTING = fixed.ValueGradientLearningSetting("random_endless", (0.0, 0.7, 1.0), 2**13, 0.15)


def rows_of(claim, *settings):
    return pd.DataFrame([row for s in settings for row in claim.measure(s, torch.Generator().manual_seed(0), "cpu")])


def outcomes(claim, *settings):
    return judged(claim, rows_of(claim, *settings))


def judged(claim, rows):
    return {name: part.result.outcome for name, part in judge(claim.CLAIM, pd.DataFrame(rows)).parts.items()}


def stability():
    return judged(fixed, [row for name in SYSTEMS for row in fixed._stability_rows(name, {"system": name})])


def exact():
    rng = torch.Generator().manual_seed(0)
    return judged(fixed, fixed._exact_rows(SETTING.system, 0.7, rng, {"system": SETTING.system}))


@pytest.fixture(autouse=True)
def short_pictures(monkeypatch):
    """Few sweeps, which no part is judged on."""
    monkeypatch.setattr(greedy, "_COUNT", 4)
    monkeypatch.setattr(fixed, "curve_rows", lambda *given: [])


@pytest.fixture(scope="module")
def right():
    return outcomes(fixed, SETTING)


def test_all_parts_are_as_documented_in_one_system(right):
    assert right == {part.name: part.documented for part in fixed.CLAIM.parts}


def test_targets_with_another_lambda_are_seen(right, monkeypatch):
    real = value_gradient_paths.vgl_targets
    monkeypatch.setattr(
        value_gradient_paths, "vgl_targets", lambda Dr, Df, T, G, g, lam: real(Dr, Df, T, G, g, 0.9 * lam)
    )
    wrong = outcomes(fixed, SETTING)
    for part in (fixed.MEAN, fixed.COVARIANCE, fixed.SQUARE):
        assert (right[part], wrong[part]) == ("holds", "fails")


def test_sweeps_without_the_discount_or_with_half_a_curl_are_seen(right, monkeypatch):
    real = value_gradient_sweeps.mean_target

    def halved(world, K, X, lam):
        Y = real(world, K, X, lam)
        return 0.75 * Y + 0.25 * Y.mT  # half of the antisymmetric part is lost

    monkeypatch.setattr(value_gradient_sweeps, "mean_target", halved)
    wrong = exact()
    assert (right[fixed.CURL], wrong[fixed.CURL], wrong[fixed.RATES], wrong[fixed.FIXED]) == (
        "holds",
        *2 * ("fails",),
        "holds",
    )
    undiscounted = lambda world, K, X, lam: real(world.replace(gamma=0.95 * world.gamma), K, X, lam)  # noqa: E731
    monkeypatch.setattr(value_gradient_sweeps, "mean_target", undiscounted)
    wrong = exact()
    assert wrong[fixed.FIXED] == wrong[fixed.RATES] == "fails"


def test_an_exact_critic_has_no_bias_to_be_seen(monkeypatch):
    monkeypatch.setattr(fixed, "critics", lambda P: {"exact": -2 * P})
    assert outcomes(fixed, SETTING)[fixed.UNBIASED] != "fails"


def test_a_stability_that_looks_at_lambda_0_alone_is_seen(monkeypatch):
    real = fixed.update_abscissa
    monkeypatch.setattr(fixed, "update_abscissa", lambda w, K, lam, *weights: real(w, K, 0.0, *weights))
    assert stability()[fixed.ALWAYS] == "fails"
    monkeypatch.setattr(fixed, "update_abscissa", lambda w, K, lam, *weights: real(w, K, 1.0, *weights))
    wrong = stability()
    assert wrong[fixed.OFF_POLICY] == wrong[fixed.WEIGHTED] == "holds"


def test_in_their_own_units_the_systems_do_not_diverge(monkeypatch):
    """The control: what makes VGL(0) diverge is the loop that is not normal, here by its units."""
    monkeypatch.setattr(fixed, "_UNITS", 1.0)
    assert stability()[fixed.OFF_POLICY] == "holds"
    for name in SYSTEMS:
        world, K = value_gradient_sweeps.endless_system(name, 10.0)
        plain, gain = value_gradient_sweeps.endless_system(name)
        loops = [torch.linalg.eigvals(w.A - w.B @ k) for w, k in ((world, K), (plain, gain))]
        assert value_gradient_sweeps._distance(*loops) < 1e-9, "units move no eigenvalue"


GREEDY = [*greedy.settings("tiny")[:3], greedy.GreedyValueGradientSetting("random", 5)]


def test_the_greedy_claim_is_as_documented_and_its_defects_are_seen(monkeypatch):
    assert outcomes(greedy, *GREEDY) == {part.name: part.documented for part in greedy.CLAIM.parts}
    real, weight = greedy_sweeps.vgl_targets, greedy.greedy_weight
    monkeypatch.setattr(greedy_sweeps, "vgl_targets", lambda Dr, Df, T, G, g, lam: real(Dr, Df, T, G, g, 0.99 * lam))
    wrong = outcomes(greedy, *GREEDY)
    assert wrong[greedy.GRADIENT] == wrong[greedy.AFFINE] == wrong[greedy.NOISE] == "fails"
    monkeypatch.setattr(greedy_sweeps, "vgl_targets", real)
    monkeypatch.setattr(greedy, "greedy_weight", lambda world, C: weight(world, 0.5 * C))
    assert outcomes(greedy, *GREEDY)[greedy.GRADIENT] == "fails"
    monkeypatch.setattr(greedy, "greedy_weight", lambda world, C: torch.eye(world.n).double().expand_as(C))
    wrong = outcomes(greedy, *GREEDY)
    assert wrong[greedy.SAFE] == wrong[greedy.GRADIENT] == "fails"


def test_pictures_show_what_is_exact_and_what_is_measured():
    figure = Figure()
    rows = rows_of(greedy, *greedy.settings("tiny")[:2])
    draw_sweeps(figure, rows[rows["part"] == greedy.SWEEPS], greedy.PROBLEMS[:2])
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["problem 1: VGL(0) diverges, with either Omega", "problem 2: VGL(1) with Omega = I diverges"]
    settled = rows.assign(measured=rows["measured"].clip(upper=0.9))
    figure = Figure()
    draw_sweeps(figure, settled[settled["part"] == greedy.SWEEPS], greedy.PROBLEMS[:2])
    assert [axis.get_title() for axis in figure.axes] == ["problem 1: all converge", "problem 2: all converge"]
    figure = Figure()
    draw_sweeps(figure, rows[:0], greedy.PROBLEMS[:2])
    assert len(figure.axes) == 2


def test_the_least_error_is_found_on_the_exact_curves():
    grid, label = [i / 10 for i in range(11)], {"system": "random endless", "critic": "10 % too small", "scale": 2.0}
    made = [{"part": "exact bias^2", "lam": x, "measured": 2 * (1 - x) ** 2, **label} for x in grid]
    made += [{"part": "exact variance", "lam": x, "measured": 2 * x, **label} for x in grid]
    sampled = [{"part": "bias^2", "lam": 0.5, "measured": 0.5, "standard_error": 0.1, **label}]
    figure = Figure()
    draw_target_errors(figure, pd.DataFrame(sampled), pd.DataFrame(made))
    assert figure.axes[0].get_title() == "critic 10 % too small:\nleast squared error at lambda = 0.5"
