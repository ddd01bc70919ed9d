"""How an update leaves the value gradient once the policy has moved away from its rows: inner epochs, clips, stale samples."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from agents.recipes import advantages
from agents.recipes.learners import Learner, cispo, dapo, dr_grpo, grpo, gspo, reinforce
from agents.recipes.surrogates import importance
from envs.token_mdp import TokenMDP
from envs.token_tasks import combination_lock, garnet, sum_and_stop
from figures.harness.claim import Claim, Part, Preset, Row, compare
from figures.measures.token_systems import build_policy, reaches
from theory.groups.binary_rewards import alignment
from theory.groups.expected_update import (
    ExpectedUpdate,
    apply_recipe,
    distinct_outcomes,
    expected_update,
    group_multisets,
)
from theory.tokens.completions import completions
from theory.tokens.exact_ascent import exact_ascent
from theory.tokens.prefix_tree import grow

_ROUNDING = 1e-9
STOP, LOCK, ONE = "stop (2,3)", "lock (2,3)", "one token"
WORLDS = {
    STOP: lambda: sum_and_stop(modulus=2, horizon=3),
    LOCK: lambda: combination_lock(V=2, horizon=3, seed=2),
    ONE: lambda: garnet(V=3, horizon=1, seed=3),
}
FIRST, LATER, STALE = "first step: along grad J", "later steps: along grad J", "stale rows: along grad J"
WHOLE, ONE_TOKEN = "whole-row importance: grad J", "one token: importance: grad J"
LAST, EARLIER = "token importance, last token: grad V", "token importance, first token: grad V"
ONE_WINNER = "one winning row, no baseline: along grad J"
CLIP, NO_CLIP = "the clip comes to act", "without a clip no token is silenced"
_CLIPPED = ("dr_grpo", "grpo", "dapo", "gspo")


def whole_row(log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor) -> Float[Tensor, "rows T"]:
    """`stop(pi(o) / pi_old(o)) A log pi(c)`: the weight of the whole completion, which makes every step unbiased."""
    ratio = ((log_probs - old) * mask).sum(1, keepdim=True).exp()
    return ratio.detach() * advantages * log_probs


def learners() -> dict[str, Learner]:
    """All recipes, without the factor 1/|o| where it can be left out."""
    return {
        "reinforce": reinforce(),
        "importance": Learner("importance", advantages.leave_one_out, importance),
        "dr_grpo": dr_grpo(),
        "grpo": grpo(length="row sum"),
        "dapo": dapo(),
        "gspo": gspo(),
        "cispo": cispo(),
        "whole row": Learner("whole row", advantages.leave_one_out, whole_row),
    }


_WITH_LENGTH = ("dapo", "gspo", "cispo")  # no multiple of grad J even at first, where lengths vary


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


def settings(preset: Preset) -> list[OffPolicyStepsSetting]:
    """Inner steps in every world, stale rows where completions have many lengths."""
    found = []
    for seed in {"quick": (1,), "full": (0, 1, 2, 3)}[preset]:
        found += [
            OffPolicyStepsSetting(STOP, seed),
            OffPolicyStepsSetting(STOP, seed, ages=(1, 3, 9, 27)),
            OffPolicyStepsSetting(ONE, seed, steps=3),
        ]
        found += [OffPolicyStepsSetting(LOCK, seed, steps=3, temperature=2.0)]
    return found


def inner_steps(
    world: TokenMDP, old: Any, learner: Learner, setting: OffPolicyStepsSetting
) -> Iterator[tuple[int, Any, ExpectedUpdate]]:
    """Step, policy and exact mean update, rows always drawn from `old`: the epochs of a learner with endless groups.

    Every policy moves along its update at one rate, the one that makes the first move `stride` long.
    """
    now, rate = copy.deepcopy(old), math.nan
    for step in range(setting.steps):
        update = expected_update(world, now, learner, setting.group, ("layer1",), behaviour=old)
        yield step, now, update
        if step == 0:
            rate = setting.stride / math.sqrt(sum(float(x.square().sum()) for x in update.mean.parameters))
        now = copy.deepcopy(now)
        with torch.no_grad():
            for p, x in zip(now.parameters(), update.mean.parameters, strict=True):
                p += rate * x


def sine(update: ExpectedUpdate) -> float:
    """Of the angle between mean update and gradient: 0 for any positive multiple, 1 for an update that is 0 or points away."""
    cosine, scale, bias = alignment(update.mean, update.truth)
    return bias / math.hypot(scale, bias) if cosine > 0 else 1.0


def gap(update: ExpectedUpdate) -> float:
    """`|mean update - grad J| / |grad J|`."""
    _, scale, bias = alignment(update.mean, update.truth)
    return math.hypot(scale - 1, bias)


def total_variation(world: TokenMDP, one: Any, other: Any) -> float:
    """`(1/2) sum_o |p(o) - q(o)|` over completions, prompts weighed."""
    p, q = (completions(grow(world, policy)).p for policy in (one, other))
    return float((world.weights @ (p - q).abs()).sum()) / 2


def silenced(world: TokenMDP, now: Any, old: Any, learner: Learner, group: int) -> float:
    """Expected share of tokens that an unclipped ratio would have moved and that the learner's surrogate does not."""
    drawn, current = completions(grow(world, old)), completions(grow(world, now))
    given = {"rewards": drawn.rewards, "mask": drawn.mask, "log_probs": current.log_probs, "old": drawn.log_probs}
    of, outcomes = distinct_outcomes({name: x[0] for name, x in given.items()})
    chance = drawn.p.new_zeros(len(outcomes["mask"])).index_add_(0, of, drawn.p[0])
    multisets, log_chance = group_multisets(chance, group)
    plain, own = (
        apply_recipe(replace(learner, surrogate=surrogate), outcomes, multisets)[0]
        for surrogate in (importance, learner.surrogate)
    )
    assert plain is not None
    assert own is not None
    count = lambda x: float(log_chance.exp() @ x.sum((1, 2)).to(log_chance))  # noqa: E731
    return count((plain != 0) & (own == 0)) / count(plain != 0)


def measure(setting: OffPolicyStepsSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Inner steps of every learner, or its update on rows of older policies."""
    world = WORLDS[setting.world]()
    policy = build_policy(world, setting.seed, setting.temperature)
    rows: list[Row] = []
    if setting.ages:
        return _stale(setting, world, policy)
    for name, learner in learners().items():
        if setting.world == ONE and name != "importance":
            continue
        shares = []
        for step, now, update in inner_steps(world, policy, learner, setting):
            labels = _labels(setting, world, now, policy, learner, update) | {"learner": name, "step": step}
            shares.append(labels["silenced"])
            rows += _judged(name, step, update, labels)
            if name == "importance" and step and setting.world != ONE:
                rows += _by_token(world, now, policy, update, labels)
        if setting.world == STOP:
            rows += _clip_rows(name, shares, setting.seed)
    return rows


def _clip_rows(name: str, shares: list[float], seed: int) -> list[Row]:
    """Largest share of silenced tokens on the way: at least 1 % where there is a clip (0 at the first step), else 0."""
    labels = {"world": STOP, "learner": name, "seed": seed}
    if name not in _CLIPPED:
        return compare(NO_CLIP, max(shares), 0.0, tolerance=_ROUNDING, labels=labels)
    relation = "report" if name == "dapo" else ">="  # its wider clip need not be reached in so few steps
    return compare(CLIP, max(shares), 0.01, relation=relation, labels=labels) + compare(
        NO_CLIP, shares[0], 0.0, tolerance=_ROUNDING, labels=labels
    )


def _labels(
    setting: OffPolicyStepsSetting, world: TokenMDP, now: Any, old: Any, learner: Learner, update: Any
) -> dict[str, Any]:
    cosine, scale, bias = alignment(update.mean, update.truth)
    return {
        "world": setting.world, "seed": setting.seed, "scale": scale, "bias": bias,
        "cosine": cosine if math.isfinite(cosine) else 0.0, "TV": total_variation(world, now, old),
        "silenced": None if setting.ages else silenced(world, now, old, learner, setting.group),
    }  # fmt: skip


def _judged(name: str, step: int, update: ExpectedUpdate, labels: dict[str, Any]) -> list[Row]:
    """What this step is a case of: judged for its direction, for the unbiased ones also for its length."""
    exact = {(ONE, "importance"): ONE_TOKEN, (labels["world"], "whole row"): WHOLE}.get((labels["world"], name))
    if exact:
        return compare(exact, gap(update), 0.0, tolerance=_ROUNDING, labels=labels)
    part, relation = (LATER, "==") if step else (FIRST, "==")
    if labels["world"] == LOCK and name == "reinforce":
        part = ONE_WINNER
    elif step == 0 and labels["world"] == STOP and name in _WITH_LENGTH:
        relation = "report"
    return compare(part, sine(update), 0.0, tolerance=_ROUNDING, relation=relation, labels=labels)


def _by_token(world: TokenMDP, now: Any, old: Any, update: ExpectedUpdate, labels: dict[str, Any]) -> list[Row]:
    """Costates of token importance, prefixes weighed by the policy that visits them: exact at the last token alone."""
    visits = [a / b for a, b in zip(reaches(world, now), reaches(world, old), strict=True)]
    rows: list[Row] = []
    for part, k in ((LAST, -1), (EARLIER, 0)):
        truth, mean = (x.costates["layer1"][k][:, -1] for x in (update.truth, update.mean))
        off = (mean * visits[k][:, None] - truth).norm(dim=-1).max() / truth.norm(dim=-1).max()
        rows += compare(part, off, 0.0, tolerance=_ROUNDING, labels=labels)
    return rows


def _stale(setting: OffPolicyStepsSetting, world: TokenMDP, policy: Any) -> list[Row]:
    """Rows of policies that are some steps of exact ascent old."""
    last = max(setting.ages)
    *older, now = exact_ascent(world, policy, sorted({last - age for age in setting.ages} | {last}), rate=0.0003)
    rows: list[Row] = []
    for age, old in zip(sorted(setting.ages, reverse=True), older, strict=True):
        for name, learner in learners().items():
            update = expected_update(world, now, learner, setting.group, behaviour=old)
            labels = _labels(setting, world, now, old, learner, update) | {"learner": name, "age": age}
            part, value = (WHOLE, gap(update)) if name == "whole row" else (STALE, sine(update))
            rows += compare(part, value, 0.0, tolerance=_ROUNDING, labels=labels)
    return rows


_LOOKS = {
    "reinforce": ("reference", "o"), "importance": ("costate", "s"), "dr_grpo": ("score_value", "^"),
    "grpo": ("score", "D"), "dapo": ("score_best", "v"), "gspo": ("control", "P"), "cispo": ("critic", "X"),
}  # fmt: skip


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Cosines against inner step and age, silenced tokens, and the angle against the distance between the policies."""
    from figures.drawing.panels import legend_above
    from figures.drawing.style import COLOURS, EXACT

    (inner, clip), (old, angle) = figure.subplots(2, 2)
    rows = rows[(rows["learner"] != "whole row") & ~rows["part"].isin((LAST, EARLIER, CLIP, NO_CLIP))]
    shown = rows[(rows["world"] == STOP) & (rows["seed"] == rows["seed"].max())]
    for name, (colour, marker) in _LOOKS.items():
        look = {"marker": marker, "color": COLOURS[colour], "ms": 10 if name == "dr_grpo" else 6, "alpha": 0.85}
        part = shown[shown["learner"] == name]
        epochs, stale = part[part["step"].notna()], part[part["part"] == STALE].sort_values("age")
        inner.plot(epochs["step"] + 1, epochs["cosine"], label=name, **look)
        clip.plot(epochs["step"] + 1, epochs["silenced"], **look)
        old.plot(stale["age"], stale["cosine"], **look)
        moved = rows[(rows["learner"] == name) & (rows["TV"] > 0) & (rows["measured"] > _ROUNDING)]
        angle.plot(moved["TV"], moved["measured"], linestyle="", **look)
    inner.axhline(1, label="exact", **EXACT)
    old.axhline(1, **EXACT)
    for axis in (inner, clip):
        axis.set_xticks(range(1, int(shown["step"].max()) + 2))
    inner.set(xlabel="inner step on the same rows", ylabel="cosine to grad J", title="inner steps", ylim=(None, 1.04))
    clip.set(
        xlabel="inner step on the same rows", ylabel="share of tokens", title="silenced by the clip", ylim=(-0.03, 1)
    )
    old.set(xscale="log", xlabel="age of the rows (steps of exact ascent)", ylabel="cosine to grad J",
            title="stale rows", ylim=(None, 1.04))  # fmt: skip
    angle.set(xscale="log", yscale="log", xlabel="total variation between the policies", ylabel="sine of the angle to grad J",
              title="direction lost, all worlds")  # fmt: skip
    legend_above(figure, inner)


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
    how_to_read="Above, stop (2,3): exact mean updates while the policy moves away from its rows, and how many tokens that "
    "have an advantage no longer count. Once tokens pass the clip, the rest of the batch pulls back: the update may point "
    "against the gradient (at G = 3 grpo is a multiple of dr_grpo). Below left, rows of older policies; right, the angle to "
    "the gradient against the distance from the policy that drew the rows. dapo, gspo and cispo start below 1 by their "
    "length factors. Weights of whole completions stay exact (dashed).",
    parts=(
        Part(LATER, "claim", "fails", every="learner"),
        Part(STALE, "claim", "fails", every="learner"),
        Part(FIRST, "control", "holds"),
        Part(WHOLE, "control", "holds"),
        Part(ONE_TOKEN, "control", "holds"),
        Part(ONE_WINNER, "control", "holds"),
        Part(LAST, "control", "holds"),
        Part(CLIP, "control", "holds"),
        Part(NO_CLIP, "control", "holds"),
        Part(EARLIER, "control", "fails", every="world"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
    height=7.5,
)
