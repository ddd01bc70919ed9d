"""The exact variance of a group's update, and the U-statistic that it is (arXiv:2603.01162).

With a leave-one-out baseline the update of one prompt, `(1/G) sum_i (R_i - mean_{j != i} R_j) s_i` with the score
`s_i = sum_t grad log pi(c_it)`, is the U-statistic with kernel `h(o, o') = (s - s')(R - R') / 2`. Hoeffding: its variance is

`4 (G-2) / (G (G-1)) zeta_1 + 2 / (G (G-1)) zeta_2`,   `zeta_1 = Var E[h | o]`, `zeta_2 = Var h`,

and since `E[h | o] = ((R - V) s + grad V) / 2`, that is the *oracle term* `Var((R - V) s) / G`, what the exact value would
leave as a baseline, plus a remainder `(2 zeta_2 - 4 zeta_1) / (G (G-1))`. "Variance" is the trace of the covariance matrix.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from envs.policy import TokenPolicy
from envs.world import InputError
from theory.groups.expected_update import Recipe, apply_recipe, distinct_outcomes, group_multisets, keeps_groups_apart
from theory.tokens.completions import completion_log_probs, completions
from theory.tokens.prefix_tree import DEFAULT_BUDGET, Tree


def completion_scores(tree: Tree, policy: TokenPolicy, budget: int = DEFAULT_BUDGET) -> Float[Tensor, "L parameters"]:
    """`s(o) = sum_t grad_theta log pi(c_t)` of every completion of the tree's one prompt, its own steps only."""
    found, parameters = completions(tree), list(policy.parameters())
    if len(found.p) != 1:
        raise InputError(f"world must have one prompt for the scores of its completions; it has {len(found.p)}")
    count, size = found.p.numel(), sum(p.numel() for p in parameters)
    if 16 * count * size > budget:
        raise InputError(
            f"{count} completions x {size} parameters need {16 * count * size / 2**30:.3g} GiB of {budget / 2**30:.3g} "
            "allowed: take a smaller world or policy"
        )
    total = (completion_log_probs(tree) * found.mask)[0].sum(-1)
    slopes = torch.autograd.grad(
        total, parameters, torch.eye(count).to(total), retain_graph=True, is_grads_batched=True, allow_unused=True,
        materialize_grads=True,
    )  # fmt: skip
    return torch.cat([slope.flatten(1) for slope in slopes], 1)


def hoeffding(
    p: Float[Tensor, "L"], R: Float[Tensor, "L"], s: Float[Tensor, "L parameters"], group: int
) -> tuple[float, float]:
    """Oracle term and remainder of the leave-one-out update's variance, for a group of G >= 2 rows."""
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
    tree: Tree, s: Float[Tensor, "L parameters"], recipe: Recipe, group: int, budget: int = DEFAULT_BUDGET
) -> tuple[float, Float[Tensor, "parameters"]]:
    """Variance and mean of a recipe's update, `sum_i w_i s_i`, one prompt, by enumeration over multisets of outcomes.

    For recipes whose weight is one number a row. Within an outcome the rows are independent draws, so only the mean score of
    an outcome and its mean square enter. Raises InputError for weights that change along a row.
    """
    found = completions(tree)
    fields = {"rewards": found.rewards[0], "mask": found.mask[0]}
    if tree.world.end is not None:
        fields["ended"] = (found.tokens[0] == tree.world.end).any(-1)
    of, outcomes = distinct_outcomes(fields)
    p = found.p[0].new_zeros(len(outcomes["mask"])).index_add_(0, of, found.p[0])
    first = s.new_zeros(len(p), s.shape[1]).index_add_(0, of, found.p[0][:, None] * s) / p[:, None]
    square = p.new_zeros(len(p)).index_add_(0, of, found.p[0] * s.square().sum(1)) / p
    multisets, log_chance = group_multisets(p, group, budget)
    if not keeps_groups_apart(recipe, outcomes, multisets):
        raise InputError("weigh must weigh every group by itself: this recipe mixes the groups of a batch")
    w = _one_number_a_row(apply_recipe(recipe, outcomes, multisets)[0], outcomes["mask"][multisets])
    chance, gram = log_chance.exp(), first @ first.mT
    onto_outcomes = p.new_zeros(len(p)).index_add_(0, multisets.flatten(), (chance[:, None] * w).flatten())
    mean = onto_outcomes @ first
    cross = torch.einsum("mi,mj,mij->m", w, w, gram[multisets[:, :, None], multisets[:, None]])
    own = (w.square() * (square - gram.diagonal())[multisets]).sum(1)
    return float(chance @ (cross + own) - mean.square().sum()), mean


def _one_number_a_row(weights: Tensor | None, mask: Tensor) -> Float[Tensor, "M G"]:
    assert weights is not None
    first = weights[..., :1]
    if not torch.allclose(weights, first * mask):
        raise InputError("weigh must give one weight to all steps of a row: this recipe's change along it")
    return first[..., 0]
