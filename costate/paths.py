"""Costates of sampled paths in a linear-quadratic world, beside the exact mean of the value gradient."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.linear import ClosedPath, LinearPolicy
from agents.sampling.rollout import rollout
from costate.answers import gain_of
from envs.arguments import as_numbers, check_bytes, check_seed, short, whole
from envs.linear_quadratic import LinearQuadratic
from envs.noise import draw_noise
from envs.policy import Policy
from envs.record import short_repr
from envs.world import InputError
from theory.continuous.costates import autograd_costates
from theory.continuous.lyapunov import linear_value, mean_states

_BYTES_PER_NUMBER = 100  # of a state, with autograd's graph of one step


@short_repr
@dataclass(frozen=True)
class SampledPaths:
    """Sampled paths with their costates, and the exact mean of the value gradient over the states of each time.

    Attributes:
        states: s_0 ... s_T of every path.
        costates: `lambda_t = dR_t/ds_t` of every path, by autograd.
        gradient: `E grad V_t(s_t) = -2 (P_t E s_t + p_t)`, exact.
    """

    states: Float[Tensor, "paths times n"]
    costates: Float[Tensor, "paths times n"]
    gradient: Float[Tensor, "times n"]

    def frame(self) -> pd.DataFrame:
        """One row for each time and component.

        Returns:
            Columns `t`, `component`, `mean` and `sd` (of the costates over the paths), `standard_error` and `gradient`.
        """
        paths, times, n = self.costates.shape
        sd = self.costates.std(0).flatten().numpy()
        columns = {"t": np.repeat(range(times), n), "component": np.tile(range(n), times)}
        columns |= {"mean": self.costates.mean(0).flatten().numpy(), "sd": sd, "standard_error": sd / paths**0.5}
        return pd.DataFrame({**columns, "gradient": self.gradient.flatten().numpy()})


def sampled_paths(
    world: LinearQuadratic, policy: Any = None, paths: int = 1000, seed: int = 0, start: Any = None, cut: bool = False
) -> SampledPaths:
    """Sample paths of a linear-quadratic world and take their costates by one backward pass each.

    Args:
        world: with a finite horizon and additive noise.
        policy: a gain K, a pair (K, k), a `LinearPolicy`, or None for the optimal one.
        paths: how many.
        seed: of all noise.
        start: the state in which all paths begin; None for the world's own first states.
        cut: whether the policy's input is detached from autograd, a control: its costates miss the policy's path.

    Returns:
        The paths, for `draw_path(paths.costates, paths.gradient)`.

    Raises:
        InputError: the world is endless or of another kind, or the policy, the start or a number does not fit.
    """
    if not isinstance(world, LinearQuadratic) or world.horizon is None:
        raise InputError(f"world must be a LinearQuadratic with a finite horizon for sampled paths; got {short(world)}")
    paths, seed = whole("paths", paths, 2), check_seed(seed)
    needed = _BYTES_PER_NUMBER * paths * (world.horizon + 1) * (world.n + world.m)
    check_bytes(needed, f"paths={paths} of {world.horizon} steps make tensors", "take fewer")
    world = world.to() if start is None else _started(world.to(), start)
    K, k = gain_of(world, policy)
    value, means = linear_value(world, K, k), mean_states(world, K, k)
    noise = draw_noise(world, paths, world.horizon or 0, torch.Generator().manual_seed(seed))
    linear: Policy = LinearPolicy(K, k)
    with torch.enable_grad():
        trajectory = rollout(world, ClosedPath(linear, "all") if cut else linear, noise)
        costates = autograd_costates(trajectory.returns, trajectory.state_probe, world.gamma)
    gradient = torch.stack([value.gradient(state, t) for t, state in enumerate(means)])
    return SampledPaths(trajectory.states.detach(), costates.detach(), gradient)


def _started(world: LinearQuadratic, start: Any) -> LinearQuadratic:
    """The same world with one certain first state."""
    state = as_numbers("start", start).double()
    if tuple(state.shape) != (world.n,):
        raise InputError(f"start must be one state of {world.n} numbers; got shape {tuple(state.shape)}")
    if not bool(state.isfinite().all()):
        raise InputError("start holds NaN or infinity; every entry must be a finite number")
    return replace(world, m_0=state, S_0=torch.zeros(world.n, world.n, dtype=torch.float64))
