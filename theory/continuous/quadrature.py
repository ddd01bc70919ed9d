"""Expected return of a non-linear policy by tensor Gauss-Hermite quadrature over all the noise, for small T only.

Theory page, section 1: "A transformer over the state history".
"""

from collections.abc import Callable
from decimal import Decimal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import takes_numbers
from envs.world import InputError, World
from theory.differences import central_gradient

HistoryCommand = Callable[[Tensor, int], Tensor]
_BYTES_PER_NUMBER = 8
DEFAULT_BUDGET = 2**30


def gauss_hermite(nodes: int) -> tuple[Float[Tensor, "nodes"], Float[Tensor, "nodes"]]:
    """Nodes and weights with `sum_i w_i f(x_i) = E f(x)`, x ~ N(0, 1); exact for polynomials below degree 2 nodes.

    Args:
        nodes: how many.

    Returns:
        The nodes x_i and their weights w_i, which sum to 1.

    Raises:
        InputError: nodes < 1.
    """
    if nodes < 1:
        raise InputError(f"nodes must be a whole number >= 1; got {nodes!r}")
    x, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return torch.from_numpy(x), torch.from_numpy(weights / weights.sum())


def noise_grid(
    world: World, steps: int, nodes: int, budget: int = DEFAULT_BUDGET
) -> tuple[Float[Tensor, "points steps m"], Float[Tensor, "points steps n"], Float[Tensor, "points"]]:
    """Every combination of quadrature nodes for xi_0..xi_{steps-1} and w_0..w_{steps-1}, and its weight.

    Directions without variance take no nodes. `points = nodes^(steps (rank S_x + rank S_w))`.

    Args:
        world: a world with Gaussian noise.
        steps: time steps that have noise.
        nodes: for each direction of the noise that has variance.
        budget: bytes that the grid may take.

    Returns:
        xi and w of every grid point, and its weight; the weights sum to 1.

    Raises:
        InputError: the noise is not Gaussian, or the grid would need more than `budget` bytes (found out before anything
            is allocated).
    """
    if world.noise != "gaussian":
        raise InputError(f"noise must be gaussian for Gauss-Hermite quadrature; got {world.noise!r}")
    roots = [_active_columns(root) for root in (world.L_x, world.L_w)]
    dimensions = steps * sum(root.shape[1] for root in roots)
    needed = nodes**dimensions * _BYTES_PER_NUMBER * (dimensions + 1 + steps * (world.m + 2 * world.n))
    if needed > budget:
        raise InputError(
            f"nodes={nodes} over {dimensions} noise dimensions makes {nodes}^{dimensions} points, "
            f"{Decimal(needed) / 2**30:.3g} GiB of {budget / 2**30:.3g} allowed: take fewer steps or nodes"
        )
    x, weight = gauss_hermite(nodes)
    if dimensions == 0:
        one = torch.ones(1, dtype=torch.float64)
        return one.new_zeros(1, steps, world.m), one.new_zeros(1, steps, world.n), one
    grid = torch.cartesian_prod(*[x] * dimensions).reshape(-1, dimensions)
    weights = torch.cartesian_prod(*[weight] * dimensions).reshape(-1, dimensions).prod(-1)
    parts = grid.split([steps * root.shape[1] for root in roots], dim=1)
    xi, w = (part.reshape(len(grid), steps, root.shape[1]) @ root.mT for part, root in zip(parts, roots, strict=True))
    return xi, w, weights


def _active_columns(root: object) -> Tensor:
    """A thin factor F with F F' = root root', one column for each direction that has variance."""
    L = torch.as_tensor(root, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(L)
    keep = values > 1e-12 * values.abs().max().clamp(min=1e-300)
    factor: Tensor = vectors[:, keep] * values[keep]
    return factor


@takes_numbers("state")
def quadrature_value(
    world: World,
    command: HistoryCommand,
    state: Float[Tensor, "*batch n"],
    nodes: int = 8,
    budget: int = DEFAULT_BUDGET,
) -> Float[Tensor, "*batch"]:
    """`V_0(s) = E R_0` of a finite world under any smooth policy.

    Converges as `nodes` grows, exponentially for entire policies and slower for tanh-like ones; exact for a linear
    policy at nodes >= 2. Shares no code with the sampler that it judges.

    Args:
        world: of finite horizon, with Gaussian noise.
        command: the policy, (history (batch, t + 1, n), t) -> (batch, m).
        state: s_0, where the value is wanted; components last.
        nodes: for each noise number.
        budget: bytes that the grid may take.

    Returns:
        The value at every s_0, in return units.

    Raises:
        InputError: the world is endless, or as in `noise_grid`.
    """
    if world.horizon is None:
        raise InputError("horizon must be finite for quadrature over all the noise")
    xi, w, weights = noise_grid(world, world.horizon, nodes, budget)
    world = world.to()
    flat = state.to(torch.float64).reshape(-1, state.shape[-1])
    values = [weights @ _returns_from(world, command, start, xi, w) for start in flat]
    return torch.stack(values).reshape(state.shape[:-1])


def _returns_from(world: World, command: HistoryCommand, start: Tensor, xi: Tensor, w: Tensor) -> Tensor:
    history = start.expand(len(xi), 1, -1)
    total, discount = torch.zeros(len(xi), dtype=torch.float64), 1.0
    for t in range(xi.shape[1]):
        state = history[:, -1]
        action = world.act(state, command(history, t), xi[:, t])
        total = total + discount * world.reward(state, action)
        discount *= world.gamma
        history = torch.cat([history, world.transition(state, action, w[:, t])[:, None]], 1)
    return total + discount * world.terminal_reward(history[:, -1])


@takes_numbers("state")
def quadrature_value_gradient(
    world: World,
    command: HistoryCommand,
    state: Float[Tensor, "*batch n"],
    nodes: int = 8,
    step: float = 1e-4,
    budget: int = DEFAULT_BUDGET,
) -> Float[Tensor, "*batch n"]:
    """`grad V_0(s)` by central differences of `quadrature_value`: autograd takes no part in it.

    Args:
        world: of finite horizon, with Gaussian noise.
        command: the policy, (history (batch, t + 1, n), t) -> (batch, m).
        state: s_0, where the gradient is wanted; components last.
        nodes: for each noise number.
        step: h of the central differences.
        budget: bytes that the grid may take.

    Returns:
        The gradient at every s_0.

    Raises:
        InputError: as in `quadrature_value`.
    """
    with torch.no_grad():
        return central_gradient(lambda s: quadrature_value(world, command, s, nodes, budget), state, step)
