"""Value-gradient flow: what its transport budget bounds, and what it gains at the KL divergence that it spends."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from figures.drawing.value_flow import draw_value_flow
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row
from figures.measures import flow_clouds, flow_laws, flow_prompts
from figures.measures.value_flow import SYSTEMS, random_problem


@dataclass(frozen=True)
class ValueGradientFlowSetting:
    """A Gaussian problem or a token world, and its seed."""

    system: str
    seed: int
    particles: int = 0  # of a cloud, in a Gaussian problem
    steps: int = 0  # of the flow at a prompt
    rate: float = knob(1.0)  # of the flow at a prompt


def settings(preset: Preset) -> list[ValueGradientFlowSetting]:
    """Gaussian problems and token worlds by seeds."""
    systems = {"tiny": list(SYSTEMS)[1:2], "quick": list(SYSTEMS)[:3], "full": list(SYSTEMS)}[preset]
    worlds = ["lock (2,3)", "garnet (2,3)", "stop (2,4)", "arithmetic", "garnet (3,3)"]
    worlds = {"tiny": worlds[:1], "quick": worlds[:3], "full": worlds}[preset]
    particles, steps = {"tiny": (16, 4), "quick": (64, 20), "full": (256, 60)}[preset]
    seeds = range(8 if preset == "full" else 1)
    clouds = [ValueGradientFlowSetting(system, seed, particles=particles) for system in systems for seed in seeds]
    return clouds + [ValueGradientFlowSetting(world, seed, steps=steps) for world in worlds for seed in seeds]


def measure(setting: ValueGradientFlowSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Laws and clouds of a random Gaussian problem, or exact flows at the prompts of a world."""
    labels: Row = {"system": setting.system, "seed": setting.seed}
    if setting.system not in SYSTEMS:
        return flow_prompts.prompt_rows(setting.system, setting.seed, setting.steps, setting.rate, device, labels)
    problem = random_problem(setting.system, rng)
    rows = flow_laws.law_rows(problem, labels) + flow_clouds.cloud_rows(problem, setting.particles, rng, labels)
    if SYSTEMS[setting.system][1]:
        for i in range(len(problem.m)):
            rows += flow_laws.direction_rows(problem.along(i), labels | {"direction": i})
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """W2 and KL against time; the efficiency at a prompt against the divergence."""
    draw_value_flow(figure, rows)


CLAIM = Claim(
    name="value_gradient_flow",
    statement="The transport budget of value-gradient flow is an implicit KL regulariser",
    formula=r"a\leftarrow a+\varepsilon\,\nabla Q(a)/\alpha\qquad \mathrm W_2\leq\int\sqrt{\mathbb E\,|\dot a|^2}\,\mathrm dt"
    r"\qquad\mathrm{KL}\to\infty",
    source="Value-gradient flow; official code ryanxhr/vgf@97465e5; theory page section 6",
    assumptions=("A1", "A5"),
    must_hold="The budget bounds W2, whose closed form is that of the cheapest assignment of particles; the gain is at most "
    "the KL headroom; the first step at a prompt has the efficiency of its formula, and J rises",
    must_fail="The flow is the KL-regularised optimum for some beta; the budget bounds its KL divergence; the costate E1 alone "
    "moves a prompt; alpha matters for one particle with Adam on the particles, the form of the official code",
    how_to_read="Left, Gaussian laws: the distance W2 that the flow has moved stays below its bound, while the KL divergence "
    "from the reference grows as long as the flow runs (marks: computed from the laws, dashed: closed forms). Right, token "
    "policies: the gain in value at a prompt as a share of the largest gain within the same KL divergence; dashed: the "
    "formula for small steps. 1 would be KL-regularised.",
    parts=(
        Part(flow_laws.BOUND, "claim", "holds"),
        Part(flow_laws.CLOSED, "claim", "holds"),
        Part(flow_laws.SOME_BETA, "claim", "fails", every="system"),
        Part(flow_laws.KL_BUDGET, "claim", "fails", every="system"),
        Part(flow_laws.HEADROOM, "claim", "holds"),
        Part(flow_prompts.FIRST, "claim", "holds"),
        Part(flow_prompts.RISES, "claim", "holds"),
        *(Part(name, "control", "holds") for name in (flow_laws.SQUARE, flow_laws.BEST_MAP, flow_prompts.VALUE)),
        *(Part(name, "control", "holds") for name in (flow_clouds.TRANSLATED, flow_clouds.CENTRED, flow_clouds.REACH)),
        Part(flow_clouds.PLAIN, "control", "holds"),
        Part(flow_clouds.OFF_CENTRE, "control", "fails", every="system"),
        Part(flow_prompts.E1, "control", "fails", every="system"),
        Part(flow_clouds.ADAM, "control", "fails", every="system"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
