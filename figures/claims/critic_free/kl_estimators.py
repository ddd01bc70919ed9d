"""k1, k2 and k3, in the reward and in the loss: their values, and the gradients that they really follow, against the KL's."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from agents.recipes.learners import Learner, Penalty, build_learner
from agents.recipes.surrogates import KL_ESTIMATORS
from envs.token_mdp import TokenMDP
from figures.harness.claim import Claim, Part, Preset, Row, compare
from figures.measures.token_systems import GROUPED, build_policy, build_world
from theory.groups.binary_rewards import alignment
from theory.groups.expected_update import expected_update
from theory.tokens.completions import completions
from theory.tokens.prefix_tree import grow

_ROUNDING = 1e-9
_ONE_STEP = "one choice"  # no prefix but the prompt: nothing is visited more or less often
K3 = "k3 in the loss = grad KL(pi || ref)"
VALUES, K2_VALUE = "E k1 = E k3 = KL", "E k2 = KL"
K1_REWARD, K1_LOSS = "k1 in the reward = grad KL", "k1 in the loss = 0"
K2_GIVEN, K2_WHOLE, K2_ONE = ("k2 in the loss = grad KL, prefixes given", "k2 in the loss = grad KL",
                              "one step: k2 in the loss = grad KL")  # fmt: skip
K3_FORWARD = "k3 in the loss = grad KL(ref || pi), prefixes given"
IN_REWARD, REWARD_BIAS = "k2, k3 in the reward = grad KL", "in the reward: grad E[k] - E[grad k]"
RATE = "near ref: losses of k2 and k3 meet, order 1"


@dataclass(frozen=True)
class KlEstimatorsSetting:
    """One world, one random reference, a straight line of policies from it to another; distances are shares of the line."""

    world: str
    seed: int
    distances: tuple[float, ...] = (1 / 1024, 1 / 512, 1 / 32, 1 / 4, 1.0)


def settings(preset: Preset) -> list[KlEstimatorsSetting]:
    """The grouped worlds and one of a single step."""
    seeds = {"quick": range(1), "full": range(8)}[preset]
    return [KlEstimatorsSetting(world, seed) for world in (*GROUPED, _ONE_STEP) for seed in seeds]


def between(reference: Any, other: Any, share: float) -> Any:
    """The policy whose parameters lie `share` of the way from the reference's to the other's."""
    policy = copy.deepcopy(reference)
    with torch.no_grad():
        for p, q in zip(policy.parameters(), other.parameters(), strict=True):
            p += share * (q - p)
    return policy


def flat(parts: Any) -> Float[Tensor, "parameters"]:
    """One vector of all parts."""
    return torch.cat([part.detach().flatten() for part in parts])


def penalised() -> dict[str, Learner]:
    """REINFORCE with each estimator as its only signal, in the reward (k1 also to go) and in the loss."""
    found = {}
    for name in KL_ESTIMATORS:
        found[f"{name} in the reward"] = build_learner("reinforce", kl_reward=Penalty(name, 1.0))
        found[f"{name} in the loss"] = build_learner("reinforce", kl_loss=Penalty(name, 1.0))
    return found | {"k1 to go": build_learner("reinforce", kl_reward=Penalty("k1", 1.0), to_go=True)}


def descended(world: TokenMDP, policy: Any, reference: Any) -> dict[str, Float[Tensor, "parameters"]]:
    """What each penalty descends on average, exactly: minus the mean update in the same world without rewards."""
    silent = replace(world, r=0 * world.r)
    return {
        name: -flat(expected_update(silent, policy, learner, 1, reference=reference).mean.parameters)
        for name, learner in penalised().items()
    }


def measure(setting: KlEstimatorsSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Values, gradients and spreads at every distance, and the rate at which k2 and k3 meet."""
    world = build_world(setting.world)
    reference, other = (build_policy(world, seed) for seed in (2 * setting.seed, 2 * setting.seed + 1))
    rows, apart = list[Row](), list[float]()
    for share in setting.distances:
        policy = between(reference, other, share)
        exact, found = exact_kl(world, policy, reference), descended(world, policy, reference)
        labels = {"world": setting.world, "seed": setting.seed, "share": share, "KL": exact.values["KL"]}
        rows += _values(world, policy, reference, exact, labels) + _gradients(found, exact, labels)
        k2, k3 = found["k2 in the loss"], found["k3 in the loss"]
        apart.append(float((k3 - k2).norm() / k2.norm()))
    near, next_near = setting.distances[:2]
    order = np.log(apart[1] / apart[0]) / np.log(next_near / near)
    return rows + compare(RATE, order, 1.0, tolerance=0.1, labels={"world": setting.world, "seed": setting.seed})


def _values(world: TokenMDP, policy: Any, reference: Any, exact: ExactKL, labels: dict[str, Any]) -> list[Row]:
    """Means over completions against the sum over prefixes, and the spread of one completion's estimate."""
    mine, others = completions(grow(world, policy)), completions(grow(world, reference))
    log_ratio, mask = (x.flatten(0, 1) for x in (mine.log_probs - others.log_probs, mine.mask))
    p = (world.weights[:, None] * mine.p).flatten()
    rows: list[Row] = []
    for name, kind in KL_ESTIMATORS.items():
        found = (kind(log_ratio) * mask).sum(-1)
        mean, more = float((p * found).sum()), labels | {"estimator": name}
        tolerance = _ROUNDING + 1e-13 / exact.values["KL"]  # a small KL is a difference of numbers near 1
        rows += compare(K2_VALUE if name == "k2" else VALUES, mean / exact.values["KL"], 1.0, tolerance=tolerance,
                        labels=more)  # fmt: skip
        spread = float((p * (found - mean) ** 2).sum()) ** 0.5
        rows += compare("spread", spread / exact.values["KL"], 0.0, relation="report", labels=more)
    return rows


def _gradients(found: dict[str, Tensor], exact: ExactKL, labels: dict[str, Any]) -> list[Row]:
    truth, given, rows = exact.whole["KL"], exact.given, list[Row]()
    targets = [
        (K3, "k3 in the loss", truth),
        (K1_REWARD, "k1 in the reward", truth), (K1_REWARD, "k1 to go", truth),
        (K1_LOSS, "k1 in the loss", 0 * truth),
        (K2_GIVEN, "k2 in the loss", given["KL"]), (K3_FORWARD, "k3 in the loss", given["forward"]),
        (K2_ONE if labels["world"] == _ONE_STEP else K2_WHOLE, "k2 in the loss", truth),
        (IN_REWARD, "k2 in the reward", truth), (IN_REWARD, "k3 in the reward", truth),
        (REWARD_BIAS, "k2 in the reward", exact.whole["k2"] - given["KL"]),
        (REWARD_BIAS, "k3 in the reward", truth - given["forward"]),
    ]  # fmt: skip
    for part, name, target in targets:
        gap = (found[name] - target).norm() / truth.norm()
        rows += compare(part, gap, 0.0, tolerance=_ROUNDING, labels=labels | {"estimator": name})
    for name, gradient in found.items():
        cosine, scale, _ = alignment(gradient, truth)
        gap, size = ((x / truth.norm()).norm() for x in (gradient - truth, gradient))
        more = labels | {"estimator": name, "cosine": cosine if size > 0 else None, "scale": scale, "size": float(size)}
        rows += compare("gradient", gap, 0.0, relation="report", labels=more)
    return rows


_LOOKS = {"k1": ("costate", "o"), "k2": ("score_value", "^"), "k3": ("control", "s")}


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Values and spreads above, cosines and relative gaps of the gradients below, all against the KL."""
    from figures.drawing.panels import legend_above
    from figures.drawing.style import EXACT

    (value, spread), (cosine, gap) = figure.subplots(2, 2)
    values = rows[rows["part"].isin((VALUES, K2_VALUE))]
    for name in KL_ESTIMATORS:
        _points(value, values[values["estimator"] == name], "measured", name, name, "-")
        part = rows[(rows["part"] == "spread") & (rows["estimator"] == name)]
        _points(spread, part, "measured", name, None, "-")
    gradients = rows[rows["part"] == "gradient"]
    for name in KL_ESTIMATORS:
        for place, line in (("reward", "-"), ("loss", ":")):
            part = gradients[gradients["estimator"] == f"{name} in the {place}"]
            _points(gap, part, "measured", name, None, line)
            if name + place != "k1loss":  # it has no direction
                _points(cosine, part, "cosine", name, None, line)
    value.axhline(1, label="exact", **EXACT)
    cosine.axhline(1, **EXACT)
    gap.axhline(1, color="0.4", linewidth=1)
    cosine.plot([], [], "-", color="0.3", label="in the reward")
    cosine.plot([], [], ":", color="0.3", label="in the loss")
    value.set(xscale="log", ylabel="E[k] / KL", title="value")
    spread.set(xscale="log", yscale="log", ylabel="sd[k] / KL", title="spread over completions")
    cosine.set(xscale="log", xlabel="KL(pi || ref)", ylabel="cosine to grad KL(pi || ref)", title="direction")
    gap.set(xscale="log", yscale="log", xlabel="KL(pi || ref)", ylabel="|g - grad KL| / |grad KL|", ylim=(3e-4, None),
            title="gap (k1 in the reward: 0; grey: no signal at all)")  # fmt: skip
    legend_above(figure, value, cosine)


def _points(axis: Any, rows: pd.DataFrame, column: str, name: str, label: str | None, line: str) -> None:
    """All worlds as faint points, one of them joined by a line."""
    from figures.drawing.style import COLOURS

    colour, marker = _LOOKS[name]
    axis.plot(rows["KL"], rows[column], marker, color=COLOURS[colour], ms=3.5, alpha=0.35)
    one = rows[(rows["world"] == "stop (2,4)") & (rows["seed"] == 0)].sort_values("share")
    axis.plot(one["KL"], one[column], line + marker, color=COLOURS[colour], ms=5, label=label)


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
    how_to_read="Points are policies on lines away from their references in all worlds, joined for stop (2,4). Above, k1 and "
    "k3 have the right mean, k2 near the reference only; k1 is the noisiest there. Below, only k1 in the reward (cosine 1, "
    "gap 0) follows the gradient everywhere. In the loss (dotted) k1 does nothing; k2 and k3 come right near the "
    "reference. In the reward (solid) k2 and k3 do nothing there (gap 1); further away they may raise the KL.",
    parts=(
        Part(K3, "claim", "fails", every="world"),
        Part(K3_FORWARD, "control", "holds"),
        Part(K1_REWARD, "control", "holds"),
        Part(K1_LOSS, "control", "holds"),
        Part(K2_GIVEN, "control", "holds"),
        Part(K2_ONE, "control", "holds"),
        Part(REWARD_BIAS, "control", "holds"),
        Part(VALUES, "control", "holds"),
        Part(RATE, "control", "holds"),
        Part(K2_WHOLE, "control", "fails", every="world"),
        Part(IN_REWARD, "control", "fails", every="world"),
        Part(K2_VALUE, "control", "fails", every="world"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
    height=7.5,
)
