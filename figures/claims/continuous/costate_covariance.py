"""The exact covariance of the costate given the state, and action noise dropping out at the optimal gain."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from agents.policies.linear import LinearPolicy
from envs.linear_quadratic import LinearQuadratic
from envs.noise import Noise, draw_noise
from envs.policy import Policy
from figures.drawing.panels import Series, diagonal_panel, legend_above, no_rows
from figures.drawing.style import MARKERS
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, equals, vanishes
from figures.measures.linear_systems import SYSTEMS, build_system, check_system, label
from figures.measures.rollouts import costates_of, sampled
from theory.continuous.endless import cut_endless, gradient_size, spread_scale
from theory.continuous.lq_gradients import costate_covariance
from theory.continuous.lyapunov import linear_value

_ROUNDING = 1e-6  # of the covariance: the tail of an endless world cut at 1e-8
_ANY, _OPTIMAL, _LEFT_OUT = "any gain", "optimal gain", "action noise left out"
_MATCHED_OPTIMAL, _MATCHED_OTHER = "matched noise, optimal gain", "matched noise, other gain"


@dataclass(frozen=True)
class CostateCovarianceSetting:
    """One system under `gain` times its optimal gain (1.0 is optimal)."""

    system: str
    gain: float
    samples: int
    margin: float

    def __post_init__(self) -> None:
        """Refuse a system that does not exist."""
        check_system(self.system)


def for_system(preset: Preset, system: str) -> list[CostateCovarianceSetting]:
    """One system below the optimal gain (a user's own: at the user's gain) and at it."""
    samples, margin = {"tiny": (100, 0.15), "quick": (20_000, 0.15), "full": (1_000_000, 0.02)}[preset]
    return [CostateCovarianceSetting(system, gain, samples, margin) for gain in (0.7, 1.0)]


def settings(preset: Preset) -> list[CostateCovarianceSetting]:
    """Every named system."""
    return [setting for system in SYSTEMS for setting in for_system(preset, system)]


def measure(setting: CostateCovarianceSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Products e_i e_j of the residual e = lambda_t - grad V_t(s_t) against the closed form, and matched-noise runs."""
    endless, K, k = build_system(setting.system, setting.gain)
    world = cut_endless(endless, K, 2, k=k)
    value, T = linear_value(endless, K, k), world.horizon or 1
    times = sorted({0, T // 4, T // 2, T - 1}) if endless.horizon else [0, 2]
    policy = LinearPolicy(K, k).to(device)

    def products(noise: Noise) -> torch.Tensor:
        costates, trajectory = costates_of(world, policy, noise)
        states = trajectory.states.detach()
        residuals = [costates[:, t] - value.gradient(states[:, t].cpu(), t).to(device) for t in times]
        e = torch.stack(residuals, 1)
        return e[:, :, :, None] * e[:, :, None, :]

    measured = sampled(world, T, setting.samples, rng, device, products)
    pairs = [costate_covariance(endless, K, t) for t in times]
    action, process = (torch.stack([pair[i] for pair in pairs]) for i in (0, 1))
    Sigma = world.S_0 + torch.outer(world.m_0, world.m_0)
    P, p, _ = value.at(0)
    scale = spread_scale(action + process, gradient_size(P, Sigma, p, world.m_0))
    labels = {"system": label(setting.system), "gain": setting.gain}
    shared: dict[str, Any] = {"margin": setting.margin, "labels": labels, "axes": ("time", "i", "j")}
    shared["tolerance"] = _ROUNDING * scale
    gap = vanishes(_MATCHED_OPTIMAL, _matched_gap(world, policy, rng, device), 1e-6, labels=labels)
    if setting.gain == 1.0:
        return equals(_OPTIMAL, measured, action + process, scale, **shared) + gap
    rows = equals(_ANY, measured, action + process, scale, **shared)
    if not bool((action.diagonal(dim1=1, dim2=2) > 1e-4 * scale.diagonal(dim1=1, dim2=2)).any()):
        return rows  # at a user's gain action noise may drop out too: then leaving it out is no error to be seen
    return (
        rows + equals(_LEFT_OUT, measured, process, scale, **shared) + [{**row, "part": _MATCHED_OTHER} for row in gap]
    )


def _matched_gap(world: LinearQuadratic, policy: Policy, rng: torch.Generator, device: str) -> torch.Tensor:
    """Change of lambda_0 when the action noise alone is redrawn: rounding at the optimum, a lot elsewhere."""
    first, other = (draw_noise(world, 200, world.horizon or 1, rng).to(device) for _ in range(2))
    swapped = Noise(first.s_0, other.xi, first.w)
    a, b = (costates_of(world, policy, noise)[0][:, 0].detach() for noise in (first, swapped))
    return (a - b).abs().max() / a.abs().max()


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Measured covariance entries against the closed form, both in units of their scale, for each part."""
    parts = [part for part in (_ANY, _OPTIMAL, _LEFT_OUT) if (rows["part"] == part).any()]
    axes = figure.subplots(1, max(1, len(parts)), sharey=True, squeeze=False)[0]
    if not parts:
        no_rows(axes[0])
    for axis, part in zip(axes, parts, strict=False):
        colour, entries = "control" if part == _LEFT_OUT else "costate", rows[rows["part"] == part]
        systems = zip(MARKERS, entries.groupby("system", sort=False), strict=False)
        series = [Series(group, colour, marker, str(name), "scale", "none") for marker, (name, group) in systems]
        diagonal_panel(axis, series)
        axis.set(title=part, xlabel="formula (share of scale)")
    axes[0].set_ylabel("sample covariance (share of scale)")
    legend_above(figure, axes[0])


CLAIM = Claim(
    name="costate_covariance",
    statement="The costate's covariance has a closed form",
    formula=r"\mathrm{Cov}(\lambda_t \mid s_t) = 4\sum_{j=t}^{T-1}\gamma^{2(j-t)}(\Phi^{j-t})^\top"
    r"\left[L_j S_x L_j^\top + \gamma^2\Phi^\top P_{j+1} S_w P_{j+1}\Phi\right]\Phi^{j-t}",
    source="our theory page section 1 (the paper gives no covariance)",
    assumptions=("A1", "A2", "A4", "A5"),
    must_hold="All systems, below the optimal gain and at it, where action noise drops out (L_j = 0)",
    must_fail="The same formula without its action-noise term, below the optimal gain",
    how_to_read="Each point is one entry of Cov(costate | state), measured against formula, bars two standard errors: left"
    " and middle points must lie on the dashed diagonal. Right, the formula stands without its "
    "action-noise term: points leave the diagonal, so the term matters away from the optimal gain.",
    parts=(
        Part(_ANY, "claim", "holds"),
        Part(_OPTIMAL, "claim", "holds"),
        Part(_MATCHED_OPTIMAL, "claim", "holds"),
        Part(_LEFT_OUT, "control", "fails", every="system"),
        Part(_MATCHED_OTHER, "control", "fails", every="system"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
    own_settings=for_system,
)
