"""Variance of a critic-free update: scores in few dimensions, sampled groups, and how fast it falls with the group size."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from agents.recipes.surrogates import row_sum
from figures.harness.statistics import Estimate, batches, estimate, pooled
from theory.groups.outcomes import Recipe

_BATCH = 10_000  # groups drawn at a time


def reduced(s: Float[Tensor, "L parameters"]) -> Float[Tensor, "L rank"]:
    """The vectors s in an orthonormal basis of their span: all inner products stay, in far fewer dimensions."""
    U, size, _ = torch.linalg.svd(s, full_matrices=False)
    coordinates: Tensor = U * size
    return coordinates[:, size > 1e-12 * size[0]]


def oracle_recipe(V: float) -> Recipe:
    """The recipe with the update `(1/G) sum_i (R_i - V) s_i`: its baseline is the exact value V of the prompt."""
    return lambda rewards, mask, group, **fields: ((rewards.sum(1, keepdim=True) - V) * row_sum(mask, group), None)


def sampled_excess(
    p: Float[Tensor, "L"],
    R: Float[Tensor, "L"],
    s: Float[Tensor, "L rank"],
    group: int,
    samples: int,
    rng: torch.Generator,
) -> Estimate:
    """Variance of the leave-one-out update minus that of the oracle recipe, from sampled groups.

    Both updates g and g_V have the mean grad J, so the difference is `E[|g - grad J|^2 - |g_V - grad J|^2]`. Taking both from
    the same groups leaves far less noise than two separate estimates.

    Args:
        p: probabilities of all completions of a prompt.
        R: their returns.
        s: their scores `grad log p(o)`, in any orthonormal basis.
        group: G >= 2, rows of a group.
        samples: groups drawn.
        rng: where they are drawn from.
    """
    V = p @ R
    gradient, estimates = p @ ((R - V)[:, None] * s), []
    for count in batches(samples, _BATCH):
        drawn = torch.multinomial(p.to(rng.device), count * group, replacement=True, generator=rng)
        rows = drawn.to(p.device).reshape(count, group)
        others = (R[rows].sum(1, keepdim=True) - R[rows]) / (group - 1)
        distances = []
        for baseline in (others, V):
            weights = p.new_zeros(count, len(p)).scatter_add_(1, rows, (R[rows] - baseline) / group)
            distances.append((weights @ s - gradient).square().sum(1))
        estimates.append(estimate(distances[0] - distances[1]))
    return pooled(estimates)


def fitted_slope(x: Sequence[float], values: Sequence[Estimate]) -> Estimate:
    """Least-squares slope of log(values) on x; its standard error by the delta method, for independent estimates."""
    centred = np.asarray(x) - np.mean(x)
    weights = centred / (centred**2).sum()
    means = np.array([float(value.mean) for value in values])
    errors = np.array([float(value.standard_error) for value in values])
    slope, error = (weights * np.log(means)).sum(), math.sqrt(((weights * errors / means) ** 2).sum())
    return Estimate(np.asarray(slope), np.asarray(error), min(value.samples for value in values))


def exactly(value: float) -> Estimate:
    """A number that is known exactly, as an estimate."""
    return Estimate(np.asarray(value), np.asarray(0.0), 2)
