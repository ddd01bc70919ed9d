"""Relaxed costates: bias and variance of straight-through, ReinMax, soft and Gumbel against alpha, temperature and tau_g."""

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from figures.drawing.bias_and_spread import draw_bias_and_spread
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Labels, Row, equals, report, vanishes
from figures.harness.statistics import Estimate, estimate
from figures.measures.sampled_updates import costate_samples
from figures.measures.token_systems import at_least, build_policy, build_world
from theory.tokens.costates import expected_costates, sampled_costates
from theory.tokens.forward_mode import forward_value_gradient
from theory.tokens.prefix_tree import token_roots

_ROUNDING = 1e-9  # of the value gradient
UNBIASED = {  # costate -> part
    "straight_through": "straight-through is unbiased",
    "reinmax": "ReinMax is unbiased",
    "soft": "soft is unbiased",
    "gumbel": "Gumbel is unbiased",
}
ENUMERATED, SAMPLED = ("straight_through", "reinmax", "soft"), ("score", "straight_through", "reinmax", "gumbel")
_OWN, _ONE, _MEANS = "soft = its own value gradient", "one token: exact", "sampled mean = exact mean"
_Case = tuple[TokenMDP, TokenPolicy, Tensor]  # and the value gradient


@dataclass(frozen=True)
class RelaxedCostatesSetting:
    """One world and random policy; `tau_g` are the temperatures of the Gumbel-softmax."""

    world: str
    temperature: float
    seed: int
    tau_g: tuple[float, ...]
    samples: int
    margin: float
    alphas: tuple[float, ...] = knob((0.0, 0.25, 0.5, 0.75, 1.0))
    site: str = knob("layer1")

    def __post_init__(self) -> None:
        """Refuse fewer samples than a standard error needs."""
        at_least(2, samples=self.samples)


def settings(preset: Preset) -> list[RelaxedCostatesSetting]:
    """Worlds x temperatures x policies."""
    if preset == "tiny":
        return [RelaxedCostatesSetting(world, 1.0, 0, (1.0,), 50, 0.1) for world in ("copy (2,3)", "one choice")]
    quick = preset == "quick"
    worlds = ("garnet (4,4)", "copy (2,3)", "one choice") + (() if quick else ("garnet (6,4)", "parity (2,5)"))
    temperatures, seeds = ((0.3, 1.0, 3.0), 1) if quick else ((0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0), 8)
    taus = (0.25, 1.0, 4.0) if quick else (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
    samples, margin = (8_000, 0.1) if quick else (200_000, 0.02)
    grid = product(worlds, temperatures, range(seeds))
    return [RelaxedCostatesSetting(world, tau, seed, taus, samples, margin) for world, tau, seed in grid]


def measure(setting: RelaxedCostatesSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Exact bias against grad V_1 for every alpha, and the samples' bias and spread at alpha = 1, at the (first) prompt."""
    world = build_world(setting.world).to(device)
    policy = build_policy(world, setting.seed, setting.temperature)
    truth, own = (forward_value_gradient(world, policy, alpha, setting.site)[0] for alpha in (1.0, 0.0))
    labels = {"world": setting.world, "temperature": setting.temperature, "seed": setting.seed}
    rows = _exact_rows((world, policy, truth), setting, labels)
    gap = (_mean(world, policy, "soft", setting.site) - own).norm() / own.norm()
    rows += vanishes(_OWN, gap, _ROUNDING, labels=labels)
    return rows + _sampled_rows((world, policy, truth), setting, rng, labels)


def _mean(world: TokenMDP, policy: TokenPolicy, name: str, site: str, alpha: float = 1.0) -> Tensor:
    """Exact mean of a costate at the first prompt."""
    return expected_costates(world, policy, name, site, alpha)[0][0, -1]


def _exact_rows(case: _Case, setting: RelaxedCostatesSetting, labels: Labels) -> list[Row]:
    """Relative bias of the enumerated costates; judged at alpha = 1 (soft: at its own alpha, 0)."""
    (world, policy, truth), rows = case, list[Row]()
    for name in ENUMERATED:
        for alpha in (1.0,) if name == "soft" else setting.alphas:
            bias = (_mean(world, policy, name, setting.site, alpha) - truth).norm() / truth.norm()
            here = {**labels, "costate": name, "alpha": 0.0 if name == "soft" else alpha}
            rows += report("bias", bias, labels=here)
            if alpha == 1:
                rows += vanishes(_ONE if world.horizon == 1 else UNBIASED[name], bias, _ROUNDING, labels=here)
    return rows


def _sampled_rows(case: _Case, setting: RelaxedCostatesSetting, rng: torch.Generator, labels: Labels) -> list[Row]:
    """Spread and bias of single samples, in units of the value gradient; their mean, component by component, judged."""
    world, policy, truth = case
    rows, roots, size = list[Row](), token_roots(world, policy, 0, []), float(truth.norm())
    for name in SAMPLED:
        for tau_g in setting.tau_g if name == "gumbel" else (1.0,):
            draw = partial(sampled_costates, world, policy, name, setting.site, rng=rng, tau_g=tau_g, roots=roots)
            values = costate_samples(setting.samples, draw)
            mean, here = estimate(values), {**labels, "costate": name, "tau_g": tau_g}
            rows += report("spread", values.std(0).norm() / size, 1.0, labels=here)
            bias, error = (np.linalg.norm(x) / size for x in (mean.mean - truth.cpu().numpy(), mean.standard_error))
            rows += report("sampled bias", Estimate(np.asarray(bias), np.asarray(error), mean.samples), labels=here)
            spread = values.std(0).clamp(min=_ROUNDING * size)  # the slope of one token does not depend on the sample
            judging: dict[str, Any] = {"margin": setting.margin, "labels": here, "axes": ("component",)}
            if name != "gumbel":
                exact = _mean(world, policy, name, setting.site)
                rows += equals(_MEANS, mean, exact, spread, tolerance=1e-12, **judging)
            elif world.horizon > 1:  # its noise is continuous: no exact mean is known
                rows += equals(UNBIASED[name], mean, truth, spread, **judging)
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Biases and spreads in the worlds where later tokens see earlier ones."""
    draw_bias_and_spread(rows[rows["world"] != "one choice"], figure)


CLAIM = Claim(
    name="relaxed_costates",
    statement="Relaxed costates (straight-through, ReinMax, soft, Gumbel) are the value gradient",
    formula=r"\mathbb{E}[E_3] = \mathbb{E}[E_4] = \mathbb{E}[E_5] = \nabla V_1",
    source="theory page section 3 (E3, E4, E5); the alternatives to the score costate in arXiv:2605.21654",
    assumptions=("A1",),
    must_hold="Straight-through, ReinMax and soft where one token decides all (the return is affine in it), and soft for its "
    "own objective, alpha = 0",
    must_fail="All four in every world where later tokens see earlier ones",
    how_to_read="In units of the value gradient of the discrete policy, medians over worlds and policies. Left and middle, "
    "exact biases (dashed: unbiased): straight-through and ReinMax begin at soft where alpha = 0. Right, the error of a mean "
    "of n samples, sqrt(bias^2 + spread^2 / n), at alpha = 1: relaxed costates are good with few samples and stop at their "
    "bias; the score costate goes on falling. Numbers at Gumbel are tau_g.",
    parts=(
        *(Part(part, "claim", "fails", every="world") for part in UNBIASED.values()),
        Part(_OWN, "control", "holds"),
        Part(_ONE, "control", "holds"),
        Part(_MEANS, "control", "holds"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
