"""SVG as a learner: its mean, where it ends, several copies, stopping and going on, and what it refuses."""

import pytest
import torch

from agents.policies.linear import ConstantPolicy, LinearPolicy
from agents.recipes.learners import Penalty, build_learner
from agents.training.command_task import CommandTask
from agents.training.copies import Copies
from agents.training.pathwise_step import pathwise_rows, wrong_model
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.linear_quadratic import scalar
from envs.lq_variants import ChaoticMap
from envs.token_tasks import sum_and_stop
from figures.measures.oracles import CommandOracle
from tests.agents.cases import draws, world
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by
from tests.theory.cases import affine_policies, priced
from theory.continuous.lq_gradients import offset_gradient, policy_gradient
from theory.continuous.riccati import riccati


def gradients(lq, K, k, **options):
    """Gradients in K and k of 60 draws of 60 groups of 2 rows."""
    task, actor = CommandTask(lq), Copies.of([LinearPolicy(K, k)])
    noise, setting = [torch.Generator().manual_seed(0)], TrainingSettings(prompts=60, group=2)
    pathwise = build_learner("svg", **options).pathwise
    each = [pathwise_rows(task, pathwise, actor, setting, noise, CommandOracle(lq)).gradients for _ in range(60)]
    return [torch.stack(x) for x in zip(*each, strict=True)]


@pytest.mark.parametrize("horizon", [0, 1, 2, 1000])
def test_the_mean_of_the_step_is_the_policy_gradient_for_the_true_model_only(horizon):
    lq = priced(horizon=3, noise="laplace")
    K, k = affine_policies(lq)["offset"]
    found = gradients(lq, K, k, horizon=horizon)
    for mine, truth in zip(found, (policy_gradient(lq, K, k), offset_gradient(lq, K, k)), strict=True):
        assert_mean_within(mine, truth)
    assert differs_by(found[1], 1.3 * offset_gradient(lq, K, k))
    if horizon != 2:
        wrong = gradients(lq, K, k, horizon=max(1, horizon), model_error=1.0)
        assert differs_by(wrong[1], offset_gradient(lq, K, k))


def trainer(lq, seeds=(0,), gain=None, oracle=True, policies=None, more=None, **options):
    start = torch.zeros(lq.m, lq.n) if gain is None else gain
    setting = TrainingSettings(**{"steps": 150, "prompts": 8, "group": 4, "rate": 0.05, "every": 50} | (more or {}))
    policies = policies or [LinearPolicy(start) for _ in seeds]
    known = CommandOracle(lq) if oracle else None
    return Trainer(CommandTask(lq), build_learner("svg", **options), policies, list(seeds), setting, known)


@pytest.mark.parametrize(("horizon", "imagined"), [(0, False), (1, False), (7, False), (7, True)])
def test_it_ends_at_the_optimum_of_the_world_or_of_the_imagined_model(horizon, imagined):
    lq = scalar(horizon=1)
    run = trainer(lq, horizon=horizon, imagined=imagined, model_error=0.4 if imagined else 0.0)
    records = list(run.run())
    own, model = (float(riccati(x).K[0]) for x in (lq, wrong_model(lq, 0.4, 0)))
    assert abs(own - model) > 0.1
    assert float(run.policies[0].K.detach()) == pytest.approx(model if imagined else own, abs=0.05)
    assert records[-1].J > records[0].J
    assert records[0].cosine == pytest.approx(1.0)
    assert all(r.sampled.isfinite() and r.clipped.isnan() for r in records[:-1])
    assert records[-1].rows == 150 * 32


def test_several_copies_are_each_as_if_alone_and_a_stopped_run_goes_on():
    lq, more = world(), {"steps": 4, "rate": 0.01}
    gains = [0.1 * draws(2, 3, seed=s) for s in (0, 1)]
    both = trainer(lq, (3, 4), policies=[LinearPolicy(K) for K in gains], more=more, horizon=2)
    list(both.run())
    for seed, K, policy in zip((3, 4), gains, both.policies, strict=True):
        alone = trainer(lq, (seed,), gain=K, more=more, horizon=2)
        alone.step()
        state, after = alone.state(), trainer(lq, (seed,), gain=K, more=more, horizon=2)
        after.restore(state)
        list(after.run())
        torch.testing.assert_close(after.policies[0].K.detach(), policy.K.detach(), rtol=1e-12, atol=1e-14)


def test_the_model_is_off_by_the_share_that_was_asked_for():
    lq = world()
    assert wrong_model(lq, 0.0, 5) is lq
    model = wrong_model(lq, 0.2, 5)
    for name in ("A", "B"):
        own = torch.as_tensor(getattr(lq, name))
        assert float((getattr(model, name) - own).norm()) == pytest.approx(0.2 * float(own.norm()))
    assert not torch.equal(model.A, wrong_model(lq, 0.2, 6).A)


def test_all_steps_need_no_exact_answers():
    chaotic = ChaoticMap(horizon=3)
    policies = [ConstantPolicy(torch.tensor([0.5]))]
    records = list(trainer(chaotic, oracle=False, policies=policies, more={"steps": 2}, horizon=3).run())
    assert records[0].sampled.isfinite().all()
    with refused("horizon"):
        trainer(chaotic, oracle=False, policies=policies, horizon=2)
    with refused("model_error"):
        trainer(chaotic, oracle=False, policies=policies, horizon=3, model_error=0.1)


@pytest.mark.parametrize(
    ("options", "more", "argument"),
    [
        ({"horizon": -1}, {}, "horizon"),
        ({"model_error": -0.1}, {}, "model_error"),
        ({"kl_loss": Penalty("k3", 0.1)}, {}, "KL terms"),
        ({"entropy": 0.1}, {}, "KL terms"),
        ({"drop_truncated": True}, {}, "options"),
        ({}, {"epochs": 2}, "epochs"),
        ({}, {"minibatches": 2}, "epochs"),
    ],
)
def test_refusals(options, more, argument):
    with refused(argument):
        trainer(world(), more=more, **options)


def test_token_worlds_are_refused():
    with refused("learner"):
        Trainer(TokenTask(sum_and_stop(3, 3)), build_learner("svg"), [LinearPolicy([[0.0]])], [0], TrainingSettings())
