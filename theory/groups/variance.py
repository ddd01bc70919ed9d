"""The exact variance of a group's update, and the U-statistic that it is (arXiv:2603.01162).

With a leave-one-out baseline the update of one prompt, `(1/G) sum_i (R_i - mean_{j != i} R_j) s_i` with the score
`s_i = sum_t grad log pi(c_it)`, is the U-statistic with kernel `h(o, o') = (s - s')(R - R') / 2`. Hoeffding: its variance is

`4 (G-2) / (G (G-1)) zeta_1 + 2 / (G (G-1)) zeta_2`,   `zeta_1 = Var E[h | o]`, `zeta_2 = Var h`.

Since `E[h | o] = ((R - V) s + grad V) / 2`, this is the *oracle term* `Var((R - V) s) / G`, the variance with the exact value
as the baseline, plus a *remainder* `(2 zeta_2 - 4 zeta_1) / (G (G-1))`. "Variance" is the trace of the covariance matrix.

Theory page, section 4: "Variance: a U-statistic".
"""

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import takes_numbers
from envs.policy import TokenPolicy
from envs.world import InputError
from theory.groups.outcomes import (
    Recipe,
    apply_recipe,
    distinct_outcomes,
    further_fields,
    group_multisets,
    keeps_groups_apart,
)
from theory.tokens.completions import completion_log_probs, completions, words
from theory.tokens.prefix_tree import Tree
from theory.tokens.tree_size import DEFAULT_BUDGET


def word_scores(tree: Tree, policy: TokenPolicy, budget: int = DEFAULT_BUDGET) -> Float[Tensor, "W parameters"]:
    """`s(o) = sum_t grad_theta log pi(c_t)` of every word of the tree's one prompt, over its own steps only.

    Args:
        tree: of a world with one prompt, every token followed.
        policy: the policy that the tree was grown with.
        budget: bytes that the scores may need.

    Returns:
        The score of every word, parameters in their order.

    Raises:
        InputError: the world has several prompts, or the scores need more than `budget` bytes.
    """
    rows, parameters = words(tree), list(policy.parameters())
    if len(rows.p) != 1:
        raise InputError(f"world must have one prompt for the scores of its words; it has {len(rows.p)}")
    count, size = rows.p.numel(), sum(p.numel() for p in parameters)
    if 16 * count * size > budget:
        raise InputError(
            f"{count} words x {size} parameters need {16 * count * size / 2**30:.3g} GiB of {budget / 2**30:.3g} "
            "allowed: take a smaller world or policy"
        )
    total, one_each = torch.where(rows.mask, completion_log_probs(tree), 0.0)[0].sum(-1), torch.eye(count)
    slopes = torch.autograd.grad(
        total,
        parameters,
        one_each.to(total),
        retain_graph=True,
        is_grads_batched=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return torch.cat([slope.flatten(1) for slope in slopes], 1)


@takes_numbers("p", "R", "s")
def hoeffding(
    p: Float[Tensor, "L"], R: Float[Tensor, "L"], s: Float[Tensor, "L parameters"], group: int
) -> tuple[float, float]:
    """Oracle term and remainder of the leave-one-out update's variance.

    Args:
        p: probabilities of the completions.
        R: their returns.
        s: their scores.
        group: G.

    Returns:
        The two terms, in squared units of the update; their sum is the variance.

    Raises:
        InputError: G < 2.
    """
    if group < 2:
        raise InputError(f"group must be >= 2 for a leave-one-out baseline; got {group!r}")
    V = p @ R
    centred = (R - V)[:, None] * s
    gradient = p @ centred
    oracle = float(p @ centred.square().sum(1) - gradient.square().sum())
    # E|h|^2 = E[(R - R')^2 |s - s'|^2] / 4, written out in moments of one row each
    gram, gap = s @ s.mT, (R[:, None] - R).square()
    distance = gram.diagonal()[:, None] + gram.diagonal() - 2 * gram
    zeta_2 = float(p @ (gap * distance) @ p) / 4 - float(gradient.square().sum())
    return oracle / group, (2 * zeta_2 - oracle) / (group * (group - 1))


def group_variance(
    tree: Tree, s: Float[Tensor, "W parameters"], recipe: Recipe, group: int, budget: int = DEFAULT_BUDGET
) -> tuple[float, Float[Tensor, "parameters"]]:
    """Variance and mean of a recipe's update `sum_i w_i s_i`, by enumeration over multisets of outcomes.

    Rows of one outcome are independent draws with one weight, so only the mean score of an outcome and the mean square
    of its scores enter.

    Args:
        tree: of a world with one prompt.
        s: the scores, `word_scores(tree, policy)`.
        recipe: one whose weight is one number a row.
        group: G.
        budget: bytes that the multisets may take.

    Returns:
        The trace of the covariance matrix, and the mean update as one vector.

    Raises:
        InputError: the recipe's weights change along a row or depend on the other groups of a batch; too many multisets.
    """
    rows = completions(tree, budget)
    s = s[rows.word]
    more = further_fields(recipe, tree.world, rows, budget)
    seen = {"rewards": rows.rewards, "mask": rows.mask} | more
    of, outcomes = distinct_outcomes({name: x[0] for name, x in seen.items()})
    p = rows.p[0].new_zeros(len(outcomes["mask"])).index_add_(0, of, rows.p[0])
    first = s.new_zeros(len(p), s.shape[1]).index_add_(0, of, rows.p[0][:, None] * s) / p[:, None]
    square = p.new_zeros(len(p)).index_add_(0, of, rows.p[0] * s.square().sum(1)) / p
    multisets, log_chance = group_multisets(p, group, budget)
    if not keeps_groups_apart(recipe, outcomes, multisets):
        raise InputError("recipe must weigh every group by itself: this one mixes the groups of a batch")
    w = _one_number_a_row(apply_recipe(recipe, outcomes, multisets)[0], outcomes["mask"][multisets])
    chance, gram = log_chance.exp(), first @ first.mT
    onto_outcomes = p.new_zeros(len(p)).index_add_(0, multisets.flatten(), (chance[:, None] * w).flatten())
    mean = onto_outcomes @ first
    cross = torch.einsum("mi,mj,mij->m", w, w, gram[multisets[:, :, None], multisets[:, None]])
    own = (w.square() * (square - gram.diagonal())[multisets]).sum(1)
    return float(chance @ (cross + own) - mean.square().sum()), mean


def _one_number_a_row(weights: Tensor | None, mask: Tensor) -> Float[Tensor, "M G"]:
    assert weights is not None
    first = weights.gather(-1, mask.long().argmax(-1, keepdim=True))  # at the row's first own step
    if not torch.allclose(weights, first * mask):
        raise InputError("recipe must give one weight to all steps of a row: this one's weights change along it")
    return first[..., 0]
