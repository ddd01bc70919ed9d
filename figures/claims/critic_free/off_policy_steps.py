"""How an update leaves the value gradient once the policy has moved away from its rows: inner epochs, clips, stale rows."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from figures.drawing.off_policy import draw_off_policy
from figures.drawing.panels import with_columns
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, at_least, vanishes
from figures.measures import off_policy
from figures.measures.off_policy import LOCK, ONE, STOP, relative_gap, sine
from figures.measures.token_systems import build_policy
from theory.groups.expected_update import ExpectedUpdate, expected_update

FIRST, LATER, STALE = "first step: along grad J", "later steps: along grad J", "stale rows: along grad J"
WHOLE, ONE_TOKEN = "whole-row importance: grad J", "one token: importance: grad J"
LAST, EARLIER = "token importance, last token: grad V", "token importance, first token: grad V"
ONE_WINNER = "one winning row, no baseline: along grad J"
CLIP, NO_CLIP = "the clip comes to act", "without a clip no token is silenced"
_ROUNDING, _SHARE = 1e-9, 0.01
_CLIPPED = ("dr_grpo", "grpo", "dapo", "gspo")
_WITH_LENGTH = ("dapo", "gspo", "cispo")  # not along grad J even at the first step, where lengths vary


@dataclass(frozen=True)
class OffPolicyStepsSetting:
    """One world and policy; `steps` inner steps, the first of length `stride` in the parameters, or ages of stale rows."""

    world: str
    seed: int = 1
    steps: int = 6
    stride: float = 0.004
    ages: tuple[int, ...] = ()
    group: int = 3
    temperature: float = 1.0
    ascent_rate: float = knob(0.0003)


def settings(preset: Preset) -> list[OffPolicyStepsSetting]:
    """Inner steps in every world, stale rows where completions have many lengths."""
    points: list[OffPolicyStepsSetting] = []
    steps, few, ages, group = (1, 2, (1,), 2) if preset == "tiny" else (6, 3, (1, 3, 9, 27), 3)
    for seed in {"tiny": (1,), "quick": (1,), "full": (0, 1, 2, 3)}[preset]:
        points += [
            OffPolicyStepsSetting(STOP, seed, steps, group=group),
            OffPolicyStepsSetting(STOP, seed, ages=ages, group=group),
            OffPolicyStepsSetting(ONE, seed, few, group=group),
            OffPolicyStepsSetting(LOCK, seed, few, group=group, temperature=2.0),
        ]
    return points


def measure(setting: OffPolicyStepsSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Inner steps of every learner, or its update on rows of older policies."""
    world = off_policy.WORLDS[setting.world]().to(device)
    policy = build_policy(world, setting.seed, setting.temperature)
    if setting.ages:
        return _stale(setting, world, policy)
    names = ["importance"] if setting.world == ONE else list(off_policy.learners())
    return [row for name in names for row in _inner(setting, world, policy, name)]


def _inner(setting: OffPolicyStepsSetting, world: TokenMDP, old: TokenPolicy, name: str) -> list[Row]:
    """Inner steps of one learner on rows of `old`."""
    learner, group, shares, rows = off_policy.learners()[name], setting.group, list[float](), list[Row]()
    steps = off_policy.inner_steps(world, old, learner, group, setting.steps, setting.stride)
    for step, now, update in steps:
        shares.append(off_policy.silenced(world, now, old, learner, group))
        labels = {"world": setting.world, "seed": setting.seed, "learner": name, "step": step, "silenced": shares[-1]}
        labels |= {"TV": off_policy.total_variation(world, now, old), **off_policy.describe(update)}
        rows += _judged(setting.world, name, step, update, labels)
        if name == "importance" and step and setting.world != ONE:
            for part, k in ((LAST, -1), (EARLIER, 0)):
                rows += vanishes(part, off_policy.costate_gap(world, now, old, update, k), _ROUNDING, labels=labels)
    return rows + (_clip_rows(name, shares, setting.seed) if setting.world == STOP else [])


def _judged(world: str, name: str, step: int, update: ExpectedUpdate, labels: dict[str, Any]) -> list[Row]:
    """The row of a step: judged for its direction, for the unbiased learners also for its length."""
    if name == "whole row" or world == ONE:
        return vanishes(ONE_TOKEN if world == ONE else WHOLE, relative_gap(update), _ROUNDING, labels=labels)
    part = ONE_WINNER if world == LOCK and name == "reinforce" else LATER if step else FIRST
    judged = not (step == 0 and world == STOP and name in _WITH_LENGTH)
    return vanishes(part, sine(update), _ROUNDING, judged=judged, labels=labels)


def _clip_rows(name: str, shares: list[float], seed: int) -> list[Row]:
    """Largest share of silenced tokens on the way: at least 1 % where there is a clip (0 at the first step), else 0."""
    labels = {"world": STOP, "learner": name, "seed": seed}
    if name not in _CLIPPED:
        return vanishes(NO_CLIP, max(shares), _ROUNDING, labels=labels)
    judged = name != "dapo"  # its wider clip need not be reached in so few steps
    acts = at_least(CLIP, max(shares), _SHARE, judged=judged, labels=labels)
    return acts + vanishes(NO_CLIP, shares[0], _ROUNDING, labels=labels)


def _stale(setting: OffPolicyStepsSetting, world: TokenMDP, policy: TokenPolicy) -> list[Row]:
    """Updates on rows of policies that are some steps of exact ascent old."""
    now, older = off_policy.stale_policies(world, policy, setting.ages, setting.ascent_rate)
    rows: list[Row] = []
    for age, old in older.items():
        distance = off_policy.total_variation(world, now, old)
        for name, learner in off_policy.learners().items():
            update = expected_update(world, now, learner, setting.group, behaviour=old)
            labels = {"world": setting.world, "seed": setting.seed, "learner": name, "age": age, "silenced": None}
            labels |= {"TV": distance, **off_policy.describe(update)}
            part, value = (WHOLE, relative_gap(update)) if name == "whole row" else (STALE, sine(update))
            rows += vanishes(part, value, _ROUNDING, labels=labels)
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Angles to the gradient at inner steps and on stale rows, in the world whose completions have many lengths."""
    rows = with_columns(rows, "step", "cosine", "learner")
    rows = rows[rows["cosine"].notna() & ~rows["part"].isin((LAST, EARLIER))]
    world = STOP if (rows["world"] == STOP).any() else next(iter(rows["world"]), STOP)
    shown = rows[(rows["world"] == world) & (rows["seed"] == rows["seed"].max())]
    draw_off_policy(figure, shown[shown["step"].notna()], shown[shown["step"].isna()])


CLAIM = Claim(
    name="off_policy_steps",
    statement="All inner steps on one batch follow the value gradient, as the first one does",
    formula=r"\mathbb{E}_{\pi_{\mathrm{old}}}\left[\sum_t w(\rho_t)\,A_t\,\nabla\log\pi(c_t)\right] \parallel"
    r" \nabla J(\pi)\ \ \mathrm{at}\ \pi\neq\pi_{\mathrm{old}}",
    source="arXiv:1707.06347, arXiv:2503.14476, arXiv:2507.18071, arXiv:2506.13585 (the ratios); theory page section 4",
    assumptions=("A5",),
    must_hold="The first step; all steps with the whole completion's weight; token weights in a world of one token, and at the "
    "last token of any; a clip silences no token at the first step and some later",
    must_fail="Later inner steps and stale rows, for every learner; token weights at the first of several tokens",
    how_to_read="Angles between exact mean updates and the gradient, 0 along it, 180 against it, in one world (stop (2,3), "
    "completions of several lengths, where it was run). Left, the policy moves away from its rows; at a star the "
    "clip silences tokens, and the rest of the batch may pull against the gradient (at G = 3 grpo is a multiple "
    "of dr_grpo). Right, rows of older policies. dapo, gspo and cispo do not start at 0 because of their length "
    "factors; weights of whole rows stay exact.",
    parts=(
        *(Part(name, "claim", "fails", every="learner") for name in (LATER, STALE)),
        *(Part(name, "control", "holds") for name in (FIRST, WHOLE, ONE_TOKEN, ONE_WINNER, LAST, CLIP, NO_CLIP)),
        Part(EARLIER, "control", "fails", every="world"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
