"""Stochastic value gradients: how far SVG(k) spreads, its derivative in the exploration noise, and costates of a wrong model.

Theory page, section 6: "Stochastic value gradients".
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import takes_numbers
from envs.linear_quadratic import LinearQuadratic
from envs.world import InputError
from theory.continuous.gains import MOST_STEPS, check_gain, check_keeps, check_one_system, gain_at, spectral_radius
from theory.continuous.lq_gradients import costate_covariance, noise_sources
from theory.continuous.lyapunov import linear_value, stage_cost

_MOST_DOUBLINGS = 64  # sums 2^64 terms


class ActionCostateCovariance(NamedTuple):
    """Covariance of three estimators of the action costate, given the state.

    Attributes:
        svg_inf: backpropagation through all the sampled steps.
        svg_1: one sampled step, then the exact value gradient.
        svg_0: the exact slope of Q at the sampled action.
    """

    svg_inf: Float[Tensor, "m m"]
    svg_1: Float[Tensor, "m m"]
    svg_0: Float[Tensor, "m m"]


def action_curvature(world: LinearQuadratic, K: Float[Tensor, "*time m n"]) -> Float[Tensor, "*steps m m"]:
    """`H_t = R + gamma B'P_{t+1}B`: minus half the second derivative of Q_t in the action.

    Args:
        world: one linear-quadratic system.
        K: the gain, one for all steps or one for each.

    Returns:
        H at the times 0 ... T-1, or once for an endless world.

    Raises:
        InputError: as in `theory.continuous.lyapunov.linear_value`.
    """
    P, world = linear_value(world, K).P, world.to()
    ahead = P if world.horizon is None else P[1:]
    H: Tensor = world.R + world.gamma * world.B.mT @ ahead @ world.B
    return H


@takes_numbers("state", "action")
def action_value_gradient(
    world: LinearQuadratic,
    K: Float[Tensor, "*time m n"],
    state: Float[Tensor, "*batch n"],
    action: Float[Tensor, "*batch m"],
    t: int = 0,
    k: Float[Tensor, "*offset_time m"] | None = None,
) -> Float[Tensor, "*batch m"]:
    """`grad_a Q_t(s, a) = -2 [H_t a + (N' + gamma B'P_{t+1}A) s + q_a + gamma B'p_{t+1}]` under u = -K s - k afterwards.

    At the sampled action this is SVG(0). At the command, `a = u`, it is the mean of SVG(k) for every k, since Q is quadratic.

    Args:
        world: one linear-quadratic system.
        K: the gain, one for all steps or one for each.
        state: s_t, one state or a batch of them.
        action: a_t, likewise.
        t: the time, 0 ... T-1; without effect in an endless world.
        k: the offset, one for all steps or one for each; None for zero.

    Returns:
        The slope of the value in the action, in return units.

    Raises:
        InputError: t lies outside 0 ... T-1, or as in `theory.continuous.lyapunov.linear_value`.
    """
    value, world = linear_value(world, K, k), world.to()
    P, p, _ = value.at(_step(world, t) + 1)
    back = world.gamma * world.B.mT @ P
    slope = action @ (world.R + back @ world.B) + state @ (world.N.mT + back @ world.A).mT
    gradient: Tensor = -2 * (slope + world.q_a + world.gamma * p @ world.B)
    return gradient


def svg_covariance(
    world: LinearQuadratic, K: Float[Tensor, "*time m n"], steps: int | None, t: int = 0
) -> Float[Tensor, "m m"]:
    """Covariance of SVG(k)'s action costate at time t given s_t; k counts the sampled steps, None for all of them.

    SVG(0) is `grad_a Q` at the sampled action: `4 H S_x H`. SVG(k) differentiates k sampled steps and ends with the exact
    value gradient: `4 H S_x H + gamma^2 B'C_k B`, with the noise of these steps alone in

        C_k = 4 P S_w P + 4 sum_{j=t+1}^{t+k-1} gamma^{2(j-t-1)} (Phi^{j-t-1})' D_j Phi^{j-t-1}
        D_j = L_j S_x L_j' + gamma^2 Phi'P_{j+1} S_w P_{j+1} Phi

    P at t+1 and L_j as in `theory.continuous.lq_gradients.costate_covariance`. Each further step adds a positive
    semidefinite matrix. The same for every state, offset and linear cost, and for every law of the action noise.

    Args:
        world: one linear-quadratic system.
        K: the gain, one for all steps or one for each.
        steps: k, a whole number >= 0, or None; steps beyond the horizon have no effect.
        t: the time, 0 ... T-1; without effect in an endless world.

    Returns:
        The covariance, in squared return units per squared unit of the action.

    Raises:
        InputError: steps or t is out of range, K does not fit, or the world does not keep this closed form.
    """
    check_keeps(world, "costate covariance")
    if steps is not None and (not isinstance(steps, int) or steps < 0):
        raise InputError(f"steps must be a whole number >= 0, or None for all steps; got {steps!r}")
    if steps is not None and steps > MOST_STEPS and world.horizon is None:
        raise InputError(
            f"steps={steps} is too many for a closed form that goes step by step: at most {MOST_STEPS}, or None"
        )
    K, world = check_gain(world, K), world.to()
    P, H = linear_value(world, K).P, action_curvature(world, K)
    t = _step(world, t)
    H, ahead = (H, P) if world.horizon is None else (H[t], P[t + 1])
    at_action: Tensor = 4 * H @ world.S_x @ H
    if steps == 0:
        return at_action
    carried = 4 * ahead @ world.S_w @ ahead + _costate_spread(world, K, P, steps, t + 1)
    total: Tensor = at_action + world.gamma**2 * world.B.mT @ carried @ world.B
    return total


def _costate_spread(world: LinearQuadratic, K: Tensor, P: Tensor, steps: int | None, t: int) -> Tensor:
    """Covariance of `lambda_t` given s_t from the noise of the steps t ... t + steps - 2; of all steps where steps is None."""
    if steps is None:
        return torch.stack(costate_covariance(world, K, t)).sum(0)
    last = t + steps - 1 if world.horizon is None else min(t + steps - 1, world.horizon)
    total = torch.zeros_like(world.A)
    for j in reversed(range(t, last)):
        gain = gain_at(K, j)
        back = world.gamma * (world.A - world.B @ gain)
        action, process = noise_sources(world, gain, P if world.horizon is None else P[j + 1])
        total = 4 * (action + process) + back.mT @ total @ back
    return total


def action_costate_covariance(
    world: LinearQuadratic, K: Float[Tensor, "*time m n"], t: int = 0
) -> ActionCostateCovariance:
    """Covariance of the action costate at time t given s_t, by SVG(inf), SVG(1) and SVG(0), in this order.

    All three have one mean, `action_value_gradient` at the command. The slope at the expected action, as in deterministic
    policy gradients, is that mean itself and has covariance 0.

    Source: N. Heess et al., "Learning Continuous Control Policies by Stochastic Value Gradients" (2015), for the estimators.

    Args:
        world: one linear-quadratic system.
        K: the gain, one for all steps or one for each.
        t: the time, 0 ... T-1; without effect in an endless world.

    Returns:
        The three covariances.

    Raises:
        InputError: as in `svg_covariance`.
    """
    return ActionCostateCovariance(*(svg_covariance(world, K, steps, t) for steps in (None, 1, 0)))


def noise_gradient(world: LinearQuadratic, K: Float[Tensor, "*time m n"]) -> Float[Tensor, "m m"]:
    """`grad_{S_x} J = -sum_t gamma^t H_t`, in the sense `dJ = tr(gradient dS_x)` for symmetric changes of the action noise.

    It is the same for every law of the noise, as Q is quadratic in the action: Price's theorem holds here without Gaussian
    noise, and its estimator, half the second derivative of Q, has no variance.

    Args:
        world: one linear-quadratic system.
        K: the gain, one for all steps or one for each.

    Returns:
        A symmetric matrix, in return units per unit of variance.

    Raises:
        InputError: the sum is infinite (an endless world with gamma = 1), K does not fit, or the world does not keep the closed
            forms of additive noise.
    """
    check_keeps(world, "state moments")
    H = action_curvature(world, K)
    if world.horizon is None:
        if world.gamma == 1:
            raise InputError("gamma must be < 1 for horizon=None: noise costs the same at every step without end")
        return -H / (1 - world.gamma)
    discounts = world.gamma ** torch.arange(world.horizon, dtype=torch.float64)
    return -(discounts[:, None, None] * H).sum(0)


def model_costate(
    world: LinearQuadratic, K: Float[Tensor, "*time m n"], model: LinearQuadratic, real: bool
) -> Float[Tensor, "*times n n"]:
    """`P^` of `E[lambda_t | s_t] = -2 (P^_t s_t + p^_t)` for costates that are computed with a model, which may be wrong.

    Phi and M are the closed loop and the stage cost `Q - N K - K'N' + K'RK` of the world, with a hat those of the model.
    On real paths (`real`) the states are the world's, and every derivative is taken of the model at them:

        P^_T = Q_f^,  P^_t = M^ + gamma Phi^'P^_{t+1} Phi

    which is not symmetric: the field is no gradient. On paths that the model imagines from s_t on, the last Phi has a hat too:
    this is the P of the model's own value. To first order in `D = Phi^ - Phi`, with the world's own costs, the error of
    imagined paths is twice the symmetric part of the error of real ones. Linear costs and offsets change p^ alone. Endless:
    the fixed point.

    Args:
        world: where the paths are real.
        K: the gain, one for all steps or one for each.
        model: another system of the same sizes, discount and horizon.
        real: whether the states are the world's, or imagined by the model.

    Returns:
        P^ at the times 0 ... T, or once for an endless world.

    Raises:
        InputError: the model has other sizes, another discount or another horizon than the world, the endless sum is infinite,
            or as in `theory.continuous.lyapunov.linear_value`.
    """
    for system in (world, model):
        check_keeps(system, "costate covariance")
    K = check_gain(world, K)
    _check_model(world, model)
    world, model = world.to(), model.to()
    if not real:
        try:
            return linear_value(model, K).P
        except InputError as error:
            raise InputError(f"model: {error}") from None
    if world.horizon is None:
        F, G = (system.A - system.B @ K for system in (model, world))
        return _two_sided_sum(world.gamma * F, stage_cost(model, K), G)
    P, steps = model.Q_f, [model.Q_f]
    for t in reversed(range(world.horizon)):
        gain = gain_at(K, t)
        F, G = (system.A - system.B @ gain for system in (model, world))
        P = stage_cost(model, gain) + world.gamma * F.mT @ P @ G
        steps.append(P)
    return torch.stack(steps[::-1])


def _two_sided_sum(F: Tensor, M: Tensor, G: Tensor) -> Tensor:
    """`X = M + F'X G = sum_k (F^k)'M G^k` by doubling; F and G are kept at one size, which leaves their product as it is."""
    if spectral_radius(F) * spectral_radius(G) >= 1:
        raise InputError(
            "model must keep gamma rho(Phi^) rho(Phi) < 1 for horizon=None, Phi the closed loops: the sum is infinite otherwise"
        )
    X = M
    for _ in range(_MOST_DOUBLINGS):
        change = F.mT @ X @ G
        before, X = X, X + change
        if torch.equal(X, before):
            return X
        ratio = (F.norm() / G.norm()).sqrt()
        F, G = F / ratio, G * ratio
        F, G = F @ F, G @ G
    raise InputError("model makes a closed loop that settles too slowly for horizon=None: give both a horizon")


def _check_model(world: LinearQuadratic, model: LinearQuadratic) -> None:
    check_one_system(model)
    for name in ("n", "m", "gamma", "horizon"):
        own, other = getattr(world, name), getattr(model, name)
        if own != other:
            raise InputError(f"model must have the world's {name}, {own!r}; got {other!r}")


def _step(world: LinearQuadratic, t: int) -> int:
    if world.horizon is not None and not 0 <= t < world.horizon:
        raise InputError(f"t must lie in 0 ... {world.horizon - 1}, the times of actions; got {t!r}")
    return t
