"""What a biased update ascends instead of J: objectives of a policy, and what they are made of.

An update ascends an objective when its product with every direction is the slope of the objective along that direction.

Theory page, section 4: "Where it breaks".
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import takes_numbers
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from theory.differences import directional_slope, flat_parameters
from theory.groups.binary_rewards import grpo_objective, mean_objective
from theory.groups.expected_update import ExpectedUpdate
from theory.tokens.completions import Completions, Words, completion_log_probs, completions, words
from theory.tokens.prefix_tree import Tree, grow

Objective = Callable[[Tree], Tensor]


def of_policy(world: TokenMDP, objective: Objective) -> Callable[[TokenPolicy], Tensor]:
    """The objective as a function of the policy.

    Args:
        world: the token world in which the policies act.
        objective: a function of a prefix tree.

    Returns:
        A function that grows the policy's tree and takes its objective.
    """
    return lambda policy: objective(grow(world, policy))


def prompt_gradients(
    world: TokenMDP, policy: TokenPolicy
) -> tuple[Float[Tensor, "prompts"], Float[Tensor, "prompts parameters"]]:
    """P of every prompt and `grad_theta P`, through the live products `P = sum_o R(o) prod_k pi(c_k)`: no surrogate.

    Args:
        world: a token world with binary rewards.
        policy: over its tokens.

    Returns:
        The success probability of every prompt, and one gradient row for each.

    Raises:
        InputError: rewards are not binary.
    """
    tree = grow(world, policy)
    parameters = list(policy.parameters())
    success = (completion_log_probs(tree).sum(-1).exp() * words(tree).returns).sum(1)
    slopes = [
        torch.autograd.grad(one, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        for one in success
    ]
    return completions(tree).success(), torch.stack([flat_parameters(slope) for slope in slopes])


def row_weights(update: ExpectedUpdate, spoken: Words) -> Float[Tensor, "W"]:
    """Mean weight W(o) of every word of the one prompt, for a recipe whose weight is one number a row.

    `update.weights[t]` is the mean over all completions that share their first tokens; at its last own token a word is
    alone, so W(o) is read there.

    Args:
        update: exact mean update of a recipe whose weight is one number a row, in a world with one prompt.
        spoken: the words of the policy's tree in this world.

    Returns:
        The weight of every word.
    """
    count = spoken.p.numel()
    steps = torch.stack([w.flatten().repeat_interleave(count // w.numel()) for w in update.weights], -1)
    places = torch.arange(steps.shape[1], device=steps.device)
    return steps.gather(1, (places * spoken.mask[0]).amax(1, keepdim=True))[:, 0]


def std_objective(group: int, population: bool = True) -> Objective:
    """`sum over prompts of weight F_G(P)`, rewards binary: what GRPO with std ascends where no length divides its terms.

    Args:
        group: G.
        population: whether std is that of the population; else that of the sample.

    Returns:
        The objective, a function of a prefix tree.
    """
    return lambda tree: tree.world.weights @ grpo_objective(completions(tree).success(), group, population)


def truncated_log_objective(group: int) -> Objective:
    """`-sum over prompts of weight sum_{k<G} (1-P)^k / k`, rewards binary: what an advantage divided by its mean ascends.

    Args:
        group: G.

    Returns:
        The objective, a function of a prefix tree.
    """
    return lambda tree: tree.world.weights @ mean_objective(completions(tree).success(), group)


def length_objective(kappa: float, V: Tensor) -> Objective:
    """`kappa (E[R/|o|] - V E[1/|o|])`, V a constant: what the factor 1/|o| makes of a mean baseline's update.

    Args:
        kappa: factor of the mean baseline.
        V: the value that the baseline stands for, a constant.

    Returns:
        The objective, a function of a prefix tree.
    """

    def objective(tree: Tree) -> Tensor:
        rows = completions(tree)
        return kappa * (rows.p * (rows.returns - V) / rows.mask.sum(-1)).sum()

    return objective


def frozen_objective(W: Float[Tensor, "W"]) -> Objective:
    """`E[W(o)]`, W a constant for each word of the one prompt.

    Args:
        W: weights of the words, constants.

    Returns:
        The objective, a function of a prefix tree.
    """
    return lambda tree: (words(tree).p[0] * W).sum()


def trust_region_objective(drawn: Tree, kappa: float) -> Objective:
    """`kappa sum_k gamma^k sum over prefixes of P_old sum_a pi(a) Q_old(a)`.

    Prefixes are weighed by the policy that drew the rows, tokens by the current one.

    Args:
        drawn: tree of the old policy, which drew the rows.
        kappa: factor of the baseline.

    Returns:
        The objective, a function of the current policy's prefix tree.
    """

    def objective(tree: Tree) -> Tensor:
        levels = zip(tree.levels, drawn.levels, drawn.Q, strict=True)
        steps = [old.reach @ (level.pi * Q).sum(-1) for level, old, Q in levels]
        return kappa * sum((drawn.world.gamma**k * step for k, step in enumerate(steps)), torch.zeros_like(steps[0]))

    return objective


def slope_gaps(
    world: TokenMDP,
    policy: TokenPolicy,
    updates: Float[Tensor, "E parameters"],
    objectives: Sequence[Objective],
    directions: Sequence[Float[Tensor, "parameters"]],
) -> Float[Tensor, "E"]:
    """`max_v |df_e/dv - <update_e, v>| / |update_e|`: 0, up to the error of differences, where update e ascends f_e.

    Args:
        world: the token world.
        policy: where the slopes are taken; it is left as it is.
        updates: one mean update for each objective.
        objectives: f_e, functions of the policy's prefix tree.
        directions: v, of any length > 0; only the unit vector counts.

    Returns:
        The largest relative gap of each update over all directions.
    """
    values = of_policy(world, lambda tree: torch.stack([objective(tree) for objective in objectives]))
    gaps = [directional_slope(policy, v / v.norm(), values) - updates @ v / v.norm() for v in directions]
    sizes: Tensor = torch.linalg.vector_norm(updates, dim=1)
    return torch.stack(gaps).abs().amax(0) / sizes


@takes_numbers("R", "p")
def win_rate(R: Float[Tensor, "L"], p: Float[Tensor, "L"]) -> Float[Tensor, "L"]:
    """`P(R' < R) - P(R' > R)`: the weight that GRPO with std gives a return at G = 2; gaps of rounding count as ties.

    Args:
        R: returns of the completions.
        p: their probabilities.

    Returns:
        A number between -1 and 1 for each completion.
    """
    gap, size = R[:, None] - R, torch.maximum(R[:, None].abs(), R.abs())
    return torch.where(gap.abs() <= 64 * torch.finfo(R.dtype).eps * size, 0.0, gap.sign()) @ p


def _classes(rows: Completions) -> tuple[Float[Tensor, "2 L"], Float[Tensor, "L"]]:
    """`P(o, success)` and `P(o, failure)` of the one prompt's completions, rewards binary, and the lengths |o|."""
    p, R = rows.p[0], rows.returns[0]
    return torch.stack([p * R, p * (1 - R)]), rows.mask[0].sum(1).to(p)


def mean_lengths(rows: Completions) -> Float[Tensor, "2"]:
    """`E[|o| | success]` and `E[|o| | failure]` of the one prompt, rewards binary.

    Args:
        rows: completions of a world with one prompt and binary rewards.

    Returns:
        Two lengths, in tokens of the policy.
    """
    chances, lengths = _classes(rows)
    return chances @ lengths / chances.sum(1)


def length_speeds(world: TokenMDP, policy: TokenPolicy, direction: Float[Tensor, "parameters"]) -> Float[Tensor, "2"]:
    """Slopes of `mean_lengths` along the unit vector of a direction of the policy's parameters, by differences.

    Args:
        world: a world with one prompt and binary rewards.
        policy: where the slopes are taken; it is left as it is.
        direction: in the space of its parameters; only the unit vector counts.

    Returns:
        Two slopes, in tokens per unit of the parameters.
    """
    lengths = of_policy(world, lambda tree: mean_lengths(completions(tree)))
    return directional_slope(policy, direction / direction.norm(), lengths)


def free_drift(W: Float[Tensor, "L"], rows: Completions) -> Float[Tensor, "2"]:
    """`Cov(W, |o| | success)` and `Cov(W, |o| | failure)`: speed of both mean lengths under `d log p(o) = W(o) - E W`.

    That is the flow of a policy in which every completion has a logit of its own.

    Args:
        W: weights of the completions.
        rows: completions of a world with one prompt and binary rewards.

    Returns:
        Two speeds, in tokens times the unit of W.
    """
    chances, lengths = _classes(rows)
    chances = chances / chances.sum(1, keepdim=True)
    return chances @ (W * lengths) - (chances @ W) * (chances @ lengths)
