"""DeepSeek-V3.2's repairs of GRPO on rows of another policy, each with what it is compared with, by exact mean updates."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.nucleus import Nucleus
from agents.recipes.advantages import leave_one_out
from agents.recipes.learners import Learner, Penalty, build_learner
from agents.recipes.surrogates import importance
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from theory.differences import flat_parameters
from theory.groups.binary_rewards import alignment
from theory.groups.expected_update import ExpectedUpdate, expected_update
from theory.groups.kl import kl_at_prefixes
from theory.groups.outcomes import Recipe, Weights
from theory.tokens.completions import completions, prefixes_alive, words
from theory.tokens.prefix_tree import Tree, grow
from theory.tokens.softmax_bounds import log_softmax

BARE = Learner("importance", leave_one_out, importance, least=2)
LEARNERS = {"token ratios": BARE, "grpo": build_learner("grpo", length="row sum")}


WITHOUT, DETACHED, WITH = "k3", "rho k3, rho a constant", "rho k3"


def constant_rho(
    rewards: Tensor, mask: Tensor, group: Tensor, *, log_probs: Tensor, old: Tensor, reference: Tensor, **_: Tensor
) -> Weights:
    """The recipe whose only signal is `rho k3` in the loss with rho held constant: `-rho (1 - ref / pi)` a token."""
    slopes = (log_probs - old).exp() * (reference - log_probs).expm1()
    return torch.where(mask, slopes, 0.0) / len(mask), None


def penalty_updates(
    world: TokenMDP, now: TokenPolicy, old: TokenPolicy, reference: TokenPolicy
) -> dict[str, Float[Tensor, "parameters"]]:
    """Exact mean updates on rows of `old` whose only signal is a k3 in the loss: without rho, with it, with a constant one."""
    silent = replace(world, r=0 * world.r)
    plain, whole = (build_learner("reinforce", kl_loss=Penalty("k3", 1.0, rho)) for rho in (False, True))
    recipes: dict[str, Recipe] = {WITHOUT: plain, DETACHED: constant_rho, WITH: whole}
    updates = {
        name: expected_update(silent, now, recipe, 1, behaviour=old, reference=reference)
        for name, recipe in recipes.items()
    }
    return {name: update.mean.flat for name, update in updates.items()}


def reverse_kl_slope(
    world: TokenMDP, now: TokenPolicy, old: TokenPolicy, reference: TokenPolicy
) -> Float[Tensor, "parameters"]:
    """Minus the gradient of `sum P_old(prefix) KL(pi || ref)`, by autograd through the tree: no token is scored."""
    with torch.no_grad():
        visited, compared = grow(world, old), grow(world, reference)
    loss = kl_at_prefixes(grow(world, now), compared, visited, forward=False)
    return flat_parameters(torch.autograd.grad(-loss, list(now.parameters())))


def token_slopes(
    world: TokenMDP, now: TokenPolicy, old: TokenPolicy, reference: TokenPolicy
) -> tuple[Float[Tensor, "rows T"], Float[Tensor, "rows T"]]:
    """Weights of rho k3 in the loss, token by token of every word, and those of k2 times rho: `-rho log(pi / ref)`."""
    with torch.no_grad():
        mine, drawn, compared = (words(grow(world, policy)) for policy in (now, old, reference))
    mask = mine.mask.flatten(0, 1)
    log_pi, log_old, log_ref = (x.log_probs.flatten(0, 1) for x in (mine, drawn, compared))
    learner = build_learner("reinforce", kl_loss=Penalty("k3", 1.0, importance=True))
    one_group = torch.zeros(len(mask), dtype=torch.int64, device=mask.device)
    weights, _ = learner(0 * log_pi, mask, one_group, log_pi, old=log_old, reference=log_ref)
    return len(mask) * weights, torch.where(mask, -(log_pi - log_old).exp() * (log_pi - log_ref), 0.0)


def stale_update(
    world: TokenMDP, now: TokenPolicy, old: TokenPolicy, learner: Learner, delta: float, group: int
) -> ExpectedUpdate:
    """The exact mean update on rows of `old` under the off-policy mask; an infinite delta is none."""
    return expected_update(world, now, replace(learner, off_policy_delta=delta), group, behaviour=old)


def nucleus_updates(world: TokenMDP, policy: TokenPolicy, top_p: float) -> tuple[ExpectedUpdate, Tensor, Tensor]:
    """RLOO on rows of the nucleus policy: with the sets kept; with the full softmax; and what the latter should be off by."""
    learner, cut = build_learner("rloo"), Nucleus(policy, top_p)
    kept = expected_update(world, cut, learner, 2)
    full = expected_update(world, policy, learner, 2, behaviour=cut)
    return kept, full.mean.flat, mass_slope(world, policy, cut)


def mass_slope(world: TokenMDP, policy: TokenPolicy, cut: Nucleus) -> Float[Tensor, "parameters"]:
    """`sum P(prefix) (E[R | prefix] - J) grad log Z(prefix)`, Z the mass of the nucleus; P, R, J of the nucleus policy.

    J is that of the prefix's own prompt, with whose other rows RLOO compares.
    """
    with torch.no_grad():
        tree = grow(world, cut)
    gains, total = gains_of_prefixes(tree), torch.zeros_like(tree.J)
    whole = grow(world, policy)
    for alive, gain, level, own in zip(prefixes_alive(tree), gains, tree.levels, whole.levels, strict=True):
        total = total + (alive * gain) @ log_mass(own.logits, level.logits)
    return flat_parameters(torch.autograd.grad(total, list(policy.parameters())))


def log_mass(logits: Float[Tensor, "N V"], cut: Float[Tensor, "N V"]) -> Float[Tensor, "N"]:
    """The logarithm of the mass that pi gives to the tokens which the cut logits allow."""
    return log_softmax(logits).masked_fill(cut.isneginf(), -math.inf).logsumexp(-1)


def gains_of_prefixes(tree: Tree) -> list[Float[Tensor, "N"]]:
    """`P(prefix) (E[R | prefix] - J)` of every prefix, level by level, from the list of completions."""
    rows, V, prompts = completions(tree), tree.world.V, len(tree.V[0])
    gains = tree.world.weights[:, None] * rows.p * (rows.returns - tree.V[0][:, None])
    by_word = gains.new_zeros(prompts, rows.words).index_add_(1, rows.word, gains)
    return [by_word.reshape(prompts * V**k, -1).sum(1) for k in range(len(tree.levels))]


def first_ratios(world: TokenMDP, policy: TokenPolicy, top_p: float) -> tuple[Tensor, Tensor]:
    """pi / pi_old of every token before the first step, the full softmax on rows of the nucleus; and the nucleus's mass."""
    with torch.no_grad():
        tree, whole = grow(world, Nucleus(policy, top_p)), grow(world, policy)
    ratios, masses = list[Tensor](), list[Tensor]()
    for level, own in zip(tree.levels, whole.levels, strict=True):
        said = level.share > 0
        ratios.append((log_softmax(own.logits) - log_softmax(level.logits))[said].exp())
        masses.append((own.pi * ~level.logits.isneginf()).sum(-1, keepdim=True).expand_as(said)[said])
    return torch.cat(ratios), torch.cat(masses)


def angle(one: Tensor, other: Tensor) -> float:
    """Angle in degrees between two flat vectors; 90 where one is 0."""
    cosine, scale, bias = alignment(one, other)
    return math.degrees(math.atan2(bias, scale)) if math.isfinite(cosine) else 90.0
