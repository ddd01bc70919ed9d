"""The score costate E2 is the value gradient at every prefix, layer and entropy (token reward, alpha = 1)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from agents.policies.closed_attention import ClosedAttention, everything
from envs.token_mdp import TokenMDP
from figures.harness.claim import Claim, Part, Preset, Row, compare
from figures.harness.statistics import estimate
from figures.measures.token_systems import LAYERS, build_policy, build_world
from theory.tokens.costates import expected_costates, sampled_costates
from theory.tokens.forward_mode import forward_value_gradient
from theory.tokens.prefix_tree import grow, prefix_roots
from theory.tokens.softmax_bounds import entropy

_ROUNDING = 1e-9
_NO_CREDIT = "distractor"  # its reward hangs on the first token alone: no credit has to come back through attention
_SAMPLED = "garnet"  # dense rewards: where a reward is rare, a sample of any affordable size may hold none
SITES = ("embedding", *(f"layer{i + 1}" for i in range(LAYERS)))


@dataclass(frozen=True)
class ScoreCostateUnbiasedSetting:
    """One world, one random policy at one temperature, one site; sampled costates at the prompt as well."""

    world: str
    temperature: float
    site: str
    samples: int
    margin: float


def settings(preset: Preset) -> list[ScoreCostateUnbiasedSetting]:
    """Worlds x temperatures x sites."""
    samples, margin = {"quick": (20_000, 0.05), "full": (1_000_000, 0.01)}[preset]
    temperatures = {"quick": (0.2, 1.0, 5.0), "full": (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)}[preset]
    worlds = ("garnet", "lock", "arithmetic", "distractor")
    return [
        ScoreCostateUnbiasedSetting(world, tau, site, samples, margin)
        for world in worlds
        for tau in temperatures
        for site in SITES
    ]


def measure(setting: ScoreCostateUnbiasedSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Exact E2 against forward-mode value gradients at sampled prefixes, and the Monte Carlo mean at the prompt."""
    world = build_world(setting.world)
    policy = build_policy(world, seed=1, temperature=setting.temperature)
    score = expected_costates(world, policy, "score", setting.site)
    detached = expected_costates(world, ClosedAttention(policy, everything), "score", setting.site)
    H = entropy(torch.softmax(policy(policy.embed(world.prompts))[:, -1], -1)).mean().detach()
    control = "report" if setting.world == _NO_CREDIT else "=="
    size = max(float(level.norm(dim=-1).max()) for level in score)  # a prefix whose fate is sealed has gradient 0
    rows: list[Row] = []
    for k, truth in enumerate(_gradients(world, policy, setting.site)):
        labels = {
            "world": setting.world,
            "temperature": setting.temperature,
            "site": setting.site,
            "k": k,
            "H": float(H),
        }
        for part, found, relation in (("every prefix", score, "=="), ("keys and values detached", detached, control)):
            worst = (found[k][:, -1] - truth).norm(dim=-1).max() / size
            rows += compare(part, worst, 0.0, tolerance=_ROUNDING, labels=labels, relation=relation)
    if setting.world != _SAMPLED:
        return rows
    return rows + _sampled_rows(setting, world, policy, score[0][0, -1], rng, labels)


def _gradients(world: TokenMDP, policy: Any, site: str) -> Iterator[Tensor]:
    """Value gradients of all prefixes, level by level, the prefixes being the roots of trees: forward mode, no surrogate."""
    with torch.no_grad():
        tree = grow(world, policy)
        levels = [None, *(prefix_roots(tree, policy, k) for k in range(1, world.horizon))]
    for roots in levels:
        yield forward_value_gradient(world, policy, 1.0, site, roots=roots)


def _sampled_rows(
    setting: ScoreCostateUnbiasedSetting,
    world: TokenMDP,
    policy: Any,
    exact: Tensor,
    rng: torch.Generator,
    labels: dict[str, Any],
) -> list[Row]:
    """The Monte Carlo mean of E2 at the prompt, component by component, in units of its spread."""
    found = sampled_costates(world, policy, "score", setting.site, setting.samples, rng)[0, :, -1]
    result = estimate(found)
    scale = found.std(0)  # a spread is seen to margin: 1 / sqrt(samples) of it in standard errors
    return compare("sampled mean", result.mean, exact, result.standard_error, result.samples, scale, margin=setting.margin,
                   labels=labels, axes=("component",))  # fmt: skip


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Relative error against entropy for the whole costate and with the past detached; sampled deviations on the right."""
    from figures.drawing.panels import deviations_panel, legend_above
    from figures.drawing.style import COLOURS, EXACT, MARKERS

    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for part, colour, name in (
        ("every prefix", "costate", "score costate E2"),
        ("keys and values detached", "control", "keys and values detached"),
    ):
        group = rows[rows["part"] == part]
        marker = MARKERS[0] if colour == "costate" else "x"
        left.plot(
            group["H"], group["measured"].clip(lower=1e-17), marker, color=COLOURS[colour], label=name, ms=5, alpha=0.6
        )
    left.axhline(_ROUNDING, label="rounding limit", **EXACT)
    left.set(
        yscale="log",
        xlabel="entropy at the prompt (nats)",
        ylabel="|E2 - grad V| / largest |grad V|",
        title="every prefix, site, world",
    )
    sampled = rows[rows["part"] == "sampled mean"]
    deviations_panel(right, sampled, "H", sampled, jitter=0)
    right.set(
        xlabel="entropy at the prompt (nats)", ylabel="sampled mean - exact (standard errors)", title="Monte Carlo"
    )
    legend_above(figure, left)


CLAIM = Claim(
    name="score_costate_unbiased",
    statement="The score costate is the value gradient at every prefix, layer and entropy",
    formula=r"\mathbb{E}\left[\nabla_\delta\sum_{k\ge t}\gamma^{k-t}\hat A_k\log\pi(c_k)\,\middle|\,\text{prefix}\right]"
    r" = \nabla_\delta V(\text{prefix})",
    source="arXiv:2605.21654, discrete claim; theory page section 3 (E2)",
    assumptions=("A5",),
    must_hold="Token reward, alpha = 1, random transformers at temperatures 0.2 to 5, all sites, every prefix",
    must_fail="Keys and values of the past detached: credit cannot flow back through attention",
    how_to_read="Left, the exact mean of the score costate against the value gradient by another road: blue must stay "
    "under the dashed rounding limit at every entropy; orange is the same with the past detached from "
    "autograd. Right, means of sampled costates lie in the grey band around the exact value.",
    parts=(
        Part("every prefix", "claim", "holds"),
        Part("sampled mean", "claim", "holds"),
        Part("keys and values detached", "control", "fails", every="world"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
