"""What GRPO with std ascends: the sum of F_G(P) over prompts at group size G, 2 arcsin sqrt P as G grows."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from agents.recipes.learners import grpo
from figures.drawing.kappa import draw_objectives
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, at_most, equals, report, vanishes
from figures.measures.token_systems import build_policy, build_world
from theory.differences import directional_slope
from theory.groups import large_groups as limit
from theory.groups.binary_rewards import alignment, grpo_kappa
from theory.groups.expected_update import expected_update
from theory.groups.objectives import of_policy, prompt_gradients, std_objective

_STEP = 2e-4  # of the differences, along directions of length 1
_DIFFERENCES = 1e-8  # their error, relative to the gradient
_ROUNDING, _PARALLEL = 1e-12, 1e-9
_FINITE, _SMALL = "finite G: the gradient of F_G", "G = 2 and 3: parallel to grad J"
_BELOW, _WEIGHT = "weight below its limit", "weight: error 1/G"
_OBJECTIVE, _FASTER = "objective: error 1/sqrt G", "objective: error 1/G"
_ARCSINE, _J = "2 arcsin sqrt P at finite G", "GRPO climbs J"
_COSINE, _SHARE = "cosine", "share of the update"
_ANY = "any"  # stands for all worlds: the closed forms alone
_LARGEST = (2, 4, 8, 16, 32, 64, 128, 256, 512)  # group sizes of the closed forms
_FROM = 64  # errors are judged from this group size on


@dataclass(frozen=True)
class GrpoArcsineSetting:
    """One world, one random policy, its group sizes; the world "any" stands for the closed forms alone.

    Their errors are judged at the success probabilities `chances`.
    """

    world: str
    groups: tuple[int, ...]
    temperature: float = 1.0
    seed: int = 0
    directions: int = 3
    chances: tuple[float, ...] = knob((0.1, 0.3, 0.5, 0.8))


def settings(preset: Preset) -> list[GrpoArcsineSetting]:
    """Worlds of several prompts x temperatures x seeds, and the limit by itself."""
    temperatures = {"tiny": (1.0,), "quick": (0.5, 1.0), "full": (0.3, 0.5, 1.0, 3.0)}[preset]
    groups = {"tiny": (2, 4), "quick": (2, 3, 4, 16), "full": (2, 3, 4, 8, 16)}[preset]
    seeds, directions = {"tiny": (1, 1), "quick": (2, 2), "full": (5, 10)}[preset]
    worlds = ("arithmetic (3,2)", "copy (2,3)")[: 1 if preset == "tiny" else None]
    return [GrpoArcsineSetting(_ANY, _LARGEST)] + [
        GrpoArcsineSetting(world, groups, tau, seed, directions)
        for world in worlds
        for tau in temperatures
        for seed in range(seeds)
    ]


def measure(setting: GrpoArcsineSetting, rng: torch.Generator, device: str) -> list[Row]:
    """The update of one policy against the slopes of its objective and against other gradients; or the limit."""
    if setting.world == _ANY:
        return [row for G in setting.groups for row in _limit_rows(G, setting.chances)]
    world = build_world(setting.world).to(device)
    policy = build_policy(world, setting.seed, setting.temperature)
    labels = {"world": setting.world, "temperature": setting.temperature, "seed": setting.seed}
    P, gradients = prompt_gradients(world, policy)
    rows = _prompt_rows(P, world.weights[:, None] * gradients, labels)
    for G in setting.groups:
        for std in ("population", "sample") if G == 4 else ("population",):
            update = expected_update(world, policy, grpo(std, "row sum"), G).mean.flat
            objective, own = of_policy(world, std_objective(G, std == "population")), {**labels, "G": G, "std": std}
            for i in range(setting.directions):
                direction = _direction(update, rng)
                slope = directional_slope(policy, direction, objective, _STEP)
                along, target = (float(x) / float(update.norm()) for x in (update @ direction, slope))
                rows += equals(_FINITE, along, target, tolerance=_DIFFERENCES, labels={**own, "direction": i})
            # c_2 = 1 and c_3 = sqrt 2 for every P: there, and there only, no prompt counts more than in J
            for part, weight in ((_ARCSINE, (P * (1 - P)).rsqrt()), (_SMALL if G < 4 else _J, torch.ones_like(P))):
                bias = alignment(update, (world.weights * weight) @ gradients).bias
                rows += vanishes(part, bias, _PARALLEL, labels=own)
    return rows


def _direction(update: Tensor, rng: torch.Generator) -> Tensor:
    """A random unit vector, half along the update, so that none is blind to it."""
    noise = torch.randn(len(update), generator=rng, dtype=update.dtype).to(update.device)
    direction = noise / noise.norm() + update / update.norm()
    unit: Tensor = direction / direction.norm()
    return unit


def _prompt_rows(P: Tensor, gradients: Tensor, labels: Row) -> list[Row]:
    """Reported: cosines of the update at any G to two gradients; each prompt's share in it over its share in grad J."""
    rows: list[Row] = []
    totals = {"J": gradients.sum(0), "2 arcsin sqrt P": (P * (1 - P)).rsqrt() @ gradients}
    size = gradients.norm(dim=1) / gradients.norm(dim=1).sum()
    for G in _LARGEST:
        weight, own = grpo_kappa(P, G), {**labels, "G": G}
        for of, total in totals.items():
            rows += report(_COSINE, alignment(weight @ gradients, total).cosine, 1.0, labels={**own, "of": of})
        for prompt, share in enumerate(weight / (weight @ size) if G in (2, 8, 64) else ()):
            rows += report(_SHARE, share, 1.0, labels={**own, "P": float(P[prompt]), "prompt": prompt})
    return rows


def _limit_rows(G: int, chances: tuple[float, ...]) -> list[Row]:
    """Weight and objective against their limits and the first terms of their errors."""
    grid, P = torch.linspace(0, 1, 101, dtype=torch.float64)[1:-1], torch.tensor(chances, dtype=torch.float64)
    ratio, labels, axes = grpo_kappa(grid, G) * (grid * (1 - grid)).sqrt(), {"world": _ANY, "G": G}, ("chance",)
    rows = at_most(_BELOW, ratio, 1.0, tolerance=_ROUNDING, labels=labels, axes=("grid",))
    if G < _FROM:
        return rows
    second, leading, gap = limit.kappa_gap_correction(P, G), limit.leading_objective_gap(G), limit.objective_gap(P, G)
    rows += equals(_WEIGHT, limit.kappa_gap_ratio(P, G), 1.0 + second, tolerance=second, labels=labels, axes=axes)
    target = limit.approximate_objective_gap(P, G) / leading
    rows += equals(_OBJECTIVE, gap / leading, target, tolerance=1 / G, labels=labels, axes=axes)
    ratio, judged = G * gap / (_FROM * limit.objective_gap(P, _FROM)), G > _FROM  # of an error that falls like 1/G: 1
    return rows + equals(_FASTER, ratio, 1.0, tolerance=4 / _FROM, judged=judged, labels=labels, axes=axes)


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """What is ascended, its slope, and where the update points."""
    draw_objectives(figure, rows[rows["part"] == _COSINE])


CLAIM = Claim(
    name="grpo_arcsine",
    statement="GRPO with std climbs F_G(P), which tends to 2 arcsin sqrt P",
    formula=r"\mathbb{E}[\text{update}] = \nabla_\theta\sum_x w_x F_G(P_x),\qquad F_G(P)=\int_0^P c_G,\qquad"
    r" F_G(P) = 2\arcsin\sqrt P + \frac{\zeta(1/2)}{\sqrt G} + O(1/G)",
    source="theory page section 4; the error terms are ours",
    assumptions=("A5",),
    must_hold="Binary rewards, no length factor, on-policy, any prompts, population and sample std: F_G at every G; "
    "c_G <= 1/sqrt(P(1-P)), with equality only in the limit; c_2 = 1 and c_3 = sqrt 2, where GRPO climbs J",
    must_fail="2 arcsin sqrt P at finite G; J from G = 4 on; an error of the objective that falls like 1/G",
    how_to_read="Left, what GRPO climbs at each group size: straight (J itself) at G = 2, near the dashed 2 arcsin sqrt P at "
    "large G; the gap falls like 1.46 / sqrt G. Middle, the weight of a prompt: it saturates at sqrt(G-1), below the dashed "
    "limit, where P < 1/G. Right, the mean update over prompts (closed form) turns from grad J to the arcsine's.",
    parts=(
        *(Part(name, "claim", "holds") for name in (_FINITE, _SMALL, _BELOW, _WEIGHT, _OBJECTIVE)),
        *(Part(name, "control", "fails", every="G") for name in (_ARCSINE, _J, _FASTER)),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
