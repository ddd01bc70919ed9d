"""On the simplex of abstract states the costate recursion is the Bellman equation."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from envs.token_mdp import TokenMDP
from figures.drawing.entries import Mark, entries_panel
from figures.drawing.panels import gap_panel, legend_above, with_columns
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, report, vanishes
from figures.measures.token_systems import WORLDS, build_world, with_own_world
from theory.tokens.dynamic_programming import bellman_costates, tables

_ROUNDING = 1e-10  # of the largest value
_VALUE, _AUTOGRAD, _TRANSPOSED = "costate = Bellman value", "costate = autograd in the belief", "transitions transposed"
_SHOWN = "values of states"
_MARKS = {
    _TRANSPOSED: Mark("control", "^", "costate, transitions transposed"),
    _VALUE: Mark("costate", "o", "costate by its recursion"),
    _AUTOGRAD: Mark("costate", "s", "costate by autograd in the belief", 9, open=True),
}
_STATES = 12  # at most so many are shown


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
    shown = {_VALUE: costates[0], _AUTOGRAD: _belief_costate(world, pi)}
    gaps = {_VALUE: costates - values, _AUTOGRAD: costates[0] - shown[_AUTOGRAD]}
    if world.horizon > 1:  # nothing follows the only step
        transposed = _transposed(world, pi)
        gaps[_TRANSPOSED], shown[_TRANSPOSED] = transposed - values, transposed[0]
    labels = {"world": setting.world, "sharpness": setting.sharpness}
    rows: list[Row] = []
    for part, gap in gaps.items():
        rows += vanishes(part, gap.abs().max() / size, _ROUNDING, labels=labels)
    return rows + _shown_rows(values[0], shown, labels)


def _shown_rows(values: Tensor, shown: dict[str, Tensor], labels: Row) -> list[Row]:
    """Costates beside the values at time 0, for the picture: of many states some, from the lowest value to the highest."""
    places = torch.linspace(0, len(values) - 1, min(len(values), _STATES)).round().long()
    states, rows = values.cpu().argsort()[places], list[Row]()
    for kind, costates in shown.items():
        for z in states.tolist():
            rows += report(_SHOWN, costates[z], values[z], labels={**labels, "shown": kind, "state": z})
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
    """Costates over values in two worlds, state by state; the largest relative gap in every world."""
    rows = with_columns(rows, "shown", "state", "sharpness")
    values = rows[rows["part"] == _SHOWN]
    values = values[values["sharpness"] == values["sharpness"].max()]
    states = values.groupby("world", sort=False)["state"].nunique()
    worlds = [world for world in states.index if world in states.nlargest(2).index]
    *shown, right = figure.subplots(1, len(worlds) + 1, squeeze=False)[0]
    for axis, world in zip(shown, worlds, strict=True):
        entries_panel(axis, values[values["world"] == world], "state", _MARKS, "exact value")
        axis.set(title=world, xlabel="states, by their value", ylabel="value, costate (at time 0)")
    looks = {part: (mark.colour, mark.marker) for part, mark in _MARKS.items()}
    gap_panel(right, rows, "world", looks, _ROUNDING, names={part: mark.name for part, mark in _MARKS.items()})
    right.set(title="every world, all times", ylabel="largest gap / largest value")
    legend_above(figure, *shown, right)


CLAIM = Claim(
    name="bellman_costate",
    statement="On the simplex of states the costate recursion is the Bellman equation",
    formula=r"\lambda_k = r_\pi + \gamma P_\pi \lambda_{k+1} = V_k",
    source="theory page section 3, the bridge from the continuous claim to tokens",
    assumptions=("A1", "A5"),
    must_hold="All token worlds, tabular policies from nearly even to nearly deterministic",
    must_fail="The same recursion with the transition matrix transposed",
    how_to_read="First, in the worlds with most states: the costate of every state at time 0 (blue, by two roads) lies on its "
    "exact Bellman value (dashed); with the transitions transposed (orange) it does not. Last, the largest gap over "
    "all states and times in every world: blue must stay under the dashed rounding limit.",
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
