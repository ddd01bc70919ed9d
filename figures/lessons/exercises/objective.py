"""Exercises of lesson 7: kappa with dynamic sampling, and the group size at which half of the groups are silent."""

from collections.abc import Callable
from typing import Any

import torch

from figures.lessons.checking import Exercise
from theory.groups.binary_rewards import grpo_kappa, signal_probability

HARD, GROUP = 0.02, 8


def _numbers(p: float, group: int) -> tuple[float, float]:
    """kappa of all groups together, and the probability that a group is not silent."""
    chance = torch.tensor(p, dtype=torch.float64)
    return float(grpo_kappa(chance, group)), float(signal_probability(chance, group))


def _kept(p: float = HARD, group: int = GROUP) -> Any:
    kappa, kept = _numbers(p, group)
    return kappa / kept


def _all(p: float = HARD, group: int = GROUP) -> Any:
    return _numbers(p, group)[0]


def _times(p: float = HARD, group: int = GROUP) -> Any:
    kappa, kept = _numbers(p, group)
    return kappa * kept


def _silent(p: float = HARD, group: int = GROUP) -> Any:
    kappa, kept = _numbers(p, group)
    return kappa / (1 - kept)


def _sample(p: float = HARD, group: int = GROUP) -> Any:
    return _kept(p, group) * ((group - 1) / group) ** 0.5


def _limit(p: float = HARD, group: int = GROUP) -> Any:
    return float((p * (1 - p)) ** -0.5)


def smallest_group(p: float = HARD) -> Any:
    """The smallest group that is silent with probability 1/2 at most."""
    chance = torch.tensor(p, dtype=torch.float64)
    return next(group for group in range(2, 10**7) if float(signal_probability(chance, group)) >= 0.5)


def off_by(rows: int) -> Callable[..., Any]:
    """The answer, so many rows off."""
    return lambda p=HARD: smallest_group(p) + rows


EXERCISES = {
    "7a": Exercise(
        "What is kappa at p = 0.02 and G = 8 when silent groups are drawn again?",
        _kept,
        {
            "this is kappa with the silent groups in the mean": _all,
            "a mean over fewer groups is larger, not smaller": _times,
            "this divides by the share of the groups that are thrown away": _silent,
            "this divides by the sample's standard deviation (by G - 1): the population's divides by G": _sample,
            "this is the limit of large groups, with silent groups in the mean": _limit,
        },
    ),
    "7b": Exercise(
        "Which is the smallest group that is silent at most half of the time?",
        smallest_group,
        {
            "at this size more than half of the groups are still silent, by a little": off_by(-1),
            "one row fewer is enough": off_by(1),
            "this is 1/p: at that size a group holds one success in the mean, which is more than is asked": lambda p=HARD: (
                1 / p
            ),
            "this is 1/(2p): the probabilities of the rows do not simply add up": lambda p=HARD: 1 / (2 * p),
        },
    ),
}
