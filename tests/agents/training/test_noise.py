"""Noise is the same for a seed, and shared with nothing else."""

import itertools

import pytest
import torch

from agents.policies.transformer import Transformer
from agents.recipes.learners import rloo
from agents.training.noise import noise_of
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.token_tasks import parity

SEEDS = (0, 1, 3, 1000, 2**31 - 1, 2**32, 2**32 + 3, 2**33, 10**12)


def drawn(generator):
    return tuple(torch.rand(4, generator=generator).tolist())


def test_every_purpose_and_seed_has_numbers_of_its_own_and_the_same_ones_each_time():
    streams = [(purpose, seed) for purpose in ("rollouts", "documents") for seed in SEEDS]
    numbers = [drawn(noise_of(*stream)) for stream in streams]
    assert numbers == [drawn(noise_of(*stream)) for stream in streams]
    plain = {drawn(torch.Generator().manual_seed(seed)) for seed in SEEDS}
    assert all(a != b for a, b in itertools.combinations(numbers, 2))
    assert not plain & set(numbers)
    assert len(plain) == len(SEEDS) - 3, "the control: plain seeds that differ by 2^32 give the same numbers"


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_what_a_trainer_samples_has_nothing_of_the_draw_of_its_network(seed):
    """The first normal numbers of the network, against those of the trainer's generator and of a plain one (the control)."""
    world = parity()
    network = Transformer(world.V, None, 8, 1, 1, world.horizon, seed=seed)
    trainer = Trainer(TokenTask(world), rloo(), [network], [seed], TrainingSettings(1, 2, 2))
    first = network.position.detach().float()  # drawn before all else

    def looks_alike(generator):
        numbers = torch.randn(first.shape, generator=generator)
        return float(torch.corrcoef(torch.stack([numbers.flatten(), first.flatten()]))[0, 1]) > 0.999

    assert looks_alike(torch.Generator().manual_seed(seed))
    assert not looks_alike(trainer.noise[0])
