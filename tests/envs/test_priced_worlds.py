"""Cross term and linear costs of a linear-quadratic world: what is paid, what is refused, and that zeros change nothing."""

import numpy as np
import pytest
import torch

from envs.gym_env import WorldEnv, WorldVectorEnv
from envs.linear_quadratic import LinearQuadratic, double_integrator
from envs.lq_variants import QuantisedAction, StepReward
from envs.stacked_history import stack_history
from envs.world import vecdot
from tests.envs.refusals import refused
from tests.theory.cases import priced, variant

COSTS = ("N", "q", "q_a", "q_f")
BUILDER = "tests.theory.cases:priced"


def paid(world, s, a):
    """Minus the cost of one state and action, entry by entry."""
    cost = sum(world.Q[i, j] * s[i] * s[j] for i, j in np.ndindex(3, 3))
    cost += sum(world.R[i, j] * a[i] * a[j] for i, j in np.ndindex(2, 2))
    cost += 2 * sum(world.N[i, j] * s[i] * a[j] for i, j in np.ndindex(3, 2))
    return -cost - 2 * sum(world.q[i] * s[i] for i in range(3)) - 2 * sum(world.q_a[j] * a[j] for j in range(2))


def paid_last(world, s):
    cost = sum(world.Q_f[i, j] * s[i] * s[j] for i, j in np.ndindex(3, 3))
    return -cost - 2 * sum(world.q_f[i] * s[i] for i in range(3))


def test_rewards_are_their_plain_formula_in_both_libraries_alone_and_in_a_batch():
    world, rng = priced(), np.random.default_rng(0)
    s, a = rng.standard_normal((4, 5, 3)), rng.standard_normal((4, 5, 2))
    single = world.to(dtype=torch.float32)
    for i, j in np.ndindex(4, 5):
        assert world.reward(s[i, j], a[i, j]) == pytest.approx(paid(world, s[i, j], a[i, j]), rel=1e-12)
        assert world.terminal_reward(s[i, j]) == pytest.approx(paid_last(world, s[i, j]), rel=1e-12)
        assert float(world.reward(s, a)[i, j]) == pytest.approx(paid(world, s[i, j], a[i, j]), rel=1e-12)
    tensors = torch.from_numpy(s), torch.from_numpy(a)
    np.testing.assert_allclose(world.to().reward(*tensors), world.reward(s, a), rtol=1e-12)
    np.testing.assert_allclose(world.to().terminal_reward(tensors[0]), world.terminal_reward(s), rtol=1e-12)
    assert single.reward(tensors[0].float(), tensors[1].float()).dtype == torch.float32
    np.testing.assert_allclose(single.reward(tensors[0].float(), tensors[1].float()), world.reward(s, a), rtol=1e-4)
    for name in COSTS:
        other = world.replace(**{name: None})
        assert (
            abs(other.reward(s, a) - world.reward(s, a)).max()
            + abs(other.terminal_reward(s) - world.terminal_reward(s)).max()
            > 0.1
        )


def test_gradients_flow_through_every_cost(rng):
    world = priced().to()
    s, a = (torch.randn(2, size, generator=rng, dtype=torch.float64).requires_grad_() for size in (3, 2))
    assert torch.autograd.gradcheck(world.reward, (s, a))
    assert torch.autograd.gradcheck(world.terminal_reward, (s,))
    costs = {name: torch.zeros_like(getattr(world, name)).requires_grad_() for name in COSTS}
    asked = world.replace(**costs)
    slopes = torch.autograd.grad(asked.reward(s, a).sum() + asked.terminal_reward(s).sum(), list(costs.values()))
    expected = (-2 * s.mT @ a, -2 * s.sum(0), -2 * a.sum(0), -2 * s.sum(0))
    for slope, truth in zip(slopes, expected, strict=True):
        torch.testing.assert_close(slope, truth)


@pytest.mark.parametrize("tensors", [False, True])
def test_costs_of_zero_are_those_of_a_world_without_them_to_the_bit(tensors):
    plain = double_integrator(horizon=5)
    zero = plain.replace(N=np.zeros((2, 1)), q=[0.0, 0.0], q_a=[0.0], q_f=np.zeros(2))
    plain, zero = (w.to() if tensors else w for w in (plain, zero))
    s, a = plain.m_0 + 0.3, 0 * plain.q_a - 0.7
    assert not any((plain.has_cross, plain.has_linear, zero.has_cross, zero.has_linear))
    for world in (plain, zero):
        assert float(world.reward(s, a)) == float(-(vecdot(s @ world.Q, s) + vecdot(a @ world.R, a)))
        assert float(world.terminal_reward(s)) == float(-vecdot(s @ world.Q_f, s))
    assert plain.N.shape == (2, 1)
    assert plain.q.shape == plain.q_f.shape == (2,)
    assert plain.q_a.shape == (1,)


def test_copies_on_other_libraries_keep_every_cost():
    world = priced()
    for copy in (world.to().numpy(), world.to(), world.replace(horizon=9), variant(StepReward, world)):
        assert copy.has_cross
        assert copy.has_linear
        assert all(np.array_equal(np.asarray(getattr(copy, name)), getattr(world, name)) for name in COSTS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("N", np.zeros((2, 3))),
        ("N", 0.1),
        ("q", [1.0]),
        ("q", 1.0),
        ("q_a", [1.0, 2.0, 3.0]),
        ("q_f", [1.0, 2.0]),
        ("q", [1.0, np.nan, 0.0]),
        ("q_f", [1.0, np.inf, 0.0]),
        ("N", [["a", "b"]] * 3),
    ],
)
def test_costs_that_do_not_fit_are_refused(name, value):
    with refused(name):
        priced().replace(**{name: value})


@pytest.mark.parametrize(
    ("Q", "R", "edge"),
    [(1.0, 4.0, 2.0), (1e12, 1e-12, 1.0), (1e-9, 1.0, 1e-9**0.5), (0.0, 1.0, 0.0)],
)
@pytest.mark.parametrize("library", [np.float64, torch.float64, torch.float32])
def test_a_cross_term_that_rewards_without_bound_is_refused_and_its_neighbour_accepted(Q, R, edge, library):
    """`[[Q, N], [N, R]]` is semidefinite up to `N = sqrt(Q R)`, whatever the units of states and actions."""

    def build(N):
        arrays = ([[0.5]], [[1.0]], [[Q]], [[R]], [[N]])
        to = (lambda x: torch.tensor(x, dtype=library)) if isinstance(library, torch.dtype) else np.asarray
        A, B, q, r, cross = map(to, arrays)
        return LinearQuadratic(A=A, B=B, Q=q, R=r, N=cross)

    assert build(edge).has_cross == (edge > 0)
    assert build(-0.99 * edge).n == 1
    for N in (1.001 * edge + 1e-12, -1.001 * edge - 1e-12):
        with refused("N"):
            build(N)


def test_a_cross_term_over_several_directions_and_in_a_batch():
    eye, mix = np.eye(2), np.array([[0.8, 0.0], [0.0, -0.9]])
    assert LinearQuadratic(A=eye, B=eye, Q=eye, R=eye, N=mix).has_cross
    with refused("N"):  # every entry is allowed by itself
        LinearQuadratic(A=eye, B=eye, Q=eye, R=eye, N=[[0.8, 0.8], [0.8, 0.8]])
    Q = np.stack([eye, 4 * eye])  # a batch of Q, one N
    assert LinearQuadratic(A=eye, B=eye, Q=Q, R=eye, N=0.9 * eye).has_cross
    with refused("N"):
        LinearQuadratic(A=eye, B=eye, Q=Q, R=eye, N=1.1 * eye)
    with refused("N"):
        LinearQuadratic(A=eye, B=eye, Q=eye, R=eye, N=np.stack([mix, 1.2 * mix]))


@pytest.mark.parametrize("tensors", [False, True])
def test_a_stacked_world_pays_the_same_for_its_newest_state(tensors):
    world = priced().to() if tensors else priced()
    stacked, rng = stack_history(world, 3), np.random.default_rng(1)
    S, a = rng.standard_normal((4, 9)), rng.standard_normal((4, 2))
    S, a = (torch.from_numpy(x) if tensors else x for x in (S, a))
    np.testing.assert_allclose(stacked.reward(S, a), world.reward(S[:, :3], a), rtol=1e-12)
    np.testing.assert_allclose(stacked.terminal_reward(S), world.terminal_reward(S[:, :3]), rtol=1e-12)


def test_a_gymnasium_episode_pays_every_cost_and_the_vector_form_the_same():
    env, vector = WorldEnv(BUILDER), WorldVectorEnv(BUILDER, 2)
    commands, world = np.random.default_rng(2).standard_normal((5, 2)), env.world
    states, total, seen = [env.reset(seed=3)[0]], 0.0, []
    both = [vector.reset(seed=3)[0][0]]
    for t, command in enumerate(commands):
        state, reward, terminated, _, info = env.step(command)
        total += world.gamma**t * reward
        seen.append(info["action"])
        states.append(state)
        many, rewards, *_ = vector.step(np.tile(command, (2, 1)))
        both.append(many[0])
        assert rewards[0] == pytest.approx(reward, rel=1e-12)
    assert terminated
    truth = sum(world.gamma**t * paid(world, states[t], seen[t]) for t in range(5))
    assert total == pytest.approx(truth + world.gamma**5 * paid_last(world, states[5]), rel=1e-12)


def test_variants_pay_what_the_plain_world_pays_or_say_that_they_do_not():
    world, s, a = priced(), np.array([0.3, -0.2, 0.5]), np.array([0.4, 1.0])
    assert variant(QuantisedAction, world).reward(s, a) == world.reward(s, a)
    assert variant(StepReward, world).reward(s, a) == 0
