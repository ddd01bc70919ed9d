"""How far the attention costates E1 and E1b are from the value gradient: dense, terminal and hidden-readout rewards."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from envs.world import InputError
from figures.drawing.costate_errors import Drawn, draw_errors
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, report, vanishes
from figures.measures.token_systems import (
    REWARDS,
    build_policy,
    build_world,
    level_cosine,
    prompt_entropy,
    reaches,
    rms_gap,
    with_reward,
)
from theory.tokens.costates import expected_costates
from theory.tokens.forward_mode import forward_value_gradient

_ROUNDING = 1e-9  # of the value gradient
E1, E1B = "E1 = value gradient", "E1b = value gradient"
_LAST, _ZERO, _BOTH = "E1b one step before the end", "E1 of a token reward is 0", "E1 + E2 = value gradient"
_SERIES = {
    "attention": Drawn((E1,), "E1", "costate", "o"),
    "attention_expected": Drawn((E1B, _LAST), "E1b", "control", "s"),
}


@dataclass(frozen=True)
class AttentionCostateBiasedSetting:
    """One world with one kind of reward, one random policy at one temperature."""

    world: str
    reward: str
    temperature: float
    seed: int
    site: str = "layer1"

    def __post_init__(self) -> None:
        """Refuse a reward that does not exist."""
        if self.reward not in REWARDS:
            raise InputError(f"reward must be one of {', '.join(REWARDS)}; got {self.reward!r}")


def settings(preset: Preset) -> list[AttentionCostateBiasedSetting]:
    """Worlds x kinds of reward x temperatures x policies."""
    worlds, temperatures, seeds = {
        "tiny": (("copy (2,3)",), (1.0,), 1),
        "quick": (("garnet (4,4)", "parity (2,5)"), (0.3, 1.0, 3.0), 2),
        "full": (
            ("garnet (4,4)", "garnet (6,4)", "parity (2,5)", "copy (2,3)"),
            (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 10.0),
            10,
        ),
    }[preset]
    return [AttentionCostateBiasedSetting(*point) for point in product(worlds, REWARDS, temperatures, range(seeds))]


def measure(setting: AttentionCostateBiasedSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Root-mean-square gap of every costate over the prefixes of each length, in units of the value gradient; exact."""
    world = with_reward(build_world(setting.world).to(device), setting.reward, setting.seed)
    policy = build_policy(world, setting.seed, setting.temperature)
    costates = {name: expected_costates(world, policy, name, setting.site) for name in (*_SERIES, "total")}
    labels = {name: getattr(setting, name) for name in ("world", "reward", "temperature", "seed")}
    labels["H"] = prompt_entropy(world, policy)
    rows: list[Row] = []
    for k, reach in enumerate(reaches(world, policy)):
        level = {name: levels[k] for name, levels in costates.items()}
        rows += _level_rows({**labels, "k": k, "steps": world.horizon - k}, level, reach)
    total = costates["total"][0][:, -1]
    gap = (total - forward_value_gradient(world, policy, 1.0, setting.site)).norm()
    return rows + vanishes(_BOTH, gap / total.norm(), _ROUNDING, labels=labels)


def _level_rows(labels: dict[str, Any], costates: dict[str, Tensor], reach: Tensor) -> list[Row]:
    """E1 and E1b of one prefix length; with one step to go and a token reward E1b is exact, and is judged as such."""
    truth = costates["total"]
    gaps = {drawn.parts[0]: rms_gap(costates[name], truth, reach) for name, drawn in _SERIES.items()}
    if labels["reward"] != "readout":
        gaps[_ZERO] = float(costates["attention"].norm())
        if labels["steps"] == 1:
            gaps[_LAST] = gaps.pop(E1B)
    rows: list[Row] = []
    for part, gap in gaps.items():
        rows += vanishes(part, gap, _ROUNDING, labels=labels)
    for name in _SERIES:
        rows += report(f"cosine {name}", level_cosine(costates[name], truth, reach), 1.0, labels=labels)
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Relative error of E1 and E1b against the steps to go, one panel per kind of reward."""
    draw_errors(figure, rows, REWARDS, _SERIES, _ROUNDING)


CLAIM = Claim(
    name="attention_costate_biased",
    statement="The attention costates E1 and E1b are the value gradient",
    formula=r"\mathbb{E}[E_1] = \nabla V, \qquad \mathbb{E}[E_{1b}] = \nabla V",
    source="arXiv:2605.21654: autodiff through attention approximates the value gradient (E1, E1b of theory page section 3)",
    assumptions=("A5",),
    must_hold="E1b one step before the end, and E1 + E2 everywhere",
    must_fail="Both with more than one step to go, under dense, terminal and hidden-readout rewards",
    how_to_read="How far the exact mean of each costate is from the value gradient (dashed 0), over all prefixes with so many "
    "steps to go: medians over worlds and policies, bars the middle half. At the dotted 1 a costate is no better than 0, and "
    "E1 of a token reward is 0. E1b holds the reward of the next token alone: it is exact at one step to go, wrong beyond it, "
    "and (where all reward comes at the end) 0 there. With a hidden readout E1 and E1b are the same.",
    parts=(
        Part(E1, "claim", "fails", every="reward"),
        Part(E1B, "claim", "fails", every="reward"),
        Part(_LAST, "control", "holds"),
        Part(_ZERO, "control", "holds"),
        Part(_BOTH, "control", "holds"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
