"""The value gradient minus the attention costate, term by term, and the four tiers of its bound.

`grad V_alpha = E[E1] + sum_k gamma^k E[Cov_{a~pi_k}(w_k(a), Q_k(a))]`, `w_k(a) = d z_k(a) / d delta`, the total derivative
of the logits (already divided by the temperature) with the sampled tokens fixed. Times count from the prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.tokens.prefix_tree import DEFAULT_BUDGET, Roots, Tree, bytes_per_node, grow
from theory.tokens.softmax_bounds import (
    covariance,
    diameter,
    entropy,
    gini,
    gini_entropy_bound,
    oscillation,
    sampling_gap,
    spread_factor,
)
from theory.tokens.tree_gradients import node_gradients, path_surrogate, score_surrogate


@dataclass(frozen=True)
class ErrorSplit:
    """For every prompt: both sides of the identity, the error and the tiers that bound it, D = size of delta.

    A prompt of weight 0 is never reached: its numbers are NaN.

    `tiers` (4, prompts): 0 the norm of the summed covariances (the identity's own value of the error); 1
    `sum gamma^k E ||Cov||`; 2 `sum gamma^k E[D_w osc(Q) min(1/4, G/2)]`; 3 the same with G replaced by its entropy bound.
    """

    value_gradient: Float[Tensor, "prompts D"]
    attention: Float[Tensor, "prompts D"]
    sampling: Float[Tensor, "H prompts D"]
    tiers: Float[Tensor, "tiers prompts"]
    entropy: Float[Tensor, "prompts"]
    gini: Float[Tensor, "prompts"]
    gap: Float[Tensor, "prompts"]

    @property
    def error(self) -> Float[Tensor, "prompts"]:
        """`|| grad V - E[E1] ||`."""
        return (self.value_gradient - self.attention).norm(dim=-1)

    @property
    def residual(self) -> Float[Tensor, "prompts"]:
        """How far the identity is from closing: rounding, if it is true."""
        return (self.value_gradient - self.attention - self.sampling.sum(0)).norm(dim=-1)


def error_split(
    world: TokenMDP, policy: Any, alpha: float, site: str, whole_prompt: bool = False, budget: int = DEFAULT_BUDGET,
    roots: Roots | None = None,
) -> ErrorSplit:  # fmt: skip
    """Split at the prompts, with delta at their last position or at all of them; exact for any alpha by the whole tree.

    `roots` puts other prefixes in the place of the prompts (`theory.tokens.prefix_tree.prefix_roots`, `token_roots`).

    The two sides of the identity come by different roads: `value_gradient` by reverse mode through the surrogates,
    `sampling` from forward-mode slopes of all logits. Entropy, Gini and gap are means over the steps of a rollout.
    """
    tree = grow(world, policy, alpha, (site,), budget=budget, roots=roots)
    path = node_gradients(tree, path_surrogate(tree), site)[0]
    score = node_gradients(tree, score_surrogate(tree), site)[0]
    kept = slice(None) if whole_prompt else slice(-1, None)
    slopes = logit_slopes(world, policy, alpha, site, whole_prompt, roots, budget)
    sampling, tiers = _terms(tree, slopes)
    total, attention = ((g[:, kept].flatten(1)).detach() for g in (path + score, path))
    H, G, gap = (_mean_over_steps(tree, f) for f in (entropy, gini, lambda p: sampling_gap(p, alpha)))
    return ErrorSplit(total, attention, sampling, tiers, H, G, gap)


def _mean_over_steps(tree: Tree, measure: Any) -> Tensor:
    means = [_expected(tree, k, measure(level.pi.detach())) for k, level in enumerate(tree.levels)]
    return torch.stack(means).mean(0)


def _expected(tree: Tree, k: int, values: Tensor) -> Tensor:
    """Mean of a per-node quantity (N_k, ...) over the nodes of level k, given each prompt."""
    roots = tree.levels[0].reach
    given = (tree.levels[k].reach.reshape(len(roots), -1) / roots[:, None]).reshape(-1, *[1] * (values.ndim - 1))
    return (given * values).reshape(len(roots), -1, *values.shape[1:]).sum(1)


def logit_slopes(
    world: TokenMDP, policy: Any, alpha: float, site: str, whole_prompt: bool = False, roots: Roots | None = None,
    budget: int = DEFAULT_BUDGET,
) -> list[Float[Tensor, "N V D"]]:  # fmt: skip
    """`w_k(a) = d z_k(a) / d delta` at every node of every level, by forward mode through the whole tree at once.

    One delta serves all prompts: a node depends on its own prompt's delta only.
    """
    positions = _positions(world, roots) if whole_prompt else 1

    def logits(delta: Tensor) -> tuple[Tensor, ...]:
        return tuple(level.logits for level in grow(world, _Shifted(policy, site, delta), alpha, roots=roots).levels)

    delta = _zero(policy, positions)
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no forward mode
        return list(_jacobian(logits, delta, _at_a_time(world, policy, roots, delta, budget)))


def forward_value_gradient(
    world: TokenMDP, policy: Any, alpha: float, site: str, whole_prompt: bool = False, roots: Roots | None = None,
    budget: int = DEFAULT_BUDGET,
) -> Float[Tensor, "prompts D"]:  # fmt: skip
    """`grad V_alpha` at the prompts by forward mode through the live expectation `V = sum_c pi(c) (rbar + gamma V')`.

    No surrogate, no constants, no backward pass: the second road to what `node_gradients` reads off the leaves.
    """

    def value(delta: Tensor) -> Tensor:
        tree = grow(world, _Shifted(policy, site, delta), alpha, roots=roots)
        total = torch.zeros_like(tree.levels[-1].pi)
        for level in reversed(tree.levels):
            live = (level.pi * (level.rewards + total)).sum(-1)
            total = world.gamma * live.reshape(-1, world.V) if level is not tree.levels[0] else live
        return total

    positions = _positions(world, roots) if whole_prompt else 1
    delta = _zero(policy, positions)
    with sdpa_kernel(SDPBackend.MATH):
        return _jacobian(lambda d: (value(d),), delta, _at_a_time(world, policy, roots, delta, budget))[0]


def _positions(world: TokenMDP, roots: Roots | None) -> int:
    return int(world.prompts.shape[1] if roots is None else roots.x.shape[1])


def _jacobian(f: Callable[[Tensor], tuple[Tensor, ...]], delta: Tensor, at_a_time: int | None) -> tuple[Tensor, ...]:
    """Derivatives of all outputs in all entries of delta (last axis), by forward mode."""
    directions = torch.eye(delta.numel(), dtype=delta.dtype, device=delta.device).reshape(-1, *delta.shape)
    push = vmap(lambda v: jvp(f, (delta,), (v,))[1], chunk_size=at_a_time)
    return tuple(slope.movedim(0, -1).detach() for slope in push(directions))


def _at_a_time(world: TokenMDP, policy: Any, roots: Roots | None, delta: Tensor, budget: int) -> int | None:
    """How many of delta's entries to differentiate in at a time so that their tangents fit; None: all.

    A tangent of the whole tree takes at most what autograd would keep of it. Refuses, before anything is allocated, slopes
    (a number for every node, token and entry of delta) that do not fit themselves.
    """
    world = world.rest(roots.step if roots else 0)
    nodes = (len(world.prompts) if roots is None else len(roots.x)) * sum(world.V**k for k in range(world.horizon))
    answers, one = 8 * nodes * world.V * delta.numel(), nodes * bytes_per_node(world, policy)
    if answers + one > budget:
        raise InputError(
            f"slopes of {nodes} prefixes in {delta.numel()} directions need about {(answers + one) / 2**30:.3g} GiB of "
            f"{budget / 2**30:.3g} allowed: take a shorter horizon, a smaller width or delta at the last position only"
        )
    return None if answers + delta.numel() * one <= budget else max(1, int((budget - answers) // one))


def _zero(policy: Any, positions: int) -> Tensor:
    """Delta: zeros of the policy's width, dtype and device."""
    like = next(policy.parameters())
    width = policy.embed(torch.zeros(1, dtype=torch.int64, device=like.device)).shape[-1]
    return torch.zeros(positions, width, dtype=like.dtype, device=like.device)


class _Shifted:
    """A policy whose prompt is shifted by delta at a site, at its last positions."""

    def __init__(self, policy: Any, site: str, delta: Tensor):
        self.policy, self.site, self.delta = policy, site, delta
        self.embed, self.parameters = policy.embed, policy.parameters
        self.width, self.layers = getattr(policy, "width", 1), getattr(policy, "layers", 1)
        if hasattr(policy, "hidden"):
            self.hidden = policy.hidden

    def extend(self, x: Tensor, cache: Any, probes: Any) -> Any:
        """Shift at the first call, the prompt's, and never again."""
        if cache is not None:
            return self.policy.extend(x, cache, probes)
        before = x.shape[1] - self.delta.shape[0]
        shift = torch.nn.functional.pad(self.delta, (0, 0, before, 0)).expand_as(x)
        return self.policy.extend(x, cache, {self.site: shift})


def _terms(tree: Tree, slopes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Sampling terms (H, prompts, D) and tiers (4, prompts)."""
    terms, tiers = [], []
    for k, (level, w, Q) in enumerate(zip(tree.levels, slopes, tree.Q, strict=True)):
        pi, discount = level.pi.detach(), tree.world.gamma**k
        cov = covariance(pi, w, Q)
        reach = diameter(w) * oscillation(Q)
        bounds = [spread_factor(g) for g in (gini(pi), gini_entropy_bound(entropy(pi)))]
        per_node = torch.stack([cov.norm(dim=-1), reach * bounds[0], reach * bounds[1]], -1)
        terms.append(discount * _expected(tree, k, cov))
        tiers.append(discount * _expected(tree, k, per_node))
    sampling = torch.stack(terms)
    return sampling, torch.cat([sampling.sum(0).norm(dim=-1)[None], torch.stack(tiers).sum(0).mT])
