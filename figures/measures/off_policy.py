"""Exact mean updates on rows of another policy: inner steps on one batch, clips, the distance between policies."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from agents.recipes.advantages import leave_one_out
from agents.recipes.learners import Learner, cispo, dapo, dr_grpo, grpo, gspo, reinforce
from agents.recipes.surrogates import importance
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.token_tasks import combination_lock, garnet, sum_and_stop
from figures.measures.token_systems import reaches
from theory.groups.binary_rewards import alignment
from theory.groups.expected_update import ExpectedUpdate, expected_update
from theory.groups.outcomes import apply_recipe, distinct_outcomes, group_multisets
from theory.tokens.completions import completions, words
from theory.tokens.exact_ascent import exact_ascent
from theory.tokens.prefix_tree import grow

STOP, LOCK, ONE = "stop (2,3)", "lock (2,3)", "one token"
WORLDS = {
    STOP: lambda: sum_and_stop(modulus=2, horizon=3),
    LOCK: lambda: combination_lock(V=2, horizon=3, seed=2),
    ONE: lambda: garnet(V=3, horizon=1, seed=3),
}
SITE = "layer1"  # where costates are read


def whole_row(
    log_probs: Float[Tensor, "rows T"],
    old: Float[Tensor, "rows T"],
    advantages: Float[Tensor, "rows T"],
    mask: Bool[Tensor, "rows T"],
) -> Float[Tensor, "rows T"]:
    """The surrogate `stop(pi(o) / pi_old(o)) A log pi(c)`: with the whole completion's weight every step is unbiased."""
    ratio = ((log_probs - old) * mask).sum(1, keepdim=True).exp()
    return ratio.detach() * advantages * log_probs


def learners() -> dict[str, Learner]:
    """All recipes, without the factor 1/|o| where it can be left out."""
    return {
        "reinforce": reinforce(),
        "importance": Learner("importance", leave_one_out, importance),
        "dr_grpo": dr_grpo(),
        "grpo": grpo(length="row sum"),
        "dapo": dapo(),
        "gspo": gspo(),
        "cispo": cispo(),
        "whole row": Learner("whole row", leave_one_out, whole_row),
    }


def inner_steps(
    world: TokenMDP, old: TokenPolicy, learner: Learner, group: int, steps: int, stride: float
) -> Iterator[tuple[int, TokenPolicy, ExpectedUpdate]]:
    """Step, policy before the step and exact mean update, with all rows drawn from `old`: epochs on endless groups.

    Every policy moves along its update at one rate, with which the first move of the parameters has the length `stride`.
    """
    now, rate = copy.deepcopy(old), math.nan
    for step in range(steps):
        update = expected_update(world, now, learner, group, (SITE,), behaviour=old)
        yield step, now, update
        if step == 0:
            rate = stride / math.sqrt(sum(float(x.square().sum()) for x in update.mean.parameters))
        now = copy.deepcopy(now)
        with torch.no_grad():
            for p, x in zip(now.parameters(), update.mean.parameters, strict=True):
                p.add_(rate * x)


def stale_policies(
    world: TokenMDP, policy: TokenPolicy, ages: Sequence[int], rate: float
) -> tuple[TokenPolicy, dict[int, TokenPolicy]]:
    """The policy after `max(ages)` steps of exact ascent, and by age, the oldest first, those of so many steps before."""
    last, falling = max(ages), sorted(ages, reverse=True)
    *older, now = exact_ascent(world, policy, [*(last - age for age in falling), last], rate=rate)
    return now, dict(zip(falling, older, strict=True))


def sine(update: ExpectedUpdate) -> float:
    """Sine of the angle between mean update and gradient; 1 where the update is 0 or points away from the gradient."""
    cosine, scale, bias = alignment(update.mean, update.truth)
    return bias / math.hypot(scale, bias) if cosine > 0 else 1.0


def relative_gap(update: ExpectedUpdate) -> float:
    """`|mean update - grad J| / |grad J|`."""
    _, scale, bias = alignment(update.mean, update.truth)
    return math.hypot(scale - 1, bias)


def describe(update: ExpectedUpdate) -> dict[str, float]:
    """Scale, bias and cosine of the mean update; the cosine is 0 where the update vanishes."""
    cosine, scale, bias = alignment(update.mean, update.truth)
    return {"scale": scale, "bias": bias, "cosine": cosine if math.isfinite(cosine) else 0.0}


def costate_gap(world: TokenMDP, now: TokenPolicy, old: TokenPolicy, update: ExpectedUpdate, k: int) -> float:
    """Largest relative gap between the mean costates of level k and the value gradients.

    Costates of rows drawn from `old` are multiplied by P_now(prefix) / P_old(prefix) first.
    """
    visits = reaches(world, now)[k] / reaches(world, old)[k]
    truth, mean = (x.costates[SITE][k][:, -1] for x in (update.truth, update.mean))
    return float((mean * visits[:, None] - truth).norm(dim=-1).max() / truth.norm(dim=-1).max())


def total_variation(world: TokenMDP, one: TokenPolicy, other: TokenPolicy) -> float:
    """`(1/2) sum_o |p(o) - q(o)|` over completions, the mean over prompts by their weights."""
    with torch.no_grad():
        p, q = (words(grow(world, policy)).p for policy in (one, other))
    return float((world.weights @ (p - q).abs()).sum()) / 2


def silenced(world: TokenMDP, now: TokenPolicy, old: TokenPolicy, learner: Learner, group: int) -> float:
    """Expected share of tokens with slope 0 in the learner's surrogate, among those with a slope in the unclipped one.

    For worlds with one prompt; rows are drawn from `old`.
    """
    with torch.no_grad():
        drawn, current = completions(grow(world, old)), words(grow(world, now))
    fields = {
        "rewards": drawn.rewards,
        "mask": drawn.mask,
        "log_probs": current.log_probs[:, drawn.word],
        "old": drawn.log_probs,
    }
    of, outcomes = distinct_outcomes({name: field[0] for name, field in fields.items()})
    chance = drawn.p.new_zeros(len(outcomes["mask"])).index_add_(0, of, drawn.p[0])
    multisets, log_chance = group_multisets(chance, group)
    unclipped, own = (
        apply_recipe(replace(learner, surrogate=surrogate), outcomes, multisets)[0]
        for surrogate in (importance, learner.surrogate)
    )
    assert unclipped is not None
    assert own is not None

    def expected_count(tokens: Bool[Tensor, "M G T"]) -> float:
        return float(log_chance.exp() @ tokens.sum((1, 2)).to(log_chance))

    return expected_count((unclipped != 0) & (own == 0)) / expected_count(unclipped != 0)
