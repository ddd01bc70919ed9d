"""Three roads to one costate: autograd, the adjoint recursion, and central differences of the return."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from agents.policies.linear import LinearPolicy
from envs.noise import draw_noise
from figures.drawing.costate_roads import Road, draw_roads
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, report, vanishes
from figures.harness.statistics import Estimate
from figures.measures.linear_systems import MEMORYLESS, check_system, label, memoryless_system
from figures.measures.rollouts import costates_of, difference_costates
from theory.continuous.costates import path_costates

_ROUNDING, _DIFFERENCES = 1e-12, {"chaotic map": 1e-6}  # relative; central differences elsewhere: 1e-9
_RECURSION, _BY_DIFFERENCES = "autograd = recursion", "autograd = differences"
_PARTIAL, _SHOWN = "partial derivative only", "along one path"
_ROADS = {
    _RECURSION: Road("recursion", "costate", "o", 6, True),
    _BY_DIFFERENCES: Road("differences", "score_value", "s", 10, True),
    _PARTIAL: Road("partial derivative", "control", "x", 6, False),
}


@dataclass(frozen=True)
class CostateRecursionSetting:
    """One world, a batch of noisy paths; central differences take steps of length `step`."""

    system: str
    samples: int
    step: float = knob(1e-5)  # h: they err by eps |R| / h and h^2 R'''/6; the chaotic map's R''' reaches 1e6

    def __post_init__(self) -> None:
        """Refuse a system that does not exist."""
        check_system(self.system, MEMORYLESS)


def for_system(preset: Preset, system: str) -> list[CostateRecursionSetting]:
    """The points of one system."""
    return [CostateRecursionSetting(system, {"tiny": 2, "quick": 64, "full": 4096}[preset])]


def settings(preset: Preset) -> list[CostateRecursionSetting]:
    """The linear systems, and two worlds that are not linear in their noise or state."""
    systems = ("random_endless", *MEMORYLESS[-2:]) if preset == "tiny" else MEMORYLESS
    return [setting for system in systems for setting in for_system(preset, system)]


def measure(setting: CostateRecursionSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Largest relative gap between the roads over all paths and times, and with the policy's slope left out."""
    system = memoryless_system(setting.system)
    noise = draw_noise(system.world, setting.samples, system.world.horizon or 1, rng).to(device)
    policy, world, command = system.policy.to(device), system.world.to(device), system.command
    costates, trajectory = costates_of(world, policy, noise)
    states = trajectory.states.detach()
    roads = {
        _RECURSION: (path_costates(world, command, states, noise.xi, noise.w), _ROUNDING),
        _BY_DIFFERENCES: (
            difference_costates(world, policy, states, noise, setting.step),
            _DIFFERENCES.get(setting.system, 1e-9),
        ),
    }
    if isinstance(policy, LinearPolicy) and bool(policy.K.any()):  # else the command has no slope to leave out
        partial = path_costates(world, lambda s, t: command(s.detach(), t), states, noise.xi, noise.w)
        roads[_PARTIAL] = (partial, 1e-9)
    size, labels = costates.abs().max(), {"system": label(setting.system)}
    i = int(costates[0].abs().amax(0).argmax())  # the picture shows one path, and its largest component
    rows: list[Row] = []
    for part, (other, tolerance) in roads.items():
        one = {**labels, "shown": part, "component": i}
        rows += report(_SHOWN, other[0, :, i], costates[0, :, i], size, labels=one, axes=("t",))
        gap = (costates - other).abs().amax(dim=(0, 2)) / size
        known = Estimate(gap.cpu().numpy(), np.zeros(()), setting.samples)
        rows += vanishes(part, known, tolerance, labels=labels, axes=("t",))
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """The roads along one path of two systems, and the largest gap of every road and system over its limit."""
    draw_roads(figure, rows, _SHOWN, _ROADS)


CLAIM = Claim(
    name="costate_recursion",
    statement="Autograd's costate = adjoint recursion = finite differences",
    formula=r"\lambda_t = Dr_t + \gamma\, Df_t^\top \lambda_{t+1}, \qquad"
    r" Df = f_s + f_a \mu_s, \quad Dr = r_s + \mu_s^\top r_a",
    source="adjoint equation of optimal control; arXiv:2605.21654, definition of the costate; theory page section 1",
    assumptions=("A1", "A5"),
    must_hold="Every path of every differentiable world, also a chaotic one and one with state-scaled noise",
    must_fail="Partial instead of total derivatives (the policy's slope left out)",
    how_to_read="Left and middle, one path each: the adjoint recursion (circles) and central differences (squares) give "
    "autograd's costate (dashed) at every time; the recursion that leaves out how the action depends on the state (crosses) "
    "does not. Right, the largest relative gap to autograd over all paths and times, over the limit of rounding that it is "
    "judged by: what lies left of the dashed 1 agrees.",
    parts=(
        Part(_RECURSION, "claim", "holds"),
        Part(_BY_DIFFERENCES, "claim", "holds"),
        Part(_PARTIAL, "control", "fails", every="system"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
    own_settings=for_system,
)
