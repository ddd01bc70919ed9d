"""Mean costates with an assumption removed beside the exact value gradient: against the start, against the quantum."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from figures.drawing.panels import points_with_curve
from figures.drawing.style import COLOURS, EXACT, MARKERS
from figures.measures.removed_assumptions import GAIN, QUANTISED_START, quantised_world, scaled_world, step_world
from theory.continuous.broken_assumptions import closed_scale_costate, quantised_costates, step_reward_gradient
from theory.continuous.lyapunov import linear_value

BIASED: dict[str, Any] = {"color": "0.45", "linestyle": ":", "linewidth": 1.4}  # an exact mean that is not the truth


def step_panel(axis: Any, rows: pd.DataFrame) -> Any:
    """Mean costates under a step reward (columns `knob`, `measured`) and the exact value gradient."""
    grid, world = _starts(rows), step_world()
    truth = torch.stack([step_reward_gradient(world, GAIN, start)[1][0] for start in grid])
    points_with_curve(axis, rows, "knob", "control", "assumption removed", (grid, truth))
    axis.plot([], [], label="exact", **EXACT)
    axis.plot([], [], label="exact mean, path cut", **BIASED)
    axis.set(title="step reward", xlabel="state s", ylabel="costate, value gradient")
    return axis


def scale_panel(axis: Any, cut: pd.DataFrame, whole: pd.DataFrame) -> Any:
    """Mean costates under state-scaled noise: with the path through the scale cut, and whole."""
    grid, world = _starts(cut), scaled_world()
    biased = -2 * (grid @ closed_scale_costate(world, GAIN)[0])[:, 0]
    truth = linear_value(world, GAIN).gradient(grid)[:, 0]
    points_with_curve(axis, cut, "knob", "control", "assumption removed", (grid, biased), line=BIASED)
    points_with_curve(axis, whole, "knob", "costate", "all paths open", (grid, truth), MARKERS[1])
    axis.set(title="state-scaled noise", xlabel="state s", ylabel="costate, value gradient")
    return axis


def _starts(rows: pd.DataFrame) -> torch.Tensor:
    """A fine grid over the starts of the rows, (161, 1)."""
    return torch.linspace(rows["knob"].min(), rows["knob"].max(), 161, dtype=torch.float64)[:, None]


def quantum_panel(axis: Any, treatments: Mapping[str, pd.DataFrame]) -> Any:
    """Relative error of the mean costate against the quantum, its exact value dashed.

    `treatments` are the rows of "straight_through" and of "rounded", the fields of `QuantisedCostates`.
    """
    knobs = pd.concat(list(treatments.values()))["knob"]
    quanta = torch.linspace(knobs.min(), knobs.max(), 56, dtype=torch.float64).tolist()
    exact = [quantised_costates(quantised_world(quantum), GAIN, QUANTISED_START) for quantum in quanta]
    styles = zip(treatments.items(), ("score", "control"), MARKERS[2:], strict=False)
    for (name, rows), colour, marker in styles:
        error, bars = (rows["measured"] - rows["target"]).abs() / rows["scale"], 2 * rows["standard_error"]
        style: dict[str, Any] = {"fmt": marker, "color": COLOURS[colour], "ms": 5, "capsize": 2}
        axis.errorbar(rows["knob"], error, bars / rows["scale"], label=name.replace("_", "-"), **style)
        axis.plot(quanta, [float(abs(getattr(e, name) / e.value_gradient - 1)) for e in exact], **EXACT)
    axis.set(title="quantised action", xlabel="quantum / noise sd", ylabel="|E costate - grad V| / |grad V|")
    axis.set_yscale("symlog", linthresh=1e-3)
    axis.set_ylim(bottom=0)
    return axis
