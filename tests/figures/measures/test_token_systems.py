"""What the token claims measure with: kinds of reward, changed policies, gaps and cosines over a level, entropy."""

import pytest
import torch

from envs.world import InputError
from figures.measures.token_systems import (
    FAMILIES,
    REWARDS,
    WORLDS,
    build_policy,
    build_world,
    changed_policies,
    level_cosine,
    prompt_entropy,
    reaches,
    rms_gap,
    split_settings,
    with_reward,
)
from theory.tokens.prefix_tree import grow

LOCK = build_world("lock (3,4)")


def test_terminal_rewards_come_last_and_a_readout_alone_is_paid():
    world = build_world("garnet (4,4)")
    dense, terminal, readout = (with_reward(world, kind, 0) for kind in REWARDS)
    assert float(dense.r[0].min()) > 0
    assert float(terminal.r[:-1].abs().max()) == 0
    assert torch.equal(terminal.r[-1], dense.r[-1])
    assert readout.readout is not None
    assert float(readout.r.abs().max()) == 0
    assert all(torch.equal(each.P, world.P) for each in (dense, terminal, readout))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_value_leaves_the_policy_and_the_others_change_it(family):
    values = {"temperature": (1.0, 0.5), "offset": (0.0, 10.0), "trained": (0.0, 4.0)}[family]
    before = build_policy(LOCK, 2)
    same, changed = changed_policies(LOCK, 2, family, values)
    x = before.embed(LOCK.prompts)
    assert torch.equal(same(x), before(x))
    assert not torch.allclose(changed(x), before(x))
    if family == "trained":
        assert float(grow(LOCK, changed).J) > float(grow(LOCK, before).J)
    else:
        assert prompt_entropy(LOCK, changed) < prompt_entropy(LOCK, before)


def test_the_rms_gap_weighs_prefixes_by_their_probability():
    costate, truth = torch.zeros(2, 3, 4, dtype=torch.float64), torch.ones(2, 3, 4, dtype=torch.float64)
    costate[0] = 1
    reach = torch.tensor([0.25, 0.75], dtype=torch.float64)
    assert rms_gap(costate, truth, reach) == pytest.approx(0.75**0.5)
    assert rms_gap(truth, truth, reach) == 0
    assert rms_gap(costate, 0 * truth, reach) == 0
    levels = reaches(LOCK, build_policy(LOCK, 0))
    assert [len(level) for level in levels] == [1, 3, 9, 27]
    assert all(float(level.sum()) == pytest.approx(1) for level in levels)


def test_the_cosine_weighs_prefixes_and_reads_the_last_position():
    truth = torch.ones(2, 3, 4, dtype=torch.float64)
    costate, reach = truth.clone(), torch.tensor([0.25, 0.75], dtype=torch.float64)
    costate[1] *= -1
    assert level_cosine(costate, truth, reach) == pytest.approx(-0.5)
    costate[:, :-1] = 7
    assert level_cosine(5 * costate, truth, reach) == pytest.approx(-0.5)
    assert level_cosine(0 * truth, truth, reach) == level_cosine(truth, 0 * truth, reach) == 0


def test_the_entropy_at_the_prompt_is_that_of_the_trees_first_level():
    policy = build_policy(LOCK, 1, temperature=0.7)
    pi = grow(LOCK, policy).levels[0].pi.detach()
    assert prompt_entropy(LOCK, policy) == pytest.approx(float(-(pi * pi.log()).sum(-1).mean()), rel=1e-12)


def test_presets_grow_and_begin_with_every_kind_of_alpha():
    tiny, quick, full = (split_settings(preset) for preset in ("tiny", "quick", "full"))
    assert set(tiny) < set(quick) < set(full)
    assert {setting.alpha for setting in tiny} == {0.0, 1.0}
    assert {setting.world for setting in quick} == set(WORLDS)


def test_an_unknown_world_is_refused_with_the_names_there_are():
    with pytest.raises(InputError, match=r"world 'gernet' is unknown; did you mean garnet"):
        build_world("gernet")
