"""The full presets can begin: no point is refused for its size, which their quick presets would not show."""

import pytest
import torch

from figures.claims.critic_free.u_statistic import WORLDS
from figures.claims.critic_free.u_statistic import settings as u_settings
from figures.measures.actor_cases import settings as actor_settings
from figures.measures.sampled_updates import costate_samples
from figures.measures.token_systems import build_policy, build_world
from theory.groups.outcomes import distinct_outcomes, group_multisets
from theory.tokens.completions import completions
from theory.tokens.costates import sampled_costates
from theory.tokens.prefix_tree import grow


@pytest.mark.parametrize("setting", [s for s in actor_settings("full") if s.kind == "dense"], ids=str)
def test_the_groups_of_the_dense_worlds_can_be_enumerated(setting):
    world = build_world(setting.world)
    rows = completions(grow(world, build_policy(world, setting.seed, setting.temperature)))
    of, _ = distinct_outcomes({"rewards": rows.rewards[0], "mask": rows.mask[0]})
    p = torch.zeros(int(of.max()) + 1, dtype=torch.float64).index_add_(0, of, rows.p[0].detach())
    assert len(group_multisets(p, setting.most)[0]) < 10**6


def test_samples_in_pieces_are_all_there_and_one_piece_is_the_plain_call(monkeypatch):
    world = build_world("garnet (4,4)")
    policy = build_policy(world, 0)

    def draw(count, rng=None):
        rng = rng or torch.Generator().manual_seed(3)
        return sampled_costates(world, policy, "score", "layer1", count, rng)

    assert torch.equal(costate_samples(50, draw), draw(50)[0, :, -1])
    monkeypatch.setattr("figures.measures.sampled_updates._PIECE", 20)
    rng, counts = torch.Generator().manual_seed(3), []
    values = costate_samples(50, lambda n: counts.append(n) or draw(n, rng))
    assert sum(counts) == 50
    assert max(counts) <= 20
    assert len(values) == 50
    assert len(values.unique(dim=0)) > 20  # no piece is drawn twice


def test_more_samples_are_for_cases_that_exist():
    assert {s.samples for s in u_settings("full")} == {2_000_000, 6_000_000, 8_000_000}
    assert [s.samples for s in u_settings("quick")] == [450_000, 1_350_000]
    assert {s.world for s in u_settings("full")} == set(WORLDS)
