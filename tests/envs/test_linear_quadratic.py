"""The linear-quadratic world against its formulas written out in loops."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.linear_quadratic import (
    LinearQuadratic,
    double_integrator,
    random_system,
    scalar,
    symmetric_root,
)
from envs.stacked_history import stack_history

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)
sizes = given(n=st.integers(1, 5), m=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
ARRAYS = ("A", "B", "Q", "R", "Q_f", "S_w", "S_x", "m_0", "S_0")


def draw(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def quadratic(M, x):
    return sum(x[i] * M[i][j] * x[j] for i in range(len(x)) for j in range(len(x)))


def product(M, x):
    return [sum(row[j] * x[j] for j in range(len(x))) for row in M]


@few
@sizes
def test_every_function_is_its_plain_formula(n, m, seed):
    world = random_system(size=n, actions=m, seed=seed)
    s, a, xi, w = draw(seed, n, m, m, n)
    A, B, Q, R, Q_f, m_0, L_0 = (getattr(world, name).tolist() for name in ("A", "B", "Q", "R", "Q_f", "m_0", "L_0"))
    expected = [x + y + z for x, y, z in zip(product(A, s), product(B, a), w, strict=True)]
    np.testing.assert_allclose(world.transition(s, a, w), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(world.reward(s, a), -quadratic(Q, s) - quadratic(R, a), rtol=1e-10)
    np.testing.assert_allclose(world.terminal_reward(s), -quadratic(Q_f, s), rtol=1e-10)
    np.testing.assert_allclose(world.act(s, a, xi), [x + y for x, y in zip(a, xi, strict=True)], rtol=1e-15)
    np.testing.assert_allclose(world.initial(w), [x + y for x, y in zip(m_0, product(L_0, w), strict=True)], rtol=1e-10)


@few
@sizes
def test_gradients_flow_through_transition_and_rewards(n, m, seed):
    world = random_system(size=n, actions=m, seed=seed).to()
    s, a, w = (torch.from_numpy(x).requires_grad_() for x in draw(seed, (2, n), (2, m), (2, n)))
    assert torch.autograd.gradcheck(world.transition, (s, a, w))
    assert torch.autograd.gradcheck(world.reward, (s, a))
    assert torch.autograd.gradcheck(world.terminal_reward, (s,))
    slope_s, slope_a = torch.autograd.grad(world.reward(s, a).sum(), (s, a))
    torch.testing.assert_close(slope_s, -2 * s @ world.Q)
    torch.testing.assert_close(slope_a, -2 * a @ world.R)


def test_gradients_reach_the_matrices_of_a_world():
    A, B, Q, R = (torch.ones(1, 1, dtype=torch.float64, requires_grad=True) for _ in "ABQR")
    s, a = torch.tensor([[3.0]], dtype=torch.float64), torch.tensor([[2.0]], dtype=torch.float64)
    world = LinearQuadratic(A, B, Q, R)
    total = world.transition(s, a, 0 * s).sum() + world.reward(s, a).sum()
    assert [float(g) for g in torch.autograd.grad(total, (A, B, Q, R))] == [3.0, 2.0, -9.0, -4.0]


def test_to_numpy_and_replace_keep_every_number_and_setting():
    world = random_system(horizon=7, gamma=0.8, noise="laplace")
    there, back = world.to(), world.to().numpy()
    for name in (*ARRAYS, "L_w", "L_x", "L_0"):
        assert isinstance(getattr(there, name), torch.Tensor)
        assert isinstance(getattr(back, name), np.ndarray)
        np.testing.assert_array_equal(getattr(back, name), getattr(world, name))
        np.testing.assert_allclose(getattr(there, name), getattr(world, name), rtol=1e-12, atol=1e-14)
    assert there.to() is there
    assert (back.horizon, back.gamma, back.noise) == (7, 0.8, "laplace")
    changed = world.replace(horizon=3)
    assert (changed.horizon, world.horizon) == (3, 7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        world.gamma = 0.1


def test_single_precision_is_possible_even_for_singular_matrices():
    (v,) = draw(0, (4, 1))
    single = random_system(size=4).replace(Q=v @ v.T, S_w=v @ v.T).to(dtype=torch.float32)
    assert {getattr(single, name).dtype for name in (*ARRAYS, "L_w")} == {torch.float32}
    assert single.to(dtype=torch.float32) is single
    assert random_system().to().to(dtype=torch.float32).A.dtype == torch.float32


def test_lists_arrays_and_tensors_make_the_same_world_and_one_tensor_makes_all_of_them_torch():
    lists = scalar()
    mixed = lists.replace(Q=torch.tensor([[1]]))  # whole numbers become float64
    assert all(getattr(mixed, name).dtype == torch.float64 for name in ARRAYS)
    assert all(np.array_equal(getattr(mixed, name), getattr(lists, name)) for name in ARRAYS)


def test_what_is_left_out_is_zero_and_the_first_state_has_unit_covariance():
    world = LinearQuadratic(A=np.eye(2), B=[[1.0], [2.0]], Q=np.eye(2), R=[[1.0]])
    assert (world.n, world.m, world.horizon, world.gamma, world.noise) == (2, 1, None, 1.0, "gaussian")
    assert not any(getattr(world, name).any() for name in ("Q_f", "S_w", "S_x", "m_0", "L_w", "L_x"))
    np.testing.assert_array_equal(world.S_0, np.eye(2))


@few
@sizes
def test_roots_are_symmetric_square_roots(n, m, seed):
    world = random_system(size=n, actions=m, seed=seed)
    for root, S in ((world.L_w, world.S_w), (world.L_x, world.S_x), (world.L_0, world.S_0)):
        np.testing.assert_allclose(root @ root, S, atol=1e-12)
        np.testing.assert_allclose(root, root.T, atol=1e-13)
        np.testing.assert_allclose(root, np.real(scipy.linalg.sqrtm(S)), atol=1e-7)
    diagonal = np.diag(np.arange(n) ** 2.0)
    np.testing.assert_allclose(symmetric_root(diagonal), np.diag(np.arange(n)), atol=1e-13)


def test_a_batch_of_systems_has_the_roots_of_each():
    systems = [random_system(size=3, seed=seed) for seed in range(4)]
    names = ("A", "B", "Q", "R", "Q_f", "S_w", "S_x")
    batch = LinearQuadratic(**{name: np.stack([getattr(s, name) for s in systems]) for name in names})
    assert (batch.n, batch.m) == (3, 2)
    np.testing.assert_allclose(batch.L_w, np.stack([s.L_w for s in systems]), atol=1e-13)
    np.testing.assert_allclose(batch.L_x, np.stack([s.L_x for s in systems]), atol=1e-13)


@few
@given(n=st.integers(1, 3), window=st.integers(1, 4), seed=st.integers(0, 2**32 - 1), tensors=st.booleans())
def test_a_stacked_world_lives_the_same_life_and_remembers_its_window(n, window, seed, tensors):
    world = random_system(size=n, seed=seed, horizon=5, gamma=0.7, noise="gumbel")
    stacked = stack_history(world.to() if tensors else world, window)
    assert isinstance(stacked.A, torch.Tensor) == tensors
    assert (stacked.horizon, stacked.gamma, stacked.noise, stacked.m) == (5, 0.7, "gumbel", world.m)
    stacked = stacked.numpy()
    first, commands, process = draw(seed, window * n, (5, 2), (5, window * n))
    states, seen = [world.initial(first[:n])], stacked.initial(first)
    for t in range(5):
        history = ([np.zeros(n)] * window + states)[-window:]
        np.testing.assert_allclose(seen, np.concatenate(history[::-1]), atol=1e-12)
        np.testing.assert_allclose(stacked.reward(seen, commands[t]), world.reward(states[-1], commands[t]))
        states.append(world.transition(states[-1], commands[t], process[t, :n] @ world.L_w))
        seen = stacked.transition(seen, commands[t], process[t] @ stacked.L_w)
    np.testing.assert_allclose(stacked.terminal_reward(seen), world.terminal_reward(states[-1]))


@few
@given(size=st.integers(1, 12), radius=st.just(0.0) | st.floats(1e-3, 5.0), seed=st.integers(0, 2**32 - 1))
def test_a_random_system_has_exactly_the_spectral_radius_asked_for(size, radius, seed):
    world = random_system(size=size, spectral_radius=radius, seed=seed)
    np.testing.assert_allclose(abs(scipy.linalg.eigvals(world.A)).max(), radius, rtol=1e-9)


def test_the_seed_and_nothing_else_decides_a_random_system():
    one, same, other = random_system(seed=5), random_system(seed=5), random_system(seed=6)
    for name in ("A", "B", "Q", "R", "Q_f", "S_w", "S_x", "m_0"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("build", [scalar, double_integrator, random_system])
def test_builders_pass_their_settings_on(build):
    world = build(horizon=3, gamma=0.5, action_noise=0.0, noise="logistic")
    assert (world.horizon, world.gamma, world.noise) == (3, 0.5, "logistic")
    assert not world.S_x.any()
    np.testing.assert_allclose(4 * build(action_noise=0.2).S_x, build(action_noise=0.4).S_x)


def test_the_double_integrator_obeys_newtons_law_under_a_held_push():
    world, s, push = double_integrator(step=0.01), np.array([1.0, -2.0]), np.array([3.0])
    for _ in range(200):
        s = world.transition(s, push, np.zeros(2))
    np.testing.assert_allclose(s, [1 - 2 * 2 + 3 * 2**2 / 2, -2 + 3 * 2], rtol=1e-12)
