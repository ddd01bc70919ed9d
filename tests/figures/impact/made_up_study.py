"""Rows of a made-up impact study whose truth is known, for the claims judged on it; built once for each kind of gain."""

import functools

import numpy as np
import pandas as pd
import pytest

from figures.harness.judge import judge
from figures.impact import contest
from figures.impact.numbers import PREDICTORS

TOKENS = [0, 1000, 2000, 4000, 8000, 16000, 32000, 64000]
RECIPES = (("GRPO", 8), ("GRPO", 2), ("GRPO", 32), ("RLOO", 8), ("exact, Adam", 1), ("exact, SGD", 1))
BUDGETS = (8, 16, 32)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Enough for a standard error here."""
    monkeypatch.setattr(contest, "RESAMPLES", 150)


def known(clean, rng):
    """What is known of one checkpoint along each trajectory: P rises to 1, or to a half."""
    P = np.linspace(0.01, 0.99 if clean else 0.5, len(TOKENS)) * rng.uniform(0.97, 1, len(TOKENS))
    snr, headroom = np.sqrt(P) * (1 - P) ** 0.3, (1 - P) * P**0.2
    table = {name: rng.uniform(0, 1, len(TOKENS)) for name in PREDICTORS}
    table |= {"snr": snr, "best_of": headroom, "snr x best_of": snr * headroom, "power": snr * headroom}
    table |= {"J": P, "rest": 1 - P, "spread": P * (1 - P), "sqrt_spread": np.sqrt(P * (1 - P))}
    table |= {"H": 1 - P, "entropy_law": np.exp(1 - P) - 1, "gradient": table["costate"]}
    return table | {"pass_at_k": P + headroom, "reader": np.ones(len(TOKENS))}


@functools.cache
def _study(gain):
    rng, rows = np.random.default_rng(0), []
    for quality in (1.0, 0.5):
        for block, i in np.ndindex(2, 3):
            corpus = {"quality": quality, "noise": 0.0, "coverage": 1.0, "width": 16, "names": "say,copy,add"}
            who = {**corpus, "run": f"{quality} {block}", "trajectory": i}
            facts = known(quality == 1, rng)
            for c, tokens in enumerate(TOKENS):
                fact = {name: float(x[c]) for name, x in facts.items()}
                cap = {"alignment": 0.1 + 0.05 * c, "largest_alignment": 0.9, "over_sd": 2.0, "cap": 1.0, "sd": 0.5}
                rows.append({"kind": "checkpoint", **who, "checkpoint": c, "tokens": tokens, **fact, **cap})
            for recipe, group in RECIPES if quality == 1 else (RECIPES[0], *RECIPES[3:5]):
                for budget in BUDGETS:
                    label = {"kind": "gain", **who, "recipe": recipe, "group": group, "budget": budget}
                    gains = gain(facts, recipe, group, budget, quality == 1, rng)
                    rows += [
                        {**label, "checkpoint": c, "tokens": TOKENS[c], "gain": float(x)} for c, x in enumerate(gains)
                    ]
    return pd.DataFrame(rows)


def study(gain):
    """Rows of six trajectories on each of two corpora; `gain(known, recipe, group, budget, clean, rng)` gives their gains."""
    return _study(gain).copy()


@functools.cache
def _claim_rows(module, gain, quality):
    rows = _study(gain)
    return module.CLAIM.rows_from(rows if quality is None else rows[rows["quality"] == quality])


def claim_rows(module, gain, quality=None):
    """A claim's rows from that study, or from its trajectories on one corpus alone."""
    return _claim_rows(module, gain, quality).copy()


def at_the_largest_budget(rows, *recipes):
    """The gains of some recipes after the most updates, and all checkpoints."""
    chosen = rows["recipe"].isin(recipes) & (rows["budget"] == BUDGETS[-1])
    return rows[chosen | (rows["kind"] == "checkpoint")]


def outcomes(module, rows):
    """Outcome of every part of a claim, from the rows of a study or from the claim's own rows."""
    own = rows if "relation" in rows else module.CLAIM.rows_from(rows)
    return {name: part.result.outcome for name, part in judge(module.CLAIM, own).parts.items()}


def documented(module):
    """Outcome of every part as it is documented."""
    return {part.name: part.documented for part in module.CLAIM.parts}


def product(facts, recipe, group, budget, clean, rng):
    """The gain is the product, and with SGD the spread of rewards; a little earlier at a larger budget."""
    if recipe == "exact, SGD":
        return facts["spread"] + 1e-4 * facts["costate"]
    early = 1 + 0.05 * np.log2(budget) * np.linspace(1, 0, len(TOKENS))
    return facts["snr x best_of"] * early + 0.003 * rng.standard_normal(len(TOKENS))


def spread(facts, recipe, group, budget, clean, rng):
    """The gain is the spread of rewards."""
    return facts["spread"] + 1e-4 * facts["J"]


def product_with_sgd_too(facts, recipe, group, budget, clean, rng):
    """The gain is the product, whatever the optimiser."""
    return facts["snr x best_of"] + 1e-4 * facts["costate"]


def product_and_costate(facts, recipe, group, budget, clean, rng):
    """The gain is the product, and with SGD the size of the costate."""
    return facts["costate" if recipe == "exact, SGD" else "snr x best_of"]


def bump(at):
    """Gains with a peak at one checkpoint."""
    return np.exp(-((np.arange(len(TOKENS)) - at) ** 2) / 2)
