"""What a step records: the first gradient's cosine, groups without a signal, exact ascent's return; the size of its rows."""

import warnings
from dataclasses import replace

import pytest
import torch

from agents.policies.transformer import Transformer
from agents.training.copies import Copies
from agents.training.noise import noise_of
from agents.training.settings import SamplerMismatch, TrainingSettings
from agents.training.token_task import TokenTask
from tests.agents.training.test_trainer import KINDS, LQ, STOP, TASKS, elsewhere, policy, trainer
from tests.envs.refusals import refused
from theory.continuous.lq_gradients import expected_return
from theory.tokens.prefix_tree import grow

close = torch.testing.assert_close


@pytest.mark.parametrize("extra", ["plain", "kl_loss"])
def test_the_cosine_is_that_of_the_first_gradient_however_many_passes_follow(extra):
    records = []
    for epochs in (1, 3):
        setting = TrainingSettings(steps=2, prompts=6, group=4, epochs=epochs, rate=0.3)
        run = elsewhere(trainer("tokens", "rloo", setting, (1, 2), extra))
        records.append(run.step())
        assert run.step().rows == 24, "rows are those that were drawn, not those that were read"
    close(records[1].cosine, records[0].cosine, rtol=1e-12, atol=1e-12)
    assert bool((records[1].loss - records[0].loss).abs().gt(1e-6).all()), "the control: the passes are not alike"


def test_a_penalty_in_the_loss_gives_no_group_a_signal():
    """Two rows of equal return have no advantage; what the penalty asks of them is not what the reward says of them."""
    setting = TrainingSettings(steps=1, prompts=24, group=2, epochs=2, rate=0.3)
    run = elsewhere(trainer("tokens", "rloo", setting, (1, 2), "kl_loss"))
    before = [policy("tokens", seed) for seed in (1, 2)]
    record = run.step()
    for i, network in enumerate(before):
        rows = TASKS["tokens"][0].draw(Copies([network]), 24, 2, [noise_of("rollouts", i + 1)])
        returns = rows.rewards[0].sum(1).unflatten(0, (24, 2))
        alike = (returns[:, 0] - returns[:, 1]).abs() < 1e-12
        assert float(record.silent[i]) == pytest.approx(float(alike.double().mean()))
        assert 0 < int(alike.sum()) < 24
        gradient = torch.autograd.grad(
            TASKS["tokens"][0].log_probs(network, rows.seen[0][0])[0].sum(), list(network.parameters())
        )
        assert max(float(g.abs().max()) for g in gradient) > 0, "the control: log-probabilities have slopes"


@KINDS
def test_exact_ascent_records_the_return_of_every_step(kind):
    """Also of those between two records of the entropy; each is the return of the policy before the update."""
    run = trainer(kind, "value_gradient", TrainingSettings(steps=3, every=3, rate=0.05), (1, 2))
    returns = []
    for step in range(3):
        before, record = run.policies, run.step()
        for i, network in enumerate(before):
            J = grow(STOP, network).J if kind == "tokens" else expected_return(LQ, network.K.detach())
            assert float(record.J[i]) == pytest.approx(float(J.detach()), rel=1e-9)
        assert bool(record.entropy.isfinite().all()) == (step == 0)
        returns.append(record.J)
    assert bool((returns[2] > returns[0] + 1e-4).all())


def test_rows_of_all_copies_together_must_fit_in_memory():
    """Eight bytes a number, and 2^29 numbers are the most: 2^28 rows of two numbers for one copy, half of that for two."""
    TrainingSettings(prompts=2**20, group=2**8).check_size(1, 2, 1)
    TrainingSettings(prompts=2**20, group=2**7).check_size(1, 2, 2)
    for group, copies in ((2**8 + 1, 1), (2**7 + 1, 2)):
        with refused(f"prompts={2**20}"):
            TrainingSettings(prompts=2**20, group=group).check_size(1, 2, copies)
    rows = 2**29 // (STOP.horizon * STOP.V)
    with refused(f"prompts={rows // 2}"):
        trainer("tokens", "rloo", TrainingSettings(prompts=rows // 2, group=2), (1, 2))


class Shifted(TokenTask):
    """A world whose sampler says log-probabilities that are off by a constant."""

    def __init__(self, world, by):
        super().__init__(world)
        self.by = by

    def draw(self, *given):
        rows = super().draw(*given)
        return replace(rows, old=rows.old + self.by)


@pytest.mark.parametrize(("dtype", "by"), [(torch.float64, 2e-9), (torch.float32, 2e-4)])
def test_a_sampler_is_told_from_the_trained_policy_at_the_precision_of_its_numbers(dtype, by):
    """A ratio off 1 by a little more than the rounding of many operations is told; rounding itself is not."""
    network = Transformer(4, width=4, layers=1, heads=1, length=4, dtype=dtype)
    for shift, told in ((0.0, False), (by / 4, False), (by, True), (-by, True)):
        run = trainer("tokens", "rloo", TrainingSettings(steps=1), policies=[network], task=Shifted(STOP, shift))
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            record = run.step()
        assert any(warning.category is SamplerMismatch for warning in heard) == told
        assert float(record.ratio_error) == pytest.approx(abs(shift), rel=0.1, abs=by / 20)
