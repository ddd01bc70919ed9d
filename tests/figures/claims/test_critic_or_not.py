"""The claim on critics, on made-up learning curves: what is documented, and gains that would turn each part."""

import numpy as np
import pandas as pd
import pytest
import torch

import figures.claims.critic_free.critic_or_not as claim
from envs.world import InputError
from figures.harness.judge import judge

SPARSE, DENSE = (setting.world for setting in claim.settings("quick"))
LEARNERS = ("exact gradient", "PPO, exact critic", "PPO, learned critic", "RLOO", "GRPO", "REINFORCE, no baseline")
# what each learner gains, in units of what the exact gradient gains
GAINS = {
    SPARSE: dict(zip(LEARNERS, (1.0, 0.8, 0.5, 0.5, 0.5, 0.8), strict=True)),
    DENSE: dict(zip(LEARNERS, (1.0, 0.95, 0.9, 0.95, 0.95, 0.5), strict=True)),
}


def outcomes(monkeypatch, *changes):
    """Outcomes of the parts when (world, learner, gain) are changed."""
    gains = {world: dict(learners) for world, learners in GAINS.items()}
    for world, learner, gain in changes:
        gains[world][learner] = gain
    names = {id(learner): name for name, (learner, _) in claim.LEARNERS.items()}
    rows = []
    for world, of_world in gains.items():

        def made_up(_, learner, training, seeds, policies, of_world=of_world):
            rng = np.random.default_rng(len(seeds))
            start = 0.1 + 0.01 * rng.standard_normal(len(seeds))
            own = np.random.default_rng(list(claim.LEARNERS).index(names[id(learner)]))
            return np.stack([start, start + of_world[names[id(learner)]] + 0.02 * own.standard_normal(len(seeds))])

        monkeypatch.setattr(claim, "exact_returns", made_up)
        setting = claim.CriticOrNotSetting(world, seeds=16, steps=5)
        rows += claim.measure(setting, torch.Generator().manual_seed(0), "cpu")
    verdict = judge(claim.CLAIM, pd.DataFrame(rows))
    return {name: part.result.outcome for name, part in verdict.parts.items()} | {
        "as documented": verdict.as_documented
    }


def test_such_gains_come_out_as_documented(monkeypatch):
    assert outcomes(monkeypatch)["as documented"]


@pytest.mark.parametrize(
    ("part", "wanted", "change"),
    [
        (claim.CLIMBS, "fails", (DENSE, "GRPO", -0.2)),
        (claim.FREE, "fails", (SPARSE, "PPO, learned critic", 0.8)),
        (claim.CRITIC, "fails", (SPARSE, "PPO, exact critic", 0.4)),
        (claim.CRITIC, "fails", (DENSE, "PPO, exact critic", 0.7)),
        (claim.LIMIT, "holds", (SPARSE, "RLOO", 1.0)),
        (claim.BASELINE, "undecided", (DENSE, "REINFORCE, no baseline", 0.95)),  # one of its two worlds is blind
        (claim.WITHIN, "holds", (DENSE, "REINFORCE, no baseline", 0.85)),
    ],
)
def test_another_gain_turns_the_part(part, wanted, change, monkeypatch):
    assert outcomes(monkeypatch, change)[part] == wanted


def test_too_few_seeds_and_steps_are_refused():
    with pytest.raises(InputError, match="seeds must be"):
        claim.CriticOrNotSetting(SPARSE, seeds=7, steps=30)
    with pytest.raises(InputError, match="steps must be"):
        claim.CriticOrNotSetting(SPARSE, seeds=8, steps=4)
