"""On-policy distillation from one and from several teachers: where it ends, and what its objective's minimiser is."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from agents.policies.prefix_table import PrefixTable
from figures.drawing.distillation import draw_distillation
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, equals, report, vanishes
from figures.measures.distillation import at_prefixes, by_penalty, end_of, mixture, objective
from figures.measures.tables import table_of, word_distance
from figures.measures.token_systems import build_world
from theory.tokens.tilted_laws import locally, product_of_experts

ONE_TEACHER, ONE_STEP = "one teacher: ends at it", "one step: ends at the minimiser"
LOCAL, MINIMISER = "ends at the product of each token", "ends at the minimiser"
IN_REWARD, VALUE = "k1 in the reward ends at the minimiser", "least objective = -log Z"
SAMPLED, FORWARD = "k2 of the sampled token has the same mean", "with KL(E || pi): ends at the product of each token"
EXCESS = "excess"
_ROUNDING, _END = 1e-10, 1e-8  # of one evaluation; of an ascent that has come to rest
DISTILLED, PENALISED = "on-policy distillation", "k1 in the reward"


@dataclass(frozen=True)
class OnPolicyDistillationSetting:
    """One world, some random teachers with weights 1, 1/2, 1/3, ... over their sum, and a random student."""

    world: str
    teachers: int
    seed: int
    spread: float = knob(2.0)  # standard deviation of the logits of teachers and student


def settings(preset: Preset) -> list[OnPolicyDistillationSetting]:
    """Worlds of one step, of one length and of many, by numbers of teachers and seeds."""
    worlds = ("one choice of 3", "lock (2,3)", "garnet (3,3)", "stop (2,4)")
    counts = {"tiny": (1, 2), "quick": (1, 2, 3), "full": (1, 2, 3, 5, 8)}[preset]
    seeds = range(6 if preset == "full" else 1)
    shown = worlds[:2] if preset == "tiny" else worlds
    return [OnPolicyDistillationSetting(world, count, seed) for world in shown for count in counts for seed in seeds]


def measure(setting: OnPolicyDistillationSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Three ways from one student by exact mean updates, their ends against the two products, and both objectives."""
    world = build_world(setting.world).to(device)
    seeds = range(100 * setting.seed, 100 * setting.seed + setting.teachers + 1)
    tables = [PrefixTable(world, seed=seed, spread=setting.spread).to(device) for seed in seeds]
    student, teachers = tables[0], tables[1:]
    weights = 1 / torch.arange(1, len(teachers) + 1).to(student.logits)
    weights = weights / weights.sum()
    own = product_of_experts(world, teachers, weights.tolist())
    best = table_of(world, own.log_pi)
    each = table_of(world, product_of_experts(world, teachers, weights.tolist(), locally).log_pi)
    least = -float(world.weights @ own.log_Z[0])
    labels: Row = {"world": setting.world, "teachers": setting.teachers, "seed": setting.seed}
    rows = equals(VALUE, objective(world, best, teachers, weights), least, tolerance=_ROUNDING, labels=labels)
    full, k2 = at_prefixes(world, teachers, weights), by_penalty(world, teachers, weights, "kl_loss", "k2")
    rows += vanishes(SAMPLED, (full(student) - k2(student)).abs().max(), _ROUNDING, labels=labels)
    ways = {DISTILLED: full, PENALISED: by_penalty(world, teachers, weights, "kl_reward", "k1")}
    ends = {name: end_of(world, field, student) for name, field in ways.items()}
    first = ONE_TEACHER if len(teachers) == 1 else ONE_STEP if world.horizon == 1 else MINIMISER
    compared = [(first, DISTILLED, best), (LOCAL, DISTILLED, each), (IN_REWARD, PENALISED, best)]
    for part, name, law in compared:
        rows += vanishes(part, word_distance(world, law, ends[name]), _END, labels={**labels, "way": name})
    for name, end in ends.items():
        excess = objective(world, end, teachers, weights) - least
        rows += report(EXCESS, excess if abs(excess) > _ROUNDING else 0.0, labels={**labels, "way": name})
    if len(teachers) == 1:
        return rows
    forward = at_prefixes(world, teachers, weights, forward=True)
    other = end_of(world, forward, student, mixture(teachers, weights), rate=0.5)
    return rows + vanishes(FORWARD, word_distance(world, each, other), _END, labels=labels)


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """The objective at both ends above its least value, and the distance of distillation's end, by number of teachers."""
    away = rows[rows["part"].isin((ONE_TEACHER, ONE_STEP, MINIMISER, IN_REWARD))]
    draw_distillation(figure, rows[rows["part"] == EXCESS], away)


CLAIM = Claim(
    name="on_policy_distillation",
    statement="On-policy distillation ends at the policy that minimises its sum of KL divergences to the teachers",
    formula=r"\mathrm{ends\ at}\ \pi(a|s)\propto\prod_i E_i(a|s)^{w_i}\qquad"
    r"\arg\min_\pi\sum_i w_i\,\mathrm{KL}(\pi\|E_i)\propto\prod_i E_i(o)^{w_i}",
    source="arXiv:2606.19348, sections 5.1 and 5.2, as two public implementations have it; theory page section 6",
    assumptions=("A5",),
    must_hold="With one teacher, or in one step, it ends at the minimiser; it always ends at the product of each token; k1 of "
    "the teachers in the reward ends at the minimiser; the sampled token's k2 has the same mean as all tokens",
    must_fail="With several teachers and steps it ends at the minimiser; the other divergence ends at the same product",
    how_to_read="A table that follows the exact mean update of each method until it is at rest. Left, how far the objective, "
    "the weighted sum of KL divergences to the teachers, is above its least value (dashed). Right, how far the law "
    "of completions is from the minimiser. One mark for each world.",
    parts=(
        Part(MINIMISER, "claim", "fails", every="world"),
        *(Part(name, "control", "holds") for name in (ONE_TEACHER, ONE_STEP, LOCAL, IN_REWARD, VALUE, SAMPLED)),
        Part(FORWARD, "control", "fails", every="world"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
