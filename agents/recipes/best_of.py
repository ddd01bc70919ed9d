"""Advantages for the best of k, side by side: what a row adds to the largest of k returns.

In a group of n rows take all subsets of k. `t_i` is the mean, over the subsets that hold row i, of their largest return, and M
the mean over all subsets, an unbiased estimate of max@k = `E max(R_1 ... R_k)` (pass@k where returns are 0 and 1). All is
written in the gaps `g_m = r_{m+1} - r_m >= 0` between the sorted returns: equal returns have gap 0 and add nothing.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agents.recipes.advantages import Advantage, Group, Mask, Rewards, group_wise
from agents.recipes.batch import check_rows
from envs.arguments import whole
from envs.world import InputError

BASELINES = ("none", "loo", "loo-1")


def best_of(k: int, baseline: str = "loo-1") -> Advantage:
    """`A_i = k (t_i - b_i)` (PKPO, arXiv:2505.15201). Mean: grad max@k, for any rewards, group of k rows or more and baseline.

    For returns of 0 and 1 with c successes, without a baseline: k for a success, else `k (1 - C(n-1-c, k-1) / C(n-1, k-1))`.

    Args:
        k: size of the subsets.
        baseline: b_i, from the group's other rows: 0 for "none"; for "loo" the mean of the largest return of k of them; for
            "loo-1" that of k - 1 of them, so that `t_i - b_i` is what row i adds to a subset.

    Returns:
        The advantage function; it needs groups of k rows, with "loo" k + 1.

    Raises:
        InputError: the baseline is unknown, k < 1, or k < 2 with "loo-1".
    """
    if baseline not in BASELINES:
        raise InputError(f"baseline must be one of {', '.join(BASELINES)}; got {baseline!r}")
    k = whole("k", k, 2 if baseline == "loo-1" else 1, "loo-1 takes the best of k - 1 rows" * (baseline == "loo-1"))

    @group_wise
    def advantage(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
        check_rows(rewards, mask, group, least=k + (baseline == "loo"))
        R, A = rewards.sum(1), torch.zeros_like(rewards[:, 0])
        for rows in _sorted_groups(R, group):
            gaps, n = R[rows].diff(dim=1), rows.shape[1]
            A[rows] = k * _gain(R[rows], gaps, n, k, baseline)
        return A[:, None] * mask

    return advantage


def _gain(
    r: Float[Tensor, "M n"], gaps: Float[Tensor, "M gaps"], n: int, k: int, baseline: str
) -> Float[Tensor, "M n"]:
    """`t_i - b_i`, from the chances that the k - 1 (or k) other rows all lie below a gap that row i is above, or below."""
    under = _chances(k - 1, n - 1, 0, r)  # row i below the gap: k - 1 of the m other rows there
    if baseline == "none":
        return r[:, :1] + _along(gaps, torch.ones_like(under), 1 - under)
    if baseline == "loo":
        return _along(gaps, _chances(k, n - 1, 1, r), _chances(k, n - 1, 0, r) - under)
    return _along(gaps, _chances(k - 1, n - 1, 1, r), torch.zeros_like(under))


def best_of_standardised(k: int) -> Advantage:
    """`A_i = (t_i - M) / S`, S the standard deviation of the largest return over all subsets of k; 0 where S is 0.

    The analytical advantage of Pass@k training (arXiv:2508.10751): for returns of 0 and 1 with `M = 1 - C(N, k) / C(n, k)`, N
    failures, it is `(1 - M) / S` for a success and `(1 - M - C(N-1, k-1) / C(n-1, k-1)) / S` for a failure, with
    `S = sqrt(M (1 - M))`. At k = 1 it is GRPO's. Mean: `agents.recipes.learners.pass_k_training`.

    Args:
        k: size of the subsets; at k = n there is one subset, and nothing is learned.

    Returns:
        The advantage function; it needs groups of k rows, and of two.

    Raises:
        InputError: k < 1.
    """
    k = whole("k", k, 1)

    @group_wise
    def advantage(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
        check_rows(rewards, mask, group, least=max(2, k))
        R, size, A = rewards.sum(1), rewards.abs().sum(1), torch.zeros_like(rewards[:, 0])
        for rows in _sorted_groups(R, group):
            r, n = R[rows], rows.shape[1]
            gaps, under, all_below = r.diff(dim=1), _chances(k - 1, n - 1, 0, r), _chances(k, n, 1, r)
            centred = _along(gaps, all_below, all_below - under)
            largest = torch.cat(
                [all_below[:1], all_below.diff(), 1 - all_below[-1:]]
            )  # chance that a row is a subset's
            S = (_along(gaps, all_below, all_below - 1) ** 2 @ largest).sqrt()[:, None]
            equal = 16 * torch.finfo(S.dtype).eps * size[rows].mean(1, keepdim=True) >= S
            A[rows] = torch.where(equal, 0.0, centred / torch.where(equal, 1.0, S))
        return A[:, None] * mask

    return advantage


def _sorted_groups(R: Float[Tensor, "rows"], group: Group) -> Iterator[Int[Tensor, "M n"]]:
    """For every size n the rows of the groups of that size, a group a line, returns ascending."""
    order = R.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]
    sizes = torch.bincount(group)[group[order]]
    for n in sizes.unique().tolist():
        yield order[sizes == n].reshape(-1, n)


def _chances(k: int, n: int, more: int, like: Float[Tensor, "M rows"]) -> Float[Tensor, "gaps"]:
    """`C(m + more, k) / C(n, k)` for every gap m: that k rows, drawn from n, are among the lowest m + more of them."""
    gaps = like.shape[1] - 1
    return torch.tensor([math.comb(m + more, k) / math.comb(n, k) for m in range(gaps)], dtype=like.dtype).to(like)


def _along(
    gaps: Float[Tensor, "M gaps"], above: Float[Tensor, "gaps"], below: Float[Tensor, "gaps"]
) -> Float[Tensor, "M n"]:
    """For every row `sum_m g_m x_m`, x_m being `above` for the gaps that the row lies above and `below` for the others."""
    none = gaps.new_zeros(len(gaps), 1)
    up, down = (gaps * above).cumsum(1), (gaps * below).flip(1).cumsum(1).flip(1)
    return torch.cat([none, up], 1) + torch.cat([down, none], 1)
