"""The exact covariance of the costate given the state, and action noise dropping out at the optimal gain."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from agents.policies.linear import LinearPolicy
from envs.noise import Noise, draw_noise
from figures.harness.claim import Claim, Part, Preset, Row, compare
from figures.measures.linear_systems import SYSTEMS, build_system, label, truncated
from figures.measures.rollouts import costates_of, sampled
from theory.continuous.lq_gradients import costate_covariance
from theory.continuous.lyapunov import linear_value

_ROUNDING = 1e-6  # of the covariance: the tail of an endless world cut at 1e-8
_NOTHING = 1e-4  # a spread below this share of the value gradient counts as none: the scale does not sink further


@dataclass(frozen=True)
class CostateCovarianceSetting:
    """One system under `gain` times its optimal gain (1.0 is optimal)."""

    system: str
    gain: float
    samples: int
    margin: float


def for_system(preset: Preset, system: str) -> list[CostateCovarianceSetting]:
    """One system below the optimal gain (a user's own: at the user's gain) and at it."""
    samples, margin = {"quick": (20_000, 0.15), "full": (1_000_000, 0.02)}[preset]
    return [CostateCovarianceSetting(system, gain, samples, margin) for gain in (0.7, 1.0)]


def settings(preset: Preset) -> list[CostateCovarianceSetting]:
    """Every named system."""
    return [setting for system in SYSTEMS for setting in for_system(preset, system)]


def measure(setting: CostateCovarianceSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Products e_i e_j of the residual e = lambda_t - grad V_t(s_t) against the closed form, and matched-noise runs."""
    endless, K = build_system(setting.system, setting.gain)
    world = truncated(endless, K)
    value, T = linear_value(endless, K), world.horizon or 1
    times = sorted({0, T // 4, T // 2, T - 1}) if endless.horizon else [0, 2]
    policy = LinearPolicy(K).to(device)

    def products(noise: Noise) -> torch.Tensor:
        costates, trajectory = costates_of(world, policy, noise)
        states = trajectory.states.detach()
        residuals = [costates[:, t] - value.gradient(states[:, t].cpu(), t).to(device) for t in times]
        e = torch.stack(residuals, 1)
        return e[:, :, :, None] * e[:, :, None, :]

    found = sampled(world, T, setting.samples, rng, device, products)
    parts = [costate_covariance(endless, K, t) for t in times]
    action, process = (torch.stack([part[i] for part in parts]) for i in (0, 1))
    full = action + process
    P, Sigma = value.at(0)[0], world.S_0 + torch.outer(world.m_0, world.m_0)
    gradient = 2 * float((P @ Sigma @ P).diagonal().max().sqrt())
    sizes = full.diagonal(dim1=1, dim2=2).clamp(min=(_NOTHING * gradient) ** 2).sqrt()
    scale = sizes[:, :, None] * sizes[:, None, :]
    name = "optimal gain" if setting.gain == 1.0 else "any gain"
    shared: dict[str, Any] = {
        "margin": setting.margin,
        "labels": {"system": label(setting.system), "gain": setting.gain},
        "axes": ("time", "i", "j"),
        "tolerance": _ROUNDING * scale,
    }
    rows = compare(name, found.mean, full, found.standard_error, found.samples, scale, **shared)
    if setting.gain != 1.0:
        left_out = "action noise left out"
        rows += compare(left_out, found.mean, process, found.standard_error, found.samples, scale, **shared)
    return rows + _matched_rows(setting, world, policy, rng, device)


def _matched_rows(
    setting: CostateCovarianceSetting, world: Any, policy: Any, rng: torch.Generator, device: str
) -> list[Row]:
    """How far lambda_0 moves when the action noise alone is redrawn: by rounding at the optimum, a lot elsewhere."""
    first, other = (draw_noise(world, 200, world.horizon, rng).to(device) for _ in range(2))
    swapped = Noise(first.s_0, other.xi, first.w)
    a, b = (costates_of(world, policy, noise)[0][:, 0].detach() for noise in (first, swapped))
    moved = (a - b).abs().max() / a.abs().max()
    part = "matched noise, optimal gain" if setting.gain == 1.0 else "matched noise, other gain"
    return compare(part, moved, 0.0, tolerance=1e-6, labels={"system": label(setting.system), "gain": setting.gain})


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Measured covariance entries against the closed form, both in units of their scale, for each part."""
    from figures.drawing.panels import legend_above
    from figures.drawing.style import COLOURS, EXACT, MARKERS

    names = ["any gain", "optimal gain", "action noise left out"]
    axes = figure.subplots(1, 3, sharey=True)
    for axis, name in zip(axes, names, strict=True):
        part = rows[rows["part"] == name]
        for marker, (system, group) in zip(MARKERS, part.groupby("system", sort=False), strict=False):
            colour = COLOURS["control"] if name == names[2] else COLOURS["costate"]
            axis.errorbar(group["target"] / group["scale"], group["measured"] / group["scale"],
                          2 * group["standard_error"] / group["scale"], fmt=marker, color=colour, mfc="none",
                          ms=6, alpha=0.85, label=system)  # fmt: skip
        axis.plot([-1.1, 1.1], [-1.1, 1.1], label="exact", **EXACT)
        axis.set(title=name, xlabel="formula (share of scale)")
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
    " and middle points must lie on the dashed diagonal. Right, the formula is robbed of its action-noise "
    "term: points leave the diagonal, so the term matters away from the optimal gain.",
    parts=(
        Part("any gain", "claim", "holds"),
        Part("optimal gain", "claim", "holds"),
        Part("matched noise, optimal gain", "claim", "holds"),
        Part("action noise left out", "control", "fails", every="system"),
        Part("matched noise, other gain", "control", "fails", every="system"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
    own_settings=for_system,
)
