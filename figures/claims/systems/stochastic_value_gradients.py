"""SVG(0), SVG(1) and SVG(inf): one mean and growing spread; what a wrong model does to it; Bonnet's and Price's theorems."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from envs.noise import FAMILIES
from figures.drawing.svg import draw_svg
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, at_least, at_most, equals, report, vanishes
from figures.harness.statistics import Estimate
from figures.measures.linear_systems import SYSTEMS, build_system, label
from figures.measures.noise_theorems import BONNET, GAUSSIAN, OTHER, PATHWISE, QUADRATIC, theorem_rows
from figures.measures.stochastic_value_gradients import svg_moments
from figures.measures.wrong_models import SHARE, TWICE, error_rows, first, model_residuals, shrunk, wrong_model
from theory.continuous.endless import gradient_size
from theory.continuous.lq_gradients import costate_covariance
from theory.continuous.lyapunov import linear_value
from theory.continuous.model_gradients import model_costate, svg_covariance

MEAN, SPREAD = "SVG(k) has the mean of every k", "its covariance is the formula"
ORDER, NO_MORE = "every sampled step adds spread", "all steps spread no more than none"
MODEL_MEAN, WRONG = "costates of a wrong model have their own mean", "a wrong model gives the value gradient"
CURL, ADDED = "a wrong model's field on real paths is a gradient", "added spread"
_STEPS: tuple[int | None, ...] = (0, 1, 2, 4, None)  # sampled steps k; None is all
_ROUNDING, _TAIL = 1e-10, 1e-6  # the latter: the tail of an endless world cut at 1e-8


@dataclass(frozen=True)
class StochasticValueGradientsSetting:
    """SVG in one system ("spread"), a wrong model of it ("model"), or a family of noise ("noise")."""

    kind: str
    case: str
    samples: int
    margin: float
    model_error: float = knob(0.03)  # of the closed loop, relative: the model whose paths are sampled


def for_system(preset: Preset, system: str) -> list[StochasticValueGradientsSetting]:
    """The spread of SVG in one system."""
    samples, margin = {"tiny": (100, 0.15), "quick": (20_000, 0.15), "full": (400_000, 0.03)}[preset]
    return [StochasticValueGradientsSetting("spread", system, samples, margin)]


def settings(preset: Preset) -> list[StochasticValueGradientsSetting]:
    """Every named system twice, and every family of noise."""
    (first, *_), margin = for_system(preset, "scalar"), {"tiny": 0.5, "quick": 0.1, "full": 0.03}[preset]
    return [
        *(setting for system in SYSTEMS for setting in for_system(preset, system)),
        *(StochasticValueGradientsSetting("model", system, first.samples, margin) for system in SYSTEMS),
        *(StochasticValueGradientsSetting("noise", noise, 3 * first.samples, margin) for noise in FAMILIES),
    ]


def measure(setting: StochasticValueGradientsSetting, rng: torch.Generator, device: str) -> list[Row]:
    """The rows of one kind."""
    if setting.kind == "noise":
        return theorem_rows(setting.case, setting.samples, setting.margin, rng, device)
    return (_spread if setting.kind == "spread" else _model)(setting, rng, device)


def _spread(setting: StochasticValueGradientsSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Residuals of SVG(k) at two times against exact mean and covariance, and exact covariances against each other."""
    world, K, k = build_system(setting.case)
    times = sorted({0, (world.horizon or 4) // 2})
    found = svg_moments(world, K, k, times, list(_STEPS), setting.samples, rng, device)
    exact = torch.stack([torch.stack([svg_covariance(world, K, j, t) for j in _STEPS]) for t in times])
    sizes, rows = exact.diagonal(dim1=-2, dim2=-1).sqrt(), list[Row]()
    trace = sizes.square().sum(-1)
    base = float(trace[0, 0])
    for i, steps in enumerate(_STEPS):
        shared: Row = {"labels": {"case": label(setting.case), "steps": "all" if steps is None else str(steps)}}
        one = {**shared, "margin": setting.margin, "axes": ("time", "i", "j")}
        scale = sizes[:, i, :, None] * sizes[:, i, None, :]
        rows += equals(MEAN, found.mean[:, i], 0.0, sizes[:, i, :, None], tolerance=_TAIL * sizes[:, i, :, None], **one)
        rows += equals(SPREAD, found.covariance[:, i], exact[:, i], scale, tolerance=_TAIL * scale, **one)
        if i:
            rows += report(ADDED, _over(found.added[0, i], base), float(trace[0, i]) / base - 1, **shared)
            least = torch.linalg.eigvalsh(exact[:, i] - exact[:, i - 1])[:, 0] / trace[:, i]
            rows += at_least(ORDER, least, 0.0, tolerance=_ROUNDING, axes=("time",), **shared)
    if bool(trace[0, -1] > 1.001 * trace[0, 0]):  # in a user's system the later steps may add nothing
        rows += at_most(NO_MORE, _over(found.added[0, -1], base), 0.0, labels={"case": label(setting.case)})
    return rows


def _over(x: Estimate, unit: float) -> Estimate:
    """An estimate in another unit."""
    return Estimate(x.mean / unit, x.standard_error / unit, x.samples)


def _model(setting: StochasticValueGradientsSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Errors of a wrong model by its size, exact; costates through it, sampled, against two means."""
    world, K, _ = build_system(setting.case)
    labels: Row = {"case": label(setting.case)}
    value, direction = linear_value(world, K), wrong_model(world, K, 1.0, rng)
    rows = error_rows(world, K, direction, labels)
    model = shrunk(world, direction, setting.model_error)
    P = {real: first(model_costate(world, K, model, real)) for real in (True, False)}
    if world.n > 1:  # with one state every field is a gradient
        rows += vanishes(CURL, (P[True] - P[True].mT).norm() / P[True].norm(), _ROUNDING, labels=labels)
    Sigma, X = world.S_0 + torch.outer(world.m_0, world.m_0), -2 * value.at(0)[0]
    right = gradient_size(value.at(0)[0], Sigma, value.at(0)[1], world.m_0)
    scale = (right.square() + torch.stack(costate_covariance(world, K, 0)).sum(0).diagonal()).sqrt()[:, None]
    wanted = [(part, way, -2 * P[way] if part == MODEL_MEAN else X) for part in (MODEL_MEAN, WRONG) for way in P]
    slopes = [(way, slope) for _, way, slope in wanted]
    found = model_residuals(world, K, model, slopes, setting.samples, rng, device)
    shared: Row = {"tolerance": _TAIL * scale, "margin": setting.margin, "axes": ("i", "j")}
    for (part, way, _), residual in zip(wanted, found, strict=True):
        own = {**labels, "paths": "real" if way else "imagined"}
        rows += equals(part, residual, 0.0, scale, labels=own, **shared)
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Spread against sampled steps; the two parts of a wrong model's error on real paths."""
    draw_svg(figure, rows[rows["part"] == ADDED], rows[rows["part"] == SHARE])


CLAIM = Claim(
    name="stochastic_value_gradients",
    statement="SVG(0), SVG(1) and SVG(inf) have one mean, the value gradient in the action, and spread more with every "
    "sampled step",
    formula=r"\mathrm{Cov}=4HS_xH\,\left[+\,4\gamma^2B^\top P_{t+1}S_wP_{t+1}B\right]\left[+\,\gamma^2B^\top"
    r"\mathrm{Cov}(\lambda_{t+1})B\right]\qquad\tilde P-P\approx 2\,\mathrm{sym}(\hat P-P)",
    source="N. Heess et al. (2015) and D. Rezende et al. (2014), the paper's reference on stochastic value gradients; theory "
    "page section 6",
    assumptions=("A1", "A2", "A4", "A5"),
    must_hold="Means and covariances of every SVG(k); with a wrong model the mean of its own formula, and an imagined error "
    "twice the symmetric part of the real one; Bonnet's theorem; Price's for Gaussian noise or quadratic functions",
    must_fail="All sampled steps spread no more than none; a wrong model gives the value gradient, or on real paths a gradient "
    "field; Price's theorem for other noise",
    how_to_read="Left, the variance that k sampled steps before an exact critic add to that of SVG(0), as a share of it; "
    "dashed lines are exact. Right, all steps through a wrong model: the error of the value gradient on real paths, "
    "split in its symmetric part and its curl, over the error on paths that the model imagines (dashed: one half).",
    parts=(
        *(Part(name, "claim", "holds") for name in (MEAN, SPREAD, ORDER)),
        *(Part(name, "control", "holds") for name in (MODEL_MEAN, TWICE, BONNET, PATHWISE, GAUSSIAN, QUADRATIC)),
        *(Part(name, "control", "fails", every="case") for name in (NO_MORE, WRONG, CURL, OTHER)),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
    own_settings=for_system,
)
