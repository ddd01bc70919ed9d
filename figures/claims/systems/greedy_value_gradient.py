"""Value-gradient learning under its own greedy policy: which rules diverge, and the one that cannot."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from envs.noise import draw_noise
from figures.drawing.greedy_sweeps import draw_sweeps
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, at_most, report, vanishes
from figures.measures.greedy_sweeps import (
    PROBLEMS,
    GreedyProblem,
    backpropagated,
    mirrored,
    path_updates,
    random_problem,
    scalar_problem,
    still,
    sweeps,
)
from theory.continuous.greedy_value_gradient import greedy_update_matrix, greedy_weight

DHP, ONE = "VGL(0) converges", "VGL(1) with Omega = I converges"
OTHERS, SAFE = "the others converge there", "VGL(1) with Omega* never diverges"
GRADIENT, PLAIN = "VGL(1) with Omega* = dJ/dw", "VGL(1) with Omega = I = dJ/dw"
AFFINE, NOISE = "updates on paths = D w + b", "noise leaves the mean update"
SWEEPS = "sweeps"  # of the picture
_ROUNDING = 1e-9
_PAIRS = 100  # of noise and its mirror image
_COUNT, _STEP = 60, 0.02  # of the picture, in units of the weight's size
RULES = (("VGL(0)", 0.0, "I"), ("VGL(0)", 0.0, "Omega*"), ("VGL(1)", 1.0, "I"), ("VGL(1)", 1.0, "Omega*"))


@dataclass(frozen=True)
class GreedyValueGradientSetting:
    """One of the scalar problems, or a random one of a seed."""

    problem: str
    seed: int


def settings(preset: Preset) -> list[GreedyValueGradientSetting]:
    """The scalar problems, and random ones of several sizes."""
    count = {"tiny": 1, "quick": 24, "full": 240}[preset]
    random = [GreedyValueGradientSetting("random", seed) for seed in range(count)]
    return [GreedyValueGradientSetting(name, 0) for name in PROBLEMS] + random


def measure(setting: GreedyValueGradientSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Rates of shared weights, and updates on paths against the affine map and against backpropagation."""
    named = setting.problem != "random"
    problem = scalar_problem(setting.problem) if named else random_problem(setting.seed, rng)
    world, C, labels = problem.world, problem.C, {"problem": setting.problem, "seed": setting.seed}
    weights = {"I": torch.eye(world.n, dtype=torch.float64).expand_as(C), "Omega*": greedy_weight(world, C)}
    w = torch.randn(len(C), world.n, generator=rng, dtype=torch.float64)
    rows = _update_rows(problem, weights, w, rng, device, labels)
    for (rule, lam, name), Omega in ((one, weights[one[2]]) for one in RULES):
        D, b = greedy_update_matrix(world, C, lam, Omega)
        reduced, size = (
            problem.F.mT @ D @ problem.F,
            float((problem.F.mT @ torch.block_diag(*Omega) @ problem.F).norm()),
        )
        rate = float(torch.linalg.eigvals(reduced).real.max()) / size
        own: Row = {**labels, "rule": rule, "weight": name}
        if (lam, name) == (1.0, "Omega*"):
            rows += at_most(SAFE, rate, 0.0, tolerance=_ROUNDING, labels=own)
        elif named:
            part = DHP if (setting.problem, lam) == (PROBLEMS[0], 0.0) else OTHERS
            part = ONE if (setting.problem, lam) == (PROBLEMS[1], 1.0) else part
            rows += at_most(part, rate, 0.0, labels=own)
        if setting.problem in PROBLEMS[:2]:
            rest = -float(problem.F.mT @ b) / float(reduced)
            path = (sweeps(problem, lam, Omega, _STEP / size, _COUNT)[:, 0] - rest).abs() / abs(1 - rest)
            exact = abs(1 + _STEP * rate) ** torch.arange(_COUNT + 1)
            rows += report(SWEEPS, path, exact, labels=own, axes=("sweep",))
    return rows


def _update_rows(
    problem: GreedyProblem,
    weights: dict[str, Tensor],
    w: Tensor,
    rng: torch.Generator,
    device: str,
    labels: Row,
) -> list[Row]:
    """Updates at a random critic, on the path without noise and on pairs of paths with opposite noise."""
    world, C, slope = problem.world, problem.C, backpropagated(problem, w)
    rows: list[Row] = []
    for name, part in (("Omega*", GRADIENT), ("I", PLAIN)):
        update = path_updates(problem, w, 1.0, weights[name], still(world))[0]
        gap = float((update - slope).norm() / slope.norm())
        rows += vanishes(part, gap, _ROUNDING, labels={**labels, "weight": name})
    for lam in (0.0, 0.5, 1.0):
        D, b = greedy_update_matrix(world, C, lam, weights["I"])
        exact, own = D @ w.flatten() + b, {**labels, "lam": lam}
        update = path_updates(problem, w, lam, weights["I"], still(world))[0].flatten()
        rows += vanishes(AFFINE, (update - exact).abs().max() / exact.abs().max(), _ROUNDING, labels=own)
        noise = draw_noise(world, _PAIRS, world.horizon or 1, rng).to(device)
        both = [
            path_updates(problem, w, lam, weights["I"], each).flatten(1).cpu()
            for each in (noise, mirrored(world, noise))
        ]
        rows += vanishes(NOISE, (sum(both) / 2 - exact).abs().max() / both[0].abs().max(), _ROUNDING, labels=own)
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """The distance of the weight from its fixed point against sweeps, for four rules in two problems."""
    draw_sweeps(figure, rows[rows["part"] == SWEEPS], PROBLEMS[:2])


CLAIM = Claim(
    name="greedy_value_gradient",
    statement="VGL(lambda) converges under its own greedy policy",
    formula=r"\Delta\hat\ell_t=\Omega_t(\hat\lambda_t-\tilde\lambda_t)\qquad"
    r"\Omega^\ast_t=\gamma^{t+1}B\,(2(C_a+\gamma B^{\top}X_tB))^{-1}B^{\top}:\ \ \Delta\hat\ell=\nabla_{\hat\ell}J",
    source="M. Fairbank and E. Alonso, arXiv:1107.4606; theory page section 6",
    assumptions=("A1", "A2", "A5"),
    must_hold="VGL(1) with the greedy weight Omega* is the gradient of the return and diverges nowhere; each rule converges in "
    "the problem where another diverges; updates are affine, noise of mean 0 changes no mean",
    must_fail="VGL(0) converges; VGL(1) with Omega = I converges; VGL(1) with Omega = I is the gradient of the return",
    how_to_read="One weight p of a critic is learned under the critic's own greedy policy, in two problems of two steps. Marks "
    "are updates on paths, dashed the exact rates. A rule that rises diverges. VGL(1) with Omega* falls in every problem.",
    parts=(
        Part(DHP, "claim", "fails", every="weight"),
        Part(ONE, "claim", "fails"),
        *(Part(name, "control", "holds") for name in (SAFE, GRADIENT, OTHERS, AFFINE, NOISE)),
        Part(PLAIN, "control", "fails", every="problem"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
