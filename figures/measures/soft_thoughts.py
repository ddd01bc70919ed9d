"""What SofT-GRPO and soft tokens follow: exact means by quadrature, sampled updates, the form of the code, ratios of noise."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.transformer import Transformer
from agents.recipes.learners import Learner, build_learner
from agents.recipes.soft_thoughts import SoftThoughts
from agents.sampling.soft_thoughts import soft_completions, soft_log_probs
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from figures.harness.statistics import batches
from figures.measures.repairs import angle
from figures.measures.soft_oracle import SoftOracle
from theory.groups.binary_rewards import grpo_kappa
from theory.groups.expected_update import expected_update
from theory.groups.outcomes import expected_weights
from theory.tokens.noise_scores import hard_limit_surrogate
from theory.tokens.prefix_tree import grow
from theory.tokens.soft_thoughts import SoftSuccess, soft_success
from theory.tokens.tree_gradients import score_surrogate

PROMPT, ANSWER, GROUP, PARTS = (0,), 1, 8, 40
WIDTH, LAYERS, HEADS = 4, 2, 2  # narrow: Gaussian noise on embeddings has as many dimensions to integrate over
SIX = TokenMDP.from_rewards([0.0, 1.0, 0.0, 1.0, 0.0, 0.0])  # one of six answers after the thoughts; two are right


def answers() -> TokenMDP:
    """One answer after the thoughts, of two: token 1 is right."""
    return TokenMDP.from_rewards([0.0, 1.0])


def thinker(V: int, seed: int, spread: float, width: int = WIDTH, device: str = "cpu") -> Transformer:
    """A small random transformer; `spread` scales its head."""
    policy = Transformer(V, width=width, layers=LAYERS, heads=HEADS, length=8, seed=seed)
    with torch.no_grad():
        policy.head.weight *= spread
    return policy.to(device)


def learner_of(tau: float, thoughts: int, official: bool = False) -> Learner:
    """The recipe that is trained, with its thoughts."""
    return build_learner("soft_grpo", tau=tau, thoughts=thoughts, official=official)


class MeanUpdate(NamedTuple):
    """GRPO's exact mean update on the whole noise density, and what it should be.

    Attributes:
        mean: the mean weight of a success and of a failure, each times the mean score of such rows.
        target: `c_G(P) grad P`, grad P pathwise.
        kappa: `c_G(P)`.
    """

    mean: Float[Tensor, "parameters"]
    target: Float[Tensor, "parameters"]
    kappa: float


def mean_update(right: SoftSuccess, policy: TokenPolicy, tau: float, thoughts: int, nodes: int) -> MeanUpdate:
    """The mean over all groups of successes and failures, weighted by the recipe itself; `right` is of the right answer."""
    wrong = soft_success(policy, PROMPT, tau, thoughts, nodes, 1 - ANSWER)
    P = right.P / (right.P + wrong.P)
    rewards = torch.zeros(2, thoughts + 1, dtype=torch.float64, device=P.device)
    rewards[1, -1] = 1.0
    rows = {"rewards": rewards, "mask": torch.ones_like(rewards, dtype=torch.bool)}
    weights = expected_weights(learner_of(tau, thoughts), torch.stack([1 - P, P]), rows, GROUP)[0].mean(1)
    kappa = grpo_kappa(P, GROUP)
    return MeanUpdate(weights[0] * wrong.score + weights[1] * right.score, kappa * right.pathwise, float(kappa))


def sampled_updates(
    world: TokenMDP, policy: Transformer, learner: Learner, groups: int, rng: torch.Generator
) -> Float[Tensor, "parts parameters"]:
    """The learner's own updates on sampled thoughts and answers of the first prompt, each the mean of a part of the groups."""
    soft, updates = learner.soft or SoftThoughts(), list[Tensor]()
    for count in batches(groups, -(-groups // PARTS)):
        rows = soft_completions(world, policy, torch.zeros(count, dtype=torch.int64), GROUP, soft, rng)
        log_probs, _ = soft_log_probs(policy, rows.contexts, rows.u, world.horizon, soft)
        loss = learner.loss(log_probs, None, rows.batch())
        slopes = torch.autograd.grad(-loss, list(policy.parameters()), allow_unused=True, materialize_grads=True)
        updates.append(torch.cat([slope.flatten() for slope in slopes]))
    return torch.stack(updates)


def sampled_angle(updates: Float[Tensor, "parts parameters"], truth: Float[Tensor, "parameters"]) -> float:
    """Angle in degrees of the updates' mean to a gradient, the noise taken out of its squared length."""
    mean, noise = updates.mean(0), updates.var(0).sum() / len(updates)
    size = (mean @ mean - noise).clamp(min=1e-300).sqrt()
    return math.degrees(math.acos(min(1.0, max(-1.0, float(mean @ truth / (size * truth.norm()))))))


def own_gradient(
    world: TokenMDP, policy: Transformer, learner: Learner, draws: int = 4096
) -> Float[Tensor, "parameters"]:
    """The gradient of the return of what the learner samples, from noise that is drawn once."""
    surrogate = score_surrogate(SoftOracle(world, learner.soft or SoftThoughts(), 2**31, draws).tree(policy))
    slopes = torch.autograd.grad(surrogate, list(policy.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([slope.flatten() for slope in slopes])


def sampled_angles(
    policy: Transformer, tau: float, thoughts: int, groups: int, rng: torch.Generator
) -> dict[str, float]:
    """The angle of sampled updates with six answers to the gradient of what each form samples, on the same noise."""
    angles, state = dict[str, float](), rng.get_state()
    for form, official in (("whole density", False), ("the code's", True)):
        rng.set_state(state)
        learner = learner_of(tau, thoughts, official)
        updates = sampled_updates(SIX, policy, learner, groups, rng)
        angles[form] = sampled_angle(updates, own_gradient(SIX, policy, learner))
    return angles


def masked_angles(world: TokenMDP, policy: TokenPolicy, floor: float) -> dict[str, float]:
    """Angles to grad J of the mean update of hard thoughts: all tokens, their mean, and the mean over likely ones."""
    update = expected_update(world, policy, build_learner("rloo"), 2)
    forms = {"sum": (-math.inf, False), "mean": (-math.inf, True), "mean over the mask": (floor, True)}
    angles = dict[str, float]()
    for name, form in forms.items():
        surrogate = hard_limit_surrogate(grow(world, policy), update.weights, *form)
        slopes = torch.autograd.grad(surrogate, list(policy.parameters()))
        angles[name] = angle(torch.cat([slope.flatten() for slope in slopes]), update.truth.flat)
    return angles
