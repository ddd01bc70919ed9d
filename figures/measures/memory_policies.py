"""Short linear-quadratic worlds under policies that look back: position attention, and a small random transformer."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from agents.policies.linear import ClosedPath, LinearPolicy, PositionAttention
from agents.policies.transformer import Transformer, TransformerCommand
from agents.sampling.rollout import rollout
from envs.linear_quadratic import LinearQuadratic, random_system, scalar
from envs.noise import Noise
from envs.stacked_history import stack_history
from figures.harness.statistics import Estimate
from figures.measures.rollouts import costates_of, fixed_start, sampled
from theory.continuous.attention import AttentionSplit, attention_split, history_gain, stacked_noise
from theory.continuous.costates import autograd_costates
from theory.continuous.lyapunov import second_moments
from theory.continuous.riccati import riccati

_WINDOW, _STEPS = 4, 8  # of position attention
_WIDTH, _HEAD, _ATTENTION = 16, 3.0, 4.0  # of the transformer; the factors make commands non-linear and the past matter


@dataclass(frozen=True)
class AttentionSystem:
    """A world under a position-attention policy, and the same rollout as one of a linear policy on stacked histories.

    Attributes:
        world: of horizon T.
        policy: attends to the last `window` states.
        stacked: the world whose state is the history `S_t = [s_t, s_{t-1}, ...]`.
        memory: the linear policy on that history which gives the same commands.
        exact: mean costates as maps of S_t.
        Sigma: second moments E S_t S_t', (T + 1, window * n, window * n).
    """

    world: LinearQuadratic
    policy: PositionAttention
    stacked: LinearQuadratic
    memory: LinearPolicy
    exact: AttentionSplit
    Sigma: Tensor


def attention_system(pull: float, device: str = "cpu") -> AttentionSystem:
    """Return a system with two heads over four states: one stabilises, one looks mainly back.

    Args:
        pull: score of every past state, where the present one has score 0 (the second head's first two lags add more).
        device: of the policies.
    """
    world = random_system(size=2, actions=1, seed=5, spectral_radius=0.95, horizon=_STEPS, gamma=0.95).to()
    K = riccati(world).K[0]
    scores = torch.zeros(2, _WINDOW, dtype=torch.float64)
    scores[:, 1:] = pull
    scores[1, 1:] += torch.tensor([1.0, 0.5, 0.0])
    policy = PositionAttention(scores, torch.stack([0.7 * K, 0.5 * K]))
    gains = policy.gains(_STEPS).detach()
    stacked, history_K = stack_history(world, _WINDOW), history_gain(gains)
    return AttentionSystem(
        world,
        policy.to(device),
        stacked,
        memory=LinearPolicy(history_K).to(device),
        exact=attention_split(world, gains),
        Sigma=second_moments(stacked, history_K),
    )


class PathCostates(NamedTuple):
    """Autograd's costates of one batch of paths.

    Attributes:
        whole: with all paths open, (batch, T + 1, n).
        attention: what reaches s_t through the memory of it, (batch, T, n).
        closed: with attention to the past closed, (batch, T + 1, n).
        history: `[s_t, s_{t-1}, ...]`, detached, (batch, T + 1, window * n).
    """

    whole: Tensor
    attention: Tensor
    closed: Tensor
    history: Tensor


def costates_by_path(system: AttentionSystem, noise: Noise) -> PathCostates:
    """Costates of the system's policy on this noise, whole and path by path."""
    world, n = system.world, system.world.n
    whole, _ = costates_of(world, system.policy, noise)
    closed, _ = costates_of(world, ClosedPath(system.policy, "past"), noise)
    lifted = rollout(system.stacked, system.memory, stacked_noise(noise, system.stacked.n))
    slots = autograd_costates(lifted.returns, lifted.state_probe, world.gamma)
    return PathCostates(whole, world.gamma * slots[:, 1:, n : 2 * n], closed, lifted.states.detach())


class MeanCostates(NamedTuple):
    """Costates from one start state, times 0 ... T-1: sampled means, and what they must be.

    Attributes:
        sampled: with attention open and closed, (2, T, n).
        exact: the same, (2, T, n); with attention open the value gradient at the mean history.
        attention: the part of the value gradient that comes through attention, (T, n).
    """

    sampled: Estimate
    exact: Tensor
    attention: Tensor


def mean_costates(system: AttentionSystem, samples: int, rng: torch.Generator, device: str) -> MeanCostates:
    """Return the mean costates of paths that start one standard deviation from 0 in every component."""
    world, T = system.world, system.world.horizon or 1
    start = system.Sigma[0].diagonal()[: world.n].sqrt()
    policies = (system.policy, ClosedPath(system.policy, "past"))

    def costates(noise: Noise) -> Tensor:
        fixed = fixed_start(noise, start.to(noise.s_0))
        return torch.stack([costates_of(world, policy, fixed)[0][:, :T] for policy in policies], 1)

    quiet = Noise(start[None], start.new_zeros(1, T, world.m), start.new_zeros(1, T, world.n)).to(device)
    history = costates_by_path(system, quiet).history[0, :T].cpu()  # all is linear: the path without noise is the mean
    open_, attention, closed = (
        -2 * torch.einsum("tij,tj->ti", P[:T], history)
        for P in (system.exact.total, system.exact.attention, system.exact.closed)
    )
    return MeanCostates(sampled(world, T, samples, rng, device, costates), torch.stack([open_, closed]), attention)


def transformer_world(process_noise: bool) -> LinearQuadratic:
    """Return the scalar world, short enough for quadrature over all its noise: three steps, two with process noise."""
    world = scalar(horizon=2 if process_noise else 3, gamma=0.9, action_noise=0.4)
    return world.replace(S_w=[[0.09 if process_noise else 0.0]]).to()


def transformer_policy(seed: int) -> TransformerCommand:
    """Return a random Gaussian-head transformer with two layers that acts in `transformer_world`."""
    network = Transformer(1, 1, width=_WIDTH, heads=2, length=4, seed=seed)
    with torch.no_grad():
        network.head.weight *= _HEAD
        for name, weight in network.named_parameters():
            weight.mul_(_ATTENTION if name.endswith("attention.outward.weight") else 1.0)
    return TransformerCommand(network)
