"""SofT-GRPO and soft tokens: relaxed tokens that are fed on, as an additive-noise policy; and the form of the paper's code."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from agents.recipes.soft_thoughts import FLOOR
from figures.drawing.soft_thoughts import NOISES, draw_soft_thoughts
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, equals, report, vanishes
from figures.harness.statistics import estimate
from figures.measures import soft_thoughts as measures
from figures.measures.noise_ratios import CHANCES, CLAMPED, MOMENTS, TOKEN_KL, WHOLE, ratio_rows
from figures.measures.token_systems import build_policy, build_world
from theory.tokens.soft_thoughts import discrete_success, mean_success, soft_success, soft_token_success

MEAN, SAMPLED = "mean update = c_G(P) grad P", "sampled updates: the same mean"
ROADS, TO_TOKENS = "score = pathwise, with thoughts", "tau -> 0: the gradient of sampled tokens"
TO_MEAN, GAUSS_TO_TOKENS = "sigma -> 0: the gradient at alpha = 0", "sigma -> 0: the gradient of sampled tokens"
MASK, ALL_TOKENS = "mean over the mask: along grad J", "mean over all tokens: along grad J"
GAP, ANGLE, SAMPLED_ANGLE, GUMBEL, GAUSS = "gap", "angle", "sampled angle", *NOISES
LIMITS, UPDATES, CODE, FORMS, RATIOS = "limits", "updates", "code", "forms", "ratios"
_QUADRATURE, _LIMIT = 1e-6, 0.01  # the last is the distance, relative, that counts as arrived
_SEEN = 0.3  # deviation of a sampled mean, relative, that must be seen: a mean over two tokens would be off by 1/2


@dataclass(frozen=True)
class SoftThoughtsSetting:
    """One policy or world and what is measured there."""

    case: str
    seed: int
    world: str = "two answers"
    taus: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    sigmas: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)
    trained: tuple[float, ...] = (0.25, 2.0)  # values of tau for mean updates; sampled ones at the first
    spreads: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0)  # of the logits, in token worlds
    groups: int = 3000
    thoughts: int = knob(2)
    nodes: int = knob(100)  # of each thought's integral
    width: int = knob(8)  # of the networks of mean updates
    spread: float = knob(2.0)  # of the logits of policies with two tokens


def settings(preset: Preset) -> list[SoftThoughtsSetting]:
    """Random policies with two tokens, and with six; token worlds for the code's mask; pairs of laws."""
    seeds = range({"tiny": 1, "quick": 3, "full": 8}[preset])
    groups = {"tiny": 400, "quick": 3000, "full": 40_000}[preset]
    sizes: dict[str, Any] = {"nodes": 40, "taus": (0.003, 0.1), "trained": (0.5,)} if preset == "tiny" else {}
    both = [SoftThoughtsSetting(case, s, groups=groups, **sizes) for case in (LIMITS, UPDATES) for s in seeds]
    few = range(4 if preset == "full" else 1)
    code = [SoftThoughtsSetting(CODE, s, "six answers", groups=groups // 2, **sizes) for s in few]
    worlds = ("stop (3,3)", "lock (3,4)", "garnet (3,3)")[: 1 if preset == "tiny" else 3]
    masks = [SoftThoughtsSetting(FORMS, s, world) for world in worlds for s in few]
    return [*both, *code, *masks, SoftThoughtsSetting(RATIOS, 0)]


def measure(setting: SoftThoughtsSetting, rng: torch.Generator, device: str) -> list[Row]:
    """One case."""
    rows = {LIMITS: _limits, UPDATES: _updates, CODE: _code, FORMS: _forms}
    return ratio_rows() if setting.case == RATIOS else rows[setting.case](setting, rng, device)


def _limits(setting: SoftThoughtsSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Distances of gradients, relative: the smallest tau and sigma are judged, the others shown."""
    policy = measures.thinker(2, setting.seed, setting.spread, device=device)
    N, at, rows = setting.thoughts, {"seed": setting.seed}, list[Row]()
    token, mean = (f(policy, measures.PROMPT, N)[1] for f in (discrete_success, mean_success))
    for tau in setting.taus:
        gradient = soft_success(policy, measures.PROMPT, tau, N, setting.nodes).pathwise
        gap = (gradient - token).norm() / token.norm()
        rows += report(GAP, gap, labels=at | {"noise": GUMBEL, "size": tau})
        rows += vanishes(TO_TOKENS, gap, _LIMIT, labels=at) if tau == min(setting.taus) else []
    for sigma in setting.sigmas:
        gradient = soft_token_success(policy, measures.PROMPT, sigma, N, nodes=3).pathwise
        gap = (gradient - token).norm() / token.norm()
        rows += report(GAP, gap, labels=at | {"noise": GAUSS, "size": sigma})
        if sigma == min(setting.sigmas):
            rows += vanishes(TO_MEAN, (gradient - mean).norm() / mean.norm(), _LIMIT, labels=at)
            rows += vanishes(GAUSS_TO_TOKENS, gap, _LIMIT, labels=at)
    return rows


def _updates(setting: SoftThoughtsSetting, rng: torch.Generator, device: str) -> list[Row]:
    """GRPO's mean update with the whole density, exact and sampled."""
    policy = measures.thinker(2, setting.seed, setting.spread, setting.width, device)
    N, rows = setting.thoughts, list[Row]()
    for tau in reversed(setting.trained):
        at = {"seed": setting.seed, "tau": tau}
        both = soft_success(policy, measures.PROMPT, tau, N, setting.nodes)
        rows += vanishes(ROADS, (both.score - both.pathwise).norm() / both.pathwise.norm(), _QUADRATURE, labels=at)
        mean, target, kappa = measures.mean_update(both, policy, tau, N, setting.nodes)
        rows += vanishes(MEAN, (mean - target).norm() / target.norm(), _QUADRATURE, labels=at | {"kappa": kappa})
    found = measures.sampled_updates(measures.answers(), policy, measures.learner_of(tau, N), setting.groups, rng)
    along = estimate(found @ target / target.square().sum())
    return rows + equals(SAMPLED, along, 1.0, margin=_SEEN, labels={"seed": setting.seed})


def _code(setting: SoftThoughtsSetting, rng: torch.Generator, device: str) -> list[Row]:
    """The code's form beside the whole density, sampled with six tokens and the same noise."""
    policy, rows = measures.thinker(6, setting.seed, setting.spread, setting.width, device), list[Row]()
    angles = measures.sampled_angles(policy, setting.trained[0], setting.thoughts, setting.groups, rng)
    for form, angle in angles.items():
        rows += report(SAMPLED_ANGLE, angle, labels={"seed": setting.seed, "form": form})
    return rows


def _forms(setting: SoftThoughtsSetting, rng: torch.Generator, device: str) -> list[Row]:
    """The mean update of hard thoughts with all tokens, with their mean, and with the mean over likely ones."""
    world, rows = build_world(setting.world).to(device), list[Row]()
    for spread in setting.spreads:
        policy = build_policy(world, setting.seed, spread=spread)
        at = {"world": setting.world, "seed": setting.seed, "logits": spread}
        for form, angle in measures.masked_angles(world, policy, FLOOR).items():
            rows += report(ANGLE, angle, labels=at | {"form": form})
            rows += vanishes(MASK if form.endswith("mask") else ALL_TOKENS, angle, _QUADRATURE, labels=at)
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """The two limits of small noise, and the angles of mean updates."""
    draw_soft_thoughts(figure, rows[rows["part"] == GAP], rows[rows["part"] == ANGLE])


CLAIM = Claim(
    name="soft_thoughts",
    statement="SofT-GRPO is the additive-noise policy of the theorem",
    formula=r"\mathbb{E}[\mathrm{GRPO}]=c_G(P_\tau)\,\nabla P_\tau\qquad \nabla P_\tau\to\nabla P\ (\tau\to 0)",
    source="arXiv:2511.06411, its code (zz1358m/SofT-GRPO-master, commit 2b9d8ec), arXiv:2509.19170; theory page section 6",
    assumptions=("A1", "A2", "A3"),
    must_hold="With the whole noise density the mean update is c_G(P) grad P, and tau -> 0 is the sampled token; Gaussian "
    "noise on embeddings tends to the rollout at alpha = 0; ratios of noise densities have closed moments",
    must_fail="The code's mean over likely tokens as a multiple of the gradient; Gaussian noise tends to sampled tokens; the "
    "KL divergence of the noise is that of the token; the score of clamped noise has mean 0",
    how_to_read="Left, how far the exact gradient with two soft thoughts is from that of sampled tokens (dashed: equal). One "
    "line for each random policy. Right, the angle of the exact mean update to the gradient, where thoughts are hard (tau -> "
    "0): with the whole noise density, and with the mean over tokens of log p > -3 as in the paper's code.",
    parts=(
        *(Part(name, "claim", "holds") for name in (MEAN, TO_TOKENS)),
        *(Part(name, "control", "holds") for name in (SAMPLED, ROADS, TO_MEAN, MOMENTS, WHOLE, CHANCES, ALL_TOKENS)),
        Part(MASK, "control", "fails", every="world"),
        Part(GAUSS_TO_TOKENS, "control", "fails", every="seed"),
        *(Part(name, "control", "fails", every="laws") for name in (TOKEN_KL, CLAMPED)),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
