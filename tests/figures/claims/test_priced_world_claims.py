"""The continuous claims in a user's own world with a cross term, linear costs and an offset: hold, and see a term left out."""

import dataclasses
import importlib
import json

import pandas as pd
import pytest

from figures.harness.statistics import judge_part

PRICED = {
    "A": [[0.8, 1.5], [0.0, 0.4]],
    "B": [[0.3], [1.0]],
    "Q": [[1.0, 0.0], [0.0, 0.5]],
    "R": [[0.5]],
    "N": [[0.3], [-0.2]],
    "q": [0.7, -0.4],
    "q_a": [0.5],
    "S_x": [[0.1]],
    "gamma": 0.8,
}
FINITE = {**PRICED, "q_f": [0.4, 0.3], "horizon": 6, "K": [[0.2, 0.3]], "k": [0.5]}


def judged(claim, rows):
    """Outcomes of the claim's own parts; other rows are only shown."""
    parts = {part.name for part in claim.parts}
    groups = rows[rows["part"].isin(parts)].groupby("part")
    return {part: judge_part(group.reset_index(drop=True)).outcome for part, group in groups}


@pytest.mark.parametrize(
    ("claim", "world", "form", "planted"),
    [
        ("costate_mean", PRICED, "linear_value", "q"),
        ("costate_mean", FINITE, "linear_value", "q_f"),
        ("costate_mean", FINITE, "linear_value", "N"),
        ("costate_covariance", FINITE, "costate_covariance", "N"),
        ("costate_covariance", PRICED, "costate_covariance", "N"),
    ],
)
def test_a_claim_holds_with_every_cost_and_fails_where_its_formula_leaves_one_out(
    claim, world, form, planted, monkeypatch, rng
):
    module = importlib.import_module(f"figures.claims.continuous.{claim}")
    setting = dataclasses.replace(module.for_system("quick", json.dumps(world))[0], samples=8_000)

    def outcomes():
        rows = pd.DataFrame(module.measure(setting, rng, "cpu"))
        return judged(module.CLAIM, rows)

    documented = {part.name: part.documented for part in module.CLAIM.parts}
    found = outcomes()
    assert found == {part: documented[part] for part in found}
    truth = getattr(module, form)
    monkeypatch.setattr(module, form, lambda here, *rest: truth(here.replace(**{planted: None}), *rest))
    assert outcomes()[module.CLAIM.parts[0].name] == "fails"


@pytest.mark.parametrize("world", [PRICED, FINITE])
def test_three_roads_to_a_costate_meet_with_every_cost(world, rng):
    module = importlib.import_module("figures.claims.continuous.costate_recursion")
    rows = pd.DataFrame(module.measure(module.for_system("tiny", json.dumps(world))[0], rng, "cpu"))
    found = judged(module.CLAIM, rows)
    assert found == {part.name: part.documented for part in module.CLAIM.parts}
