"""Learning curves of many seeds at once, and interquartile means over seeds with bootstrap intervals."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import bootstrap, trim_mean

from agents.policies.transformer import Transformer
from agents.recipes.learners import Learner
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.token_mdp import TokenMDP
from figures.harness.statistics import Estimate
from figures.measures.oracles import TokenOracle
from figures.measures.token_systems import HEADS, LAYERS, WIDTH, build_policy

_RESAMPLES = 2000


def starting_policies(world: TokenMDP, seeds: Sequence[int]) -> list[Transformer]:
    """A small random transformer for every seed."""
    return [build_policy(world, seed, spread=1.0) for seed in seeds]


def exact_returns(
    world: TokenMDP,
    learner: Learner,
    setting: TrainingSettings,
    seeds: Sequence[int],
    policies: Sequence[Transformer] | None = None,
) -> Float[np.ndarray, "records seeds"]:
    """Exact return J of every seed before the first update and after every `setting.every` updates.

    The seeds start from `policies`, which are left as they are; None for `starting_policies`. Critics, where the learner learns
    one, are small random transformers drawn from the seeds.
    """
    policies, critics = starting_policies(world, seeds) if policies is None else policies, None
    if learner.critic == "learned":
        places = world.longest
        sizes, device = (1, world.V, WIDTH, LAYERS, HEADS, places), world.P.device
        critics = [Transformer(*sizes, seed=seed).to(device) for seed in seeds]
    trainer = Trainer(TokenTask(world), learner, policies, seeds, setting, TokenOracle(world), critics)
    return np.stack([record.J.numpy() for record in trainer.run() if record.step % setting.every == 0])


def interquartile(numbers: Float[np.ndarray, "seeds"], draws: np.random.Generator) -> tuple[Estimate, dict[str, float]]:
    """Mean of the middle half of the numbers with its bootstrap standard error; the 95 % interval as "low" and "high"."""
    resampled = bootstrap(
        (numbers,),
        lambda x, axis: trim_mean(x, 0.25, axis=axis),
        n_resamples=_RESAMPLES,
        rng=draws,
        method="percentile",
    )
    mean = Estimate(np.asarray(trim_mean(numbers, 0.25)), np.asarray(resampled.standard_error), len(numbers))
    interval = resampled.confidence_interval
    return mean, {"low": float(interval.low), "high": float(interval.high)}
