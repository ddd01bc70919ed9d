"""Exact answers in the worlds that break an assumption: values, value gradients and mean costates.

Theory page, section 1: "Negative controls".
"""

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import takes_numbers
from envs.linear_quadratic import LinearQuadratic
from envs.lq_variants import QuantisedAction, StepReward
from envs.record import short_repr
from envs.world import InputError
from theory.continuous.gains import check_gain, gain_at
from theory.continuous.lyapunov import QuadraticValue, linear_value
from theory.differences import central_gradient

_LEVEL_REACH = 9.0  # standard deviations of xi that the enumeration of rounded actions covers; the mass beyond is 1e-18
_MAX_PATHS = 50_000_000


@takes_numbers("K", "state")
def step_reward_gradient(
    world: StepReward, K: Float[Tensor, "*time m n"], state: Float[Tensor, "n"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "n"]]:
    """`V_0(s)` and `grad V_0(s)` when every |s_1| > width costs 1, under u = -K s with Gaussian noise, finite T.

    s_t is Gaussian with mean `F_t s` and variance v_t of its first component x, so
    `V_0 = -sum_{t=0}^T gamma^t P(|x_t| > width)` and its slope is the normal density at the two edges. The term t = 0
    does not depend on s (almost everywhere).

    Args:
        world: a step-reward world with a finite horizon and Gaussian noise.
        K: the gain, one for all steps or one for each.
        state: s_0, of n numbers.

    Returns:
        The value (return units), and its gradient in s_0.

    Raises:
        InputError: the world is endless or its noise is not Gaussian.
    """
    K, world = check_gain(world, K), world.to()
    if world.horizon is None or world.noise != "gaussian":
        raise InputError("horizon must be finite and noise gaussian for the closed form of the step reward")
    F, covariance = torch.eye(world.n, dtype=torch.float64), torch.zeros_like(world.A)
    value = -(state[0].abs() > world.width).to(torch.float64)
    slope = torch.zeros(world.n, dtype=torch.float64)
    for t in range(world.horizon):
        Phi = world.A - world.B @ gain_at(K, t)
        F = Phi @ F
        covariance = Phi @ covariance @ Phi.mT + world.B @ world.S_x @ world.B.mT + world.S_w
        sd, mean, weight = covariance[0, 0].sqrt().clamp(min=1e-150), F[0] @ state, world.gamma ** (t + 1)
        high, low = (world.width - mean) / sd, (-world.width - mean) / sd
        value = value - weight * (torch.special.ndtr(-high) + torch.special.ndtr(low))
        slope = slope - weight * (_density(high) - _density(low)) / sd * F[0]
    return value, slope


@takes_numbers("K", "state")
def step_reward_gain_slope(
    world: StepReward, K: Float[Tensor, "*time m n"], state: Float[Tensor, "n"]
) -> Float[Tensor, "*time m n"]:
    """`dV_0(s)/dK` of `step_reward_gradient`'s value, by central differences.

    Args:
        world: a step-reward world with a finite horizon and Gaussian noise.
        K: the gain, one for all steps or one for each.
        state: s_0, of n numbers.

    Returns:
        The slope in every entry of K.

    Raises:
        InputError: as in `step_reward_gradient`.
    """

    def value(flat: Tensor) -> Tensor:
        return step_reward_gradient(world, flat.reshape(K.shape), state)[0]

    return central_gradient(value, K.reshape(-1)).reshape(K.shape)


def _density(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)


@short_repr
@dataclass(frozen=True)
class QuantisedMeans:
    """Expected return and mean path of a rounded-action world from one start.

    Attributes:
        value: V_0(s), in return units.
        states: E s_t for t = 0 ... T.
        actions: E a_t for t = 0 ... T - 1.
    """

    value: Float[Tensor, ""]
    states: Float[Tensor, "times n"]
    actions: Float[Tensor, "T 1"]


@takes_numbers("K", "state")
def quantised_means(world: QuantisedAction, K: Float[Tensor, "*time m n"], state: Float[Tensor, "n"]) -> QuantisedMeans:
    """`V_0(s)`, `E s_t` and `E a_t` with actions rounded to multiples of the quantum, over all sequences of levels.

    Level j has probability `N((j + 1/2) q) - N((j - 1/2) q)` around the command, N the normal distribution function.

    Args:
        world: a world with rounded actions and one action component.
        K: the gain, one for all steps or one for each.
        state: s_0, of n numbers.

    Returns:
        The value and the mean path from this start.

    Raises:
        InputError: the world has several action components, process noise, other noise or no horizon, or there are more
            than 5e7 sequences (found out before anything is allocated).
    """
    K, world = check_gain(world, K), world.to()
    if world.horizon is None or world.m != 1 or world.noise != "gaussian" or bool(world.S_w.any()):
        raise InputError("quantised values need a finite horizon, one action component, gaussian noise and S_w = 0")
    q, sd = world.quantum, float(world.L_x[0, 0])
    reach = math.ceil(_LEVEL_REACH * sd / q) + 1
    levels_per_step = 2 * reach + 1
    if levels_per_step**world.horizon > _MAX_PATHS:
        many = f"{levels_per_step}^{world.horizon}"
        raise InputError(f"quantum={q} and horizon={world.horizon} make {many} action sequences, {_MAX_PATHS} allowed")
    states, weights = state.to(torch.float64)[None], torch.ones(1, dtype=torch.float64)
    total, mean_states, mean_actions = torch.zeros((), dtype=torch.float64), [state], []
    for t in range(world.horizon):
        commands = -states @ gain_at(K, t)[0]
        levels = torch.round(commands / q)[:, None] + torch.arange(-reach, reach + 1, dtype=torch.float64)
        edges = [(levels + shift) * q - commands[:, None] for shift in (0.5, -0.5)]
        mass = torch.special.ndtr(edges[0] / sd) - torch.special.ndtr(edges[1] / sd)
        weights = (weights[:, None] * mass).reshape(-1)
        actions = (q * levels).reshape(-1, 1)
        states = states.repeat_interleave(levels.shape[1], 0)
        total = total + world.gamma**t * (weights @ world.reward(states, actions))
        states = world.transition(states, actions, torch.zeros_like(states))
        mean_actions.append(weights @ actions)
        mean_states.append(weights @ states)
    total = total + world.gamma**world.horizon * (weights @ world.terminal_reward(states))
    return QuantisedMeans(total, torch.stack(mean_states), torch.stack(mean_actions))


@short_repr
@dataclass(frozen=True)
class QuantisedCostates:
    """At one state: the true value gradient, and the exact mean of the costate under both treatments of the rounding.

    Attributes:
        value_gradient: the true gradient of V_0.
        straight_through: mean of the costate when autograd takes rounding for the identity.
        rounded: mean of the costate when autograd sees rounding as it is, with derivative 0.
    """

    value_gradient: Float[Tensor, "n"]
    straight_through: Float[Tensor, "n"]
    rounded: Float[Tensor, "n"]


@takes_numbers("K", "state")
def quantised_costates(
    world: QuantisedAction, K: Float[Tensor, "*time m n"], state: Float[Tensor, "n"], step: float = 1e-4
) -> QuantisedCostates:
    """Value gradient by central differences of the enumeration; mean costates by the recursion on the mean path.

    Straight-through: `lambda_t = -2(Qs + Na + q) + 2K'(Ra + N's + q_a) + gamma Phi'lambda_{t+1}`. Rounding as autograd
    sees it (derivative 0): `lambda_t = -2(Qs + Na + q) + gamma A'lambda_{t+1}`. Both are affine in the path, so their
    means need the mean path only.

    Args:
        world: a world with rounded actions and one action component.
        K: the gain, one for all steps or one for each.
        state: s_0, of n numbers.
        step: h of the central differences.

    Returns:
        The three vectors at s_0.

    Raises:
        InputError: as in `quantised_means`.
    """
    K, here = check_gain(world, K), world.to()
    means = quantised_means(world, K, state)
    straight = rounded = -2 * here.Q_f @ means.states[-1] - 2 * here.q_f
    for t in reversed(range(means.actions.shape[0])):
        K_t, s, a = gain_at(K, t), means.states[t], means.actions[t]
        own, Phi = -2 * here.Q @ s - 2 * (here.N @ a + here.q), here.A - here.B @ K_t
        by_action = 2 * K_t.mT @ here.R @ a + 2 * K_t.mT @ (here.N.mT @ s + here.q_a)
        straight = own + by_action + here.gamma * Phi.mT @ straight
        rounded = own + here.gamma * here.A.mT @ rounded
    truth = central_gradient(lambda s: quantised_means(world, K, s).value, state, step)
    return QuantisedCostates(truth, straight, rounded)


@takes_numbers("K")
def closed_scale_costate(world: LinearQuadratic, K: Float[Tensor, "*time m n"]) -> QuadraticValue:
    """Mean costates, as its `gradient`, when autograd does not see how the noise scale depends on the state.

    They are then those of plain additive noise: `E[lambda_t | s] = -2 (P_t s + p_t)` with P and p of the plain world.

    Args:
        world: a world whose noise scale depends on the state.
        K: the gain, one for all steps or one for each.

    Returns:
        The quadratic value of the plain world with the same matrices; its `gradient(state, t)` is the mean costate.
    """
    plain = {f.name: getattr(world, f.name) for f in fields(LinearQuadratic) if f.init}
    return linear_value(LinearQuadratic(**plain), K)
