"""Each variant world breaks exactly the one assumption that its docstring names."""

import numpy as np
import pytest
import torch

from envs.linear_quadratic import scalar
from envs.lq_variants import (
    ChaoticMap,
    QuantisedAction,
    StateScaledNoise,
    StepReward,
    quantised_action,
    state_scaled_noise,
    step_reward,
    uniform_noise,
)

PLANE = {"A": np.eye(2), "B": np.eye(2), "Q": np.eye(2), "R": np.eye(2)}
SHARED = ("A", "B", "Q", "R", "Q_f", "S_w", "S_x", "m_0", "S_0", "gamma", "horizon")


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None].requires_grad_()


@pytest.mark.parametrize("build", [uniform_noise, step_reward, quantised_action, state_scaled_noise])
def test_all_else_is_the_scalar_world(build):
    for settings in ({}, {"horizon": 7, "gamma": 0.6, "action_noise": 0.1}):
        base, variant = scalar(**settings), build(**settings)
        assert all(np.array_equal(getattr(variant, name), getattr(base, name)) for name in SHARED)
    with pytest.raises(TypeError, match="unexpected keyword"):
        build(hoizon=3)


def test_the_uniform_world_differs_in_its_noise_alone():
    assert uniform_noise().noise == "uniform"
    assert {build().noise for build in (step_reward, quantised_action, state_scaled_noise)} == {"gaussian"}


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_the_step_reward_counts_the_first_component_outside_the_width(width):
    world = StepReward(**PLANE, width=width)
    s = np.array([[0.0, 9.0], [width, 0.0], [-width, 0.0], [1.001 * width, 0.0], [-1.001 * width, 9.0]])
    for rewards in (world.reward(s, 5 + 0 * s), world.terminal_reward(s)):
        np.testing.assert_array_equal(rewards, [0, 0, 0, -1, -1])


def test_the_step_reward_has_a_zero_derivative_although_it_steps():
    world, s = step_reward().to(), column(-1.0 - 1e-6, 0.3, 1.0 + 1e-6)
    (slope,) = torch.autograd.grad((world.reward(s, s) + world.terminal_reward(s)).sum(), s)
    assert torch.equal(slope, torch.zeros_like(s))
    with torch.no_grad():
        assert world.reward(s - 2e-6 * s.sign(), s).tolist() == [0, 0, 0]
    assert world.reward(s, s).tolist() == [-1, 0, -1]


@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize("quantum", [0.3, 1.0])
def test_quantised_actions_are_the_nearest_multiple_of_the_quantum(quantum, straight_through):
    world = QuantisedAction(**PLANE, quantum=quantum, straight_through=straight_through)
    u, xi = np.random.default_rng(0).standard_normal((2, 40, 2))
    levels = quantum * np.arange(-40, 41)
    nearest = levels[abs((u + xi)[..., None] - levels).argmin(-1)]
    np.testing.assert_allclose(world.act(0 * u, u, xi), nearest, atol=1e-12)


@pytest.mark.parametrize(("straight_through", "slope"), [(False, 0.0), (True, 1.0)])
def test_the_derivative_of_a_quantised_action_is_zero_or_straight_through(straight_through, slope):
    world = quantised_action(straight_through=straight_through).to()
    s, u, xi = column(1.0, 2.0), column(0.1, 7.7), column(0.0, -0.3)
    gradients = torch.autograd.grad(world.act(s, u, xi).sum(), (u, xi))
    assert all(torch.equal(g, torch.full_like(g, slope)) for g in gradients)


def scaled_plane(cut=False):
    fields = PLANE | {"B": np.array([[1.0], [2.0]]), "R": np.eye(1)}
    return StateScaledNoise(**fields, C=[[0.5, -2.0]], cut_scale_path=cut)


@pytest.mark.parametrize("cut", [False, True])
def test_state_scaled_noise_grows_with_the_state(cut):
    s, u, xi = np.random.default_rng(0).standard_normal((3, 10, 2))
    u, xi = u[:, :1], xi[:, :1]
    expected = [u[i, 0] + (1 + 0.5 * s[i, 0] - 2.0 * s[i, 1]) * xi[i, 0] for i in range(10)]
    np.testing.assert_allclose(scaled_plane(cut).act(s, u, xi)[:, 0], expected, rtol=1e-12)


@pytest.mark.parametrize("cut", [False, True])
def test_cutting_the_scale_path_hides_the_state_and_nothing_else_from_autograd(cut):
    world = scaled_plane(cut).to()
    s = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64, requires_grad=True)
    u, xi = column(0.3, -0.2), column(2.0, 3.0)
    by_s, by_u, by_xi = torch.autograd.grad(
        world.act(s, u, xi).sum(), (s, u, xi), allow_unused=True, materialize_grads=True
    )
    assert torch.equal(by_s, torch.zeros_like(s) if cut else xi * torch.tensor([[0.5, -2.0]], dtype=torch.float64))
    assert torch.equal(by_u, torch.ones_like(u))
    torch.testing.assert_close(by_xi[:, 0], 1 + s[:, 0] / 2 - 2 * s[:, 1])


def test_the_scale_defaults_to_one_half_and_moves_with_its_world():
    assert state_scaled_noise().C.tolist() == [[0.5]]
    assert StateScaledNoise(**PLANE).C.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    world = scaled_plane(cut=True)
    there = world.to(dtype=torch.float32)
    assert there.C.dtype == torch.float32
    assert there.cut_scale_path
    assert isinstance(there.numpy().C, np.ndarray)
    np.testing.assert_array_equal(there.numpy().C, world.C)
    assert world.replace(gamma=0.5).C.tolist() == world.C.tolist()


@pytest.mark.parametrize(
    ("world", "own"),
    [
        (step_reward(width=0.7), {"width": 0.7}),
        (quantised_action(quantum=0.2, straight_through=True), {"quantum": 0.2, "straight_through": True}),
        (state_scaled_noise(C=[[0.1]], cut_scale_path=True), {"cut_scale_path": True}),
    ],
)
def test_a_variant_stays_itself_when_it_moves(world, own):
    for moved in (world.to(), world.to().numpy(), world.replace(gamma=0.5), world.to(dtype=torch.float32)):
        assert type(moved) is type(world)
        assert all(getattr(moved, name) == value for name, value in own.items())


def test_the_chaotic_map_is_its_formula_and_pays_at_the_end_only():
    world = ChaoticMap(beta=1.7, start=0.4)
    s, u, xi = np.random.default_rng(0).standard_normal((3, 6, 1))
    np.testing.assert_array_equal(world.initial(s), np.full((6, 1), 0.4))
    np.testing.assert_array_equal(world.act(s, u, xi), u + xi)
    expected = [[1.7 * np.sin(x) + y + 0.01] for x, y in zip(s[:, 0], u[:, 0], strict=True)]
    np.testing.assert_allclose(world.transition(s, u, np.full_like(s, 0.01)), expected, rtol=1e-12)
    np.testing.assert_array_equal(world.reward(s, u), np.zeros(6))
    np.testing.assert_allclose(world.terminal_reward(s), [np.cos(x) for x in s[:, 0]], rtol=1e-15)
    assert (world.L_x.tolist(), world.L_w.tolist()) == ([[0.3]], [[0.0]])
    assert world.to() is world.numpy() is world


@pytest.mark.parametrize(("beta", "chaotic"), [(2.5, True), (0.5, False)])
def test_nearby_starts_part_in_the_chaotic_map_and_meet_in_the_tame_one(beta, chaotic):
    world = ChaoticMap(beta=beta)
    xi = 0.3 * np.random.default_rng(0).standard_normal((30, 500, 1))
    s = np.stack([np.full((500, 1), 1.0), np.full((500, 1), 1.0 + 1e-9)])
    for noise in xi:
        s = world.transition(s, world.act(s, np.ones_like(s), np.stack([noise, noise])), 0 * s)
    gap = np.median(abs(s[1] - s[0]))
    assert gap > 1e-7 if chaotic else gap < 1e-14
