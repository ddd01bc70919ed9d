"""Rows of the claim about value-gradient flow: exact flows at the prompts of token worlds, against the KL ball."""

import torch

from figures.harness.rows import Row, at_least, at_most, equals, report, vanishes
from figures.measures.flow_clouds import alpha_rows
from figures.measures.flow_laws import HEADROOM, NEAR, ROUNDING, SOME_BETA
from figures.measures.token_systems import build_policy, build_world
from figures.measures.value_flow import prompt_gradient, shifted_value
from theory.prompt_flow import prompt_flow
from theory.tokens.tree_gradients import path_surrogate

FIRST, RISES, E1 = "first-step efficiency", "J rises along the flow", "E1 flow moves"
VALUE = "the shifted policy has this value"
EFFICIENCY, LIMIT, BEST = "efficiency", "efficiency of a small step", "efficiency of the best small shift"  # reported
_SITE, _SMALL = "embedding", 1e-3  # rate of a step that is almost infinitesimal
_SECOND_ORDER = 1e-4  # what is left after extrapolation from two small steps


def prompt_rows(name: str, seed: int, steps: int, rate: float, device: str, labels: Row) -> list[Row]:
    """Value, divergence and headroom along the flow of a random policy's prompts, and the first step against its formula."""
    world = build_world(name).to(device)
    policy = build_policy(world, seed)
    path, rows = prompt_flow(world, policy, _SITE, rate, steps), list[Row]()
    one, half = (prompt_flow(world, policy, _SITE, x, 1).efficiency[1] for x in (_SMALL, _SMALL / 2))
    rows += equals(FIRST, 2 * half - one, path.first_order, tolerance=_SECOND_ORDER, labels=labels, axes=("prompt",))
    rows += at_least(RISES, path.value.diff(dim=0), 0.0, labels=labels, axes=("step", "prompt"))
    rows += at_most(HEADROOM, path.efficiency[1:], 1.0, tolerance=ROUNDING, labels=labels, axes=("step", "prompt"))
    # a KL-regularised optimum has the whole headroom of its own divergence
    rows += vanishes(SOME_BETA, 1 - path.efficiency[-1].min(), NEAR, labels=labels)
    value = shifted_value(world, policy, _SITE, path.delta[-1, 0])
    rows += equals(VALUE, value, path.value[-1, 0], tolerance=ROUNDING, labels=labels)
    by_costate = prompt_flow(world, policy, _SITE, rate, 1, path_surrogate).delta[-1].norm() / path.delta[1].norm()
    rows += at_least(E1, by_costate, 1e-6, labels=labels)
    rows += alpha_rows(prompt_gradient(world, policy, _SITE), torch.zeros_like(path.delta[0, 0]), labels)
    rows += report(LIMIT, path.first_order, labels=labels, axes=("prompt",))
    rows += report(BEST, path.best, labels=labels, axes=("prompt",))
    for k in range(steps + 1):
        own = labels | {"step": k}
        for i, kl in enumerate(path.kl[k].tolist()):
            rows += report(EFFICIENCY, path.efficiency[k, i], labels=own | {"prompt": i, "kl": kl})
    return rows
