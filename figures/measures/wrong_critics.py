"""Updates with a critic that is wrong: exact bias and spread over all completions, and two estimators on sampled paths."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.linear import LinearPolicy
from agents.recipes.advantages import gae
from agents.recipes.learners import ppo
from agents.sampling.lambda_returns import gae_gradient
from agents.sampling.pathwise import critic_gradient
from agents.sampling.rollout import rollout
from agents.sampling.value_gradient_targets import vgl_targets
from envs.linear_quadratic import LinearQuadratic, random_system, scalar
from envs.noise import Noise
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from figures.harness.statistics import Estimate
from figures.measures.rollouts import sampled
from theory.continuous.costates import path_derivatives
from theory.continuous.lq_gradients import policy_gradient
from theory.continuous.lyapunov import QuadraticValue, linear_value, second_moments
from theory.continuous.riccati import riccati
from theory.differences import flat_parameters
from theory.groups.expected_update import expected_update
from theory.tokens.completions import completion_log_probs, completions
from theory.tokens.gae_bias import bias_terms
from theory.tokens.prefix_tree import Tree, grow

EXACT_CRITIC, NOISY, TIME = "exact critic", "error at each prefix", "error of time alone"
SHORT_SYSTEMS = {  # few steps, so that the score function's spread leaves its mean to be seen
    "scalar, 5 steps": partial(scalar, horizon=5),
    "random, 4 steps": partial(random_system, size=2, actions=1, seed=2, horizon=4, action_noise=0.6),
}


def critic_errors(tree: Tree, kind: str, seed: int, size: float) -> list[Tensor]:
    """Errors of a critic at every prefix: none, independent normal numbers, or one normal number for each step."""
    rng = torch.Generator().manual_seed(seed)
    if kind == EXACT_CRITIC:
        return [torch.zeros_like(V) for V in tree.V]
    counts = [len(V) if kind == NOISY else 1 for V in tree.V]
    draws = [size * torch.randn(count, generator=rng, dtype=torch.float64) for count in counts]
    return [x.to(V).expand(V.shape) for x, V in zip(draws, tree.V, strict=True)]


@dataclass(frozen=True)
class WrongCriticUpdate:
    """The update with GAE at several lambdas, exact.

    Attributes:
        gradient: grad J.
        bias: mean update of `ppo` less grad J, for every lambda.
        predicted: the same by the polynomial in lambda.
        spread: root of the total variance of one row's update.
    """

    gradient: Float[Tensor, "parameters"]
    bias: Float[Tensor, "lams parameters"]
    predicted: Float[Tensor, "lams parameters"]
    spread: Float[Tensor, "lams"]


def wrong_critic_update(
    world: TokenMDP, policy: TokenPolicy, kind: str, seed: int, lams: Sequence[float], size: float
) -> WrongCriticUpdate:
    """Bias and spread of GAE with a critic whose error is of this kind and size (`critic_errors`)."""
    tree, parameters = grow(world, policy), list(policy.parameters())
    errors = critic_errors(tree, kind, seed, size)
    values = [V + e for V, e in zip(tree.V, errors, strict=True)]
    terms = [flat_parameters(_slopes(b, parameters)) for b in bias_terms(tree, errors)]
    updates = [expected_update(world, policy, ppo(lam=lam), 1, values=values) for lam in lams]
    none = torch.zeros_like(updates[0].truth.flat)
    predicted = [sum(((1 - lam) * lam**i * b for i, b in enumerate(terms)), none) for lam in lams]
    bias = torch.stack([update.mean.flat - update.truth.flat for update in updates])
    spread = _row_spread(tree, parameters, values, lams)
    return WrongCriticUpdate(updates[0].truth.flat, bias, torch.stack(predicted), spread)


def _slopes(scalar: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(scalar, list(parameters), retain_graph=True, allow_unused=True, materialize_grads=True)


def _row_spread(
    tree: Tree, parameters: Sequence[Tensor], values: list[Tensor], lams: Sequence[float]
) -> Float[Tensor, "lams"]:
    """Root of `E |u|^2 - |E u|^2` of one row's `u = sum_t A_t grad log pi(c_t)`, rows of all prompts."""
    rows, log_probs = completions(tree), completion_log_probs(tree)
    scores = torch.stack([flat_parameters(_slopes(x, parameters)) for x in log_probs.flatten()])
    scores = scores.reshape(*log_probs.shape, -1)[:, rows.word].flatten(0, 1)
    columns = [
        tree.world.gamma**k * V.repeat_interleave(log_probs[..., 0].numel() // len(V)) for k, V in enumerate(values)
    ]
    along = torch.stack(columns, -1).reshape(log_probs.shape)[:, rows.word].flatten(0, 1)
    rewards, mask = rows.rewards.flatten(0, 1), rows.mask.flatten(0, 1)
    p, group = (tree.levels[0].reach[:, None] * rows.p).flatten(), torch.arange(len(rewards)).to(rows.word)
    spreads = []
    for lam in lams:
        u = torch.einsum("rt,rtp->rp", gae(along, lam)(rewards, mask, group), scores)
        spreads.append((p @ u.square().sum(1) - (p @ u).square().sum()).clamp(min=0).sqrt())
    return torch.stack(spreads)


def scaled_critic(world: LinearQuadratic, K: Tensor, factor: float) -> QuadraticValue:
    """A critic with `factor` times the matrix of the value and the value's own mean over the states of every time."""
    value, Sigma = linear_value(world, K), second_moments(world, K)
    P = factor * value.P
    return QuadraticValue(P, value.p, value.c + ((value.P - P) * Sigma).sum((1, 2)))


def short_system(name: str, noise: str) -> tuple[LinearQuadratic, Tensor]:
    """A system of a few steps with additive noise of this family, and a gain: a fifth of the optimal one at the start."""
    world = SHORT_SYSTEMS[name]().replace(noise=noise).to()
    return world, 0.2 * riccati(world).K[0]


def _at_time(along: Float[Tensor, "batch times n"], states: Tensor, t: int) -> Float[Tensor, "batch n"]:
    """The entry at time t of what is known along the paths themselves."""
    return along[:, t]


@dataclass(frozen=True)
class BothGradients:
    """Estimates from the same paths, (estimator, critic, lam, ...), GAE first.

    Attributes:
        mean: of the gradient in K, (..., m n).
        gain: of its component along the exact gradient, over the size of that.
        square: of its squared norm, over that of the exact gradient.
    """

    mean: Estimate
    gain: Estimate
    square: Estimate


def both_gradients(
    world: LinearQuadratic,
    K: Float[Tensor, "m n"],
    critics: Sequence[QuadraticValue],
    lams: Sequence[float],
    samples: int,
    rng: torch.Generator,
    device: str,
) -> BothGradients:
    """The score-function gradient with GAE(lam) and the pathwise one with VGL(lam), for every critic and lambda."""
    policy, unit = LinearPolicy(K).to(device), policy_gradient(world, K).to(device).flatten()

    def command(state: Tensor, t: int) -> Tensor:
        return -state @ K.to(state).mT

    def measure(noise: Noise) -> Tensor:
        trajectory = rollout(world, policy, noise)
        states = trajectory.states.detach()
        derivatives = path_derivatives(world, command, states, noise.xi, noise.w)
        columns = []
        for critic in critics:
            levels = [(critic.value(s, t), critic.gradient(s, t)) for t, s in enumerate(states.cpu().unbind(1))]
            values, gradients = (torch.stack(x, 1).to(states) for x in zip(*levels, strict=True))
            for lam in lams:
                ahead = lam * vgl_targets(*derivatives, gradients, world.gamma, lam) + (1 - lam) * gradients
                columns.append(gae_gradient(world, policy, trajectory, values, lam)["K"])
                columns.append(critic_gradient(world, policy, trajectory, partial(_at_time, ahead))["K"])
        both = torch.stack(columns, 1).reshape(len(states), len(critics), len(lams), 2, -1).movedim(3, 1)
        more = torch.stack([both @ unit, both.square().sum(-1)], -1) / unit.square().sum()
        return torch.cat([both, more], -1)

    found = sampled(world, world.horizon or 1, samples, rng, device, measure)
    return BothGradients(found[..., :-2], found[..., -2], found[..., -1])
