"""The Riccati solution: its equation, scipy, dense least squares, optimality, batches, refusals."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.linear_quadratic import LinearQuadratic, double_integrator, random_system, scalar
from envs.world import InputError
from tests.theory.cases import tensor
from theory.continuous.lq_gradients import expected_return
from theory.continuous.lyapunov import linear_value
from theory.continuous.riccati import riccati

systems = given(
    size=st.integers(1, 5), actions=st.integers(1, 3), seed=st.integers(0, 10**6), gamma=st.floats(0.3, 1.0)
)
quickly = settings(max_examples=20, deadline=None)


def one_by_one(worlds, **changes):
    """The worlds as one batched world."""
    names = ("A", "B", "Q", "R", "Q_f")
    stacked = {name: np.stack([np.asarray(getattr(world, name)) for world in worlds]) for name in names}
    return LinearQuadratic(**stacked, gamma=worlds[0].gamma, **changes)


@systems
@quickly
def test_endless_solution_satisfies_its_equation_and_scipy(size, actions, seed, gamma):
    world = random_system(size, actions, seed=seed, gamma=gamma)
    K, P = (np.asarray(x) for x in (riccati(world).K, riccati(world).P))
    A, B, Q, R = world.A, world.B, world.Q, world.R
    np.testing.assert_allclose(P, Q + gamma * A.T @ P @ (A - B @ K), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose((R + gamma * B.T @ P @ B) @ K, gamma * B.T @ P @ A, rtol=1e-9, atol=1e-10)
    truth = scipy.linalg.solve_discrete_are(gamma**0.5 * A, gamma**0.5 * B, Q, R)
    batched = riccati(one_by_one([world, world])).P  # the other solver: doubling
    np.testing.assert_allclose(P, truth, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(batched, np.stack([truth, truth]), rtol=1e-8, atol=1e-10)


def test_finite_solution_is_the_minimum_of_the_dense_quadratic_programme():
    """Without noise all T actions together solve one least-squares problem: no recursion in sight."""
    world = random_system(3, 2, seed=5, horizon=5, gamma=0.9)
    A, B, T, n, m = world.A, world.B, 5, 3, 2
    powers = [np.linalg.matrix_power(A, t) for t in range(T + 1)]
    zero = np.zeros((n, m))
    from_start = np.concatenate(powers)
    from_actions = np.block([[powers[t - 1 - k] @ B if k < t else zero for k in range(T)] for t in range(T + 1)])
    weights = [world.gamma**t * world.Q for t in range(T)] + [world.gamma**T * world.Q_f]
    W = scipy.linalg.block_diag(*weights)
    effort = scipy.linalg.block_diag(*[world.gamma**t * world.R for t in range(T)])
    best = -np.linalg.solve(from_actions.T @ W @ from_actions + effort, from_actions.T @ W @ from_start)
    optimum = riccati(world)
    np.testing.assert_allclose(-optimum.K[0], best[:m], rtol=1e-9, atol=1e-12)
    cost = from_start.T @ W @ (from_start + from_actions @ best)
    np.testing.assert_allclose(optimum.P[0], cost, rtol=1e-9, atol=1e-12)
    assert optimum.K.shape == (T, m, n)
    assert optimum.P.shape == (T + 1, n, n)
    assert not np.allclose(optimum.K[1], best[:m], rtol=1e-3), "the control: another step's gain is not this one"


@systems
@quickly
def test_finite_horizon_converges_to_the_endless_solution(size, actions, seed, gamma):
    endless = random_system(size, actions, seed=seed, gamma=gamma)
    long = riccati(endless.replace(horizon=200))
    torch.testing.assert_close(long.P[0], riccati(endless).P, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(long.K[0], riccati(endless).K, rtol=1e-8, atol=1e-10)


def test_the_distance_to_the_endless_solution_shrinks_with_the_horizon():
    endless = random_system(3, 2, seed=2, gamma=0.9)
    P = riccati(endless).P
    distances = [float((riccati(endless.replace(horizon=T, Q_f=0 * endless.Q)).P[0] - P).norm()) for T in (1, 2, 4, 8)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 1e-2 * float(P.norm()), "the control: one step is not for ever"


@pytest.mark.parametrize(
    "world",
    [
        random_system(3, 2, seed=2, gamma=0.9),
        scalar(horizon=None),
        random_system(3, 2, seed=2, horizon=4, gamma=0.9),
        double_integrator(horizon=6),
    ],
)
def test_every_perturbation_of_the_optimal_gain_lowers_the_expected_return(world):
    K, rng = riccati(world).K, np.random.default_rng(0)
    best = float(expected_return(world, K))
    for _ in range(20):
        away = tensor(rng.standard_normal(K.shape))
        drops = [best - float(expected_return(world, K + h * away)) for h in (1e-3, 2e-3, -1e-3, -2e-3)]
        assert min(drops) > 0
        assert drops[1] / drops[0] == pytest.approx(4, rel=0.1), "a maximum: the loss is quadratic in the distance"


@pytest.mark.parametrize("horizon", [None, 4])
def test_cost_to_go_is_the_value_of_its_own_gain(horizon):
    world = random_system(4, 2, seed=3, gamma=0.95, horizon=horizon)
    optimum = riccati(world)
    torch.testing.assert_close(optimum.P, linear_value(world, optimum.K).P, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(optimum.P, linear_value(world, 0.5 * optimum.K).P, rtol=1e-3)


@pytest.mark.parametrize("horizon", [None, 5])
def test_a_batch_gives_what_its_systems_give_one_by_one(horizon):
    worlds = [random_system(3, 2, seed=k, gamma=0.97, horizon=horizon) for k in range(6)]
    batch, single = riccati(one_by_one(worlds, horizon=horizon)), [riccati(world) for world in worlds]
    axis = 0 if horizon is None else 1
    torch.testing.assert_close(batch.K, torch.stack([x.K for x in single], axis), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(batch.P, torch.stack([x.P for x in single], axis), rtol=1e-9, atol=1e-11)


def test_a_huge_system_in_the_batch_does_not_spoil_a_small_one():
    """Scales of P differ by 1e21, and the small system needs many more doublings than the huge one."""
    one = {"A": [[0.1]], "B": [[1.0]], "Q": [[1e14]], "R": [[1.0]]}
    worlds = [LinearQuadratic(**one), LinearQuadratic(**one | {"A": [[0.99999]], "Q": [[1e-12]]})]
    truth = [scipy.linalg.solve_discrete_are(w.A, w.B, w.Q, w.R) for w in worlds]
    np.testing.assert_allclose(riccati(one_by_one(worlds)).P, np.stack(truth), rtol=1e-6)


@pytest.mark.parametrize("name", ["A", "B", "Q", "R", "Q_f"])
@pytest.mark.parametrize("horizon", [None, 3])
def test_any_single_matrix_may_carry_the_batch(name, horizon):
    world = random_system(2, 2, seed=4, gamma=0.9, horizon=horizon)
    scaled = [world.replace(**{name: factor * getattr(world, name)}) for factor in (0.5, 0.9)]
    batch = riccati(world.replace(**{name: np.stack([getattr(w, name) for w in scaled])}))
    axis = 0 if horizon is None else 1
    torch.testing.assert_close(batch.K, torch.stack([riccati(w).K for w in scaled], axis), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("A", [2.0, 1.0])
@pytest.mark.parametrize("systems", [1, 2])
def test_a_system_without_a_stabilising_gain_is_refused(A, systems):
    lost = LinearQuadratic(A=[[A]], B=[[0.0]], Q=[[1.0]], R=[[1.0]])
    fine = lost.replace(B=np.ones((1, 1)))
    with pytest.raises(InputError, match="no stabilising optimal gain"):
        riccati(lost if systems == 1 else one_by_one([fine, lost]))
    riccati(fine if systems == 1 else one_by_one([fine, fine]))
    riccati(lost.replace(gamma=0.2)), "discounting may make it stable enough: 0.2 * 2^2 < 1"


@pytest.mark.parametrize("horizon", [None, 2])
def test_a_free_and_useless_action_is_refused(horizon):
    world = LinearQuadratic(A=[[0.5]], B=[[1.0, 0.0]], Q=[[1.0]], R=np.diag([1.0, 0.0]), horizon=horizon)
    with pytest.raises(InputError, match=r"gain|R must be positive definite"):
        riccati(world)
    with pytest.raises(InputError, match="R must be positive definite"):
        riccati(one_by_one([world, world], horizon=horizon))


def test_a_torch_world_gives_the_answer_of_the_numpy_world():
    world = random_system(3, 1, seed=6)
    torch.testing.assert_close(riccati(world.to()).K, riccati(world).K, rtol=1e-12, atol=0)


@pytest.mark.parametrize("horizon", [None, 3])
@pytest.mark.parametrize("name", ["A", "B", "Q", "R", "N", "q", "q_a"])
def test_an_optimum_is_differentiable_in_what_the_world_is_made_of(name, horizon):
    """Against central differences of a number made of all four parts, the fixed point of the endless world included."""
    costs = {"N": 0.1 * np.ones((3, 2)), "q": np.array([0.3, -0.2, 0.1]), "q_a": np.array([0.2, -0.4])}
    world = random_system(3, 2, seed=5, gamma=0.9, horizon=horizon).replace(**costs).to()
    given, rng = getattr(world, name), np.random.default_rng(1)
    step = tensor(rng.standard_normal(given.shape))
    step = step + step.mT if name in "QR" else step

    def number(x):
        optimum = riccati(world.replace(**{name: x}))
        parts = (optimum.K, optimum.P, optimum.k, optimum.p)
        return sum(((i + 1) * part**2).sum() for i, part in enumerate(parts))

    leaf = given.clone().requires_grad_()
    (slope,) = torch.autograd.grad(number(leaf), leaf)
    difference = float(number(given + 1e-5 * step) - number(given - 1e-5 * step)) / 2e-5
    assert float((slope * step).sum()) == pytest.approx(difference, rel=1e-7)
    torch.testing.assert_close(number(leaf).detach(), number(given), rtol=1e-12, atol=0)
