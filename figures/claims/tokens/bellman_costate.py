"""On the simplex of abstract states the costate recursion is the Bellman equation."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from envs.token_mdp import TokenMDP
from figures.drawing.panels import gap_panel, legend_above
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, vanishes
from figures.measures.token_systems import WORLDS, build_world, with_own_world
from theory.tokens.dynamic_programming import bellman_costates, tables

_ROUNDING = 1e-10  # of the largest value
_VALUE, _AUTOGRAD, _TRANSPOSED = "costate = Bellman value", "costate = autograd in the belief", "transitions transposed"
_LOOKS = {_VALUE: ("costate", "o"), _AUTOGRAD: ("score", "s"), _TRANSPOSED: ("control", "^")}


@dataclass(frozen=True)
class BellmanCostateSetting:
    """One world under one random tabular policy of a given sharpness."""

    world: str
    sharpness: float


def settings(preset: Preset) -> list[BellmanCostateSetting]:
    """All worlds, policies from nearly even to nearly deterministic."""
    worlds = ("garnet", "one choice") if preset == "tiny" else WORLDS
    levels = {"tiny": (1.0,), "quick": (0.3, 3.0), "full": (0.1, 0.3, 1.0, 3.0, 10.0)}[preset]
    return [BellmanCostateSetting(world, sharpness) for world in worlds for sharpness in levels]


def measure(setting: BellmanCostateSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Recursion against the Bellman values, and against autograd of the belief rollout; transposed transitions must fail."""
    world = build_world(setting.world).to(device)
    logits = torch.randn(world.horizon, world.S, world.V, generator=rng, dtype=torch.float64)
    pi = torch.softmax(setting.sharpness * logits.to(device), -1)
    costates, values = bellman_costates(world, pi), tables(world, pi).V
    size = values.abs().max()
    gaps = {_VALUE: costates - values, _AUTOGRAD: costates[0] - _belief_costate(world, pi)}
    if world.horizon > 1:  # nothing follows the only step
        gaps[_TRANSPOSED] = _transposed(world, pi) - values
    labels = {"world": setting.world, "sharpness": setting.sharpness}
    rows: list[Row] = []
    for part, gap in gaps.items():
        rows += vanishes(part, gap.abs().max() / size, _ROUNDING, labels=labels)
    return rows


def _belief_costate(world: TokenMDP, pi: Tensor) -> Tensor:
    """`dR / db_0` of the expected return of a belief rollout, by autograd, at an even belief."""
    belief: Tensor = world.P.new_full((world.S,), 1 / world.S).requires_grad_()
    b, total = belief, torch.zeros((), dtype=torch.float64)
    for k in range(world.horizon):
        joint = b[:, None] * pi[k]
        total = total + world.gamma**k * (joint * world.r[k]).sum()
        b = torch.einsum("za,zay->y", joint, world.P)
    return torch.autograd.grad(total, belief)[0]


def _transposed(world: TokenMDP, pi: Tensor) -> Tensor:
    """The recursion with P_pi transposed, as in a wrong adjoint equation."""
    costates = [torch.zeros_like(world.r[0, :, 0])]
    for k in reversed(range(world.horizon)):
        P_pi = torch.einsum("za,zay->zy", pi[k], world.P)
        costates.insert(0, (pi[k] * world.r[k]).sum(-1) + world.gamma * P_pi.mT @ costates[0])
    return torch.stack(costates)


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Largest relative gap of every part, world by world."""
    axis = figure.subplots()
    gap_panel(axis, rows, "world", _LOOKS, _ROUNDING, size=6)
    axis.set_ylabel("largest gap / largest value (0 shown at 1e-17)")
    legend_above(figure, axis)


CLAIM = Claim(
    name="bellman_costate",
    statement="On the simplex of states the costate recursion is the Bellman equation",
    formula=r"\lambda_k = r_\pi + \gamma P_\pi \lambda_{k+1} = V_k",
    source="theory page section 3, the bridge from the continuous claim to tokens",
    assumptions=("A1", "A5"),
    must_hold="All token worlds, tabular policies from nearly even to nearly deterministic",
    must_fail="The same recursion with the transition matrix transposed",
    how_to_read="Each mark is the largest gap between the costate on the simplex and the value table in one world, "
    "relative to the largest value. The first two roads must stay under the dashed rounding limit; the "
    "transposed recursion (orange) does not wherever states matter.",
    parts=(
        Part(_VALUE, "claim", "holds"),
        Part(_AUTOGRAD, "claim", "holds"),
        Part(_TRANSPOSED, "control", "fails", every="world"),
    ),
    settings=settings,
    own_settings=with_own_world(settings),
    own_kind="tokens",
    measure=measure,
    draw=draw,
)
