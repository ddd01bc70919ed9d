"""Slopes by forward mode through a whole prefix tree: of all logits, and of the values themselves.

There is no surrogate and no backward pass: an independent check of what `theory.tokens.tree_gradients` reads off the leaves.

Theory page, section 3: "The exact split of the value gradient".
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.tokens.prefix_tree import Roots, grow, prefix_roots
from theory.tokens.shifted_prompt import ShiftedPrompt
from theory.tokens.tree_size import DEFAULT_BUDGET, bytes_per_node


def logit_slopes(
    world: TokenMDP,
    policy: TokenPolicy,
    alpha: float,
    site: str,
    whole_prompt: bool = False,
    roots: Roots | None = None,
    budget: int = DEFAULT_BUDGET,
) -> list[Float[Tensor, "N V D"]]:
    """`w_k(a) = d z_k(a) / d delta` at every node of every level, by forward mode through the whole tree at once.

    The same delta is added to every prompt: a node depends on its own prompt only.

    Args:
        world: the token world.
        policy: over its tokens.
        alpha: sampling-gap knob, 0 differentiable, 1 discrete.
        site: where in the network delta is added.
        whole_prompt: add delta at all positions of the prompt instead of the last one.
        roots: other prefixes in the place of the prompts.
        budget: bytes that may be needed; directions are taken a few at a time to stay within it.

    Returns:
        One tensor for each level: the slope of every logit of every node.

    Raises:
        InputError: the slopes need more than the budget.
    """
    positions = _positions(world, roots) if whole_prompt else 1

    def logits(policy: TokenPolicy, delta: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            level.logits for level in grow(world, ShiftedPrompt(policy, site, delta), alpha, roots=roots).levels
        )

    delta = _zero(policy, positions)
    return list(_jacobian(policy, logits, delta, _at_a_time(world, policy, roots, delta, budget)))


def forward_value_gradient(
    world: TokenMDP,
    policy: TokenPolicy,
    alpha: float,
    site: str,
    whole_prompt: bool = False,
    roots: Roots | None = None,
    budget: int = DEFAULT_BUDGET,
) -> Float[Tensor, "prompts D"]:
    """`grad V_alpha` at the prompts by forward mode through the expectation `V = sum_c pi(c) (rbar + gamma V')`.

    No factor of the expectation is held constant, unlike in the surrogates.

    Args:
        world: the token world.
        policy: over its tokens.
        alpha: sampling-gap knob, 0 differentiable, 1 discrete.
        site: where in the network delta is added.
        whole_prompt: add delta at all positions of the prompt instead of the last one.
        roots: other prefixes in the place of the prompts.
        budget: bytes that may be needed; directions are taken a few at a time to stay within it.

    Returns:
        The value gradient of every prompt (or root), in return units per unit of delta.

    Raises:
        InputError: the slopes need more than the budget.
    """

    def value(policy: TokenPolicy, delta: Tensor) -> tuple[Tensor, ...]:
        tree = grow(world, ShiftedPrompt(policy, site, delta), alpha, roots=roots)
        total = torch.zeros_like(tree.levels[-1].pi)
        for level in reversed(tree.levels):
            Q, top = level.rewards + total, level.pi.detach().argmax(-1, keepdim=True)
            usual = Q.gather(
                -1, top
            )  # dpi (Q - Q_top) keeps its digits where one token has almost all of the probability
            live = (level.pi * (Q - usual)).sum(-1) + usual[:, 0]
            total = world.gamma * live.reshape(-1, world.V) if level is not tree.levels[0] else live
        return (total,)

    positions = _positions(world, roots) if whole_prompt else 1
    delta = _zero(policy, positions)
    return _jacobian(policy, value, delta, _at_a_time(world, policy, roots, delta, budget))[0]


def _positions(world: TokenMDP, roots: Roots | None) -> int:
    return int(world.prompts.shape[1] if roots is None else roots.x.shape[1])


def _jacobian(
    policy: TokenPolicy, f: Callable[[Any, Tensor], tuple[Tensor, ...]], delta: Tensor, at_a_time: int | None
) -> tuple[Tensor, ...]:
    """Derivatives of all outputs of `f(policy, delta)` in all entries of delta (last axis), by forward mode.

    Parameters and buffers of a policy that says `dense_tangents` get tangents of zeros. Without them torch stands for each by
    a symbolic zero, whose sums it sends through a Python kernel: half of the time in a small tree. A user's network may not
    bear it.
    """
    call = _Call(policy, f)
    named = [*call.named_parameters(), *call.named_buffers()] if getattr(policy, "dense_tangents", False) else []
    held = {name: x.detach() for name, x in named}
    zeros = {name: torch.zeros_like(x) for name, x in held.items()}

    def along(direction: Tensor) -> tuple[Tensor, ...]:
        slopes: tuple[Tensor, ...] = jvp(
            lambda h, d: functional_call(call, h, (d,)), (held, delta), (zeros, direction)
        )[1]
        return slopes

    directions = torch.eye(delta.numel(), dtype=delta.dtype, device=delta.device).reshape(-1, *delta.shape)
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no forward mode
        return tuple(slope.movedim(0, -1).detach() for slope in vmap(along, chunk_size=at_a_time)(directions))


class _Call(nn.Module):
    """A function of a policy and a tensor as a module, whose parameters are the policy's."""

    def __init__(self, policy: TokenPolicy, function: Callable[[Any, Tensor], tuple[Tensor, ...]]):
        super().__init__()
        self.policy, self.function = policy, function

    def forward(self, delta: Tensor) -> tuple[Tensor, ...]:
        return self.function(self.policy, delta)


def _at_a_time(world: TokenMDP, policy: TokenPolicy, roots: Roots | None, delta: Tensor, budget: int) -> int | None:
    """Number of entries of delta whose tangents fit into the budget at a time; None for all.

    A tangent of the whole tree takes at most what autograd would keep of the tree. Raises InputError, before anything is
    allocated, if the slopes themselves (a number for every node, token and entry of delta) do not fit.
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


def forward_gradients(world: TokenMDP, policy: TokenPolicy, site: str) -> list[Float[Tensor, "N D"]]:
    """Value gradients of all prefixes at their last position, level by level, in forward mode.

    Args:
        world: the token world.
        policy: over its tokens.
        site: where in the network delta is added.

    Returns:
        One tensor for each level.

    Raises:
        InputError: the slopes need more than the default budget.
    """
    with torch.no_grad():
        tree = grow(world, policy)
        levels = [None, *(prefix_roots(tree, policy, k) for k in range(1, world.horizon))]
    return [forward_value_gradient(world, policy, 1.0, site, roots=roots) for roots in levels]
