"""Five estimators of dJ/dK on the same sampled paths, and their variances batch by batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.policies.linear import LinearPolicy
from agents.sampling.pathwise import critic_gradient, pathwise_gradient
from agents.sampling.rollout import Trajectory, rollout
from agents.sampling.score_function import best_constant_baseline, score_function_gradient
from envs.linear_quadratic import LinearQuadratic
from envs.noise import draw_noise
from figures.harness.statistics import Estimate, batches, estimate
from theory.continuous.lyapunov import QuadraticValue, linear_value

ESTIMATORS = ("pathwise", "critic", "score", "score_value_baseline", "score_best_baseline")
_PILOT = 2_000  # paths from which the best constant baseline is estimated


@dataclass(frozen=True)
class EstimatorSample:
    """What a sample of paths says about the estimators.

    Attributes:
        critic: mean of the pathwise gradient with a perfect critic, (m, n).
        variances: total variance of each estimator in each batch, summed over the entries of K, (batches, estimators).
    """

    critic: Estimate
    variances: Tensor


def sample_estimators(
    world: LinearQuadratic,
    K: Tensor,
    samples: int,
    count: int,
    rng: torch.Generator,
    device: str,
    k: Tensor | None = None,
) -> EstimatorSample:
    """Draw `samples` paths of the policy u = -K s - k in `count` batches (or a few more) and apply `ESTIMATORS` to each path.

    Args:
        world: of finite horizon.
        K: gain, (m, n).
        samples: number of paths.
        count: number of batches.
        rng: a generator on the CPU.
        device: where the paths are run.
        k: offset, (m,), or None.
    """
    policy, value, T = LinearPolicy(K, k).to(device), linear_value(world, K, k), world.horizon or 1
    pilot = rollout(world, policy, draw_noise(world, _PILOT, T, rng).to(device))
    constant = best_constant_baseline(world, policy, pilot)
    critic, variances = [], []
    for size in batches(samples, samples // count):
        trajectory = rollout(world, policy, draw_noise(world, size, T, rng).to(device))
        gradients = _all_estimators(world, policy, trajectory, value, constant)
        critic.append(gradients[ESTIMATORS.index("critic")])
        variances.append(gradients.var(1).flatten(1).sum(1))
    return EstimatorSample(estimate(torch.cat(critic)), torch.stack(variances))


def _all_estimators(
    world: LinearQuadratic, policy: LinearPolicy, trajectory: Trajectory, value: QuadraticValue, constant: Tensor
) -> Tensor:
    """(estimator, sample, m, n) in the order of `ESTIMATORS`."""
    states, T = trajectory.states.detach().cpu(), trajectory.actions.shape[1]
    levels = torch.stack([value.value(states[:, t], t) for t in range(T)], 1).to(trajectory.states)
    columns = [
        pathwise_gradient(policy, trajectory),
        critic_gradient(world, policy, trajectory, lambda s, t: value.gradient(s.cpu(), t).to(s)),
    ]
    columns += [score_function_gradient(world, policy, trajectory, b) for b in (0.0, levels, constant)]
    return torch.stack([column["K"] for column in columns])
