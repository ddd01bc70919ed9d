"""Objectives that are differentiated twice, as functions of a prefix tree: the return, surrogates, and DiCE's forms."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from agents.recipes.dice import dice, magic_box
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from theory.tokens.completions import completion_log_probs, completions
from theory.tokens.prefix_tree import Tree, grow
from theory.tokens.second_order import Objective, parameter_hessian, prefix_hessians
from theory.tokens.tree_gradients import node_gradients, score_surrogate, whole_tree_gradients

RowObjective = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # log pi, rewards, mask, values -> of every row
SURROGATE, BASELINED = "surrogate", "surrogate, value baseline"
DICE, OWN_BOX = "DiCE", "box of the own token only"
DICE_BASELINE, DICE_PAST = "DiCE, (1 - box) b", "DiCE, box(past) (1 - box) b"


def own_box(log_probs: Tensor, rewards: Tensor, mask: Tensor, values: Tensor) -> Float[Tensor, "*rows"]:
    """`sum_t r_t box(log pi(c_t))`: DiCE without the steps before the reward."""
    return (rewards * magic_box(torch.where(mask, log_probs, 0.0))).sum(-1)


ROWS: dict[str, RowObjective] = {
    DICE: lambda log_probs, rewards, mask, values: dice(log_probs, rewards, mask),
    DICE_BASELINE: lambda log_probs, rewards, mask, values: dice(log_probs, rewards, mask, values, past=False),
    DICE_PAST: dice,
    OWN_BOX: own_box,
}


def row_objectives(tree: Tree, name: str) -> tuple[Float[Tensor, "prompts L"], Float[Tensor, "prompts L"]]:
    """The objective of every completion of a tree, attached, and the completions' probabilities, constants."""
    rows, log_probs = completions(tree), completion_log_probs(tree)
    prompts, count = log_probs.shape[:2]
    columns = [tree.world.gamma**k * V.repeat_interleave(prompts * count // len(V)) for k, V in enumerate(tree.V)]
    values = torch.stack(columns, -1).reshape(log_probs.shape)
    terms = ROWS[name](log_probs[:, rows.word], rows.rewards, rows.mask, values[:, rows.word])
    return terms, rows.p


def sampled_mean(name: str) -> Objective:
    """The mean over all completions of the named objective, as a function of the tree; their chances are constants."""

    def objective(tree: Tree) -> Tensor:
        terms, p = row_objectives(tree, name)
        return tree.levels[0].reach @ (p * terms).sum(-1)

    return objective


OBJECTIVES: dict[str, Objective] = {
    SURROGATE: lambda tree: score_surrogate(tree, baseline=False),
    BASELINED: score_surrogate,
    **{name: sampled_mean(name) for name in ROWS},
}


def first_order(world: TokenMDP, policy: TokenPolicy, site: str, objective: Objective) -> Float[Tensor, "numbers"]:
    """The gradient in all parameters, or at a site the gradients at all prefixes, each times the root of its probability."""
    sites = (site,) if site else ()
    tree = grow(world, policy, 1.0, sites)
    if not site:
        return whole_tree_gradients(tree, policy, sites, objective(tree)).flat
    return _weighted(tree, [x[:, -1] for x in node_gradients(tree, objective(tree), site)])


def second_order(world: TokenMDP, policy: TokenPolicy, site: str, objective: Objective) -> Float[Tensor, "numbers"]:
    """The same for Hessians, flat: their squared norm is the mean over prefixes, summed over levels."""
    if not site:
        return parameter_hessian(world, policy, objective).flatten()
    with torch.no_grad():
        tree = grow(world, policy)
    return _weighted(tree, prefix_hessians(world, policy, site, objective))


def _weighted(tree: Tree, levels: list[Tensor]) -> Float[Tensor, "numbers"]:
    parts = [(level.reach.sqrt()[:, None] * x.flatten(1)) for level, x in zip(tree.levels, levels, strict=True)]
    return torch.cat([part.flatten() for part in parts])


def hessian_spread(world: TokenMDP, policy: TokenPolicy, name: str) -> float:
    """Root of the total variance of one row's Hessian in all parameters, `E |h|^2 - |E h|^2`, rows of all prompts."""
    tree, parameters = grow(world, policy), list(policy.parameters())
    terms, p = row_objectives(tree, name)
    weights, hessians = (tree.levels[0].reach[:, None] * p).flatten(), []
    for term in terms.flatten():
        slopes = torch.autograd.grad(term, parameters, create_graph=True)
        rows = [torch.autograd.grad(x, parameters, retain_graph=True) for x in torch.cat([s.flatten() for s in slopes])]
        hessians.append(torch.stack([torch.cat([x.flatten() for x in row]) for row in rows]).flatten())
    h = torch.stack(hessians)
    return math.sqrt(float(weights @ h.square().sum(1) - (weights @ h).square().sum()))
