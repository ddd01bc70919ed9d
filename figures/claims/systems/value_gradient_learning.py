"""Value-gradient learning under a fixed policy: what VGL(lambda) learns, how fast, and the bias and spread of its targets."""

import itertools
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from figures.drawing.target_errors import draw_target_errors
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, at_most, equals, report, vanishes
from figures.measures.linear_systems import SYSTEMS, build_system, check_system, label, memoryless_system
from figures.measures.value_gradient_paths import BIAS, CURVE, SPREAD, critics, curve_rows, target_law, target_moments
from figures.measures.value_gradient_sweeps import endless_system, narrow_weight, rate_gaps, swept
from theory.continuous.endless import SMALLEST_COMPONENT, gradient_size, spread_scale
from theory.continuous.lyapunov import linear_value
from theory.continuous.value_gradient_targets import stationary_moment, update_abscissa

FIXED, RATES, CURL = "learned field = -2 P", "rates of a sweep", "rates of the curl"
MEAN, COVARIANCE, SQUARE = "mean of the target", "covariance of the target", "squared error = bias^2 + variance"
ALWAYS, ON_POLICY = "VGL(1) converges from any state law", "VGL(0) on-policy with Omega = I converges"
OFF_POLICY, WEIGHTED = "VGL(0) converges from any state law", "VGL(0) on-policy converges with any Omega"
UNBIASED, PARTIAL = (
    "targets of a wrong critic are unbiased, lambda < 1",
    "partial derivatives in the place of total ones",
)
_ROUNDING, _TAIL = 1e-8, 1e-6  # of the exact parts; of an endless world cut at 1e-8
_UNITS = 10.0  # component i of the state in units of 10^-i: a loop that is not normal
_FEW = 4_000  # paths of the control


@dataclass(frozen=True)
class ValueGradientLearningSetting:
    """One system at several lambda, with so many sampled paths."""

    system: str
    lams: tuple[float, ...]
    samples: int
    margin: float

    def __post_init__(self) -> None:
        """Refuse a system that does not exist."""
        check_system(self.system, SYSTEMS)


def settings(preset: Preset) -> list[ValueGradientLearningSetting]:
    """Every named system."""
    lams = (0.0, 0.9, 1.0) if preset == "tiny" else (0.0, 0.3, 0.7, 0.9, 1.0)
    samples, margin = {"tiny": (2**12, 0.15), "quick": (2**15, 0.1), "full": (2**20, 0.02)}[preset]
    return [ValueGradientLearningSetting(system, lams, samples, margin) for system in SYSTEMS]


def measure(setting: ValueGradientLearningSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Exact parts for every lambda, and moments of targets on sampled paths for three wrong critics."""
    labels: Row = {"system": label(setting.system)}
    rows = [row for lam in setting.lams for row in _exact_rows(setting.system, lam, rng, {**labels, "lam": lam})]
    return rows + _stability_rows(setting.system, labels) + _sampled_rows(setting, rng, device, labels)


def _exact_rows(system: str, lam: float, rng: torch.Generator, labels: Row) -> list[Row]:
    """Where sweeps from a random critic end; the rates of one sweep of the system without its horizon."""
    world, K, _ = build_system(system)
    target = -2 * linear_value(world, K).P
    gap = swept(world, K, lam, torch.randn(target.shape, generator=rng, dtype=torch.float64)) - target
    rows = vanishes(FIXED, gap.abs().max() / target.abs().max(), _ROUNDING, labels=labels)
    every, curl = rate_gaps(*endless_system(system), lam)
    rows += vanishes(RATES, every, _ROUNDING, labels=labels)
    return rows + (vanishes(CURL, curl, _ROUNDING, labels=labels) if world.n > 1 else [])


def _stability_rows(system: str, labels: Row) -> list[Row]:
    """Spectral abscissae of mean updates over the size of their weights: below 0 they converge."""
    world, K = endless_system(system, _UNITS)
    one, narrow, own = torch.eye(world.n, dtype=torch.float64), narrow_weight(world, K), stationary_moment(world, K)
    cases = [(ALWAYS, 1.0, one, narrow), (ALWAYS, 1.0, narrow, own), (ON_POLICY, 0.0, one, own)]
    if world.n > 1:  # one state goes in one direction only, and converges
        cases += [(OFF_POLICY, 0.0, one, narrow), (WEIGHTED, 0.0, narrow, own)]
    rows: list[Row] = []
    for part, lam, Omega, Sigma in cases:
        size = float(Omega.norm() * Sigma.norm())
        abscissa = update_abscissa(world, K, lam, Omega, Sigma) / size
        rows += at_most(part, abscissa, 0.0, labels={**labels, "lam": lam})
    return rows


def _sampled_rows(setting: ValueGradientLearningSetting, rng: torch.Generator, device: str, labels: Row) -> list[Row]:
    """Moments at time 0 against the exact ones, for every lambda and wrong critic, and the picture's curves."""
    world, K, _ = build_system(setting.system)
    value, Sigma = linear_value(world, K), world.S_0 + torch.outer(world.m_0, world.m_0)
    P, wrong, unit = value.at(0)[0], critics(value.P), float((4 * value.at(0)[0] @ Sigma @ value.at(0)[0]).trace())
    law = target_law(world, K, setting.lams, list(wrong.values()))
    size = gradient_size(P, Sigma, value.at(0)[1], world.m_0)
    size = size.clamp(min=SMALLEST_COMPONENT * float(size.max()))
    shared: dict[str, Any] = {"rng": rng, "device": device, "lams": setting.lams, "critic": list(wrong.values())}
    shared |= {"mean": law.mean, "gradient": -2 * P, "rms": Sigma.diagonal().sqrt()}
    system = memoryless_system(setting.system)
    found = target_moments(system, samples=setting.samples, **shared)
    cut = target_moments(system, samples=min(setting.samples, _FEW), partial=True, **shared)
    rows: list[Row] = []
    for at in itertools.product(range(len(setting.lams)), range(len(wrong))):
        lam, own = setting.lams[at[0]], {**labels, "lam": setting.lams[at[0]], "critic": list(wrong)[at[1]]}
        look: dict[str, Any] = {"margin": setting.margin, "labels": own}
        linear = {**look, "tolerance": _TAIL * size[:, None], "axes": ("component", "regressor")}
        rows += equals(MEAN, found.residual[at], 0.0, size[:, None], **linear)
        rows += equals(PARTIAL, cut.residual[at], 0.0, size[:, None], **linear)
        rows += equals(UNBIASED, found.error[at], 0.0, size[:, None], **linear) if lam < 1 else []
        scale = spread_scale(law.covariance[at], size)
        square = {**look, "tolerance": _TAIL * scale, "axes": ("component", "other")}
        rows += equals(COVARIANCE, found.covariance[at], law.covariance[at], scale, **square)
        exact = float(law.bias[at] + law.variance[at])
        rows += equals(SQUARE, found.square[at], exact, max(unit, exact), tolerance=_TAIL * unit, **look)
        for part, pairs, known in ((BIAS, found.bias, law.bias), (SPREAD, found.spread, law.variance)):
            rows += report(part, pairs[at], known[at], unit, labels=own)
    return rows + curve_rows(world, K, wrong, unit, labels)


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Bias and variance of targets against lambda, for two critics in one system."""
    shown = (rows[rows["part"].isin((prefix + BIAS, prefix + SPREAD))] for prefix in ("", CURVE))
    draw_target_errors(figure, *shown)


CLAIM = Claim(
    name="value_gradient_learning",
    statement="VGL(lambda) under a fixed policy learns the value gradient -2 P s, whatever lambda is",
    formula=r"\hat\lambda_t=Dr_t+\gamma\,Df_t^{\top}(\mathrm{lam}\,\hat\lambda_{t+1}+(1-\mathrm{lam})\,\tilde\lambda_{t+1})"
    r"\qquad\tilde\lambda_t=X s\ \to\ -2Ps",
    source="M. Fairbank and E. Alonso, Value-gradient learning (2012); theory page section 6",
    assumptions=("A1", "A2", "A4", "A5"),
    must_hold="Sweeps end at -2 P at every lambda; rates of a sweep, and of a curl; mean, covariance and squared error of "
    "targets on sampled paths; VGL(1) converges from any law of states, VGL(0) on-policy with Omega = I",
    must_fail="VGL(0) converges from any law of states, or on-policy with any Omega; targets of a wrong critic are unbiased at "
    "lambda < 1; partial derivatives in the place of total ones",
    how_to_read="Targets of two wrong critics: with lambda their bias (blue) falls to 0 and their variance (orange) grows. "
    "Marks are sampled paths with two standard errors, dashed the exact answer. Green: squared error of one target, the sum.",
    parts=(
        *(Part(name, "claim", "holds") for name in (FIXED, RATES, CURL, MEAN, COVARIANCE, SQUARE, ALWAYS)),
        Part(ON_POLICY, "control", "holds"),
        *(Part(name, "control", "fails", every="system") for name in (OFF_POLICY, WEIGHTED, UNBIASED, PARTIAL)),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
