"""Costates at a time t given the past: the exact value gradient, the exact mean costate, and sampled means.

All roads share the noise before t, so that the history up to s_t is the same in all samples.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from agents.policies.linear import ClosedPath
from agents.policies.transformer import TransformerCommand
from agents.sampling.rollout import rollout
from envs.linear_quadratic import LinearQuadratic
from envs.noise import Noise
from envs.policy import Policy
from figures.harness.statistics import Estimate, batches, pooled
from figures.measures.rollouts import costates_of, fixed_start, sampled
from theory.continuous.quadrature import noise_grid, quadrature_value_gradient

LookingBack = TransformerCommand | ClosedPath  # policies that read the whole history
_BATCH = 20_000  # paths at a time: more of a transformer's graphs do not fit a small memory


@dataclass(frozen=True)
class Place:
    """A time of a finite world and the past that leads to it.

    Attributes:
        world: of horizon T, with Gaussian noise.
        t: the time.
        start: s_0, (1,).
        past: noise of one path; what comes before t counts.
    """

    world: LinearQuadratic
    t: int
    start: Tensor
    past: Noise

    @property
    def steps(self) -> int:
        """The horizon T."""
        return self.world.horizon or 1

    def condition(self, noise: Noise) -> Noise:
        """The same noise from t on, with this start and this past."""
        xi, w, t = noise.xi.clone(), noise.w.clone(), self.t
        xi[:, :t], w[:, :t] = self.past.xi[:, :t], self.past.w[:, :t]
        return fixed_start(Noise(noise.s_0, xi, w), self.start)

    def history(self, policy: Policy) -> Tensor:
        """States s_0 ... s_t, (t + 1, 1)."""
        return rollout(self.world, policy, fixed_start(self.past, self.start)).states[0, : self.t + 1].detach()


def value_gradient(place: Place, policy: Policy, nodes: int) -> Tensor:
    """`dV_t/ds_t` given the past, by quadrature over the noise from t on and central differences; a number."""
    history, t = place.history(policy), place.t

    def command(later: Tensor, k: int) -> Tensor:
        return policy(torch.cat([history[:t].expand(len(later), -1, -1), later], 1), t + k)

    rest = place.world.replace(horizon=place.steps - t)
    return quadrature_value_gradient(rest, command, history[t], nodes)[0]


def mean_costate(place: Place, policy: Policy, nodes: int) -> Tensor:
    """The exact mean of autograd's costate at t, with the quadrature's grid in the place of samples; a number."""
    xi, w, weights = noise_grid(place.world, place.steps - place.t, nodes)
    xi, w = (pad(x, (0, 0, place.t, 0)) for x in (xi, w))  # room for the past
    noise = place.condition(Noise(place.start.expand(len(xi), 1), xi, w))
    return weights @ costates_of(place.world, policy, noise)[0][:, place.t, 0]


def sampled_costates(
    place: Place, policies: Sequence[LookingBack], samples: int, rng: torch.Generator, device: str
) -> Estimate:
    """Mean costates at t of all policies on the same noise, (policies,)."""
    on_device: list[LookingBack] = [copy.deepcopy(policy).to(device) for policy in policies]

    def costates(noise: Noise) -> Tensor:
        conditioned = place.condition(noise)
        return torch.stack([costates_of(place.world, each, conditioned)[0][:, place.t, 0] for each in on_device], 1)

    sizes = batches(samples, _BATCH)
    return pooled(sampled(place.world, place.steps, size, rng, device, costates) for size in sizes)
