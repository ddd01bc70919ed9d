"""SofT-GRPO as a learner: its mean, copies, rows of an older policy, stopping and going on, refusals."""

from dataclasses import replace

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from agents.policies.transformer import Transformer
from agents.recipes.learners import Penalty, build_learner
from agents.sampling.soft_thoughts import soft_completions
from agents.training.copies import Copies
from agents.training.noise import noise_of
from agents.training.settings import TrainingSettings
from agents.training.soft_task import SoftThoughtTask
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.token_mdp import TokenMDP
from envs.token_tasks import sum_and_stop
from figures.measures.soft_oracle import SoftOracle
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by
from theory.groups.binary_rewards import grpo_kappa
from theory.tokens.soft_thoughts import soft_success

close = torch.testing.assert_close
ANSWER, STOP = TokenMDP.from_rewards([0.0, 1.0]), sum_and_stop(2, 3)


def network(world, seed=0, width=8, N=2, dtype=torch.float64):
    policy = Transformer(world.V, width=width, layers=2, heads=2, length=world.longest + N, seed=seed, dtype=dtype)
    with torch.no_grad():
        policy.head.weight *= 2.0
    return policy


def trainer(world, seeds=(0,), oracle=True, more=None, policies=None, kl=None, **options):
    learner = build_learner("soft_grpo", kl_loss=kl, **options)
    setting = TrainingSettings(**{"steps": 3, "prompts": 4, "group": 4, "every": 1} | (more or {}))
    policies = policies or [network(world, seed) for seed in seeds]
    known = SoftOracle(world, learner.soft, 2**30) if oracle else None
    return Trainer(SoftThoughtTask(world, learner.soft), learner, policies, list(seeds), setting, known)


def first_gradients(policy, count, **options):
    """Minus the first gradient of many trainers, each with noise of its own."""
    found = []
    for seed in range(count):
        more = {"steps": 1, "prompts": 100, "group": 8, "optimiser": "sgd", "rate": 1.0}
        run = trainer(ANSWER, (seed,), oracle=False, more=more, policies=[policy], **options)
        run.step()
        found.append(parameters_to_vector(run.policies[0].parameters()) - parameters_to_vector(policy.parameters()))
    return torch.stack(found).detach()


def test_the_mean_update_is_kappa_times_the_gradient_of_the_success_and_that_of_the_codes_form_is_not():
    policy = network(ANSWER, seed=1)
    exact = soft_success(policy, [0], 0.5, nodes=60)
    target = grpo_kappa(exact.P, 8) * exact.pathwise
    ways = torch.stack([target, torch.randn(len(target), generator=torch.Generator().manual_seed(0)).double()], 1)
    truth = target @ ways / target.square().sum()
    found = first_gradients(policy, 40, tau=0.5) @ ways / target.square().sum()
    assert_mean_within(found, truth)
    code = first_gradients(policy, 40, tau=0.5, official=True) @ ways / target.square().sum()
    assert differs_by(code, truth)
    assert differs_by(code, truth / 2), "the control: not half of it either, the mean over two tokens alone"


@pytest.mark.parametrize("official", [False, True])
def test_rows_are_those_of_the_sampler_and_the_first_ratio_is_1(official):
    soft = build_learner("soft_grpo", official=official).soft
    task, policy = SoftThoughtTask(STOP, soft), network(STOP)
    rows = task.draw(Copies([policy]), 3, 4, [noise_of("rollouts", 0)])
    rng = noise_of("rollouts", 0)
    which = torch.multinomial(STOP.weights, 3, True, generator=rng)
    alone = soft_completions(STOP, policy, which, 4, soft, rng)
    for mine, theirs in zip(rows.seen, (alone.contexts, alone.u), strict=True):
        close(mine[0], theirs)
    for name in ("rewards", "mask", "span", "ended"):
        assert torch.equal(getattr(rows, name)[0], getattr(alone, name)), name
    close(rows.old[0], alone.log_probs)
    assert float(trainer(STOP, official=official).step().ratio_error) < 1e-12


def test_it_learns_and_its_return_is_exact():
    run = trainer(ANSWER, more={"steps": 30, "rate": 0.02, "every": 30}, policies=[network(ANSWER, seed=1)])
    records = list(run.run())
    before, after = (soft_success(p, [0], 0.5, nodes=60).P for p in (network(ANSWER, seed=1), run.policies[0]))
    assert float(records[0].J) == pytest.approx(float(before), abs=1e-6)
    assert float(records[-1].J) == pytest.approx(float(after), abs=1e-6)
    assert float(after) > float(before) + 0.2
    assert float(records[0].cosine) > 0.5


@pytest.mark.parametrize("official", [False, True])
def test_several_copies_are_each_as_if_alone_and_a_stopped_run_goes_on(official):
    more = {"epochs": 2, "minibatches": 2}
    both = trainer(STOP, (3, 4), more=more, official=official)
    together = list(both.run())
    for i, seed in enumerate((3, 4)):
        alone, after = (trainer(STOP, (seed,), more=more, official=official) for _ in range(2))
        alone.step()
        state = alone.state()
        rest = list(alone.run())
        after.restore(state)
        list(after.run())
        for mine, theirs, joined in zip(
            alone.policies[0].parameters(), after.policies[0].parameters(), both.policies[i].parameters(), strict=True
        ):
            assert torch.equal(mine, theirs)
            close(mine, joined, rtol=1e-6, atol=1e-8)
        close(together[-1].J[i], rest[-1].J[0], rtol=1e-6, atol=1e-8)


def test_the_clip_acts_on_ratios_of_noise_and_a_kl_term_pulls_back():
    moved = []
    for clip, kl in ((1e-6, None), (1e6, None), (1e6, Penalty("k2", 100.0))):
        own, more = network(ANSWER, seed=1), {"epochs": 6, "rate": 0.02, "steps": 2, "prompts": 16}
        run = trainer(ANSWER, more=more, policies=[own], clip=clip, kl=kl)
        records = list(run.run())
        start = parameters_to_vector(own.parameters())
        moved.append(
            (
                float(records[0].clipped),
                float((parameters_to_vector(run.policies[0].parameters()) - start).detach().norm()),
            )
        )
    assert moved[0][0] > 0.5
    assert moved[1][0] == 0
    assert moved[2][1] < moved[1][1]


def test_float32_and_a_sampler_of_another_precision():
    single = [network(STOP, dtype=torch.float32)]
    assert float(trainer(STOP, policies=single).step().ratio_error) < 1e-4
    with pytest.warns(UserWarning, match="sampler and trainer disagree"):
        trainer(STOP, more={"sampler": "bfloat16"}).step()


def test_refusals():
    learner, policies = build_learner("soft_grpo"), [network(STOP)]
    with refused("learner"):
        Trainer(TokenTask(STOP), learner, policies, [0], TrainingSettings())
    with refused("learner"):
        Trainer(SoftThoughtTask(STOP, learner.soft), build_learner("grpo"), policies, [0], TrainingSettings())
    with refused("learner"):
        Trainer(SoftThoughtTask(STOP, replace(learner.soft, tau=2.0)), learner, policies, [0], TrainingSettings())
    with refused("group"):
        trainer(STOP, more={"group": 1})
    with refused("length=4"):
        trainer(STOP, policies=[network(STOP, N=0)], oracle=False).step()
    for options in ({"thoughts": 0}, {"tau": -1.0}, {"clip": -0.1}):
        with refused(next(iter(options)) if "clip" not in options else "low"):
            build_learner("soft_grpo", **options)
