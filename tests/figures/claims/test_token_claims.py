"""The claims about token costates can fail: a planted defect turns each of them."""

import pandas as pd
import pytest
import torch

import figures.claims.tokens.attention_costate_biased as biased
import figures.claims.tokens.attention_transport as transport
import figures.claims.tokens.error_map as error_map
import figures.claims.tokens.relaxed_costates as relaxed
from figures.harness.claim import judge
from figures.measures.token_systems import build_policy, build_world, reaches, rms_gap


def verdict(module, settings, seed=0):
    rng = torch.Generator().manual_seed(seed)
    rows = pd.DataFrame([row for setting in settings for row in module.measure(setting, rng, "cpu")])
    return judge(module.CLAIM, rows), rows


BIASED = [s for s in biased.settings("quick") if s.temperature == 1.0 and s.world.startswith("garnet") and s.seed == 0]
TRANSPORT = [s for s in transport.settings("quick") if not s.trained]
RELAXED = [s for s in relaxed.settings("quick") if s.temperature == 1.0]
MAP = [
    error_map.ErrorMapSetting(
        "lock (3,4)", ("temperature", "trained"), ((1.0, 0.5), (0.0, 10.0, 20.0)), (0.5, 1.0), 1, 3
    )
]


@pytest.mark.parametrize(
    ("module", "settings"), [(biased, BIASED), (transport, TRANSPORT), (relaxed, RELAXED), (error_map, MAP)],
    ids=["biased", "transport", "relaxed", "error_map"],
)  # fmt: skip
def test_a_few_settings_come_out_as_documented(module, settings):
    found, _ = verdict(module, settings)
    assert found.as_documented, found.reason


def test_terminal_rewards_come_last_and_a_readout_alone_is_paid():
    world = build_world("garnet (4,4)")
    dense, terminal, readout = (biased.with_reward(world, kind, 0) for kind in biased.REWARDS)
    assert float(dense.r[0].min()) > 0
    assert float(terminal.r[:-1].abs().max()) == 0
    assert torch.equal(terminal.r[-1], dense.r[-1])
    assert readout.readout is not None
    assert float(readout.r.abs().max()) == 0


def test_attention_costates_that_were_the_value_gradient_would_be_seen(monkeypatch):
    real = biased.expected_costates
    monkeypatch.setattr(
        biased, "expected_costates", lambda world, policy, name, site: real(world, policy, "total", site)
    )
    found, _ = verdict(biased, BIASED)
    assert found.parts[biased.E1].outcome == found.parts[biased.E1B].outcome == "holds"
    assert not found.as_documented


def test_a_wrong_e1b_is_seen_one_step_before_the_end(monkeypatch):
    real = biased.expected_costates

    def scaled(world, policy, name, site):
        return [g * (1.001 if name == "attention_expected" else 1) for g in real(world, policy, name, site)]

    monkeypatch.setattr(biased, "expected_costates", scaled)
    assert verdict(biased, BIASED)[0].parts["E1b one step before the end"].outcome == "fails"


def test_open_edges_leave_more_than_the_own_step(monkeypatch):
    monkeypatch.setattr(transport, "everything", lambda layer, distance: layer == 0)
    found, _ = verdict(transport, TRANSPORT)
    assert found.parts[transport.OWN].outcome == "fails"
    monkeypatch.setattr(transport, "everything", lambda layer, distance: False)
    found, _ = verdict(transport, TRANSPORT)
    assert found.parts[transport.NOTHING_LOST].outcome == "holds"


def test_shares_lost_do_not_grow_as_fewer_long_edges_are_closed_to_none():
    _, rows = verdict(transport, TRANSPORT[:3])
    shares = rows[(rows["part"] == "share lost") & (rows["k"] == 0)].set_index(["world", "closed"])["measured"]
    assert shares["garnet (4,4)", "all"] > shares["garnet (4,4)", "longer than 2"] > 0


def test_a_biased_sample_or_a_wrong_enumeration_is_seen(monkeypatch):
    real = relaxed.sampled_costates
    monkeypatch.setattr(relaxed, "sampled_costates", lambda *a, **k: 1.2 * real(*a, **k))
    found, _ = verdict(relaxed, RELAXED[:1])
    assert found.parts["sampled mean = exact mean"].outcome == "fails"


def test_unbiased_relaxed_costates_would_be_seen(monkeypatch):
    real = relaxed.expected_costates
    monkeypatch.setattr(relaxed, "expected_costates", lambda w, p, name, site, alpha: real(w, p, "total", site, 1.0))
    found, _ = verdict(relaxed, RELAXED)
    assert {found.parts[f"{relaxed.NAMES[name]} is unbiased"].outcome for name in relaxed.ENUMERATED} == {"holds"}
    assert not found.as_documented


def test_the_constant_is_the_smallest_that_serves_the_random_policies():
    _, rows = verdict(error_map, MAP)
    world = build_world("lock (3,4)")
    ratios = []
    for seed in range(3):
        for alpha in (0.5, 1.0):
            point = error_map._point(world, build_policy(world, seed), alpha, "layer1")
            ratios.append(point["error"] / point["alone"])
    assert set(rows["C"]) == {max(ratios)}
    assert rows[rows["part"] == error_map.ALONE]["value"].isin((0.5, 10.0, 20.0)).all()


def test_a_bound_without_its_slopes_is_exceeded(monkeypatch):
    real = error_map._point
    monkeypatch.setattr(error_map, "_point", lambda *a: (lambda p: {**p, "tier3": p["tier3"] / 10})(real(*a)))
    found, _ = verdict(error_map, MAP)
    assert found.parts[error_map.TIER3].outcome == "fails"


def test_the_rms_gap_weighs_prefixes_by_their_probability():
    found, truth = torch.zeros(2, 3, 4, dtype=torch.float64), torch.ones(2, 3, 4, dtype=torch.float64)
    found[0] = 1
    reach = torch.tensor([0.25, 0.75], dtype=torch.float64)
    assert rms_gap(found, truth, reach) == pytest.approx(0.75**0.5)
    assert rms_gap(truth, truth, reach) == 0
    assert rms_gap(found, 0 * truth, reach) == 0
    levels = reaches(build_world("lock (3,4)"), build_policy(build_world("lock (3,4)"), 0))
    assert [len(level) for level in levels] == [1, 3, 9, 27]
    assert all(float(level.sum()) == pytest.approx(1) for level in levels)


def test_more_changed_policies_than_random_ones_leave_the_constant_alone():
    few, many = (
        error_map.ErrorMapSetting("lock (3,4)", ("offset",), ((0.0, 4.0),), (1.0,), seeds, 1) for seeds in (1, 2)
    )
    rows = [pd.DataFrame(error_map.measure(setting, torch.Generator(), "cpu")) for setting in (few, many)]
    assert set(rows[0]["C"]) == set(rows[1]["C"])
    assert set(rows[1]["seed"]) == {0, 1}
