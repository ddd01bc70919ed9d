"""Lesson 7: dynamic sampling by listing all groups and by sampling; silent groups with whole numbers."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

import costate
from figures.lessons.exercises.objective import EXERCISES
from tests.figures.lessons.notebook_cells import run_cells

P, G = 0.02, 8


def listed(p, G, kept=True, ddof=0):
    """kappa over the groups that are not silent, or over all, from all 2^G groups of rewards."""
    total = chance = 0.0
    for rewards in itertools.product((0.0, 1.0), repeat=G):
        R, probability = np.array(rewards), math.prod(p if r else 1 - p for r in rewards)
        if R.std() > 0:
            chance += probability
            total += probability * (R[0] - p) * (R[0] - R.mean()) / R.std(ddof=ddof)
    return total / (p * (1 - p)) / (chance if kept else 1.0)


def silent(p, G):
    """The share of silent groups, as an exact fraction."""
    p = Fraction(str(p))
    return p**G + (1 - p) ** G


def test_dynamic_sampling_is_the_mean_over_the_groups_that_are_kept():
    assert costate.check("7a", listed(P, G))
    assert costate.check("7a", 1.01 * listed(P, G)).said == "not yet: too large"


def test_a_students_own_formula_leads_to_it():
    kappa = float(costate.grpo_kappa(torch.tensor(P, dtype=torch.float64), G))
    assert costate.check("7a", kappa / (1 - P**G - (1 - P) ** G))


def test_sampled_groups_agree_within_their_standard_errors():
    R = (np.random.default_rng(0).random((400_000, G)) < P).astype(float)
    R = R[R.std(1) > 0]
    samples = (R[:, 0] - P) * (R[:, 0] - R.mean(1)) / R.std(1) / (P * (1 - P))
    error = samples.std() / math.sqrt(len(samples))
    assert abs(samples.mean() - EXERCISES["7a"].answer()) < 4 * error
    assert abs(samples.mean() - listed(P, G, kept=False)) > 4 * error


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (listed(P, G, kept=False), "with the silent groups in the mean"),
        (listed(P, G, kept=False) * float(1 - silent(P, G)), "larger, not smaller"),
        (listed(P, G, kept=False) / float(silent(P, G)), "thrown away"),
        (listed(P, G, ddof=1), "the sample's"),
        ((P * (1 - P)) ** -0.5, "limit of large groups"),
    ],
)
def test_each_mistake_of_7a_gets_its_own_words(value, words):
    assert words in costate.check("7a", value).said


def test_the_smallest_group_is_the_first_in_exact_arithmetic():
    first = next(G for G in itertools.count(2) if silent(P, G) <= Fraction(1, 2))
    assert costate.check("7b", first)
    assert costate.check("7b", math.ceil(math.log(0.5) / math.log(1 - P)))
    for value, words in ((first - 1, "still silent"), (first + 1, "one row fewer"), (50, "1/p"), (25, "1/(2p)")):
        assert words in costate.check("7b", value).said
    assert costate.check("7b", 200).said == "not yet: too large"


def test_other_prompts_and_groups_are_taken():
    assert costate.check("7a", listed(0.3, 5), p=0.3, group=5)
    first = next(G for G in itertools.count(2) if silent(0.1, G) <= Fraction(1, 2))
    assert costate.check("7b", first, p=0.1)
    assert not costate.check("7b", first)


def test_the_notebook_shows_what_it_says():
    names = run_cells(7)
    true, means = names["true"], names["means"]
    cosines = [costate.alignment(mean, true).cosine for mean in means.values()]
    assert cosines[0] == pytest.approx(1, abs=1e-9)
    assert sorted(cosines, reverse=True) == cosines
    assert cosines[-1] < 0.99
    assert names["cosine"] == pytest.approx(1, abs=1e-9)
