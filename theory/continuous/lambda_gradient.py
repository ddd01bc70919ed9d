"""The common mean of two policy gradients with a critic: score function with GAE(lam), pathwise with VGL(lam).

For a differentiable critic V^ and noise whose density is smooth (assumption A3) the means of

    sum_t gamma^t grad_K log pi(a_t | s_t) (R^_t - V^_t(s_t)),    R^_t = r_t + gamma (lam R^_{t+1} + (1 - lam) V^_{t+1})
    sum_t gamma^t (d_K mu_t)' (r_a + gamma B' (lam g_{t+1} + (1 - lam) grad V^_{t+1}))

agree, with g = grad R^ the target of value-gradient learning. With the exact value, or lam = 1, they are grad_K J.

Theory page, section 6: "GAE and value-gradient learning".
"""

import torch
from jaxtyping import Float
from torch import Tensor

from envs.linear_quadratic import LinearQuadratic
from envs.world import InputError
from theory.continuous.gains import check_gain, check_offset, gain_at, offset_at
from theory.continuous.lyapunov import (
    QuadraticValue,
    discounted_mean,
    discounted_second_moment,
    mean_states,
    second_moments,
)
from theory.continuous.value_gradient_targets import mean_target


def lambda_gradient(
    world: LinearQuadratic,
    K: Float[Tensor, "*time m n"],
    critic: QuadraticValue,
    lam: float,
    k: Float[Tensor, "*offset_time m"] | None = None,
) -> Float[Tensor, "*time m n"]:
    """Mean of both estimators for the policy u = -K s - k, `-sum_t gamma^t (E_t Sigma_t + e_t m_t')`.

    With `Z s + z = lam E[g | s] + (1 - lam) grad V^(s)` at time t + 1 (`mean_target`) and `h = -B k`

        E_t = 2 (R K - N') + gamma B'Z Phi,    e_t = 2 (R k - q_a) + gamma B'(z + Z h)

    Args:
        world: one linear-quadratic system.
        K: the gain, one for all steps or one for each.
        critic: V^, with a time dimension of T + 1 or none; its constant part has no effect.
        lam: lambda, in [0, 1].
        k: the offset; None for zero.

    Returns:
        The mean in every entry of K, in the shape of K; for a gain that changes with time the terms without the sum.

    Raises:
        InputError: as in `mean_target`; the critic's linear part does not fit; or a sum of an endless world is infinite.
    """
    K, k, world = check_gain(world, K), check_offset(world, k), world.to()
    X = -2 * critic.P
    Y, x = mean_target(world, K, X, lam), _linear_part(world, critic)
    if world.horizon is None:
        Z = lam * Y + (1 - lam) * X
        y = torch.linalg.solve(
            torch.eye(world.n, dtype=torch.float64) - lam * world.gamma * (world.A - world.B @ K).mT,
            _linear_target(world, K, k, Z, (1 - lam) * x),
        )
        E, e = _slopes(world, K, k, Z, lam * y + (1 - lam) * x)
        mean = E @ discounted_second_moment(world, K, k)
        if bool(e.any()):
            mean = mean + torch.outer(e, discounted_mean(world, K, k))
        return -mean
    Sigma, means, y, terms = second_moments(world, K, k), mean_states(world, K, k), -2 * world.q_f, list[Tensor]()
    for t in reversed(range(world.horizon)):
        own, offset = gain_at(K, t), offset_at(k, t)
        Z, z = (lam * a + (1 - lam) * _at(b, t + 1, a.ndim) for a, b in ((Y[t + 1], X), (y, x)))
        E, e = _slopes(world, own, offset, Z, z)
        terms.insert(0, -(world.gamma**t) * (E @ Sigma[t] + torch.outer(e, means[t])))
        y = _linear_target(world, own, offset, Z, z)
    return torch.stack(terms) if K.ndim == 3 else torch.stack(terms).sum(0)


def _slopes(world: LinearQuadratic, K: Tensor, k: Tensor | None, Z: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """E and e: the mean slope of the lam-return in the command is `E s + e`."""
    back = world.gamma * world.B.mT
    E = 2 * (world.R @ K - world.N.mT) + back @ Z @ (world.A - world.B @ K)
    e = back @ z - 2 * world.q_a
    return E, e if k is None else e + 2 * world.R @ k - back @ Z @ (world.B @ k)


def _linear_target(world: LinearQuadratic, K: Tensor, k: Tensor | None, Z: Tensor, z: Tensor) -> Float[Tensor, "n"]:
    """The constant of the mean target, `-2 (q - K'q_a + (K'R - N) k) + gamma Phi'(z + Z h)`."""
    own, ahead = world.q - K.mT @ world.q_a, z
    if k is not None:
        own, ahead = own + (K.mT @ world.R - world.N) @ k, z - Z @ (world.B @ k)
    constant: Tensor = -2 * own + world.gamma * (world.A - world.B @ K).mT @ ahead
    return constant


def _linear_part(world: LinearQuadratic, critic: QuadraticValue) -> Float[Tensor, "*times n"]:
    """`-2 p` of the critic, refused where it does not fit."""
    shapes = [(world.n,)] + ([(world.horizon + 1, world.n)] if world.horizon else [])
    p = torch.as_tensor(critic.p, dtype=torch.float64)
    if tuple(p.shape) not in shapes or not bool(p.isfinite().all()):
        raise InputError(f"critic must have p of shape {' or '.join(map(str, shapes))}, finite; got {tuple(p.shape)}")
    return -2 * p


def _at(x: Tensor, t: int, ndim: int) -> Tensor:
    """The entry at time t of what may or may not change with time."""
    return x[t] if x.ndim > ndim else x
