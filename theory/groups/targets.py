"""What a recipe may be meant to climb beside the expected return: success, pass@k, max@k, a return less its KL divergence.

A *target* is a plain function of a prefix tree with every token followed. Its answer is a scalar that autograd differentiates,
so that its exact gradient, and its costate at every prefix, come from one backward pass like those of the return. Any function
of this form can be used in place of these.

Theory page, section 4: "Other targets than J".
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import takes_numbers, whole
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.groups.kl import sequence_kl
from theory.tokens.completions import check_binary, completion_log_probs, state_paths, words
from theory.tokens.prefix_tree import Tree, grow
from theory.tokens.tree_gradients import TreeGradients, score_surrogate, whole_tree_gradients
from theory.tokens.tree_size import DEFAULT_BUDGET

Target = Callable[[Tree], Tensor]
_ROUNDING = 64 * torch.finfo(torch.float64).eps  # of a return: returns that are nearer to each other are one


def target_gradients(
    world: TokenMDP, policy: TokenPolicy, target: Target, sites: Sequence[str] = (), budget: int = DEFAULT_BUDGET
) -> tuple[Float[Tensor, ""], TreeGradients]:
    """A target's value and its exact gradients, by one backward pass.

    The costate at a prefix of k tokens is the target's slope in a shift of the hidden state there, the same in every
    draw, divided by `gamma^k P(prefix)`. `J` and `V` of the gradients are those of the expected return.

    Args:
        world: a token world small enough for its prefix tree.
        policy: over its tokens.
        target: a function of a prefix tree.
        sites: places in the network where costates are taken.
        budget: bytes that the tree may need.

    Returns:
        The target's value, and its gradients in the parameters and at every prefix.

    Raises:
        InputError: the target is not one finite number, or the tree needs more than the budget.
    """
    tree = grow(world, policy, 1.0, sites, budget=budget)
    value = checked_value(target, tree)
    return value.detach(), whole_tree_gradients(tree, policy, sites, value)


def checked_value(target: Target, tree: Tree) -> Float[Tensor, ""]:
    """The value of a target on a tree, refused where it is not one finite number.

    Args:
        target: a function of a prefix tree.
        tree: with every token followed.

    Returns:
        The value, attached to autograd's graph.

    Raises:
        InputError: the target gives no tensor, one with axes, or one that is NaN or infinite.
    """
    value = target(tree)
    if not isinstance(value, Tensor) or value.ndim or not bool(value.isfinite()):
        raise InputError("target must give one finite number, a tensor without axes; this one does not here")
    return value


def expected_return(tree: Tree) -> Float[Tensor, ""]:
    """J, with the gradient of its score surrogate.

    Args:
        tree: with every token followed.

    Returns:
        J, in return units, attached to autograd's graph.
    """
    surrogate = score_surrogate(tree)
    return tree.J + surrogate - surrogate.detach()


def success(tree: Tree) -> Float[Tensor, ""]:
    """Probability that a completion succeeds, mean over prompts: pass@1.

    Args:
        tree: with every token followed.

    Returns:
        A probability, attached to autograd's graph.

    Raises:
        InputError: the signal or the return that judges is neither 0 nor 1.
    """
    return pass_at_k(1)(tree)


def pass_at_k(k: int) -> Target:
    """`E[1 - (1 - P)^k]` over prompts: whether one of k independent completions of a prompt succeeds.

    The gradient is `E[k (1 - P)^{k-1} grad P]`. A success is what the world's signal "accuracy" says; in a world
    without it, a return of 1. The target itself raises InputError where the signal or the return is neither 0 nor 1.

    Args:
        k: number of completions.

    Returns:
        The target, a function of a prefix tree.

    Raises:
        InputError: k < 1.
    """
    k = whole("k", k, 1)

    def target(tree: Tree) -> Float[Tensor, ""]:
        known = "accuracy" in tree.world.signals
        judged = tree.world.paying("accuracy") if known else tree.world
        check_binary("signals" if known else "rewards", *state_paths(judged)[1:])
        return max_at_k(k)(replace(tree, world=judged))

    return target


def max_at_k(k: int) -> Target:
    """`E max(R_1 ... R_k)` of k independent completions of a prompt, mean over prompts; J at k = 1.

    Returns are as they are drawn, states included.

    Args:
        k: number of completions.

    Returns:
        The target, a function of a prefix tree.

    Raises:
        InputError: k < 1.
    """
    k = whole("k", k, 1)

    def target(tree: Tree) -> Float[Tensor, ""]:
        p, R = return_law(tree)
        best: Tensor = tree.world.weights.double() @ expected_maximum(p, R, k)
        return best

    return target


def kl_regularised(reference: TokenPolicy, beta: float) -> Target:
    """`J - beta KL(pi || ref)`, the divergence of whole completions, not discounted: what k1 in the reward climbs.

    Args:
        reference: the policy ref, a constant.
        beta: weight of the divergence. The target is refused where ref forbids what the policy may say: KL is infinite.

    Returns:
        The target, a function of a prefix tree.
    """

    def target(tree: Tree) -> Float[Tensor, ""]:
        with torch.no_grad():
            compared = grow(tree.world, reference)
        return expected_return(tree) - beta * sequence_kl(tree, [level.logits for level in compared.levels])

    return target


def return_law(tree: Tree) -> tuple[Float[Tensor, "prompts L"], Float[Tensor, "prompts L"]]:
    """Probability of every completion, words and states, attached to autograd's graph, and its return, a constant.

    What is said after an end token has no part in the probability: words that differ only there share it evenly.

    Args:
        tree: with every token followed.

    Returns:
        Probabilities and returns of the L completions of every prompt.
    """
    word, given, rewards = state_paths(tree.world)
    rows = words(tree)
    law = torch.where(rows.mask, completion_log_probs(tree), rows.log_law)  # the environment's part is a constant
    spoken = torch.where(rows.span, law.double(), 0.0).sum(-1)
    evenly = rows.span.logical_not().sum(-1) * torch.tensor(float(tree.world.V)).double().log()
    return (spoken - evenly.to(spoken)).exp()[:, word] * given.double(), rewards.sum(-1).double()


@takes_numbers("p", "R")
def expected_maximum(p: Float[Tensor, "*batch L"], R: Float[Tensor, "*batch L"], k: int) -> Float[Tensor, "*batch"]:
    """`E max(R_1 ... R_k)` of k independent draws, differentiable in p.

    With the sorted returns r_i, `F_i = P(R <= r_i)` and the median r_m it is
    `r_m + sum_{i >= m} (r_{i+1} - r_i) (1 - F_i^k) - sum_{i < m} (r_{i+1} - r_i) F_i^k`. Each F or 1 - F in it is the
    smaller of the two and a plain sum of probabilities, so that value and gradient keep their digits for peaked laws.

    Args:
        p: probabilities, which sum to 1.
        R: returns.
        k: number of draws.

    Returns:
        The expected largest return, in return units.
    """
    order = R.argsort(-1)
    R, p = R.gather(-1, order), p.gather(-1, order)
    F, above = p.cumsum(-1)[..., :-1], p.flip(-1).cumsum(-1).flip(-1)[..., 1:]
    gap, low = R.diff(dim=-1), F < 0.5
    size = torch.maximum(R[..., 1:].abs(), R[..., :-1].abs())
    gap = torch.where(gap <= _ROUNDING * size, 0.0, gap)
    below, above = torch.where(low, F, 0.0), torch.where(low, 0.0, above)
    shares = torch.where(low, -(below**k), -torch.expm1(k * torch.log1p(-above)))
    median: Tensor = R.gather(-1, low.sum(-1, keepdim=True))[..., 0]
    return median + (gap * shares).sum(-1)
