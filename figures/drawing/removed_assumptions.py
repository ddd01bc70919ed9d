"""Mean costates with an assumption removed beside the exact value gradient: against the start, against the quantum."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pandas as pd
import torch

from figures.drawing.panels import points_with_curve
from figures.drawing.style import COLOURS, EXACT, MARKERS
from figures.measures.removed_assumptions import GAIN, QUANTISED_START, quantised_world, scaled_world, step_world
from theory.continuous.broken_assumptions import (
    QuantisedCostates,
    closed_scale_costate,
    quantised_costates,
    step_reward_gradient,
)
from theory.continuous.lyapunov import linear_value

BIASED: dict[str, Any] = {"color": "0.45", "linestyle": ":", "linewidth": 1.4}  # an exact mean that is not the truth


def step_panel(axis: Any, rows: pd.DataFrame, starts: Sequence[float]) -> Any:
    """Mean costates under a step reward (columns `knob`, `measured`) and the exact value gradient over the starts."""
    grid, world = _grid(starts, 161)[:, None], step_world()
    truth = torch.stack([step_reward_gradient(world, GAIN, start)[1][0] for start in grid])
    points_with_curve(axis, rows, "knob", "control", "assumption removed", (grid, truth))
    axis.plot([], [], label="exact", **EXACT)
    axis.plot([], [], label="exact mean, path cut", **BIASED)
    axis.set(title="step reward", xlabel="state s", ylabel="costate, value gradient")
    return axis


def scale_panel(axis: Any, cut: pd.DataFrame, whole: pd.DataFrame, starts: Sequence[float]) -> Any:
    """Mean costates under state-scaled noise: with the path through the scale cut, and whole."""
    grid, world = _grid(starts, 161)[:, None], scaled_world()
    biased = closed_scale_costate(world, GAIN).gradient(grid)[:, 0]
    truth = linear_value(world, GAIN).gradient(grid)[:, 0]
    points_with_curve(axis, cut, "knob", "control", "assumption removed", (grid, biased), line=BIASED)
    points_with_curve(axis, whole, "knob", "costate", "all paths open", (grid, truth), MARKERS[1])
    axis.set(title="state-scaled noise", xlabel="state s", ylabel="costate, value gradient")
    return axis


def _grid(knobs: Sequence[float], points: int) -> torch.Tensor:
    """An even grid over the range of the knobs, for exact curves."""
    return torch.linspace(min(knobs), max(knobs), points, dtype=torch.float64)


@cache
def _exact_costates(quanta: tuple[float, ...]) -> list[QuantisedCostates]:
    """Exact means at every quantum, computed once: they do not depend on the rows."""
    return [quantised_costates(quantised_world(quantum), GAIN, QUANTISED_START) for quantum in quanta]


def quantum_panel(axis: Any, treatments: Mapping[str, pd.DataFrame], quanta: Sequence[float]) -> Any:
    """Relative error of the mean costate against the quantum, its exact value dashed.

    Args:
        axis: where to draw.
        treatments: the rows of "straight_through" and of "rounded", which are fields of `QuantisedCostates`.
        quanta: their range is the range of the exact curve, in noise standard deviations.
    """
    grid = _grid(quanta, 56).tolist()
    exact = _exact_costates(tuple(grid))
    styles = zip(treatments.items(), ("score", "control"), MARKERS[2:], strict=False)
    for (name, rows), colour, marker in styles:
        error, bars = (rows["measured"] - rows["target"]).abs() / rows["scale"], 2 * rows["standard_error"]
        style: dict[str, Any] = {"fmt": marker, "color": COLOURS[colour], "ms": 5, "capsize": 2}
        axis.errorbar(rows["knob"], error, bars / rows["scale"], label=name.replace("_", "-"), **style)
        axis.plot(grid, [float(abs(getattr(e, name) / e.value_gradient - 1)) for e in exact], **EXACT)
    axis.set(title="quantised action", xlabel="quantum / noise sd", ylabel="|E costate - grad V| / |grad V|")
    axis.set_yscale("symlog", linthresh=1e-3)
    axis.set_ylim(bottom=0)
    return axis
