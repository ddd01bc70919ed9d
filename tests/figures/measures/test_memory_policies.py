"""Costates of the attention system path by path against their exact maps; the transformer is far from linear."""

import pytest
import torch

from envs.noise import Noise, draw_noise
from figures.measures.memory_policies import (
    attention_system,
    costates_by_path,
    transformer_policy,
    transformer_world,
)

close = torch.testing.assert_close


@pytest.mark.parametrize("pull", [-2.0, 1.0])
def test_costates_by_path_are_their_exact_means_on_the_path_without_noise(pull, rng):
    """Every part is linear in the noise, so one quiet path gives its mean at every time."""
    system = attention_system(pull)
    drawn = draw_noise(system.world, 1, 8, rng)
    costates = costates_by_path(system, Noise(drawn.s_0, 0 * drawn.xi, 0 * drawn.w))
    means = {name: -2 * torch.einsum("tij,btj->bti", P, costates.history) for name, P in system.exact._asdict().items()}
    close(costates.whole, means["total"])
    close(costates.attention, means["attention"][:, :-1])
    close(costates.closed, means["closed"])
    assert float((costates.closed - costates.whole)[:, 0].abs().max()) > 1e-3
    assert float(costates.attention[:, :3].abs().max()) > 1e-3


def test_the_memory_gives_the_commands_of_the_attention_policy(rng):
    system = attention_system(0.0)
    states = torch.randn(3, 4, 2, generator=rng, dtype=torch.float64)
    history = states.flip(1).reshape(3, 1, 8)
    close(system.memory(history, 5), system.policy(states, 5))
    moments = system.Sigma[0][:2, :2]
    close(moments, system.world.S_0 + torch.outer(system.world.m_0, system.world.m_0))


def test_the_transformer_is_not_linear_and_reads_its_past(rng):
    policy = transformer_policy(0).requires_grad_(False)
    history = torch.randn(50, 2, 1, generator=rng, dtype=torch.float64)
    command = policy(history, 1)
    assert float((policy(2 * history, 1) - 2 * command).abs().mean()) > 0.1
    forgetful = torch.cat([0 * history[:, :1], history[:, 1:]], 1)
    assert float((policy(forgetful, 1) - command).abs().mean()) > 0.05
    assert not torch.equal(transformer_policy(1)(history, 1), command)
    worlds = transformer_world(False), transformer_world(True)
    assert [world.horizon for world in worlds] == [3, 2]
    assert [bool(world.S_w.any()) for world in worlds] == [False, True]
