"""Exact Hessians of the expected return and of any other scalar of a prefix tree, by two backward passes.

A surrogate (`theory.tokens.tree_gradients`) has constants in the place of values, so that its gradient is the right one; its
Hessian is that of another function. `score_surrogate` has the Hessian `E sum_t gamma^t (Q - b) Hess log pi(c_t)`, which depends
on the baseline b, as the Hessian of the expected return does not.

Theory page, section 6: "Second order".
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.tokens.prefix_tree import Mix, Tree, grow
from theory.tokens.tree_size import DEFAULT_BUDGET

Objective = Callable[[Tree], Tensor]


def differentiable_return(tree: Tree) -> Float[Tensor, ""]:
    """Expected return, attached to autograd's graph with all of its probabilities: right at every order of derivative.

    `V(s) = sum_c pi(c | s) (r(s, c) + gamma V(s c))`, from the last level up.

    Args:
        tree: with every token followed, for any alpha.

    Returns:
        J.

    Raises:
        InputError: the tree follows drawn tokens only.
    """
    after: Tensor | None = None
    for level in reversed(tree.levels):
        if level.share.shape != level.pi.shape:
            raise InputError("tree must follow every token: the chances of drawn ones cannot be differentiated")
        ahead = 0.0 if after is None else tree.world.gamma * after.reshape(level.pi.shape)
        after = (level.pi * (level.rewards + ahead)).sum(-1)
    assert after is not None
    return tree.levels[0].reach @ after


def parameter_hessian(
    world: TokenMDP,
    policy: TokenPolicy,
    objective: Objective = differentiable_return,
    mix: Mix | float = 1.0,
    budget: int = DEFAULT_BUDGET,
) -> Float[Tensor, "parameters parameters"]:
    """Second derivatives of a scalar of the prefix tree in all parameters of the policy, one backward pass for each row.

    Args:
        world: a token world small enough for its prefix tree.
        policy: over its tokens.
        objective: tree -> scalar; the expected return, or for instance a surrogate.
        mix: the rule for the next input, or alpha (see `theory.tokens.prefix_tree.grow`).
        budget: bytes that the tree, and the Hessian, may need.

    Returns:
        The Hessian, rows and columns in the order of `parameters_to_vector`; a constant.

    Raises:
        InputError: the tree or the Hessian needs more than the budget.
    """
    parameters = [p for p in policy.parameters() if p.requires_grad]
    count = sum(p.numel() for p in parameters)
    if 8 * count**2 > budget:
        raise InputError(
            f"policy has {count} parameters, whose Hessian takes about {count**2 / 2**27:.3g} GiB of {budget / 2**30:.3g} "
            "allowed: take a smaller policy, or the Hessians at a site"
        )
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no second derivative
        slopes = _slopes(objective(grow(world, policy, mix, budget=budget)), parameters)
    flat = torch.cat([slope.flatten() for slope in slopes])
    rows = [torch.cat([x.flatten() for x in _slopes(entry, parameters, last=True)]) for entry in flat]
    return torch.stack(rows)


def prefix_hessians(
    world: TokenMDP,
    policy: TokenPolicy,
    site: str,
    objective: Objective = differentiable_return,
    mix: Mix | float = 1.0,
    budget: int = DEFAULT_BUDGET,
) -> list[Float[Tensor, "N D D"]]:
    """The second-order costate of every prefix: the Hessian of its value in the leaf at the prefix's last position.

    Nodes of one level do not see each other's leaves, so one backward pass gives a row of the Hessians of them all. As in
    `node_gradients`, they are divided by `gamma^k` and by the node's probability.

    Args:
        world: a token world small enough for its prefix tree.
        policy: over its tokens.
        site: where in the network the leaves are.
        objective: tree -> scalar that is a sum over words, each with a constant weight; by default the expected return.
        mix: the rule for the next input, or alpha (see `theory.tokens.prefix_tree.grow`).
        budget: bytes that the tree may need.

    Returns:
        One tensor for each level, constants; NaN for a prefix whose probability is 0 or too small.

    Raises:
        InputError: the tree needs more than the budget, or the policy has no such site.
    """
    with sdpa_kernel(SDPBackend.MATH):
        tree = grow(world, policy, mix, site, budget=budget)
        leaves = [level.leaves[site] for level in tree.levels]
        slopes = _slopes(objective(tree), leaves)
    hessians = []
    for k, (level, leaf, slope) in enumerate(zip(tree.levels, leaves, slopes, strict=True)):
        totals = slope[:, -1].sum(0)
        rows = torch.stack([_slopes(entry, [leaf], last=True)[0][:, -1] for entry in totals], 1)
        limits = torch.finfo(rows.dtype)
        weight = (world.gamma**k * level.reach)[:, None, None]
        hessians.append(torch.where(weight > limits.tiny / limits.eps, rows / weight, torch.nan))
    return hessians


def _slopes(scalar: Tensor, inputs: Sequence[Tensor], last: bool = False) -> tuple[Tensor, ...]:
    """Derivatives of a scalar, 0 where it does not depend on an input; constants when they are the last ones taken."""
    if not scalar.requires_grad:
        return tuple(torch.zeros_like(x) for x in inputs)
    return torch.autograd.grad(
        scalar, list(inputs), retain_graph=True, create_graph=not last, allow_unused=True, materialize_grads=True
    )
