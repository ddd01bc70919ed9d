"""The catalogue of estimators on a policy in a token world: mean and variance of each, exactly.

An *outcome* is a completion: tokens up to the end token, with the rewards that were drawn with them. Its value is the return,
its score `grad log pi` over the policy's own tokens, its probability that of policy and world together. Where tokens lead by
chance, an estimator that needs the probability of an outcome is so given one that a sampler could not know; with
`returns="mean"` a completion is paid its mean return in the place of a drawn one.

Theory page, section 6: "Estimators".
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import short, whole
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError, one_line, unknown
from theory.differences import flat_parameters
from theory.groups.estimators import ESTIMATORS, Estimator, moments
from theory.groups.outcomes import distinct_outcomes
from theory.tokens.completions import completion_log_probs, completions, words
from theory.tokens.prefix_tree import Tree, grow
from theory.tokens.tree_gradients import score_surrogate
from theory.tokens.tree_size import DEFAULT_BUDGET

RETURNS = ("drawn", "mean")


class Outcomes(NamedTuple):
    """The L outcomes of a prompt that are possible.

    Attributes:
        p: probabilities.
        f: returns.
        s: scores, one row for each, parameters in their order.
    """

    p: Float[Tensor, "L"]
    f: Float[Tensor, "L"]
    s: Float[Tensor, "L parameters"]


def outcomes(
    tree: Tree, policy: TokenPolicy, prompt: int = 0, returns: str = "drawn", budget: int = DEFAULT_BUDGET
) -> Outcomes:
    """Probabilities, returns and scores of a prompt's completions; those alike up to the end token are one.

    Args:
        tree: grown with the policy, every token followed.
        policy: over the world's tokens.
        prompt: index of the prompt.
        returns: "drawn" with the abstract states, or "mean" given the completion.
        budget: bytes that the scores may need.

    Returns:
        The outcomes, constants in float64.

    Raises:
        InputError: there is no such prompt, `returns` is another word, the world pays a hidden readout, or the scores need more
            than `budget` bytes.
    """
    if returns not in RETURNS:
        raise unknown("returns", returns, RETURNS)
    drawn = completions(tree, budget) if returns == "drawn" else None
    rows = words(tree) if drawn is None else drawn
    i = _prompt(prompt, len(rows.p))
    tokens = torch.where(rows.span[i], rows.tokens[i], -1)
    of, _ = distinct_outcomes({"tokens": tokens, "rewards": rows.rewards[i]})
    first = torch.full((int(of.max()) + 1,), len(of), device=of.device)
    first.scatter_reduce_(0, of, torch.arange(len(of), device=of.device), "amin")
    p = rows.p[i].double().new_zeros(len(first)).index_add_(0, of, rows.p[i].double())
    first, p = first[p > 0], p[p > 0]
    word = first if drawn is None else drawn.word[first]
    return Outcomes(p / p.sum(), rows.returns[i][first].double(), _scores(tree, policy, i, word, budget))


def _prompt(prompt: int, count: int) -> int:
    prompt = whole("prompt", prompt, 0, "or None for all")
    if prompt >= count:
        raise InputError(f"prompt={prompt} does not exist: the world has prompts 0 ... {count - 1}")
    return prompt


def _scores(tree: Tree, policy: TokenPolicy, prompt: int, word: Tensor, budget: int) -> Float[Tensor, "L parameters"]:
    """The scores of these words of a prompt; each word is differentiated once."""
    parameters = [x for x in policy.parameters() if x.requires_grad]
    each, back = torch.unique(word, return_inverse=True)
    size = sum(x.numel() for x in parameters)
    if 16 * len(word) * size > budget:
        raise InputError(
            f"{len(word)} completions x {size} parameters need {16 * len(word) * size / 2**30:.3g} GiB of "
            f"{budget / 2**30:.3g} allowed: take a smaller world or policy"
        )
    own = torch.where(words(tree).mask, completion_log_probs(tree), 0.0)[prompt, each].sum(-1)
    slopes = torch.autograd.grad(
        own,
        parameters,
        torch.eye(len(each)).to(own),
        retain_graph=True,
        is_grads_batched=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return torch.cat([slope.flatten(1) for slope in slopes], 1).double()[back]


def estimator_table(
    world: TokenMDP,
    policy: TokenPolicy,
    prompt: int | None = None,
    extra: Mapping[str, Estimator] | None = None,
    returns: str = "drawn",
    budget: int = DEFAULT_BUDGET,
) -> pd.DataFrame:
    """Exact mean and variance of every estimator of the catalogue, and of yours, for a policy in a token world.

    An estimator of yours is a function `(p, f, s) -> (chances, gradients)`: of a prompt's outcomes it gets probabilities,
    returns and scores, and it gives everything that it may return, one row of `gradients` for each of `chances`. The scores are
    coordinates in an orthonormal basis of their span, so that lengths and angles are those of the parameters.

    Args:
        world: a token world that can be enumerated.
        policy: over its tokens.
        prompt: index of the one prompt that is judged; None for all, of which one is drawn by the world's weights before the
            two completions are.
        extra: estimators of your own, by name.
        returns: what a completion is paid where tokens lead by chance: its return as "drawn", or its "mean" return.
        budget: bytes that the tree, the scores and the pairs of completions may need.

    Returns:
        One row for each estimator: `estimator`, `bias` (the distance of its mean from grad J, or from the prompt's own
        gradient), `variance` (the trace of its covariance) and `noise_to_signal`, variance over |grad J|^2 (NaN where that is
        0).

    Raises:
        InputError: the world is no token world or too large, there is no such prompt, or an estimator gives no table of
            chances that sum to 1.
    """
    if not isinstance(world, TokenMDP) or not isinstance(policy, TokenPolicy):
        raise InputError(f"world and policy must be over tokens; got {short(world)} and {short(policy)}")
    if prompt is not None:
        chosen = torch.arange(len(world.weights), device=world.weights.device) == _prompt(prompt, len(world.weights))
        world = replace(world, weights=chosen.to(world.weights), optimal_return=None)
    tree = grow(world, policy, budget=budget)
    alive = [i for i, weight in enumerate(world.weights.tolist()) if weight > 0]
    prompts = [outcomes(tree, policy, i, returns, budget) for i in alive]
    truth = flat_parameters(_gradient(tree, policy)).double()
    basis = _basis(torch.cat([one.s for one in prompts]))
    _check_pairs(max(len(one.p) for one in prompts), len(basis), budget)
    weights, size, rows = world.weights[alive].double(), float(truth.square().sum()), []
    reduced = [one._replace(s=one.s @ basis.mT) for one in prompts]
    for name, estimator in {**ESTIMATORS, **(extra or {})}.items():
        mean, variance = _over_prompts(name, estimator, weights, reduced)
        ratio = variance / size if size > 0 else math.nan
        rows.append((name, float((mean @ basis - truth).norm()), variance, ratio))
    return pd.DataFrame(rows, columns=["estimator", "bias", "variance", "noise_to_signal"])


def _gradient(tree: Tree, policy: TokenPolicy) -> list[Tensor]:
    """The gradient of the expected return, by the tree's own backward pass."""
    parameters = [x for x in policy.parameters() if x.requires_grad]
    return list(torch.autograd.grad(score_surrogate(tree), parameters, allow_unused=True, materialize_grads=True))


def _basis(s: Float[Tensor, "L parameters"]) -> Float[Tensor, "rank parameters"]:
    """An orthonormal basis of the span of the scores; one direction at least."""
    _, size, directions = torch.linalg.svd(s, full_matrices=False)
    basis: Tensor = directions[: max(1, int((size > 1e-13 * size[0]).sum()))]
    return basis


def _check_pairs(count: int, rank: int, budget: int) -> None:
    needed = 32 * count * (count + 1) // 2 * rank
    if needed > budget:
        raise InputError(
            f"world has {count} completions of a prompt, whose pairs need {needed / 2**30:.3g} GiB of "
            f"{budget / 2**30:.3g} allowed: take a smaller world"
        )


def _over_prompts(
    name: str, estimator: Estimator, weights: Float[Tensor, "prompts"], prompts: list[Outcomes]
) -> tuple[Float[Tensor, "rank"], float]:
    """Mean and variance where the prompt is drawn too: the spread within prompts, and that of their means."""
    means, within = list[Tensor](), 0.0
    for weight, one in zip(weights.tolist(), prompts, strict=True):
        try:
            found = moments(*estimator(*one))
        except (InputError, TypeError, ValueError, IndexError, RuntimeError) as error:
            told = one_line(str(error), 120)
            raise InputError(
                f"extra[{name!r}] must give (chances, gradients), one row for each chance: {told}"
            ) from error
        if found.mean.shape != one.s.shape[1:]:
            raise InputError(f"extra[{name!r}] must give gradients as long as the scores, {one.s.shape[1]} here")
        means.append(found.mean)
        within += weight * found.variance
    mean = weights @ torch.stack(means)
    between = float(weights @ (torch.stack(means) - mean).square().sum(1))
    return mean, within + between
