"""k1, k2 and k3, in the reward and in the loss: their values, and the gradients that they really follow, against the KL's."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from agents.recipes.surrogates import KL_ESTIMATORS
from figures.drawing.kl import draw_estimators
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, equals, report, vanishes
from figures.measures.kl_penalties import mean_gradients, value_moments
from figures.measures.policy_pairs import between
from figures.measures.token_systems import GROUPED, build_policy, build_world
from theory.groups.binary_rewards import alignment
from theory.groups.kl import ExactKL, exact_kl

_ROUNDING = 1e-9
_ONE_STEP = "one choice"  # no prefix but the prompt: nothing is visited more or less often
K3, K3_FORWARD = "k3 in the loss = grad KL(pi || ref)", "k3 in the loss = grad KL(ref || pi), prefixes given"
K2_GIVEN, K2_WHOLE = "k2 in the loss = grad KL, prefixes given", "k2 in the loss = grad KL"
K2_ONE, K2_VALUE = "one step: k2 in the loss = grad KL", "E k2 = KL"
K1_REWARD, K1_LOSS = "k1 in the reward = grad KL", "k1 in the loss = 0"
IN_REWARD, REWARD_BIAS = "k2, k3 in the reward = grad KL", "in the reward: grad E[k] - E[grad k]"
VALUES, RATE = "E k1 = E k3 = KL", "near ref: losses of k2 and k3 meet, order 1"
_SPREAD, _GRADIENT = "spread", "gradient"


@dataclass(frozen=True)
class KlEstimatorsSetting:
    """One world, one random reference, a straight line of policies from it to another; distances are shares of the line."""

    world: str
    seed: int
    distances: tuple[float, ...] = (1 / 1024, 1 / 512, 1 / 32, 1 / 4, 1.0)


def settings(preset: Preset) -> list[KlEstimatorsSetting]:
    """The grouped worlds and one of a single step."""
    if preset == "tiny":
        return [KlEstimatorsSetting(world, 0, (1 / 512, 1 / 4)) for world in ("lock (2,3)", _ONE_STEP)]
    seeds = range(1 if preset == "quick" else 8)
    return [KlEstimatorsSetting(world, seed) for world in (*GROUPED, _ONE_STEP) for seed in seeds]


def measure(setting: KlEstimatorsSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Values, gradients and spreads at every distance, and the rate at which k2 and k3 meet."""
    world, at = build_world(setting.world).to(device), {"world": setting.world, "seed": setting.seed}
    reference, other = (build_policy(world, seed) for seed in (2 * setting.seed, 2 * setting.seed + 1))
    rows, apart = list[Row](), list[float]()
    for share in setting.distances:
        policy = between(reference, other, share)
        exact = exact_kl(world, policy, reference, KL_ESTIMATORS)
        labels = {**at, "share": share, "KL": exact.values["KL"]}
        rows += _value_rows(value_moments(world, policy, reference), exact.values["KL"], labels)
        gradients = mean_gradients(world, policy, reference)
        rows += _target_rows(gradients, exact, labels) + _gradient_rows(gradients, exact.total["KL"], labels)
        k2, k3 = gradients["k2 in the loss"], gradients["k3 in the loss"]
        apart.append(float((k3 - k2).norm() / k2.norm()))
    near, next_near = setting.distances[:2]
    order = np.log(apart[1] / apart[0]) / np.log(next_near / near)
    return rows + equals(RATE, order, 1.0, tolerance=0.1, labels=at)


def _value_rows(moments: dict[str, tuple[float, float]], KL: float, labels: Row) -> list[Row]:
    """Means over completions against the sum over prefixes, and the spread of one completion's estimate."""
    rows: list[Row] = []
    tolerance = _ROUNDING + 1e-13 / KL  # a small KL is a difference of numbers near 1
    for name, (mean, spread) in moments.items():
        own, part = {**labels, "estimator": name}, K2_VALUE if name == "k2" else VALUES
        rows += equals(part, mean / KL, 1.0, tolerance=tolerance, labels=own)
        rows += report(_SPREAD, spread / KL, labels=own)
    return rows


def _target_rows(gradients: dict[str, Tensor], exact: ExactKL, labels: Row) -> list[Row]:
    """Each mean gradient against what it is said to follow, in units of the gradient of KL(pi || ref)."""
    truth, fixed, total = exact.total["KL"], exact.fixed, exact.total
    targets = [
        (K3, "k3 in the loss", truth),
        (K1_REWARD, "k1 in the reward", truth),
        (K1_REWARD, "k1 to go", truth),
        (K1_LOSS, "k1 in the loss", 0 * truth),
        (K2_GIVEN, "k2 in the loss", fixed["KL"]),
        (K3_FORWARD, "k3 in the loss", fixed["forward"]),
        (K2_ONE if labels["world"] == _ONE_STEP else K2_WHOLE, "k2 in the loss", truth),
        (IN_REWARD, "k2 in the reward", truth),
        (IN_REWARD, "k3 in the reward", truth),
        (REWARD_BIAS, "k2 in the reward", total["k2"] - fixed["KL"]),
        (REWARD_BIAS, "k3 in the reward", truth - fixed["forward"]),
    ]
    rows: list[Row] = []
    for part, name, target in targets:
        gap = (gradients[name] - target).norm() / truth.norm()
        rows += vanishes(part, gap, _ROUNDING, labels={**labels, "estimator": name})
    return rows


def _gradient_rows(gradients: dict[str, Tensor], truth: Tensor, labels: Row) -> list[Row]:
    """Reported: distance, cosine and scale of every mean gradient to the gradient of KL(pi || ref)."""
    rows: list[Row] = []
    for name, gradient in gradients.items():
        cosine, scale, _ = alignment(gradient, truth)
        gap, size = ((x / truth.norm()).norm() for x in (gradient - truth, gradient))
        own = {"estimator": name, "cosine": cosine if size > 0 else None, "scale": scale, "size": float(size)}
        rows += report(_GRADIENT, gap, labels={**labels, **own})
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Relative gaps of the mean gradients, large; means and spreads of the estimates, small; all against the KL."""
    values = rows[rows["part"].isin((VALUES, K2_VALUE))]
    draw_estimators(figure, values, rows[rows["part"] == _SPREAD], rows[rows["part"] == _GRADIENT])


CLAIM = Claim(
    name="kl_estimators",
    statement="The KL term of GRPO, k3 in the loss, follows the gradient of KL(pi || ref)",
    formula=r"\mathbb{E}\,\nabla k_3 = \sum_k\sum_{\mathrm{prefixes}} P_\pi\,\nabla\mathrm{KL}(\pi_{\mathrm{ref}}\|\pi)"
    r" \neq \nabla\mathrm{KL}(\pi\|\pi_{\mathrm{ref}})",
    source="arXiv:2402.03300 (k3 in the loss); arXiv:2506.09477, arXiv:2510.01555 (what it does); theory page section 4",
    assumptions=("A5",),
    must_hold="k1 in the reward; k2 and k3 in the loss for the divergences at given prefixes that are theirs; E k1 = E k3 = KL",
    must_fail="k3 in the loss, and k2 in the loss beyond one step, as the gradient of KL(pi || ref); k2 and k3 in the reward; "
    "E k2 = KL",
    how_to_read="Points are policies on lines away from their references in all worlds, joined for one of them. Left, how far "
    "the mean gradient of each penalty is from that of the KL: only k1 in the reward is exact. In the loss (dotted) k1 "
    "does nothing; k2 and k3 come right near the reference. In the reward (solid) k2 and k3 do nothing there; further away "
    "they may be worse than no penalty. Right, as numbers k1 and k3 have the right mean; k1 is noisiest near the reference.",
    parts=(
        Part(K3, "claim", "fails", every="world"),
        *(Part(name, "control", "holds") for name in (K3_FORWARD, K1_REWARD, K1_LOSS, K2_GIVEN, K2_ONE)),
        *(Part(name, "control", "holds") for name in (REWARD_BIAS, VALUES, RATE)),
        *(Part(name, "control", "fails", every="world") for name in (K2_WHOLE, IN_REWARD, K2_VALUE)),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
    height=6.2,
)
