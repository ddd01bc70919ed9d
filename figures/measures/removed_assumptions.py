"""Three scalar worlds with an assumption of the theory removed, the policy that acts in them, and what it samples there."""

import torch
from torch import Tensor

from agents.policies.linear import LinearPolicy
from agents.sampling.rollout import rollout
from agents.sampling.score_function import score_function_gradient
from envs.linear_quadratic import LinearQuadratic
from envs.lq_variants import QuantisedAction, StateScaledNoise, StepReward, quantised_action, state_scaled_noise
from envs.lq_variants import step_reward as step_reward_world
from envs.noise import Noise
from figures.harness.statistics import Estimate
from figures.measures.rollouts import costates_of, fixed_start, sampled

GAIN = torch.tensor([[0.8]], dtype=torch.float64)  # K of the policy u = -K s in all three worlds
QUANTISED_START = torch.tensor([0.7], dtype=torch.float64)
_SD = 0.3  # of the action noise


def step_world() -> StepReward:
    """A world whose reward is a step (breaks A1), over five steps."""
    return step_reward_world(horizon=5, action_noise=_SD).to()


def scaled_world() -> StateScaledNoise:
    """A world whose action noise grows with the state (breaks A2), over ten steps."""
    return state_scaled_noise(horizon=10, C=[[1.5]], action_noise=_SD).to()


def quantised_world(quantum: float) -> QuantisedAction:
    """A world that rounds actions to multiples of `quantum` noise standard deviations (breaks A1), over two steps."""
    return quantised_action(horizon=2, action_noise=_SD, quantum=quantum * _SD).replace(S_w=[[0.0]]).to()


def mean_costate(world: LinearQuadratic, start: Tensor, samples: int, rng: torch.Generator, device: str) -> Estimate:
    """Return the mean of autograd's lambda_0 over paths from s_0 = `start`, both (n,)."""
    policy = LinearPolicy(GAIN).to(device)

    def first(noise: Noise) -> Tensor:
        return costates_of(world, policy, fixed_start(noise, start))[0][:, 0]

    return sampled(world, world.horizon or 1, samples, rng, device, first)


def mean_score_gradient(world: StepReward, start: Tensor, samples: int, rng: torch.Generator, device: str) -> Estimate:
    """Return the mean of the score function's dJ/dK over paths from s_0 = `start`, with the baseline -1; (m, n)."""
    policy = LinearPolicy(GAIN).to(device)

    def score(noise: Noise) -> Tensor:
        trajectory = rollout(world, policy, fixed_start(noise, start))
        return score_function_gradient(world, policy, trajectory, -1.0)["K"]

    return sampled(world, world.horizon or 1, samples, rng, device, score)
