"""`draw_path` and the paths that it draws: against loops over scalars, central differences, and costates that are wrong."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import costate
from agents.policies.linear import LinearPolicy
from envs.noise import draw_noise
from figures.drawing.style import EXACT
from figures.measures.rollouts import difference_costates
from tests.figures.drawing.readable import colliding, unreadable

GAINS = {"tame": 0.6, "unstable": -0.6}


def scalar(**options):
    return costate.world("LQScalar", horizon=12, **options)


def plane(noise=1.0):
    """Two components, one action, a linear cost; without noise all paths are one."""
    even = [[0.02 * noise, 0.0], [0.0, 0.01 * noise]]
    matrices = {"A": [[1.0, 0.4], [0.0, 0.95]], "B": [[0.1], [0.6]], "Q": [[1.0, 0.0], [0.0, 0.3]], "R": [[0.2]]}
    return costate.LinearQuadratic(
        **matrices,
        Q_f=[[1.0, 0.0], [0.0, 0.5]],
        S_w=even,
        S_0=even,
        S_x=[[0.2 * noise]],
        m_0=[1.0, -0.5],
        q=[0.1, -0.2],
        horizon=8,
        gamma=0.9,
    )


def line(axis, begins):
    (found,) = [line for line in axis.lines if line.get_label().startswith(begins)]
    return found.get_ydata()


@pytest.mark.parametrize("K", GAINS.values(), ids=GAINS)
def test_the_lines_are_the_mean_the_path_and_minus_two_p_times_the_mean_state(K):
    world = scalar()
    paths = costate.sampled_paths(world, [[K]], 300, seed=5)
    axis = costate.draw_path(paths.costates, paths.gradient, path=7, shown=4)
    a, b, q, r, f = (float(x) for x in (world.A[0, 0], world.B[0, 0], world.Q[0, 0], world.R[0, 0], world.Q_f[0, 0]))
    P, exact = f, []
    for t in range(12, -1, -1):
        exact.insert(0, -2 * P * (a - b * K) ** t * float(world.m_0[0]))
        P = q + r * K**2 + world.gamma * (a - b * K) ** 2 * P
    assert np.allclose(line(axis, "value gradient"), exact, rtol=1e-12)
    assert not np.allclose(line(axis, "value gradient"), [exact[-1], *exact[:-1]], rtol=1e-2)
    by_hand = [sum(float(x) for x in paths.costates[:, t, 0]) / 300 for t in range(13)]
    assert np.allclose(line(axis, "mean of 300 paths"), by_hand, rtol=1e-9, atol=1e-12)
    assert np.array_equal(line(axis, "costate of one path"), paths.costates[7, :, 0])
    assert np.array_equal(line(axis, "4 other paths"), paths.costates[0, :, 0])
    assert axis.get_title() == "One path's costate is noisy; the mean is the value gradient"
    dashed = [one for one in axis.lines if one.get_linestyle() == EXACT["linestyle"]]
    assert [one.get_label() for one in dashed] == ["value gradient (exact)"]


def test_the_band_is_two_standard_errors():
    rng = np.random.default_rng(3)
    costates = rng.normal(size=(50, 6))
    axis = costate.draw_path(costates, np.zeros(6))
    band = axis.collections[0].get_paths()[0].vertices
    for t in range(6):
        ends = band[band[:, 0] == t, 1]
        reach = 2 * np.sqrt(sum((costates[:, t] - costates[:, t].mean()) ** 2) / 49 / 50)
        assert ends.max() - ends.min() == pytest.approx(2 * reach)


def test_costates_of_sampled_paths_are_central_differences_of_their_returns():
    world, K = plane(), [[0.5, 0.8]]
    paths = costate.sampled_paths(world, (K, [0.1]), 5, seed=2)
    noise = draw_noise(world, 5, 8, torch.Generator().manual_seed(2))
    differences = difference_costates(world, LinearPolicy(K, [0.1]), paths.states, noise, 1e-4)
    assert torch.allclose(paths.costates, differences, rtol=1e-7, atol=1e-8)
    cut = costate.sampled_paths(world, (K, [0.1]), 5, seed=2, cut=True)
    assert torch.equal(cut.states, paths.states)
    assert not torch.allclose(cut.costates, differences, rtol=0.1)
    assert not torch.equal(costate.sampled_paths(world, (K, [0.1]), 5, seed=3).states, paths.states)


def test_the_title_says_when_the_mean_is_not_the_value_gradient():
    for options, said in ((dict(), "the mean is the value gradient"), (dict(cut=True), "is not the value gradient")):
        paths = costate.sampled_paths(scalar(), [[0.6]], 2000, **options)
        assert said in costate.draw_path(paths.costates, paths.gradient).get_title()


def test_without_noise_all_lines_are_one():
    paths = costate.sampled_paths(plane(noise=0.0), ([[0.5, 0.8]], [0.3]), 4, start=[2, 1])
    for component in (0, 1):
        axis = costate.draw_path(paths.costates, paths.gradient, component=component)
        assert np.array_equal(line(axis, "costate of one"), paths.costates[0, :, component])
        assert not np.allclose(line(axis, "costate of one"), paths.costates[0, :, 1 - component], rtol=0.1)
        assert axis.get_title() == "Without noise a path's costate is the value gradient"
        assert axis.get_ylabel() == f"costate, component {component}"
        for name in ("costate of one", "mean of"):
            assert np.allclose(line(axis, name), line(axis, "value gradient"), rtol=1e-9, atol=1e-12)
    wrong = costate.draw_path(paths.costates, 2 * paths.gradient)
    assert "here not the value gradient" in wrong.get_title()


def test_paths_from_one_start_and_their_frame():
    paths = costate.sampled_paths(plane(), [[0.5, 0.8]], 40, start=[2, 1])
    assert (paths.states[:, 0] == torch.tensor([2.0, 1.0])).all()
    frame = paths.frame()
    row = frame[(frame["t"] == 3) & (frame["component"] == 1)].iloc[0]
    column = paths.costates[:, 3, 1].numpy()
    assert row["mean"] == pytest.approx(column.mean())
    assert row["standard_error"] == pytest.approx(column.std(ddof=1) / 40**0.5)
    assert row["gradient"] == float(paths.gradient[3, 1])
    assert repr(paths) == "SampledPaths(states (40, 9, 2), costates (40, 9, 2), gradient (9, 2))"


@pytest.mark.parametrize("width", [3.3, 6.0, 10.0])
def test_its_texts_are_read_at_every_width(width):
    for K in GAINS.values():
        paths = costate.sampled_paths(scalar(), [[K]], 50)
        axis = costate.draw_path(paths.costates, paths.gradient, width=width)
        assert axis.figure.get_figwidth() == width
        assert unreadable(axis.figure) == []
        assert colliding(axis) == []
        legend = axis.get_legend().get_window_extent()
        drawn = axis.transData.transform(np.concatenate([one.get_xydata() for one in axis.lines]))
        assert not ((drawn > legend.min) & (drawn < legend.max)).all(1).any()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda p: costate.draw_path(p.costates, p.gradient[:-1]), "gradient the same without paths"),
        (lambda p: costate.draw_path(p.costates[:1], p.gradient), "at least 2 paths"),
        (lambda p: costate.draw_path(p.costates, p.gradient, component=1), "component 1 does not exist"),
        (lambda p: costate.draw_path(p.costates, p.gradient, path=30), "the paths are 0 ... 29"),
        (lambda p: costate.draw_path(p.costates * torch.nan, p.gradient), "costates holds NaN"),
        (lambda p: costate.draw_path("no numbers", p.gradient), "must be real numbers"),
        (lambda p: costate.draw_path([], []), "is empty"),
        (lambda p: costate.draw_path(p.costates, p.gradient, ax=3), "ax must be plain axes"),
        (
            lambda p: costate.draw_path(p.costates, p.gradient, ax=Figure().add_subplot(projection="polar")),
            "ax must be",
        ),
        (lambda p: costate.draw_path(p.costates, p.gradient, width=0), "width must be"),
        (lambda p: costate.sampled_paths(costate.world("LQRandom")), "finite horizon"),
        (lambda p: costate.sampled_paths(scalar(), [[0.6]], 1), "paths must be a whole number >= 2"),
        (lambda p: costate.sampled_paths(scalar(), [[0.6]], 10**9), "take fewer"),
        (lambda p: costate.sampled_paths(scalar(), [[0.6]], start=[1, 2]), "start must be one state of 1"),
        (lambda p: costate.sampled_paths(scalar(), [[0.6, 1.0]]), "K"),
        (
            lambda p: costate.sampled_paths(costate.world("LQStepReward"), [[0.6]]),
            "LQStepReward|StepReward|closed form",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, said):
    paths = costate.sampled_paths(scalar(), [[0.6]], 30)
    with pytest.raises(costate.InputError, match=said) as refused:
        call(paths)
    assert "\n" not in str(refused.value)
