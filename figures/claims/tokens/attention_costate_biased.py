"""How far the attention costates E1 and E1b are from the value gradient: dense, terminal and hidden-readout rewards."""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from envs.token_mdp import TokenMDP
from envs.world import InputError
from figures.harness.claim import Claim, Part, Preset, Row, compare
from figures.measures.token_systems import WIDTH, build_policy, build_world, reaches, rms_gap
from theory.tokens.costates import expected_costates
from theory.tokens.forward_mode import forward_value_gradient
from theory.tokens.softmax_bounds import entropy

_ROUNDING = 1e-9
E1, E1B = "E1 = value gradient", "E1b = value gradient"
_LAST, _ZERO, _BOTH = "E1b one step before the end", "E1 of a token reward is 0", "E1 + E2 = value gradient"
REWARDS = ("dense", "terminal", "readout")


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
        "quick": (("garnet (4,4)", "parity (2,5)"), (0.3, 1.0, 3.0), 2),
        "full": (
            ("garnet (4,4)", "garnet (6,4)", "parity (2,5)", "copy (2,3)"),
            (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 10.0),
            10,
        ),
    }[preset]
    return [AttentionCostateBiasedSetting(world, reward, tau, seed)
            for world in worlds for reward in REWARDS for tau in temperatures for seed in range(seeds)]  # fmt: skip


def with_reward(world: TokenMDP, kind: str, seed: int) -> TokenMDP:
    """The same transitions under another kind of reward: random tables at every step or the last one, or a random readout."""
    rng = torch.Generator().manual_seed(1000 + seed)
    r = torch.rand(world.r.shape, generator=rng, dtype=torch.float64)
    if kind == "terminal":
        r[:-1] = 0
    if kind == "readout":
        return replace(
            world, r=0 * r, readout=torch.randn(WIDTH, generator=rng, dtype=torch.float64), optimal_return=None
        )
    return replace(world, r=r, optimal_return=None)


def measure(setting: AttentionCostateBiasedSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Root-mean-square gap of every costate over the prefixes of each length, in units of the value gradient; exact."""
    world = with_reward(build_world(setting.world), setting.reward, setting.seed)
    policy = build_policy(world, setting.seed, setting.temperature)
    found = {
        name: expected_costates(world, policy, name, setting.site)
        for name in ("attention", "attention_expected", "total")
    }
    H = float(entropy(torch.softmax(policy(policy.embed(world.prompts))[:, -1], -1)).mean().detach())
    labels = {
        "world": setting.world,
        "reward": setting.reward,
        "temperature": setting.temperature,
        "seed": setting.seed,
        "H": H,
    }
    rows: list[Row] = []
    for k, reach in enumerate(reaches(world, policy)):
        here = {**labels, "k": k, "steps": world.horizon - k}
        rows += _compared(here, {name: costates[k] for name, costates in found.items()}, reach)
    gap = (found["total"][0][:, -1] - forward_value_gradient(world, policy, 1.0, setting.site)).norm()
    return rows + compare(_BOTH, gap / found["total"][0][:, -1].norm(), 0.0, tolerance=_ROUNDING, labels=labels)


def _compared(labels: dict[str, Any], found: dict[str, Tensor], reach: Tensor) -> list[Row]:
    """E1 and E1b of one prefix length; with one step to go and a token reward E1b is exact, and is judged as such."""
    truth, token = found["total"], labels["reward"] != "readout"
    gaps = {E1: rms_gap(found["attention"], truth, reach), E1B: rms_gap(found["attention_expected"], truth, reach)}
    if token:
        gaps[_ZERO] = float(found["attention"].norm())
        if labels["steps"] == 1:
            gaps[_LAST] = gaps.pop(E1B)
    rows: list[Row] = []
    for part, gap in gaps.items():
        rows += compare(part, gap, 0.0, tolerance=_ROUNDING, labels=labels)
    cosines = {name: _cosine(found[name], truth, reach) for name in ("attention", "attention_expected")}
    for name, cosine in cosines.items():
        rows += compare(f"cosine {name}", cosine, 1.0, relation="report", labels=labels)
    return rows


def _cosine(found: Tensor, truth: Tensor, reach: Tensor) -> float:
    """Cosine over all prefixes of a level together, each by its probability; 0 where one of both is 0."""
    dot = lambda x, y: float(reach @ (x[:, -1] * y[:, -1]).sum(-1))  # noqa: E731
    sizes = dot(found, found) * dot(truth, truth)
    return dot(found, truth) / sizes**0.5 if sizes > 0 else 0.0


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Relative error of E1 and E1b against the steps to go, one panel per kind of reward, with the mean cosine."""
    from figures.drawing.panels import legend_above
    from figures.drawing.style import COLOURS, EXACT, MARKERS

    axes = figure.subplots(1, len(REWARDS), sharey=True)
    series = (
        ((E1,), "attention", "E1", "costate", -0.12),
        ((E1B, _LAST), "attention_expected", "E1b", "control", 0.12),
    )
    for axis, reward in zip(axes, REWARDS, strict=True):
        own = rows[rows["reward"] == reward]
        for i, (parts, name, label, colour, shift) in enumerate(series):
            group = own[own["part"].isin(parts)]
            axis.plot(group["steps"] + shift, group["measured"].clip(lower=1e-3), MARKERS[i], color=COLOURS[colour], ms=4,
                      alpha=0.35, label=label)  # fmt: skip
            middle = group.groupby("steps")["measured"].median().clip(lower=1e-3)
            axis.plot(middle.index + shift, middle, "_", color=COLOURS[colour], ms=16, mew=2.5)
            cosine = own[(own["part"] == f"cosine {name}") & (own["k"] == 0)]["measured"].mean()
            axis.text(0.22, 0.30 - 0.06 * i, f"cosine of {label} at the prompt: {cosine:.2f}", color=COLOURS[colour],
                      transform=axis.transAxes, fontsize=9)  # fmt: skip
        axis.axhline(1, label="as far off as 0 is", **EXACT)
        axis.set(yscale="log", title=f"{reward} reward", xlabel="steps to go", ylim=(5e-4, 20))
    axes[0].set_ylabel("|E - grad V| / |grad V|  (rms; 0 shown at 0.001)")
    legend_above(figure, axes[0])


CLAIM = Claim(
    name="attention_costate_biased",
    statement="The attention costates E1 and E1b are the value gradient",
    formula=r"\mathbb{E}[E_1] = \nabla V, \qquad \mathbb{E}[E_{1b}] = \nabla V",
    source="arXiv:2605.21654: autodiff through attention approximates the value gradient (E1, E1b of theory page section 3)",
    assumptions=("A5",),
    must_hold="E1b one step before the end, and E1 + E2 everywhere",
    must_fail="Both with more than one step to go, under dense, terminal and hidden-readout rewards",
    how_to_read="Each mark is one policy: how far the exact mean of the costate is from the value gradient over all prefixes "
    "with so many steps to go; bars are medians, cosines means. On the dashed line a costate is no better than 0, and E1 of a "
    "token reward is 0. E1b sees what the next token is paid: exact at one step to go, off by half to all beyond it, and "
    "blind where all is paid at the end. With a hidden readout both are the same.",
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
