"""Three roads to one costate: autograd, the adjoint recursion, and central differences of the return."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from agents.policies.linear import ConstantPolicy, LinearPolicy
from agents.sampling.rollout import rollout
from envs.lq_variants import ChaoticMap, state_scaled_noise
from envs.noise import Noise, draw_noise
from figures.harness.claim import Claim, Part, Preset, Row, compare
from figures.measures.linear_systems import SYSTEMS, build_system, label, truncated
from figures.measures.rollouts import costates_of
from theory.continuous.costates import path_costates
from theory.differences import central_gradient

_OTHERS = ("state-scaled noise", "chaotic map")
_ROUNDING, _DIFFERENCES = 1e-12, {"chaotic map": 1e-6}  # relative; central differences elsewhere: 1e-9
_STEP = 1e-5  # central differences err by eps |R| / h and h^2 R'''/6; the chaotic map's R''' reaches 1e6


@dataclass(frozen=True)
class CostateRecursionSetting:
    """One world, a batch of noisy paths."""

    system: str
    samples: int


def for_system(preset: Preset, system: str) -> list[CostateRecursionSetting]:
    """The points of one system."""
    return [CostateRecursionSetting(system, {"quick": 64, "full": 4096}[preset])]


def settings(preset: Preset) -> list[CostateRecursionSetting]:
    """The linear systems, and two worlds that are not linear in their noise or state."""
    return [setting for system in (*SYSTEMS, *_OTHERS) for setting in for_system(preset, system)]


def _build(system: str) -> tuple[Any, Any, Callable[[Tensor, int], Tensor]]:
    """World, policy and the same policy as a plain function of one state."""
    if system == "chaotic map":
        theta = torch.tensor([0.5], dtype=torch.float64)
        return ChaoticMap(horizon=6), ConstantPolicy(theta), lambda s, t: theta.to(s)
    if system == "state-scaled noise":
        scaled, K = state_scaled_noise(horizon=10).to(), torch.tensor([[0.8]], dtype=torch.float64)
        return scaled, LinearPolicy(K), lambda s, t: -s @ K.to(s).mT
    endless, K = build_system(system)
    world = truncated(endless, K)
    return world, LinearPolicy(K), lambda s, t: -s @ (K[t] if K.ndim == 3 else K).to(s).mT


def measure(setting: CostateRecursionSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Largest relative gap between the roads over all paths and times, and with the policy's slope left out."""
    world, policy, command = _build(setting.system)
    noise = draw_noise(world, setting.samples, world.horizon, rng).to(device)
    policy, world = policy.to(device), world.to(device)
    costates, trajectory = costates_of(world, policy, noise)
    states = trajectory.states.detach()
    recursion = path_costates(world, command, states, noise.xi, noise.w)
    partial = path_costates(world, lambda s, t: command(s.detach(), t), states, noise.xi, noise.w)
    differences = _difference_costates(world, policy, states, noise)
    size = costates.abs().amax(dim=(0, 2))
    rows: list[Row] = []
    for part, other, tolerance in (
        ("autograd = recursion", recursion, _ROUNDING),
        ("autograd = differences", differences, _DIFFERENCES.get(setting.system, 1e-9)),
        ("partial derivative only", partial, 1e-9),
    ):
        if part == "partial derivative only" and setting.system == "chaotic map":
            continue  # a constant command has no slope to leave out
        gap = (costates - other).abs().amax(dim=(0, 2)) / size.max()
        rows += compare(part, gap, 0.0, samples=setting.samples, tolerance=tolerance,
                        labels={"system": label(setting.system)}, axes=("t",))  # fmt: skip
    return rows


def _difference_costates(world: Any, policy: Any, states: Tensor, noise: Noise) -> Tensor:
    """`dR_t/ds_t` by restarting every path at a shifted s_t on the rest of its noise (memoryless policies)."""
    T = noise.xi.shape[1]
    columns = []
    for t in range(T + 1):

        def return_from(state: Tensor, t: int = t) -> Tensor:
            with torch.no_grad():
                if t == T:
                    return world.terminal_reward(state)
                rest = noise.after(t)
                later = world.replace(horizon=T - t) if hasattr(world, "replace") else _shorter(world, T - t)
                return rollout(later, _Later(policy, t), Noise(state, rest.xi, rest.w)).returns

        columns.append(central_gradient(return_from, states[:, t], step=_STEP))
    return torch.stack(columns, 1)


def _shorter(world: ChaoticMap, horizon: int) -> ChaoticMap:
    return ChaoticMap(world.beta, world.sd, world.start, world.gamma, horizon, world.noise)


class _Later:
    """A policy whose clock starts at `start`."""

    def __init__(self, policy: Any, start: int):
        self.policy, self.start, self.window = policy, start, policy.window

    def __call__(self, history: Tensor, t: int) -> Tensor:
        return self.policy(history, t + self.start)


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Largest relative gap against time for each pair of roads, with the tolerance it is judged by."""
    from figures.drawing.panels import legend_above
    from figures.drawing.style import EXACT, MARKERS

    names = list(dict.fromkeys(rows["part"]))
    axes = figure.subplots(1, len(names), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        part = rows[rows["part"] == name]
        for marker, (system, group) in zip(MARKERS, part.groupby("system", sort=False), strict=False):
            shown = group["measured"].clip(lower=1e-18)
            axis.plot(group["t"] / max(group["t"].max(), 1), shown, marker + "-", ms=4, lw=0.8, label=system)
        for limit in part["tolerance"].unique():
            axis.axhline(limit, label="rounding limit", **EXACT)
        axis.set(title=name, xlabel="time t / T", yscale="log")
    axes[0].set_ylabel("largest relative gap (0 shown at 1e-18)")
    legend_above(figure, axes[0])


CLAIM = Claim(
    name="costate_recursion",
    statement="Autograd's costate = adjoint recursion = finite differences",
    formula=r"\lambda_t = Dr_t + \gamma\, Df_t^\top \lambda_{t+1}, \qquad"
    r" Df = f_s + f_a \mu_s, \quad Dr = r_s + \mu_s^\top r_a",
    source="adjoint equation of optimal control; arXiv:2605.21654, definition of the costate; theory page section 1",
    assumptions=("A1", "A5"),
    must_hold="Every path of every differentiable world, also a chaotic one and one with state-scaled noise",
    must_fail="Partial instead of total derivatives (the policy's slope left out)",
    how_to_read="Largest gap between two ways to the same costate, relative to the costate's size: left and middle must "
    "stay below the dashed rounding limit at every time. Right, the recursion forgets that the action depends "
    "on the state: the gap is far above rounding before the last step. (Upper dashed line: the chaotic map.)",
    parts=(
        Part("autograd = recursion", "claim", "holds"),
        Part("autograd = differences", "claim", "holds"),
        Part("partial derivative only", "control", "fails", every="system"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
    own_settings=for_system,
)
