"""Score function = pathwise = closed form for smooth additive noise; uniform noise breaks the score function."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch

from agents.policies.linear import LinearPolicy
from agents.sampling.pathwise import pathwise_gradient
from agents.sampling.rollout import rollout
from agents.sampling.score_function import score_function_gradient
from envs.linear_quadratic import LinearQuadratic, random_system, scalar
from envs.noise import FAMILIES, Noise
from figures.drawing.panels import legend_above
from figures.drawing.style import COLOURS, EXACT, MARKERS
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, equals
from figures.measures.linear_systems import check_system
from figures.measures.rollouts import sampled
from theory.continuous.lq_gradients import policy_gradient
from theory.continuous.lyapunov import QuadraticValue, linear_value
from theory.continuous.riccati import riccati

_WORLDS: dict[str, Callable[..., LinearQuadratic]] = {
    "scalar": partial(scalar, horizon=8),
    "random": partial(random_system, size=3, actions=2, seed=2, horizon=4),
}
_ESTIMATORS = ("pathwise", "score function", "difference")
_SMOOTH, _COVARIANCE = "smooth noise", "noise covariance"
_UNIFORM_PATHWISE, _UNIFORM_SCORE = "uniform, pathwise", "uniform, score function"


@dataclass(frozen=True)
class ScoreEqualsPathwiseSetting:
    """One world under one noise family; the policy's gain is `gain` times the optimal one."""

    system: str
    noise: str
    samples: int
    margin: float
    gain: float = knob(0.6)

    def __post_init__(self) -> None:
        """Refuse a system that does not exist."""
        check_system(self.system, _WORLDS)


def settings(preset: Preset) -> list[ScoreEqualsPathwiseSetting]:
    """Every world under every family; the claim covers the differentiable ones."""
    samples, margin = {"tiny": (100, 0.15), "quick": (300_000, 0.15), "full": (4_000_000, 0.04)}[preset]
    return [ScoreEqualsPathwiseSetting(system, noise, samples, margin) for system in _WORLDS for noise in FAMILIES]


def measure(setting: ScoreEqualsPathwiseSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Both estimators of dJ/dK against the closed form, and their paired difference on the same noise against 0."""
    world = _WORLDS[setting.system](noise=setting.noise).to()
    K = setting.gain * riccati(world).K[0]
    policy, value, exact = LinearPolicy(K).to(device), linear_value(world, K), policy_gradient(world, K)
    estimators = partial(_gradients, world, policy, value)
    covariance = sampled(world, 1, setting.samples, rng, device, _xi_products)
    gradients = sampled(world, world.horizon or 1, setting.samples, rng, device, estimators)
    size, sds = exact.square().mean().sqrt(), world.S_x.diagonal().sqrt()
    labels = {"system": setting.system, "noise": setting.noise}
    rows = equals(
        _COVARIANCE, covariance, world.S_x, torch.outer(sds, sds), margin=setting.margin, labels=labels, axes=("i", "j")
    )
    for i, estimator in enumerate(_ESTIMATORS):
        target = torch.zeros_like(exact) if estimator == "difference" else exact
        named = {**labels, "estimator": estimator}
        part = _part(setting.noise, estimator)
        rows += equals(part, gradients[i], target, size, margin=setting.margin, labels=named, axes=("i", "j"))
    return rows


def _part(noise: str, estimator: str) -> str:
    """The family of rows that an estimator is judged in: uniform noise has no smooth density."""
    if FAMILIES[noise].differentiable:
        return _SMOOTH
    return _UNIFORM_PATHWISE if estimator == "pathwise" else _UNIFORM_SCORE


def _xi_products(noise: Noise) -> torch.Tensor:
    """(sample, m, m): `xi_0 xi_0'`."""
    return noise.xi[:, 0, :, None] * noise.xi[:, 0, None, :]


def _gradients(world: LinearQuadratic, policy: LinearPolicy, value: QuadraticValue, noise: Noise) -> torch.Tensor:
    """(sample, estimator, m, n): dJ/dK by both estimators, and their difference."""
    trajectory = rollout(world, policy, noise)
    states, T = trajectory.states.detach().cpu(), noise.xi.shape[1]
    baseline = torch.stack([value.value(states[:, t], t) for t in range(T)], 1).to(noise.xi.device)
    pathwise = pathwise_gradient(policy, trajectory)["K"]
    score = score_function_gradient(world, policy, trajectory, baseline)["K"]
    return torch.stack([pathwise, score, pathwise - score], 1)


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Estimated over exact gradient, entry by entry, for every family; exact = 1 dashed."""
    families = list(rows["noise"].unique())
    axes = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
    for axis, family in zip(axes, families, strict=True):
        for i, (estimator, colour) in enumerate({"pathwise": "pathwise", "score function": "score"}.items()):
            group = rows[(rows["noise"] == family) & (rows["estimator"] == estimator)]
            at = [entry + 0.25 * i - 0.12 for entry in range(len(group))]
            size, bars = group["target"].abs(), 2 * group["standard_error"]
            style = {"fmt": MARKERS[i], "color": COLOURS[colour], "ms": 5, "capsize": 2, "label": estimator}
            axis.errorbar(at, group["measured"] / group["target"], bars / size, **style)
        axis.axhline(1, label="exact", **EXACT)
        axis.set(title=family, xlabel="entry of dJ/dK", xticks=range(0, len(group), 2))
    axes[0].set(ylabel="estimate / exact gradient", ylim=(-0.3, 2.2))
    legend_above(figure, axes[0])


CLAIM = Claim(
    name="score_equals_pathwise",
    statement="Score function = pathwise = closed form, for any smooth additive noise",
    formula=r"\mathbb{E}\sum_t \gamma^t\, \nabla_\theta\log\pi(a_t|s_t)\,(R_t-b)"
    r" = \mathbb{E}\sum_t \gamma^t (\partial_\theta\mu_t)^\top(r_a+\gamma f_a^\top\lambda_{t+1}) = \nabla_\theta J",
    source="arXiv:2605.21654, continuous claim; theory page section 1",
    assumptions=("A1", "A2", "A3", "A4", "A5"),
    must_hold="Gaussian, Laplace, logistic and Gumbel noise; pathwise also under uniform noise (it needs no density)",
    must_fail="Score function under uniform noise (breaks A3: the density jumps, the boundary term is lost)",
    how_to_read="Every point is one entry of the estimated policy gradient over its exact value, bars two standard errors:"
    " all must be compatible with the dashed line at 1. Under uniform noise (right) the score is zero almost everywhere and "
    "the score-function estimate is 0, not 1, while the pathwise one is unharmed.",
    parts=(
        Part(_SMOOTH, "claim", "holds"),
        Part(_COVARIANCE, "claim", "holds"),
        Part(_UNIFORM_PATHWISE, "claim", "holds"),
        Part(_UNIFORM_SCORE, "control", "fails", every="system"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
