"""Slopes by forward mode through a whole prefix tree: of all logits, and of the values themselves. The second road.

No surrogate and no backward pass: what `theory.tokens.tree_gradients` reads off the leaves is computed here another way.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.tokens.prefix_tree import DEFAULT_BUDGET, Roots, bytes_per_node, grow, prefix_roots


def logit_slopes(
    world: TokenMDP, policy: TokenPolicy, alpha: float, site: str, whole_prompt: bool = False, roots: Roots | None = None,
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
    world: TokenMDP, policy: TokenPolicy, alpha: float, site: str, whole_prompt: bool = False, roots: Roots | None = None,
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


def _at_a_time(world: TokenMDP, policy: TokenPolicy, roots: Roots | None, delta: Tensor, budget: int) -> int | None:
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


def _zero(policy: TokenPolicy, positions: int) -> Tensor:
    """Delta: zeros of the policy's width, dtype and device."""
    like = next(policy.parameters())
    width = policy.embed(torch.zeros(1, dtype=torch.int64, device=like.device)).shape[-1]
    return torch.zeros(positions, width, dtype=like.dtype, device=like.device)


class _Shifted:
    """A policy whose prompt is shifted by delta at a site, at its last positions."""

    def __init__(self, policy: TokenPolicy, site: str, delta: Tensor):
        self.policy, self.site, self.delta = policy, site, delta
        self.embed, self.parameters, self.sites = policy.embed, policy.parameters, policy.sites
        self.width, self.layers = getattr(policy, "width", 1), getattr(policy, "layers", 1)
        if hasattr(policy, "hidden"):
            self.hidden = policy.hidden

    def extend(self, x: Tensor, cache: Any = None, probes: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Any]:
        """Shift at the first call, the prompt's, and never again."""
        if cache is not None:
            return self.policy.extend(x, cache, probes)
        before = x.shape[1] - self.delta.shape[0]
        shift = torch.nn.functional.pad(self.delta, (0, 0, before, 0)).expand_as(x)
        return self.policy.extend(x, cache, {self.site: shift})


def forward_gradients(world: TokenMDP, policy: TokenPolicy, site: str) -> list[Float[Tensor, "N D"]]:
    """Value gradients of all prefixes at their last position, level by level, in forward mode: no surrogate."""
    with torch.no_grad():
        tree = grow(world, policy)
        levels = [None, *(prefix_roots(tree, policy, k) for k in range(1, world.horizon))]
    return [forward_value_gradient(world, policy, 1.0, site, roots=roots) for roots in levels]
