"""SVG's covariances, the slope in the action noise and costates of models: autograd through plain loops and linear solves."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from envs.linear_quadratic import LinearQuadratic, random_system, scalar
from envs.lq_variants import state_scaled_noise
from envs.world import InputError
from tests.oracles import numerical_gradient
from tests.theory.cases import affine_policies, endless_cases, finite_cases, forward_return, priced, stable_gain, tensor
from theory.continuous.lq_gradients import expected_return
from theory.continuous.lyapunov import linear_value
from theory.continuous.model_gradients import (
    action_costate_covariance,
    action_curvature,
    action_value_gradient,
    model_costate,
    noise_gradient,
    svg_covariance,
)

LONG = 160  # steps that stand for an endless world here
CASES = finite_cases() | {f"endless_{name}": case for name, case in endless_cases().items()}
CASES |= {
    "priced": (priced(), stable_gain(priced(), seed=3)),
    "priced_endless": (priced(None), stable_gain(priced(None))),
}
CASES["priced_time_varying"] = (priced(), affine_policies(priced())["both change"][0])


def return_from(world, K, k, state, action, xi, w, t):
    """The discounted return from t on of one path whose action at t is given, in plain torch."""
    A, B, Q, R, Q_f, N, q, q_a, q_f = (
        tensor(getattr(world, x)) for x in ["A", "B", "Q", "R", "Q_f", "N", "q", "q_a", "q_f"]
    )
    total, gain = 0.0, lambda j: K[j] if K.ndim == 3 else K
    for j in range(len(xi)):
        offset = 0.0 if k is None else (k[t + j] if k.ndim == 2 else k)
        a = action + xi[j] if j == 0 else -gain(t + j) @ state - offset + xi[j]
        cost = state @ Q @ state + a @ R @ a + 2 * state @ N @ a + 2 * q @ state + 2 * q_a @ a
        total = total - world.gamma**j * cost
        state = A @ state + B @ a + w[j]
    return total if world.horizon is None else total - world.gamma ** len(xi) * (state @ Q_f + 2 * q_f) @ state


def zero_noise(world, t):
    steps = LONG if world.horizon is None else world.horizon - t
    return torch.zeros(steps, world.m).double(), torch.zeros(steps, world.n).double()


@pytest.mark.parametrize("horizon", [5, None])
@pytest.mark.parametrize("name", ["no offset", "offset"])
def test_the_slope_in_the_action_is_that_of_the_path_without_noise(name, horizon):
    world = priced(horizon)
    K, k = affine_policies(world)[name]
    state, action = tensor([0.4, -1.0, 0.7]), tensor([0.5, 2.0])
    for t in (0, 3):
        xi, w = zero_noise(world, t)
        truth = torch.func.grad(lambda a: return_from(world, K, k, state, a, xi, w, t))(action)  # noqa: B023
        mine = action_value_gradient(world, K, [state.tolist()], action[None], t, k)[0]
        torch.testing.assert_close(mine, truth, rtol=1e-6 if horizon is None else 1e-11, atol=1e-12)
        assert not torch.allclose(action_value_gradient(world, K, state, 1.01 * action, t, k), truth, rtol=1e-3)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("t", [0, 2])
def test_covariances_are_the_coefficients_of_the_noise_of_the_sampled_steps_multiplied_out(name, t):
    world, K = CASES[name]
    xi, w = zero_noise(world, t)
    state, command = torch.zeros(world.n).double(), torch.zeros(world.m).double()

    def costate(xi, w):
        return torch.func.grad(lambda u: return_from(world, K, None, state, u, xi, w, t))(command)

    of_xi, of_w = torch.func.jacrev(costate, argnums=(0, 1))(xi, w)
    parts = [torch.einsum("itk,kl,jtl->tij", J, tensor(S), J) for J, S in ((of_xi, world.S_x), (of_w, world.S_w))]
    truths = {0: parts[0][0], **{k: (parts[0] + parts[1])[:k].sum(0) for k in (1, 2, 3, LONG)}}
    for k, truth in truths.items():
        mine = svg_covariance(world, K, k, t)
        torch.testing.assert_close(mine, truth, rtol=1e-6, atol=1e-7 * float(truth.abs().max()))
    three = action_costate_covariance(world, K, t)
    torch.testing.assert_close(three.svg_0, truths[0], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(three.svg_1, truths[1], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(three.svg_inf, truths[LONG], rtol=1e-6, atol=1e-7 * float(truths[LONG].abs().max()))
    assert not torch.allclose(three.svg_1, truths[0], rtol=1e-4), "the control: process noise of the step counts"


@pytest.mark.parametrize("name", CASES)
def test_each_further_step_adds_a_semidefinite_matrix_up_to_all_steps(name):
    world, K = CASES[name]
    spreads = [svg_covariance(world, K, k) for k in (0, 1, 2, 3, 50, None)]
    for less, more in pairwise(spreads):
        assert float(torch.linalg.eigvalsh(more - less).min()) > -1e-12 * float(more.trace())
    if world.horizon:
        torch.testing.assert_close(svg_covariance(world, K, world.horizon), spreads[-1], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", CASES)
def test_slope_in_the_action_noise_is_that_of_the_expected_return(name):
    world, K = CASES[name]
    S_x = np.asarray(world.S_x)
    mine = noise_gradient(world, K)
    for i, j in np.ndindex(world.m, world.m):
        change = np.zeros_like(S_x)
        change[i, j] += 0.5e-3 * np.trace(S_x)
        change = change + change.T
        up, down = (world.replace(S_x=S_x + sign * change) for sign in (1, -1))
        slope = (expected_return(up, K) - expected_return(down, K)) / 2
        assert float((mine * tensor(change)).sum()) == pytest.approx(float(slope), rel=1e-7, abs=1e-12)
        if not (world.N.any() or world.q.any()):
            forward = (forward_return(up, K, steps=500) - forward_return(down, K, steps=500)) / 2
            assert float(slope) == pytest.approx(forward, rel=1e-6, abs=1e-10)
    assert float(mine.trace()) < 0, "noise costs"


def other_model(world, size=0.05, seed=3, costs=False):
    """A model with other matrices A and B, and on request other costs too."""
    rng = np.random.default_rng(seed)
    changed = {
        name: getattr(world, name) + size * rng.standard_normal(getattr(world, name).shape) for name in ("A", "B")
    }
    return world.replace(**changed, **({"Q": 1.5 * world.Q, "N": 0.5 * world.N} if costs else {}))


@pytest.mark.parametrize("costs", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_model_costates_are_those_of_a_path_whose_states_are_real_or_imagined(name, costs):
    """The noise-free path from every unit vector, forward; the adjoint of the model along it, backward, vector by vector."""
    world, K = CASES[name]
    model, steps = other_model(world, costs=costs), world.horizon or LONG
    gain = lambda j: K[j] if K.ndim == 3 else K  # noqa: E731
    A, B, Q, R, Q_f, N = (tensor(getattr(model, x)) for x in ["A", "B", "Q", "R", "Q_f", "N"])
    for real in (True, False):
        for start in (0, steps - 1):
            states = [torch.eye(world.n).double()]
            for j in range(start, steps):
                source = world if real else model
                states.append((tensor(source.A) - tensor(source.B) @ gain(j)) @ states[-1])
            costate = -2 * Q_f @ states[-1] if world.horizon else 0 * states[-1]
            for j in reversed(range(start, steps)):
                s, a = states[j - start], -gain(j) @ states[j - start]
                by_state, by_action = -2 * (Q @ s + N @ a), -2 * (R @ a + N.T @ s)
                back = by_action + model.gamma * B.T @ costate
                costate = by_state + model.gamma * A.T @ costate - gain(j).T @ back
            P = model_costate(world, K, model, real)
            P = P if world.horizon is None else P[start]
            if world.horizon is None and start:
                continue
            torch.testing.assert_close(-2 * P, costate, rtol=1e-7, atol=1e-7 * float(P.abs().max()))


@pytest.mark.parametrize("name", CASES)
def test_the_right_model_gives_the_value_and_a_wrong_one_twice_the_symmetric_part(name):
    world, K = CASES[name]
    P, remainders, firsts = linear_value(world, K).P, [], []
    for real in (True, False):
        torch.testing.assert_close(model_costate(world, K, world, real), P, rtol=1e-9, atol=1e-12)
    for size in (1e-3, 1e-4):
        model = other_model(world, size)
        real, imagined = (model_costate(world, K, model, way) - P for way in (True, False))
        firsts.append(float(imagined.norm()))
        remainders.append(float((imagined - real - real.mT).norm()))
        assert float((imagined - real).norm()) > 0.2 * float(imagined.norm()), "the control: once is not twice"
    assert remainders[0] / remainders[1] == pytest.approx(100, rel=0.1)
    assert firsts[0] / firsts[1] == pytest.approx(10, rel=0.1)


def test_several_states_have_a_curl_and_one_state_none():
    world, K = CASES["several"]
    P = model_costate(world, K, other_model(world), True)
    assert float((P - P.mT).norm()) > 1e-3 * float(P.norm())
    imagined = model_costate(world, K, other_model(world), False)
    torch.testing.assert_close(imagined, imagined.mT, rtol=1e-12, atol=1e-14)


def test_nilpotent_and_uneven_loops_in_an_endless_world():
    """Real loop at rest after two steps, a model far from stable: their product counts. By a linear solve."""
    world = LinearQuadratic(
        A=[[0, 0.3], [0, 0]], B=[[0], [1]], Q=np.eye(2), R=[[1]], gamma=0.9, S_x=[[1.0]], S_w=np.eye(2)
    )
    for factor in (1.0, 0.0):
        model = world.replace(A=[[3.0 * factor, 1.0], [0.2 * factor, 0.0]])
        K = torch.zeros(1, 2)  # float32
        F, G = tensor(model.A), tensor(world.A)
        carried = 0.9 * torch.kron(F.T.contiguous(), G.T.contiguous())
        vec = torch.linalg.solve(torch.eye(4).double() - carried, torch.eye(2).double().flatten())
        P = model_costate(world, K, model, True)
        assert P.dtype == torch.float64
        torch.testing.assert_close(P, vec.reshape(2, 2), rtol=1e-12, atol=1e-14)


def test_float32_worlds_and_gains_are_converted():
    world, K = CASES["several"]
    single = world.to(dtype=torch.float32)
    mine = action_costate_covariance(single, K.float())[0]
    assert mine.dtype == torch.float64
    torch.testing.assert_close(mine, action_costate_covariance(world, K)[0], rtol=1e-4, atol=1e-6)
    assert action_curvature(world, K).shape == (4, 2, 2)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda w, K: svg_covariance(w, K, -1), "^steps must be a whole number >= 0"),
        (lambda w, K: svg_covariance(w, K, 1, 4), r"^t must lie in 0 \.\.\. 3, the times of actions"),
        (lambda w, K: action_costate_covariance(w, K[:1]), "^K must have shape"),
        (
            lambda w, K: action_costate_covariance(state_scaled_noise(horizon=3), tensor([[0.8]])),
            "has no such closed form",
        ),
        (lambda w, K: noise_gradient(state_scaled_noise(horizon=3), tensor([[0.8]])), "has no such closed form"),
        (
            lambda w, K: noise_gradient(scalar(None, 1.0, 0.0).replace(S_w=[[0.0]]), tensor([[0.8]])),
            "^gamma must be < 1",
        ),
        (
            lambda w, K: model_costate(w, K, w.replace(gamma=0.5), True),
            "^model must have the world's gamma, 0.95; got 0.5",
        ),
        (
            lambda w, K: model_costate(w, K, w.replace(horizon=7), True),
            "^model must have the world's horizon, 4; got 7",
        ),
        (
            lambda w, K: model_costate(w, K, random_system(2, 2, horizon=4, gamma=0.95), True),
            "^model must have the world's n, 3",
        ),
    ],
)
def test_refusals(call, text):
    world, K = CASES["several"]
    with pytest.raises(InputError, match=text):
        call(world, K)


def test_an_endless_model_that_does_not_settle_is_refused():
    world, K = CASES["endless_several"]
    with pytest.raises(InputError, match=r"^model must keep gamma rho\(Phi\^\) rho\(Phi\) < 1"):
        model_costate(world, K, world.replace(A=np.asarray(world.A) * 40), True)
    with pytest.raises(InputError, match=r"^steps=1000000 is too many"):
        svg_covariance(world, K, 10**6)
    with pytest.raises(InputError, match=r"^model: K leaves the closed loop"):
        model_costate(world, K, world.replace(A=np.asarray(world.A) * 40), False)


def test_one_step_of_the_scalar_world_by_hand():
    """`J` of one step holds `-(R + gamma B^2 Q_f) S_x` and nothing else of the noise."""
    world = scalar(horizon=1)
    K = tensor([[0.8]])
    H = 0.2 + 0.95 * 0.25
    assert float(noise_gradient(world, K)) == pytest.approx(-H)
    slope = numerical_gradient(lambda S: float(expected_return(world.replace(S_x=S), K)), np.asarray(world.S_x))
    assert slope[0, 0] == pytest.approx(-H, rel=1e-6)
