"""Variance of both estimators against their closed forms, and how little a perfect critic saves."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from agents.policies.linear import LinearPolicy
from agents.sampling.pathwise import pathwise_gradient
from agents.sampling.rollout import rollout
from agents.sampling.score_function import score_function_gradient
from envs.noise import Noise
from figures.drawing.estimators import one_step_panel, variance_ratio_panel
from figures.drawing.panels import legend_above
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, at_least, at_most, equals, report
from figures.harness.statistics import estimate
from figures.measures.gradient_estimators import ESTIMATORS, sample_estimators
from figures.measures.linear_systems import SYSTEMS, build_system, check_system, label
from figures.measures.rollouts import sampled
from theory.continuous.endless import cut_endless
from theory.continuous.gains import offset_at
from theory.continuous.lq_gradients import one_step_variances, one_step_world, policy_gradient

_SIZES = {"tiny": (100, 6, 0.25), "quick": (200_000, 20_000, 0.25), "full": (10_000_000, 400_000, 0.05)}
_RATIOS = (0.0, 0.5, 1.0, 2.0, 4.0)  # mu / sigma of the one-step worlds
_BATCHES = 20
_LEAST = -0.005  # log variance ratio: a critic that saves less than half a percent is none
_ONE_STEP = ("pathwise", "score", "score_value_baseline", "score_best_baseline")
_VARIANCE, _IGNORED, _KEEPS = "one-step variance", "baseline ignored", "critic keeps the mean"
_SAVES, _LESS, _RATIO = "a perfect critic saves", "less than the estimator matters", "variance over pathwise"


@dataclass(frozen=True)
class EstimatorVarianceSetting:
    """A one-step world (`ratio` = mu / sigma, noise `sigma`, cost `R`), or a system of many steps (`ratio` is None)."""

    system: str
    ratio: float | None
    samples: int
    margin: float
    sigma: float = knob(0.5)
    R: float = knob(1.0)

    def __post_init__(self) -> None:
        """Refuse a system that does not exist."""
        check_system(self.system, ("one step", *SYSTEMS))


def settings(preset: Preset) -> list[EstimatorVarianceSetting]:
    """One-step worlds over mu / sigma, and the critic's saving on every system."""
    one, many, margin = _SIZES[preset]
    steps = [EstimatorVarianceSetting("one step", ratio, one, margin) for ratio in _RATIOS]
    systems = ("random_finite",) if preset == "tiny" else SYSTEMS
    return steps + [EstimatorVarianceSetting(system, None, many, margin) for system in systems]


def measure(setting: EstimatorVarianceSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Rows of the one-step closed forms, or of the many-step comparison."""
    if setting.ratio is None:
        return _many_steps(setting, rng, device)
    return _one_step(setting, setting.ratio, rng, device)


def _one_step(setting: EstimatorVarianceSetting, ratio: float, rng: torch.Generator, device: str) -> list[Row]:
    """Squared deviations of each estimator from the true gradient -2 R mu against the closed-form variance."""
    R, sigma, mu = setting.R, setting.sigma, ratio * setting.sigma
    world, exact = one_step_world(R, sigma), one_step_variances(R, torch.tensor(mu), torch.tensor(sigma))
    baselines = (0.0, -R * (mu**2 + sigma**2), float(exact.best_baseline))
    policy = LinearPolicy([[mu]]).to(device)

    def squares(noise: Noise) -> torch.Tensor:
        trajectory = rollout(world, policy, noise)
        columns = [pathwise_gradient(policy, trajectory)["K"]]
        columns += [score_function_gradient(world, policy, trajectory, b)["K"] for b in baselines]
        return (torch.stack(columns, 1)[..., 0, 0] + 2 * R * mu).square()

    variances, rows = sampled(world, 1, setting.samples, rng, device, squares), list[Row]()
    at = {"ratio": ratio, "system": "one step", "sigma": sigma, "R": R}
    for i, name in enumerate(_ONE_STEP):
        labels, target = {**at, "estimator": name}, getattr(exact, name)
        rows += equals(_VARIANCE, variances[i], target, target, margin=setting.margin, labels=labels)
    labels = {**at, "estimator": "score"}
    return rows + equals(
        _IGNORED, variances[1], exact.score_value_baseline, exact.score, margin=setting.margin, labels=labels
    )


def _many_steps(setting: EstimatorVarianceSetting, rng: torch.Generator, device: str) -> list[Row]:
    """The critic keeps the mean; total variance of every estimator over the pathwise one, from independent batches."""
    endless, K, k = build_system(setting.system)
    world = cut_endless(endless, K, tolerance=1e-4, k=k)
    K, k = K if K.ndim == 2 else K[0], offset_at(k, 0)
    exact = policy_gradient(world, K, k)
    sample = sample_estimators(world, K, setting.samples, min(_BATCHES, setting.samples // 2), rng, device, k)
    labels: dict[str, Any] = {"system": label(setting.system), "T": world.horizon or 1}
    rows = equals(
        _KEEPS,
        sample.critic,
        exact,
        exact.square().mean().sqrt(),
        margin=setting.margin,
        labels={"system": label(setting.system), "estimator": "critic"},
        axes=("i", "j"),
    )
    shares = sample.variances / sample.variances[:, :1]
    critic, value_baseline = (shares[:, ESTIMATORS.index(name)] for name in ("critic", "score_value_baseline"))
    rows += at_most(_SAVES, estimate(critic.log()), _LEAST, labels=labels)
    rows += at_least(_LESS, estimate((critic * value_baseline).log()), 0.0, labels=labels)
    for i, name in enumerate(ESTIMATORS):
        rows += report(_RATIO, estimate(shares)[i], 1.0, labels={**labels, "estimator": name})
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Left: one-step variances on their closed forms. Right: many steps, every estimator over the pathwise one."""
    left, right = figure.subplots(1, 2)
    one_step_panel(left, rows[rows["part"] == _VARIANCE], _ONE_STEP, max(_RATIOS))
    variance_ratio_panel(right, rows[rows["part"] == _RATIO])
    legend_above(figure, right)


CLAIM = Claim(
    name="estimator_variance",
    statement="Variances have closed forms; a perfect critic matters less than the estimator",
    formula=r"\mathrm{Var}_{PD}=4R^2\sigma^2,\quad \mathrm{Var}_{SF}=R^2\left(\frac{\mu^4}{\sigma^2}+14\mu^2+15\sigma^2\right)",
    source="theory page section 1; Mohamed et al., Monte Carlo Gradient Estimation in Machine Learning, 2020",
    assumptions=("A1", "A2", "A3", "A4", "A5"),
    must_hold="One quadratic step with Gaussian noise, four estimators; the critic's mean on all systems",
    must_fail="Holding the estimator without baseline to the formula with baseline",
    how_to_read="Left, points are sample variances (bars two standard errors) and must lie on the dashed closed forms. "
    "Right, variances over that of the pathwise estimator on the same samples: the printed percentage is what "
    "replacing the sampled costate by the exact value gradient (perfect critic) saves, small beside what the "
    "score function costs.",
    parts=(
        *(Part(name, "claim", "holds") for name in (_VARIANCE, _KEEPS, _SAVES, _LESS)),
        Part(_IGNORED, "control", "fails", every="ratio"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
