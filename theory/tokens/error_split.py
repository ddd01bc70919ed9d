"""The value gradient minus the attention costate, term by term, and the four tiers of its bound.

`grad V_alpha = E[E1] + sum_k gamma^k E[Cov_{a~pi_k}(w_k(a), Q_k(a))]`, where `w_k(a) = d z_k(a) / d delta` is the total
derivative of the logits (already divided by the temperature) at fixed sampled tokens. Times count from the prompt. The same
holds for E1b if the reward that is paid for `a` itself is taken from `Q_k(a)`.

Theory page, section 3: "The exact split of the value gradient".
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from envs.policy import TokenPolicy
from envs.record import short_repr
from envs.token_mdp import TokenMDP
from theory.tokens.diameter import diameter
from theory.tokens.environment import paid
from theory.tokens.forward_mode import logit_slopes
from theory.tokens.prefix_tree import Roots, Tree, grow
from theory.tokens.softmax_bounds import (
    covariance,
    entropy,
    gini,
    gini_entropy_bound,
    oscillation,
    sampling_gap,
    spread_factor,
)
from theory.tokens.tree_gradients import node_gradients, path_surrogate, score_surrogate
from theory.tokens.tree_size import DEFAULT_BUDGET


@short_repr
@dataclass(frozen=True)
class ErrorSplit:
    """For every prompt: both sides of the identity, the error, and the tiers that bound the error; D is the size of delta.

    A prompt of weight 0 is never reached, and its numbers are NaN.

    Attributes:
        value_gradient: `grad V_alpha`.
        attention: `E[E1]`, the mean attention costate.
        sampling: the covariances, step by step.
        tiers: (4, prompts). Tier 0 is the norm of the summed covariances, the error itself by the identity; tier 1 is
            `sum gamma^k E ||Cov||`; tier 2 is `sum gamma^k E[D_w osc(Q) min(1/4, G/2)]`; tier 3 is tier 2 with G
            replaced by its bound by the entropy.
        entropy: mean over the steps of a rollout at which the policy speaks, in nats.
        gini: the same mean of the Gini index G.
        gap: the same mean of the sampling gap `alpha G`.
    """

    value_gradient: Float[Tensor, "prompts D"]
    attention: Float[Tensor, "prompts D"]
    sampling: Float[Tensor, "H prompts D"]
    tiers: Float[Tensor, "tiers prompts"]
    entropy: Float[Tensor, "prompts"]
    gini: Float[Tensor, "prompts"]
    gap: Float[Tensor, "prompts"]

    def frame(self) -> pd.DataFrame:
        """One row for each prompt.

        Returns:
            Columns `prompt`, `value_gradient` and `attention` (norms), `error`, `tier0` to `tier3`, `entropy`, `gini`, `gap`
            and `residual`.
        """
        columns = {"value_gradient": self.value_gradient.norm(dim=-1), "attention": self.attention.norm(dim=-1)}
        columns |= {"error": self.error, **{f"tier{i}": tier for i, tier in enumerate(self.tiers)}}
        columns |= {"entropy": self.entropy, "gini": self.gini, "gap": self.gap, "residual": self.residual}
        frame = pd.DataFrame({name: x.detach().cpu().double().numpy() for name, x in columns.items()})
        frame.insert(0, "prompt", range(len(frame)))
        return frame

    @property
    def error(self) -> Float[Tensor, "prompts"]:
        """`|| grad V - E[E1] ||`."""
        error: Tensor = (self.value_gradient - self.attention).norm(dim=-1)
        return error

    @property
    def residual(self) -> Float[Tensor, "prompts"]:
        """Norm of the difference of both sides of the identity: rounding, if the identity is true."""
        residual: Tensor = (self.value_gradient - self.attention - self.sampling.sum(0)).norm(dim=-1)
        return residual


def error_split(
    world: TokenMDP,
    policy: TokenPolicy,
    alpha: float,
    site: str,
    whole_prompt: bool = False,
    budget: int = DEFAULT_BUDGET,
    roots: Roots | None = None,
) -> ErrorSplit:
    """Split of the value gradient at the prompts, exact for any alpha by enumeration of the prefix tree.

    The two sides of the identity are computed in different ways: `value_gradient` by reverse mode through the
    surrogates, `sampling` from forward-mode slopes of all logits.

    Args:
        world: the token world.
        policy: over its tokens.
        alpha: sampling-gap knob, 0 differentiable, 1 discrete.
        site: where in the network delta is added.
        whole_prompt: add delta at all positions of the prompt instead of the last one.
        budget: bytes that the trees may need.
        roots: other prefixes in the place of the prompts (`theory.tokens.prefix_tree.prefix_roots`, `token_roots`).

    Returns:
        The split at every prompt (or root).

    Raises:
        InputError: alpha lies outside [0, 1], the site is unknown, or the trees need more than the budget.
    """
    tree = grow(world, policy, alpha, (site,), budget=budget, roots=roots)
    slopes = logit_slopes(world, policy, alpha, site, whole_prompt, roots, budget)
    return split_of_tree(tree, slopes, alpha, site, whole_prompt)


def split_of_tree(
    tree: Tree,
    slopes: list[Float[Tensor, "_ V D"]],
    alpha: float,
    site: str,
    whole_prompt: bool = False,
    own_token_averaged: bool = False,
) -> ErrorSplit:
    """The split from a tree and the slopes of its logits, which worlds that differ in their rewards alone have in common.

    Args:
        tree: with every token followed and leaves at the site.
        slopes: of all logits (`theory.tokens.forward_mode.logit_slopes`).
        alpha: with which both were made.
        site: where in the network delta is added.
        whole_prompt: whether the slopes are those of a delta at all positions of the prompt.
        own_token_averaged: take E1b in the place of E1: `attention`, error, sampling terms and tiers are then those of E1b.

    Returns:
        The split at every root of the tree.
    """
    kept = slice(None) if whole_prompt else slice(-1, None)
    path, score = (node_gradients(tree, f(tree), site)[0] for f in (path_surrogate, score_surrogate))
    attention, Q = path, tree.Q
    if own_token_averaged:
        attention = node_gradients(tree, path_surrogate(tree, own_token_averaged=True), site)[0]
        own = [paid(tree.world, k, level.belief, level.heard, level.u) for k, level in enumerate(tree.levels)]
        Q = [q - r.detach() for q, r in zip(tree.Q, own, strict=True)]
    sampling, tiers = _terms(tree, slopes, Q)
    total, attention = ((g[:, kept].flatten(1)).detach() for g in (path + score, attention))
    H, G, gap = (_mean_over_steps(tree, f) for f in (entropy, gini, lambda p: sampling_gap(p, alpha)))
    return ErrorSplit(total, attention, sampling, tiers, H, G, gap)


def _mean_over_steps(tree: Tree, measure: Callable[[Tensor], Tensor]) -> Tensor:
    own = [level.own.to(level.reach) for level in tree.levels]
    means = [
        _expected(tree, k, x * measure(level.pi.detach()))
        for k, (x, level) in enumerate(zip(own, tree.levels, strict=True))
    ]
    if tree.world.speech is None:
        return torch.stack(means).mean(0)
    return torch.stack(means).sum(0) / torch.stack([_expected(tree, k, x) for k, x in enumerate(own)]).sum(0)


def _expected(tree: Tree, k: int, values: Tensor) -> Tensor:
    """Mean of a per-node quantity (N_k, ...) over the nodes of level k, given each prompt."""
    roots = tree.levels[0].reach
    share = (tree.levels[k].reach.reshape(len(roots), -1) / roots[:, None]).reshape(-1, *[1] * (values.ndim - 1))
    return (share * values).reshape(len(roots), -1, *values.shape[1:]).sum(1)


def _terms(tree: Tree, slopes: list[Tensor], values: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Sampling terms (H, prompts, D) and tiers (4, prompts) of the values after each edge."""
    terms, tiers = [], []
    for k, (level, w, Q) in enumerate(zip(tree.levels, slopes, values, strict=True)):
        pi, discount = level.pi.detach(), tree.world.gamma**k
        cov = covariance(pi, w, Q)
        reach = diameter(w) * oscillation(Q)
        bounds = [spread_factor(g) for g in (gini(pi), gini_entropy_bound(entropy(pi)))]
        per_node = torch.stack([cov.norm(dim=-1), reach * bounds[0], reach * bounds[1]], -1)
        terms.append(discount * _expected(tree, k, cov))
        tiers.append(discount * _expected(tree, k, per_node))
    sampling = torch.stack(terms)
    return sampling, torch.cat([sampling.sum(0).norm(dim=-1)[None], torch.stack(tiers).sum(0).mT])
