"""Take one assumption away and the costate is no longer the value gradient: by how much, exactly."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from figures.drawing.panels import legend_above
from figures.drawing.removed_assumptions import quantum_panel, scale_panel, step_panel
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, equals
from figures.harness.statistics import Estimate
from figures.measures.removed_assumptions import (
    GAIN,
    QUANTISED_START,
    mean_costate,
    mean_score_gradient,
    quantised_world,
    scaled_world,
    step_world,
)
from theory.continuous.broken_assumptions import (
    closed_scale_costate,
    quantised_costates,
    step_reward_gain_slope,
    step_reward_gradient,
)
from theory.continuous.lyapunov import linear_value

_STARTS = (-2.0, -1.6, -1.2, -0.8, -0.3, 0.3, 0.8, 1.2, 1.6, 2.0)
_QUANTA = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # in standard deviations of the action noise
_VISIBLE = 3.0  # from this quantum on, straight-through's exact error is judged as a failure
_STEP, _SCORE = "step reward: costate", "step reward: score function"
_CUT, _WHOLE = "state-scaled noise: path cut", "state-scaled noise: all paths"
_ROUNDED, _STRAIGHT = "quantised action: rounded", "quantised action: straight-through"
_PREDICTED = "error as predicted"


@dataclass(frozen=True)
class AssumptionRemovedSetting:
    """One variant world at one knob: the start s_0, or the quantum in noise standard deviations."""

    variant: str
    knob: float
    samples: int
    margin: float


def settings(preset: Preset) -> list[AssumptionRemovedSetting]:
    """Starts for the step reward and the state-scaled noise, quanta for the quantised action."""
    samples, margin = {"tiny": (20, 0.15), "quick": (40_000, 0.15), "full": (1_000_000, 0.03)}[preset]
    knobs = {"step reward": _STARTS, "state-scaled noise": _STARTS, "quantised action": _QUANTA}
    return [
        AssumptionRemovedSetting(variant, knob, samples, margin)
        for variant, values in knobs.items()
        for knob in (values[:: len(values) - 1] if preset == "tiny" else values)
    ]


def measure(setting: AssumptionRemovedSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Rows of the variant."""
    return _MEASURES[setting.variant](setting, rng, device)


def _rows(
    part: str, mean: Estimate, target: Tensor, size: Tensor, setting: AssumptionRemovedSetting, judged: bool = True
) -> list[Row]:
    labels, tolerance = {"variant": setting.variant, "knob": setting.knob}, 1e-9 * float(size)
    return equals(part, mean, target, size, tolerance=tolerance, margin=setting.margin, judged=judged, labels=labels)


def _step_reward(setting: AssumptionRemovedSetting, rng: torch.Generator, device: str) -> list[Row]:
    """The costate is 0; the truth is not. The score function takes no derivative of the reward and still meets dJ/dK."""
    world, start = step_world(), torch.tensor([setting.knob], dtype=torch.float64)
    truth = step_reward_gradient(world, GAIN, start)[1]
    starts = torch.tensor([setting.knob, *_STARTS], dtype=torch.float64)[:, None]
    slope, *slopes = (step_reward_gain_slope(world, GAIN, s)[..., 0] for s in starts)
    largest = torch.stack(slopes).abs().max()  # error of the score function is judged by the largest slope
    score = mean_score_gradient(world, start, 5 * setting.samples, rng, device)
    costate = mean_costate(world, start, setting.samples, rng, device)
    rows = _rows(_STEP, costate, truth, truth.abs().max(), setting)
    return rows + _rows(_SCORE, score[..., 0], slope, largest, setting)


def _state_scaled(setting: AssumptionRemovedSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Path s -> noise scale open: unbiased. Cut: the mean of plain additive noise, biased by a known amount."""
    world, start = scaled_world(), torch.tensor([setting.knob], dtype=torch.float64)
    truth = linear_value(world, GAIN).gradient(start)
    predicted, size = closed_scale_costate(world, GAIN).gradient(start), truth.abs().max()
    cut = mean_costate(world.replace(cut_scale_path=True), start, setting.samples, rng, device)
    whole = mean_costate(world, start, setting.samples, rng, device)
    rows = _rows(_CUT, cut, truth, size, setting) + _rows(_PREDICTED, cut, predicted, size, setting)
    return rows + _rows(_WHOLE, whole, truth, size, setting)


def _quantised(setting: AssumptionRemovedSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Autograd through `round` and straight-through: sampled means on their exact means, and against the truth."""
    start, world = QUANTISED_START, quantised_world(setting.knob)
    exact = quantised_costates(world, GAIN, start)
    truth, size = exact.value_gradient, exact.value_gradient.abs().max()
    straight = mean_costate(world.replace(straight_through=True), start, setting.samples, rng, device)
    rounded = mean_costate(world, start, setting.samples, rng, device)
    rows = _rows(_ROUNDED, rounded, truth, size, setting)
    rows += _rows(_STRAIGHT, straight, truth, size, setting, judged=setting.knob >= _VISIBLE)
    rows += _rows(_PREDICTED, straight, exact.straight_through, size, setting)
    return rows + _rows(_PREDICTED, rounded, exact.rounded, size, setting)


_MEASURES = {"step reward": _step_reward, "state-scaled noise": _state_scaled, "quantised action": _quantised}


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Costate against truth in the two start sweeps, error against quantum in the third."""
    step, scale, quantum = figure.subplots(1, 3)
    of = {part.name: rows[rows["part"] == part.name] for part in CLAIM.parts}
    step_panel(step, of[_STEP], _STARTS)
    scale_panel(scale, of[_CUT], of[_WHOLE], _STARTS)
    quantum_panel(quantum, {"straight_through": of[_STRAIGHT], "rounded": of[_ROUNDED]}, _QUANTA)
    legend_above(figure, step, scale, quantum)


CLAIM = Claim(
    name="assumption_removed",
    statement="The expected costate is the value gradient even where an assumption is removed",
    formula=r"\mathbb{E}[\lambda_t \mid s_t] = \nabla V_t(s_t) \quad\text{without A1, or without A2 and A5}",
    source="theory page section 1, negative controls",
    assumptions=("A1", "A2", "A3", "A5"),
    must_hold="The same worlds with the assumption back: all paths open, or the score function, which needs no "
    "derivative",
    must_fail="Step reward, quantised action (A1), noise scaled by the state with that path cut (A2, A5)",
    how_to_read="Dashed lines are exact values. Red points are mean costates with an assumption removed (bars two "
    "standard errors): they miss the value gradient, by 100% under a step reward; with all paths open (blue) "
    "they meet it again. Straight-through rounding is right for fine quanta and wrong for coarse ones, with "
    "dips where its error changes sign.",
    parts=(
        Part(_STEP, "claim", "fails"),
        Part(_ROUNDED, "claim", "fails"),
        Part(_STRAIGHT, "claim", "fails"),
        Part(_CUT, "claim", "fails"),
        Part(_SCORE, "control", "holds"),
        Part(_WHOLE, "control", "holds"),
        Part(_PREDICTED, "control", "holds"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
