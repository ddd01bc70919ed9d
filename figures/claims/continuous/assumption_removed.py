"""Take one assumption away and the costate is no longer the value gradient: by how much, exactly."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from agents.policies.linear import LinearPolicy
from agents.sampling.rollout import rollout
from agents.sampling.score_function import score_function_gradient
from envs.lq_variants import quantised_action, state_scaled_noise, step_reward
from envs.noise import Noise
from figures.harness.claim import Claim, Part, Preset, Row, compare
from figures.measures.rollouts import costates_of, fixed_start, sampled
from theory.continuous.broken_assumptions import closed_scale_costate, quantised_costates, step_reward_gradient
from theory.continuous.lyapunov import linear_value
from theory.differences import central_gradient

_K = torch.tensor([[0.8]], dtype=torch.float64)
_STARTS = (-2.0, -1.6, -1.2, -0.8, -0.3, 0.3, 0.8, 1.2, 1.6, 2.0)
_START = torch.tensor([0.7], dtype=torch.float64)
_QUANTA = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # in standard deviations of the action noise
_SD = 0.3
_BIASED = {"color": "0.45", "linestyle": ":", "linewidth": 1.4}
_VISIBLE = 3.0  # from this quantum on, straight-through's exact error is judged as a failure


@dataclass(frozen=True)
class AssumptionRemovedSetting:
    """One variant world at one knob: the start s_0, or the quantum in noise standard deviations."""

    variant: str
    knob: float
    samples: int
    margin: float


def _step_world() -> Any:
    return step_reward(horizon=5, action_noise=_SD).to()


def _scaled_world() -> Any:
    return state_scaled_noise(horizon=10, C=[[1.5]], action_noise=_SD).to()


def _quantised_world(quantum: float) -> Any:
    return quantised_action(horizon=2, action_noise=_SD, quantum=quantum * _SD).replace(S_w=[[0.0]]).to()


def settings(preset: Preset) -> list[AssumptionRemovedSetting]:
    """Starts for the step reward and the state-scaled noise, quanta for the quantised action."""
    samples, margin = {"quick": (40_000, 0.15), "full": (1_000_000, 0.03)}[preset]
    knobs = {"step reward": _STARTS, "state-scaled noise": _STARTS, "quantised action": _QUANTA}
    return [
        AssumptionRemovedSetting(variant, knob, samples, margin) for variant, values in knobs.items() for knob in values
    ]


def measure(setting: AssumptionRemovedSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Rows of the variant."""
    return _MEASURES[setting.variant](setting, rng, device)


def _mean_costate(
    world: Any, start: Tensor, setting: AssumptionRemovedSetting, rng: torch.Generator, device: str
) -> Any:
    """Mean of lambda_0 over paths from one start."""
    policy = LinearPolicy(_K).to(device)

    def first(noise: Noise) -> Tensor:
        return costates_of(world, policy, fixed_start(noise, start))[0][:, 0]

    return sampled(world, world.horizon, setting.samples, rng, device, first)


def _rows(part: str, found: Any, target: Any, scale: Any, setting: AssumptionRemovedSetting, **more: Any) -> list[Row]:
    labels = {"variant": setting.variant, "knob": setting.knob}
    return compare(part, found.mean, target, found.standard_error, found.samples, scale, margin=setting.margin,
                   tolerance=1e-9 * abs(float(scale)), labels=labels, **more)  # fmt: skip


def _step_reward(setting: AssumptionRemovedSetting, rng: torch.Generator, device: str) -> list[Row]:
    """The costate is 0; the truth is not. The score function, which asks for no derivative, still finds dJ/dK."""
    world = _step_world()
    start = torch.tensor([setting.knob], dtype=torch.float64)
    _, truth = step_reward_gradient(world, _K, start)
    slope = central_gradient(lambda k: step_reward_gradient(world, k.reshape(1, 1), start)[0], _K.reshape(1))
    policy = LinearPolicy(_K).to(device)

    def score(noise: Noise) -> Tensor:
        trajectory = rollout(world, policy, fixed_start(noise, start))
        return score_function_gradient(world, policy, trajectory, (-1.0))["K"][..., 0]

    found = sampled(world, world.horizon, 5 * setting.samples, rng, device, score)
    costate = _mean_costate(world, start, setting, rng, device)
    return _rows("step reward: costate", costate, truth, truth.abs().max(), setting) + _rows(
        "step reward: score function", found, slope, _largest_slope(world), setting
    )


def _largest_slope(world: Any) -> float:
    """|dJ/dK| at its largest over the starts: the scale against which the score function's error is small or not."""

    def value(k: Tensor, start: float) -> Tensor:
        return step_reward_gradient(world, k.reshape(1, 1), torch.tensor([start], dtype=torch.float64))[0]

    return max(float(central_gradient(partial(value, start=s), _K.reshape(1)).abs()) for s in _STARTS)


def _state_scaled(setting: AssumptionRemovedSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Path s -> noise scale open: unbiased. Cut: the mean of plain additive noise, biased by a known amount."""
    start = torch.tensor([setting.knob], dtype=torch.float64)
    whole = _scaled_world()
    cut = whole.replace(cut_scale_path=True)
    truth = linear_value(whole, _K).gradient(start)
    predicted = -2 * closed_scale_costate(whole, _K)[0] @ start
    found = _mean_costate(cut, start, setting, rng, device)
    return (
        _rows("state-scaled noise: path cut", found, truth, truth.abs().max(), setting)
        + _rows("error as predicted", found, predicted, truth.abs().max(), setting)
        + _rows("state-scaled noise: all paths", _mean_costate(whole, start, setting, rng, device), truth,
                truth.abs().max(), setting)
    )  # fmt: skip


def _quantised(setting: AssumptionRemovedSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Autograd through `round` and straight-through: sampled means on their exact means, and against the truth."""
    start, world = _START, _quantised_world(setting.knob)
    exact = quantised_costates(world, _K, start)
    truth, size = exact.value_gradient, exact.value_gradient.abs().max()
    straight = _mean_costate(world.replace(straight_through=True), start, setting, rng, device)
    rounded = _mean_costate(world, start, setting, rng, device)
    visible = {} if setting.knob >= _VISIBLE else {"relation": "report"}
    return (
        _rows("quantised action: rounded", rounded, truth, size, setting)
        + _rows("quantised action: straight-through", straight, truth, size, setting, **visible)
        + _rows("error as predicted", straight, exact.straight_through, size, setting)
        + _rows("error as predicted", rounded, exact.rounded, size, setting)
    )


_MEASURES = {"step reward": _step_reward, "state-scaled noise": _state_scaled, "quantised action": _quantised}


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Costate against truth in the two start sweeps, error against quantum in the third."""
    from figures.drawing.panels import legend_above, points_with_curve
    from figures.drawing.style import EXACT, MARKERS

    axes = figure.subplots(1, 3)
    grid = torch.linspace(min(_STARTS), max(_STARTS), 161, dtype=torch.float64)[:, None]
    step, scaled = _step_world(), _scaled_world()
    truth = torch.stack([step_reward_gradient(step, _K, start)[1][0] for start in grid])
    panels = (
        (axes[0], "step reward: costate", "control", "assumption removed", truth, MARKERS[0]),
        (axes[1], "state-scaled noise: path cut", "control", "assumption removed",
         -2 * (grid @ closed_scale_costate(scaled, _K)[0])[:, 0], MARKERS[0]),
        (axes[1], "state-scaled noise: all paths", "costate", "all paths open",
         linear_value(scaled, _K).gradient(grid)[:, 0], MARKERS[1]),
    )  # fmt: skip
    for axis, part, colour, name, exact, marker in panels:
        line = _BIASED if part.endswith("path cut") else EXACT
        points_with_curve(axis, rows[rows["part"] == part], "knob", colour, name, (grid, exact), marker, line)
        axis.set(title=part.split(":")[0], xlabel="state s", ylabel="costate, value gradient")
    _quantum_panel(axes[2], rows)
    axes[0].plot([], [], label="exact", **EXACT)
    axes[0].plot([], [], label="exact mean, path cut", **_BIASED)
    legend_above(figure, *axes)


def _quantum_panel(axis: Any, rows: pd.DataFrame) -> None:
    from figures.drawing.style import COLOURS, EXACT, MARKERS

    quanta = torch.linspace(min(_QUANTA), max(_QUANTA), 56, dtype=torch.float64).tolist()
    exact = [quantised_costates(_quantised_world(quantum), _K, _START) for quantum in quanta]
    for name, colour, marker in (("straight-through", "score", MARKERS[2]), ("rounded", "control", MARKERS[3])):
        group = rows[rows["part"] == f"quantised action: {name}"]
        error = (group["measured"] - group["target"]).abs() / group["scale"]
        axis.errorbar(group["knob"], error, 2 * group["standard_error"] / group["scale"], fmt=marker, capsize=2, ms=5,
                      color=COLOURS[colour], label=f"{name}")  # fmt: skip
        gaps = [float(abs(getattr(e, name.replace("-", "_")) / e.value_gradient - 1)) for e in exact]
        axis.plot(quanta, gaps, **EXACT)
    axis.set(title="quantised action", xlabel="quantum / noise sd", ylabel="|E costate - grad V| / |grad V|")
    axis.set_yscale("symlog", linthresh=1e-3)
    axis.set_ylim(bottom=0)


CLAIM = Claim(
    name="assumption_removed",
    statement="The expected costate is the value gradient even where an assumption is removed",
    formula=r"\mathbb{E}[\lambda_t \mid s_t] = \nabla V_t(s_t) \quad\text{without A1, or without A2 and A5}",
    source="theory page section 1, negative controls",
    assumptions=("A1", "A2", "A3", "A5"),
    must_hold="The same worlds with the assumption back: all paths open, or the score function, which needs no "
    "derivative",
    must_fail="Step reward, quantised action (A1), noise scaled by the state with that path cut (A2, A5)",
    how_to_read="Dashed lines are exact values. Orange points are mean costates with an assumption removed (bars two "
    "standard errors): they miss the value gradient, by 100% under a step reward; with all paths open (blue) "
    "they meet it again. Straight-through rounding is right for fine quanta and wrong for coarse ones, with "
    "dips where its error changes sign.",
    parts=(
        Part("step reward: costate", "claim", "fails"),
        Part("quantised action: rounded", "claim", "fails"),
        Part("quantised action: straight-through", "claim", "fails"),
        Part("state-scaled noise: path cut", "claim", "fails"),
        Part("step reward: score function", "control", "holds"),
        Part("state-scaled noise: all paths", "control", "holds"),
        Part("error as predicted", "control", "holds"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
