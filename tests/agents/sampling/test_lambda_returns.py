"""TD(lambda) returns against their sums, the recipe of GAE, and the score function with a baseline."""

import pytest
import torch

from agents.policies.linear import LinearPolicy
from agents.recipes.advantages import gae
from agents.sampling.lambda_returns import gae_gradient, lambda_returns
from agents.sampling.rollout import rollout
from agents.sampling.score_function import score_function_gradient
from envs.linear_quadratic import random_system
from envs.noise import draw_noise
from envs.world import InputError

close = torch.testing.assert_close
RNG = torch.Generator().manual_seed(0)
REWARDS, VALUES = (torch.randn(5, 4, generator=RNG).double() for _ in range(2))


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_the_advantage_is_the_discounted_sum_of_temporal_differences(lam):
    gamma, values = 0.8, VALUES.clone()
    values[:, -1] = REWARDS[:, -1]
    delta = REWARDS[:, :-1] + gamma * values[:, 1:] - values[:, :-1]
    found = lambda_returns(REWARDS, values, gamma, lam) - values
    for t in range(3):
        expected = sum((gamma * lam) ** (j - t) * delta[:, j] for j in range(t, 3))
        close(found[:, t], expected)
    close(lambda_returns(REWARDS, VALUES, gamma, 1.0)[:, 0], REWARDS @ gamma ** torch.arange(4).double())
    close(lambda_returns(REWARDS, VALUES, gamma, 0.0)[:, 1], REWARDS[:, 1] + gamma * VALUES[:, 2])


def test_it_is_the_recipes_gae_without_a_last_reward():
    rewards = torch.cat([REWARDS[:, :-1], torch.zeros(5, 1).double()], 1)
    values = torch.cat([VALUES[:, :-1], torch.zeros(5, 1).double()], 1)
    advantage = gae(values[:, :-1], 0.6)(rewards[:, :-1], torch.ones(5, 3).bool(), torch.arange(5))
    close((lambda_returns(rewards, values, 1.0, 0.6) - values)[:, :-1], advantage)


def test_at_lambda_1_it_is_the_score_function_with_a_baseline():
    world = random_system(size=2, actions=1, seed=0, horizon=3).to()
    policy = LinearPolicy(torch.tensor([[0.2, 0.1]]).double())
    trajectory = rollout(world, policy, draw_noise(world, 6, 3, torch.Generator().manual_seed(1)))
    values = torch.randn(6, 4, generator=torch.Generator().manual_seed(2)).double()
    expected = score_function_gradient(world, policy, trajectory, values[:, :3])["K"]
    close(gae_gradient(world, policy, trajectory, values, 1.0)["K"], expected)
    assert not torch.allclose(gae_gradient(world, policy, trajectory, values, 0.5)["K"], expected)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"lam": -0.1}, r"^lam must lie in \[0, 1\]; got -0.1$"),
        ({"gamma": 0.0}, "^gamma must"),
        ({"values": VALUES[:, 1:]}, r"^values must have the shape of rewards, \(5, 4\); got \(5, 3\)$"),
    ],
)
def test_refusals(change, text):
    with pytest.raises(InputError, match=text):
        lambda_returns(**{"rewards": REWARDS, "values": VALUES, "gamma": 0.9, "lam": 0.5} | change)
