"""`E[lambda_t | s_t] = grad V_t(s_t)`: the costate is an unbiased sample of the value gradient, at every t."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from agents.policies.linear import ClosedPath, LinearPolicy
from envs.linear_quadratic import LinearQuadratic
from envs.noise import Noise
from envs.policy import Policy
from figures.drawing.costate_means import draw_means
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, equals, report
from figures.measures.linear_systems import SYSTEMS, build_system, check_system, label
from figures.measures.rollouts import costates_of, fixed_start, residual_moments, sampled
from theory.continuous.endless import SMALLEST_COMPONENT, cut_endless, gradient_size, steps_until_settled
from theory.continuous.lyapunov import linear_value, mean_states, second_moments

_ROUNDING = 1e-6  # of the gradient: rounding at t = T, and the tail of an endless world cut at 1e-8
_TOTAL, _CUT, _SHOWN = "total derivative", "policy path cut", "from one start"
_FEW = 2_000  # paths of the picture


@dataclass(frozen=True)
class CostateMeanSetting:
    """One system, sampled once; an endless world is judged at every fifth time, as far as its paths take to settle.

    At the last of these times the paths go on for as long once more.
    """

    system: str
    samples: int
    margin: float

    def __post_init__(self) -> None:
        """Refuse a system that does not exist."""
        check_system(self.system)


def for_system(preset: Preset, system: str) -> list[CostateMeanSetting]:
    """The points of one system."""
    samples, margin = {"tiny": (100, 0.1), "quick": (20_000, 0.1), "full": (1_000_000, 0.02)}[preset]
    return [CostateMeanSetting(system, samples, margin)]


def settings(preset: Preset) -> list[CostateMeanSetting]:
    """Every named system."""
    return [setting for system in SYSTEMS for setting in for_system(preset, system)]


def measure(setting: CostateMeanSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Moments of `lambda_t - grad V_t(s_t)` against 1 and s_t, in units of the value gradient's own size."""
    endless, K, k = build_system(setting.system)
    last = 0 if endless.horizon else 5 * max(2, steps_until_settled(endless, K, k=k) // 5)
    world = cut_endless(endless, K, last, k=k)
    value, Sigma, T = linear_value(endless, K, k), second_moments(world, K, k), world.horizon or 1
    means = mean_states(world, K, k)
    times = list(range(T + 1)) if endless.horizon else list(range(0, last + 1, 5))
    rms = Sigma.diagonal(dim1=1, dim2=2).clamp(min=1e-300).sqrt()
    size = torch.stack([gradient_size(value.at(t)[0], Sigma[t], value.at(t)[1], means[t]) for t in times])
    size = size.clamp(min=SMALLEST_COMPONENT * float(size.max()))

    def moments(policy: Policy) -> Callable[[Noise], torch.Tensor]:
        def residuals(noise: Noise) -> torch.Tensor:
            costates, trajectory = costates_of(world, policy, noise)
            columns = []
            for t in times:
                state = trajectory.states[:, t].detach()
                gradient = value.gradient(state.cpu(), t).to(device)
                columns.append(residual_moments(costates[:, t] - gradient, state, rms[t].to(device)))
            return torch.stack(columns, 1)

        return residuals

    policy = LinearPolicy(K, k).to(device)
    labels = {"system": label(setting.system), "gamma": world.gamma}
    rows: list[Row] = []
    variants: list[tuple[str, Policy, int]]
    variants = [(_TOTAL, policy, len(times)), (_CUT, ClosedPath(policy, "all"), len(times) - 1)]
    for part, variant, judged in variants if bool(K.any()) else variants[:1]:  # K = 0 has no path to cut
        mean = sampled(world, T, setting.samples, rng, device, moments(variant))[:judged]
        scale = size[:judged, :, None]
        at_times = equals(
            part,
            mean,
            0.0,
            scale,
            tolerance=_ROUNDING * scale,
            margin=setting.margin,
            labels=labels,
            axes=("t", "component", "regressor"),
        )
        rows += [{**row, "t": times[row["t"]]} for row in at_times]
    started = replace(world, m_0=rms[0], S_0=torch.zeros_like(world.S_0))
    exact = torch.stack([value.gradient(mean, t) for t, mean in enumerate(mean_states(started, K, k))])[times]
    i, few = int(exact.abs().amax(0).argmax()), min(setting.samples, _FEW)  # the component that is largest
    for part, variant, _ in variants[: 1 + bool(K.any())]:
        mean = sampled(started, T, few, rng, device, _from_start(started, variant))[times][:, i]
        shown = report(_SHOWN, mean, exact[:, i], labels={**labels, "shown": part, "component": i}, axes=("t",))
        rows += [{**row, "t": times[row["t"]]} for row in shown]
    return rows


def _from_start(world: LinearQuadratic, policy: Policy) -> Callable[[Noise], torch.Tensor]:
    """The costates of paths that all begin in the mean first state."""
    return lambda noise: costates_of(world, policy, fixed_start(noise, world.m_0))[0]


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Mean costates on the value gradient from one start, and the deviations of all moments in standard errors."""
    draw_means(figure, rows, _SHOWN, _TOTAL, _CUT)


CLAIM = Claim(
    name="costate_mean",
    statement="The expected costate is the value gradient, at every time and state",
    formula=r"\mathbb{E}[\lambda_t \mid s_t] = \nabla V_t(s_t), \qquad \lambda_t = \frac{d R_t}{d s_t}",
    source="arXiv:2605.21654, continuous claim; our theory page section 1",
    assumptions=("A1", "A2", "A4", "A5"),
    must_hold="Linear-quadratic worlds of several sizes, Gaussian and Laplace noise, finite and endless",
    must_fail="The policy's input detached from autograd (breaks A5)",
    how_to_read="Left and middle, paths from one start: the mean costate (blue, bars two standard errors) lies on the value "
    "gradient along the mean path (dashed) at every time; with the path through the policy cut (red) it does not. Right, every "
    "moment of (costate - value gradient) over all states, in standard errors: blue must stay in the grey band (the "
    "simultaneous 99.9% limit); red leaves it, so the test can see an error.",
    parts=(
        Part(_TOTAL, "claim", "holds"),
        Part(_CUT, "control", "fails", every="system"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
    own_settings=for_system,
)
