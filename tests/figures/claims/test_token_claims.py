"""The claims about token costates can fail: a planted defect turns each of them."""

from dataclasses import replace
from functools import cache

import pandas as pd
import pytest
import torch

import figures.claims.tokens.attention_costate_biased as biased
import figures.claims.tokens.attention_transport as transport
import figures.claims.tokens.error_bound as error_bound
import figures.claims.tokens.error_map as error_map
import figures.claims.tokens.relaxed_costates as relaxed
from figures.harness.judge import judge
from figures.measures.token_systems import build_policy, build_world, with_reward
from theory.tokens.costates import expected_costates
from theory.tokens.error_split import error_split
from theory.tokens.softmax_bounds import gini_entropy_bound


def measured(module, settings, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return pd.DataFrame([row for setting in settings for row in module.measure(setting, rng, "cpu")])


def verdict(module, settings):
    return judge(module.CLAIM, measured(module, settings))


BIASED = [s for s in biased.settings("quick") if s.temperature == 1.0 and s.world.startswith("garnet") and s.seed == 0]
TRANSPORT = [s for s in transport.settings("quick") if not s.trained]
RELAXED = [replace(s, samples=3000) for s in relaxed.settings("quick") if s.temperature == 1.0]
LOCK = "lock (3,4)"
MAP = [error_map.ErrorMapSetting(LOCK, ("temperature", "trained"), ((1.0, 0.5), (0.0, 10.0, 20.0)), (0.5, 1.0), 1, 3)]
CASES = {
    "biased": (biased, BIASED),
    "transport": (transport, TRANSPORT),
    "relaxed": (relaxed, RELAXED),
    "error_map": (error_map, MAP),
}


@pytest.fixture(scope="module")
def rows():
    """Rows of every case, measured once and only when first used."""
    return cache(lambda name: measured(*CASES[name]))


@pytest.mark.parametrize("name", CASES)
def test_a_few_settings_come_out_as_documented(name, rows):
    judged = judge(CASES[name][0].CLAIM, rows(name))
    assert judged.as_documented, judged.reason


def test_attention_costates_that_were_the_value_gradient_would_be_seen(monkeypatch):
    real = biased.expected_costates
    monkeypatch.setattr(
        biased, "expected_costates", lambda world, policy, name, site: real(world, policy, "total", site)
    )
    judged = verdict(biased, BIASED)
    assert judged.parts[biased.E1].result.outcome == judged.parts[biased.E1B].result.outcome == "holds"
    assert not judged.as_documented


def test_a_wrong_e1b_is_seen_one_step_before_the_end(monkeypatch):
    real = biased.expected_costates

    def scaled(world, policy, name, site):
        return [g * (1.001 if name == "attention_expected" else 1) for g in real(world, policy, name, site)]

    monkeypatch.setattr(biased, "expected_costates", scaled)
    assert verdict(biased, BIASED).parts["E1b one step before the end"].result.outcome == "fails"


def test_open_edges_leave_more_than_the_own_step(monkeypatch):
    monkeypatch.setattr(transport, "everything", lambda layer, distance: layer == 0)
    judged = verdict(transport, TRANSPORT[2:4])
    assert judged.parts[transport.OWN].result.outcome == "fails"
    monkeypatch.setattr(transport, "everything", lambda layer, distance: False)
    judged = verdict(transport, TRANSPORT[2:4])
    assert judged.parts[transport.NOTHING_LOST].result.outcome == "holds"


def test_shares_lost_do_not_grow_as_fewer_long_edges_are_closed_to_none(rows):
    table = rows("transport")
    shares = table[(table["part"] == "share lost") & (table["k"] == 0)].set_index(["world", "closed"])["measured"]
    assert shares["garnet (4,4)", "all"] > shares["garnet (4,4)", "longer than 2"] > 0


def test_a_biased_sample_or_a_wrong_enumeration_is_seen(monkeypatch):
    real = relaxed.sampled_costates
    monkeypatch.setattr(relaxed, "sampled_costates", lambda *a, **k: 1.2 * real(*a, **k))
    judged = verdict(relaxed, RELAXED[:1])
    assert judged.parts["sampled mean = exact mean"].result.outcome == "fails"


def test_unbiased_relaxed_costates_would_be_seen(monkeypatch):
    real = relaxed.expected_costates
    monkeypatch.setattr(relaxed, "expected_costates", lambda w, p, name, site, alpha: real(w, p, "total", site, 1.0))
    judged = verdict(relaxed, [replace(setting, samples=100) for setting in RELAXED])  # the samples do not matter here
    assert {judged.parts[relaxed.UNBIASED[name]].result.outcome for name in relaxed.ENUMERATED} == {"holds"}
    assert not judged.as_documented


def test_the_constant_is_the_smallest_that_serves_the_random_policies_of_each_costate(rows):
    """One for E1 at all alphas; the hidden readout is measured at the largest alpha alone."""
    table, world = rows("error_map"), build_world(LOCK)
    alphas = {"E1": (0.5,), "E1 = 0": (1.0,), "E1b": (0.5, 1.0), "hidden readout": (1.0,)}
    assert {name: tuple(own["alpha"].unique()) for name, own in table.groupby("costate")} == alphas
    largest: dict[str, float] = {}
    for seed in range(3):
        for alpha in (0.5, 1.0):
            policy = build_policy(world, seed)
            allowed = alpha * gini_entropy_bound(error_split(world, policy, alpha, "layer1").entropy.mean())
            readout = error_split(with_reward(world, "readout", 0), policy, alpha, "layer1").error
            e1b = expected_costates(world, policy, "total", "layer1", alpha)[0][:, -1]
            e1b = e1b - expected_costates(world, policy, "E1b", "layer1", alpha)[0][:, -1]
            errors = {"E1": error_split(world, policy, alpha, "layer1").error, "E1b": e1b.norm(dim=-1)}
            for name, error in (errors | ({"hidden readout": readout} if alpha == 1 else {})).items():
                largest[name] = max(largest.get(name, 0.0), float(error.mean() / allowed))
    for name, own in table.groupby("costate"):
        assert own["C"].to_numpy() == pytest.approx(largest["E1" if name == "E1 = 0" else name], rel=1e-9)
    assert table[table["part"] == error_map.ALONE]["value"].isin((0.5, 10.0, 20.0)).all()


def test_the_error_of_e1_is_the_gradient_only_where_it_is_named_so(rows):
    table, world = rows("error_map"), build_world(LOCK)
    first = table[(table["part"] == error_map.TIER3) & (table["value"] == 1.0)].set_index(["costate", "alpha"])["error"]
    sizes = {
        a: float(error_split(world, build_policy(world, 0), a, "layer1").value_gradient.norm()) for a in (0.5, 1.0)
    }
    assert first["E1 = 0", 1.0] == pytest.approx(sizes[1.0])
    assert first["E1", 0.5] != pytest.approx(sizes[0.5], rel=1e-3)
    assert first["E1b", 0.5] != pytest.approx(sizes[0.5], rel=1e-3)


def test_a_bound_without_its_slopes_is_exceeded(monkeypatch):
    real = error_map.error_points

    def without_slopes(*a):
        return {name: {**point, "tier3": point["tier3"] / 10} for name, point in real(*a).items()}

    monkeypatch.setattr(error_map, "error_points", without_slopes)
    judged = verdict(error_map, [error_map.ErrorMapSetting(LOCK, ("offset",), ((0.0, 4.0),), (1.0,), 1, 1)])
    assert judged.parts[error_map.TIER3].result.outcome == "fails"


def test_more_changed_policies_than_random_ones_leave_the_constant_alone():
    few, many = (
        measured(error_map, [error_map.ErrorMapSetting(LOCK, ("offset",), ((0.0, 4.0),), (1.0,), seeds, 1)])
        for seeds in (1, 2)
    )
    assert set(few["C"]) == set(many["C"])
    assert len(set(few["C"])) == 3  # E1, E1b and the hidden readout
    assert set(many["seed"]) == {0, 1}


def test_the_error_bound_is_judged_for_every_costate_and_names_the_gradient(monkeypatch):
    settings = [
        s for s in error_bound.CLAIM.settings("quick") if s.world == "garnet" and s.temperature == 1 and s.offset == 0
    ]
    rows = measured(error_bound, settings)
    within = rows[rows["part"] == "error within its tiers"]
    assert {a: set(own["costate"]) for a, own in within.groupby("alpha")} == {
        0.5: {"E1", "E1b"},
        1.0: {"E1 = 0", "E1b", "hidden readout"},
    }
    relative = within.groupby("costate")["measured"].agg(["min", "max"])  # error over the size of the gradient
    assert relative.loc["E1 = 0"].to_numpy() == pytest.approx(1.0)
    assert (abs(relative.drop("E1 = 0") - 1) > 1e-3).all(axis=None)
    assert judge(error_bound.CLAIM, rows).parts["error within its tiers"].result.outcome == "holds"
    real = error_bound.attention_errors

    def halved(*a):
        return {
            name: replace(split, tiers=split.tiers / (2 if name == "E1b" else 1)) for name, split in real(*a).items()
        }

    monkeypatch.setattr(error_bound, "attention_errors", halved)
    assert verdict(error_bound, settings).parts["error within its tiers"].result.outcome == "fails"
