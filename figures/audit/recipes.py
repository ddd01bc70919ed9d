"""Which recipe a loss is: its weights at ratio 1, batch by batch, beside those of this suite's advantages and normalisers."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agents.recipes.advantages import (
    Advantage,
    batch_baseline,
    full_return,
    leave_one_out,
    leave_one_out_to_go,
    mean_baseline,
    mean_normalised,
    reward_to_go,
    standardised,
    whitened,
)
from agents.recipes.batch import Batch
from agents.recipes.best_of import best_of, best_of_standardised
from agents.recipes.learner import Learner
from agents.recipes.surrogates import NORMALISERS
from figures.audit.contract import NamedLoss, Subject, reward_weights
from figures.audit.finding import Example, Finding, example
from figures.audit.probes import probe
from figures.audit.rows import Rows

ADVANTAGES: dict[str, Advantage] = {
    "return": full_return,
    "reward to go": reward_to_go,
    "batch baseline": batch_baseline,
    "leave one out": leave_one_out,
    "leave one out, to go": leave_one_out_to_go,
    "mean": mean_baseline,
    **{
        f"{kind} std{f' + {eps:g}' if eps else ''}": standardised(kind == "population", eps)
        for eps in (0.0, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3)
        for kind in ("population", "sample")
    },
    "divided by the mean": mean_normalised,
    "whitened": whitened(),
    "whitened, mean": whitened(True),
    **{f"best of {k}": best_of(k) for k in (2, 3, 4)},
    **{f"best of {k}, baseline {b}": best_of(k, b) for k in (1, 2, 3) for b in ("none", "loo")},
    **{f"best of {k}, standardised": best_of_standardised(k) for k in (2, 3)},
}
_EXACT = 1e-9


@dataclass(frozen=True)
class Fit:
    """The recipe whose weights are nearest.

    Attributes:
        recipe: "advantage; normaliser".
        factor: the loss's weights are so many times the recipe's.
        residual: what is left, relative to the loss's weights.
        cosine: of the two, over all batches.
        weights: the recipe's weights times the factor, of every batch.
    """

    recipe: str
    factor: float
    residual: float
    cosine: float
    weights: list[Tensor]


def learner_loss(learner: Learner) -> NamedLoss:
    """A learner of this suite as an audited loss.

    Args:
        learner: without a critic.

    Returns:
        The loss; it takes a reference and entropies only where the learner has such a term.
    """

    def loss(
        log_probs: Tensor, old_log_probs: Tensor, rewards: Tensor, mask: Tensor, group: Tensor, **more: Any
    ) -> Tensor:
        reference, ended = more.get("ref_log_probs"), more["ended"]
        tables = (None if x is None else torch.where(mask, x, 0.0) for x in (old_log_probs, reference))
        old, given = tables
        label = torch.unique(group, return_inverse=True)[1]
        rows = Batch(torch.where(mask, rewards, 0.0), mask, label, old=old, reference=given, ended=ended)
        return learner.loss(log_probs, more.get("entropy"), rows)

    names = ["log_probs", "old_log_probs", "rewards", "mask", "group", "ended"]
    names += ["ref_log_probs"] * learner.needs_reference + ["entropy"] * bool(learner.entropy)
    return NamedLoss(loss, name=learner.name, taken=names)


def batches() -> list[Rows]:
    """Batches of one, two and three groups, of lengths and returns of many kinds, at ratio 1."""
    return [*(probe(groups, 4, seed=seed) for seed, groups in enumerate((1, 2, 3))), *map(_dense, (3, 4))]


def _dense(seed: int) -> Rows:
    """Two groups, every token paid."""
    rows = probe(2, 4, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    paid = torch.randn(rows.mask.shape, generator=rng, dtype=torch.float64)
    return Rows(**{**rows.tables(), "rewards": torch.where(rows.mask, paid, 0.0)})


def identify(subject: Subject, dense: bool = True) -> Fit | None:
    """Compare a loss's weights with every recipe's.

    Args:
        subject: the loss.
        dense: whether batches count in which every token is paid.

    Returns:
        Of equal fits the one whose factor is nearest to 1; None where the loss gives no finite weight that is not 0.
    """
    tried = batches() if dense else batches()[:3]
    found = [reward_weights(subject, rows) for rows in tried]
    flat = torch.cat([w.flatten() for w in found])
    if not bool(flat.isfinite().all()) or not bool(flat.any()):
        return None
    fits = list[Fit]()
    for drops in range(1 + ("ended" in subject.asks)):
        fits += [_fit(flat, name, list(weights)) for name, weights in _table(dense, bool(drops))]
        if exact := [fit for fit in fits if fit.residual < _EXACT]:
            break
    if exact:
        return min(exact, key=lambda fit: (round(abs(math.log(abs(fit.factor))), 9), fit.factor < 0))
    return min(fits, key=lambda fit: fit.residual)


def _fit(found: Tensor, name: str, weights: list[Tensor]) -> Fit:
    other = torch.cat([w.flatten() for w in weights])
    factor = float(found @ other / (other @ other))
    residual = float((found - factor * other).norm() / found.norm())
    cosine = float(found @ other / (found.norm() * other.norm()))
    return Fit(name, factor, residual, cosine, [factor * w for w in weights])


@functools.cache
def _table(dense: bool, ended: bool) -> tuple[tuple[str, tuple[Tensor, ...]], ...]:
    """The weights of every recipe on the batches, or where `ended` of those that leave truncated rows out."""
    tried = batches() if dense else batches()[:3]
    drops = (
        [("", {})]
        if not ended
        else [
            ("; without truncated rows", {"drop_truncated": True}),
            ("; truncated rows counted", {"drop_truncated": True, "count_dropped": True}),
            ("; truncated rows not compared", {"drop_truncated": True, "compare_dropped": False}),
        ]
    )
    table = list[tuple[str, tuple[Tensor, ...]]]()
    for advantage, function in ADVANTAGES.items():
        for normaliser, weigh in NORMALISERS.items():
            for suffix, options in drops:
                learner = Learner("candidate", function, normalise=weigh, **options)  # type: ignore[arg-type]
                weights = tuple(_weights(learner, rows) for rows in tried)
                if any(bool(w.any()) for w in weights):
                    table.append((f"{advantage}; {normaliser}{suffix}", weights))
    return tuple(table)


def _weights(learner: Learner, rows: Rows) -> Tensor:
    batch = Batch(rows.rewards, rows.mask, rows.group, ended=rows.ended)
    try:
        return learner.slopes(rows.log_probs, None, batch)[1]
    except ValueError:  # groups that are too small for it
        return torch.zeros_like(rows.log_probs)


def recipe(subject: Subject) -> Finding:
    """The recipe by name, or how far the nearest is."""
    fit = identify(subject)
    if fit is None:
        return Finding("recipe", "choice", "no weights to compare", facts={"recipe": "none"})
    facts = {"recipe": fit.recipe, "factor": fit.factor, "residual": fit.residual}
    if fit.residual < _EXACT:
        return Finding("recipe", "choice", f"{fit.recipe}, times {fit.factor:.6g}", fit.residual, facts=facts)
    words = f"none of this suite's; nearest is {fit.recipe}, times {fit.factor:.6g}, off by {fit.residual:.2g}"
    return Finding("recipe", "choice", words, fit.residual, facts=facts, example=smallest(subject, fit))


def smallest(subject: Subject, fit: Fit) -> Example:
    """The batch with the fewest rows that shows where a loss departs from a recipe.

    Args:
        subject: the loss.
        fit: the recipe.

    Returns:
        Its weights beside the recipe's.
    """
    for i, rows in enumerate(batches()[: len(fit.weights)]):
        found = reward_weights(subject, rows)
        if float((found - fit.weights[i]).abs().max()) > 1e-9 * float(found.abs().max()):
            return example(rows, found, fit.weights[i], worst=1)
    return example(rows, found, fit.weights[i], worst=1)
