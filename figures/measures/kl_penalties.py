"""KL penalties by themselves: the mean gradient of each, in the reward and in the loss, and the moments of its value."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from agents.recipes.learners import Learner, Penalty, build_learner
from agents.recipes.surrogates import KL_ESTIMATORS
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from theory.groups.expected_update import expected_update
from theory.tokens.completions import words
from theory.tokens.prefix_tree import grow


def penalised_learners() -> dict[str, Learner]:
    """REINFORCE with each estimator as its only signal, in the reward (k1 also to go) and in the loss."""
    learners = {}
    for name in KL_ESTIMATORS:
        learners[f"{name} in the reward"] = build_learner("reinforce", kl_reward=Penalty(name, 1.0))
        learners[f"{name} in the loss"] = build_learner("reinforce", kl_loss=Penalty(name, 1.0))
    return learners | {"k1 to go": build_learner("reinforce", kl_reward=Penalty("k1", 1.0), to_go=True)}


def mean_gradients(
    world: TokenMDP, policy: TokenPolicy, reference: TokenPolicy
) -> dict[str, Float[Tensor, "parameters"]]:
    """The mean gradient that each penalty descends, exactly: minus the mean update in the same world without rewards."""
    silent = replace(world, r=0 * world.r)
    return {
        name: -expected_update(silent, policy, learner, 1, reference=reference).mean.flat
        for name, learner in penalised_learners().items()
    }


def value_moments(world: TokenMDP, policy: TokenPolicy, reference: TokenPolicy) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over completions of each estimator, summed over a completion's own tokens."""
    mine, others = words(grow(world, policy)), words(grow(world, reference))
    log_ratio, mask = (x.flatten(0, 1) for x in (mine.log_probs - others.log_probs, mine.mask))
    p, moments = (world.weights[:, None] * mine.p).flatten(), {}
    for name, estimator in KL_ESTIMATORS.items():
        values = (estimator(log_ratio) * mask).sum(-1)
        mean = float((p * values).sum())
        moments[name] = mean, float((p * (values - mean) ** 2).sum()) ** 0.5
    return moments
