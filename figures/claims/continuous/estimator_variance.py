"""Variance of both estimators against their closed forms, and how little a perfect critic saves."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from agents.policies.linear import LinearPolicy
from agents.sampling.pathwise import critic_gradient, pathwise_gradient
from agents.sampling.rollout import Trajectory, rollout
from agents.sampling.score_function import best_constant_baseline, score_function_gradient
from envs.linear_quadratic import LinearQuadratic
from envs.noise import Noise, draw_noise
from figures.harness.claim import Claim, Part, Preset, Row, batches, compare
from figures.harness.statistics import estimate
from figures.measures.linear_systems import SYSTEMS, build_system, label, truncated
from figures.measures.rollouts import sampled
from theory.continuous.lq_gradients import one_step_variances, policy_gradient
from theory.continuous.lyapunov import linear_value

_R, _SIGMA = 1.0, 0.5
_RATIOS = (0.0, 0.5, 1.0, 2.0, 4.0)  # mu / sigma of the one-step worlds
_BATCHES = 20
_LEAST = -0.005  # log variance ratio: a critic that saves less than half a percent is none
ONE_STEP = ("pathwise", "score", "score_value_baseline", "score_best_baseline")
MANY_STEPS = ("pathwise", "critic", "score", "score_value_baseline", "score_best_baseline")


@dataclass(frozen=True)
class EstimatorVarianceSetting:
    """A one-step world (`ratio` = mu / sigma), or a system of many steps (`ratio` is None)."""

    system: str
    ratio: float | None
    samples: int
    margin: float


def settings(preset: Preset) -> list[EstimatorVarianceSetting]:
    """One-step worlds over mu / sigma, and the critic's saving on every system."""
    one, many, margin = {"quick": (200_000, 20_000, 0.25), "full": (10_000_000, 400_000, 0.05)}[preset]
    steps = [EstimatorVarianceSetting("one step", ratio, one, margin) for ratio in _RATIOS]
    return steps + [EstimatorVarianceSetting(system, None, many, margin) for system in SYSTEMS]


def measure(setting: EstimatorVarianceSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Rows of the one-step closed forms, or of the many-step comparison."""
    if setting.ratio is None:
        return _many_steps(setting, rng, device)
    return _one_step(setting, setting.ratio, rng, device)


def _one_step(setting: EstimatorVarianceSetting, ratio: float, rng: torch.Generator, device: str) -> list[Row]:
    """Squared deviations of each estimator from the true gradient -2 R mu against the closed-form variance."""
    sigma = _SIGMA
    mu = ratio * sigma
    world = LinearQuadratic(A=[[0.0]], B=[[0.0]], Q=[[0.0]], R=[[_R]], m_0=[-1.0], S_0=[[0.0]],
                            S_x=[[sigma**2]], horizon=1).to()  # fmt: skip
    policy = LinearPolicy([[mu]]).to(device)  # from s_0 = -1 the command is K = mu
    exact = one_step_variances(_R, torch.tensor(mu), torch.tensor(sigma))
    baselines = {
        "score": 0.0,
        "score_value_baseline": -_R * (mu**2 + sigma**2),
        "score_best_baseline": float(exact.best_baseline),
    }

    def squares(noise: Noise) -> torch.Tensor:
        trajectory = rollout(world, policy, noise)
        columns = [pathwise_gradient(policy, trajectory)["K"]]
        columns += [score_function_gradient(world, policy, trajectory, b)["K"] for b in baselines.values()]
        return (torch.stack(columns, 1)[..., 0, 0] + 2 * _R * mu).square()

    found = sampled(world, 1, setting.samples, rng, device, squares)
    rows: list[Row] = []
    for i, name in enumerate(ONE_STEP):
        target = getattr(exact, name)
        rows += compare("one-step variance", found.mean[i], target, found.standard_error[i], found.samples, target,
                        margin=setting.margin, labels={"estimator": name, "ratio": ratio, "system": "one step"})  # fmt: skip
    rows += compare("baseline ignored", found.mean[1], exact.score_value_baseline, found.standard_error[1], found.samples,
                    exact.score, margin=setting.margin,
                    labels={"estimator": "score", "ratio": ratio, "system": "one step"})  # fmt: skip
    return rows


def _many_steps(setting: EstimatorVarianceSetting, rng: torch.Generator, device: str) -> list[Row]:
    """The critic keeps the mean; total variance of every estimator over the pathwise one, from independent batches."""
    endless, K = build_system(setting.system)
    world = truncated(endless, K, 1e-4)
    K = K if K.ndim == 2 else K[0]
    policy, value, T = LinearPolicy(K).to(device), linear_value(world, K), world.horizon or 1
    exact = policy_gradient(world, K)
    pilot = rollout(world, policy, draw_noise(world, 2_000, T, rng).to(device))
    constant = best_constant_baseline(world, policy, pilot)
    means, variances = [], []
    for size in batches(setting.samples, setting.samples // _BATCHES):
        trajectory = rollout(world, policy, draw_noise(world, size, T, rng).to(device))
        samples = _all_estimators(world, policy, trajectory, value, constant)
        means.append(samples[1])
        variances.append(samples.var(1).flatten(1).sum(1))
    found = estimate(torch.cat(means))
    name = label(setting.system)
    rows = compare("critic keeps the mean", found.mean, exact, found.standard_error, found.samples,
                   exact.square().mean().sqrt(), margin=setting.margin,
                   labels={"system": name, "estimator": "critic"}, axes=("i", "j"))  # fmt: skip
    shares = torch.stack([v / v[0] for v in variances])
    ratio = estimate(shares)
    labels = {"system": name, "T": T}
    saving = estimate(shares[:, 1].log())
    rows += compare(
        "a perfect critic saves",
        saving.mean,
        _LEAST,
        saving.standard_error,
        saving.samples,
        relation="<=",
        labels=labels,
    )
    beside = estimate((shares[:, 1] * shares[:, 3]).log())
    rows += compare("less than the estimator matters", beside.mean, 0.0, beside.standard_error, beside.samples,
                    relation=">=", labels=labels)  # fmt: skip
    for i, estimator in enumerate(MANY_STEPS):
        rows += compare("variance over pathwise", ratio.mean[i], 1.0, ratio.standard_error[i], ratio.samples, relation="report",
                        labels={"system": name, "estimator": estimator, "T": T})  # fmt: skip
    return rows


def _all_estimators(
    world: Any, policy: Any, trajectory: Trajectory, value: Any, constant: torch.Tensor
) -> torch.Tensor:
    """(estimator, sample, m, n) in the order of MANY_STEPS."""
    states, T = trajectory.states.detach().cpu(), trajectory.actions.shape[1]
    levels = torch.stack([value.value(states[:, t], t) for t in range(T)], 1).to(trajectory.states)
    columns = [
        pathwise_gradient(policy, trajectory),
        critic_gradient(world, policy, trajectory, lambda s, t: value.gradient(s.cpu(), t).to(s)),
    ]
    columns += [score_function_gradient(world, policy, trajectory, b) for b in (0.0, levels, constant)]
    return torch.stack([column["K"] for column in columns])


NAMES = {
    "pathwise": "pathwise", "critic": "pathwise,\nperfect critic", "score": "score function",
    "score_value_baseline": "score, b = V(s)", "score_best_baseline": "score, best constant b",
}  # fmt: skip
_COLOUR = {"score_value_baseline": "score_value", "score_best_baseline": "score_best"}


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Left: one-step variances on their closed forms. Right: many steps, every estimator over the pathwise one."""
    from figures.drawing.panels import legend_above, points_with_curve
    from figures.drawing.style import COLOURS, EXACT, MARKERS

    left, right = figure.subplots(1, 2)
    one = rows[rows["part"] == "one-step variance"]
    grid = torch.linspace(0, max(_RATIOS), 200, dtype=torch.float64)
    exact = one_step_variances(_R, _SIGMA * grid, torch.tensor(_SIGMA, dtype=torch.float64))
    for marker, name in zip(MARKERS, ONE_STEP, strict=False):
        points_with_curve(left, one[one["estimator"] == name], "ratio", _COLOUR.get(name, name), NAMES[name],
                          (grid, getattr(exact, name)), marker)  # fmt: skip
    left.set(title="one step: variance", xlabel="mu / sigma", ylabel="variance of d/dmu", yscale="log")
    many = rows[rows["part"] == "variance over pathwise"]
    systems = list(many["system"].unique())
    for i, (marker, name) in enumerate(zip((MARKERS[0], MARKERS[4], *MARKERS[1:]), MANY_STEPS, strict=False)):
        group = many[many["estimator"] == name]
        at = np.arange(len(systems)) + 0.13 * (i - 2)
        right.errorbar(at, group["measured"], 2 * group["standard_error"], fmt=marker, ms=6, capsize=2,
                       color=COLOURS[_COLOUR.get(name, name)], label=NAMES[name].replace("\n", " "))  # fmt: skip
    for k, saved in enumerate(1 - many[many["estimator"] == "critic"]["measured"]):
        right.annotate(
            f"-{100 * saved:.0f}%", (k - 0.13, 1 - saved), (0, -16), textcoords="offset points", ha="center", fontsize=9
        )
    right.axhline(1, **EXACT, label="exact")
    right.set(title="many steps: variance / pathwise variance", yscale="log", xticks=range(len(systems)))
    right.set_ylim(bottom=0.15)
    right.set_xticklabels([system.replace(" ", "\n") for system in systems])
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
        Part("one-step variance", "claim", "holds"),
        Part("critic keeps the mean", "claim", "holds"),
        Part("a perfect critic saves", "claim", "holds"),
        Part("less than the estimator matters", "claim", "holds"),
        Part("baseline ignored", "control", "fails", every="ratio"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
