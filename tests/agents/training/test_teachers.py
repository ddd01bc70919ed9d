"""Teachers in the place of the reference: their mean by hand, the mean update against the exact one, refusals."""

import math
from dataclasses import replace

import pytest
import torch

from agents.policies.prefix_table import PrefixTable
from agents.recipes.learners import Penalty, build_learner
from agents.training.copies import Copies
from agents.training.settings import TrainingSettings
from agents.training.teachers import Teachers
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.token_tasks import garnet, sum_and_stop
from figures.measures.distillation import at_prefixes, by_penalty
from figures.measures.oracles import TokenOracle
from tests.agents.cases import draws
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by
from tests.theory.token_cases import transformer

close = torch.testing.assert_close
STOP, GARNET = sum_and_stop(2, 3), garnet(V=3, horizon=2, seed=1)
WEIGHTS = [0.7, 0.3]


def distilling(place="kl_loss", estimator="k2", **more):
    return build_learner("reinforce", use_rewards=False, **{place: Penalty(estimator, 1.0, **more)})


@pytest.mark.parametrize("count", [1, 3])
def test_the_mean_is_that_of_a_loop_over_teachers_and_copies(count):
    task, networks = TokenTask(STOP), [transformer(STOP, seed=s) for s in range(count)]
    teachers = [transformer(STOP, seed=s) for s in (10, 11)]
    rows = task.draw(Copies.of(networks), 3, 2, [torch.Generator().manual_seed(s) for s in range(count)])
    joined = Teachers(teachers, WEIGHTS).log_probs(task, rows)
    assert joined.shape == rows.rewards.shape
    for i in range(count):
        each = [task.log_probs(teacher, rows.seen[0][i])[0].detach() for teacher in teachers]
        close(joined[i], 0.7 * each[0] + 0.3 * each[1])
        assert not torch.allclose(joined[i], sum(each) / 2)
    close(
        Teachers(teachers).log_probs(task, rows)[0],
        (lambda x, y: (x + y) / 2)(*(t[0] for t in apart(rows, task, teachers))),
    )


def apart(rows, task, teachers):
    return [Teachers([teacher]).log_probs(task, rows) for teacher in teachers]


LINEAR = [("kl_reward", "k1", False), ("kl_loss", "k1", False), ("kl_loss", "k2", False), ("kl_loss", "k3", True)]


@pytest.mark.parametrize(("place", "estimator", "rho"), LINEAR)
def test_a_penalty_against_the_mean_has_the_slopes_of_the_weighted_penalties(place, estimator, rho):
    log_probs, old, group = -draws(4, 3).abs(), -draws(4, 3, seed=1).abs(), torch.tensor([0, 0, 1, 1])
    references = [-draws(4, 3, seed=seed).abs() for seed in (2, 3)]
    mask = torch.ones(4, 3, dtype=torch.bool)

    def weights(reference, beta=1.0):
        learner = build_learner("reinforce", use_rewards=False, **{place: Penalty(estimator, beta, rho)})
        return learner(draws(4, 3, seed=4), mask, group, log_probs, old=old, reference=reference)[0]

    mean = 0.7 * references[0] + 0.3 * references[1]
    close(weights(mean), weights(references[0], 0.7) + weights(references[1], 0.3))


@pytest.mark.parametrize(("place", "estimator"), [("kl_loss", "k2"), ("kl_reward", "k1")])
def test_the_first_step_has_the_exact_mean_of_distillation(place, estimator):
    student, *teachers = (PrefixTable(GARNET, seed=seed) for seed in range(3))
    seeds, setting = list(range(24)), TrainingSettings(steps=1, prompts=1, group=400, rate=1.0, optimiser="sgd")
    run = Trainer(
        TokenTask(GARNET),
        distilling(place, estimator),
        [student] * 24,
        seeds,
        setting,
        teachers=Teachers(teachers, WEIGHTS),
    )
    list(run.run())
    moves = torch.stack([(policy.logits - student.logits).detach().flatten() for policy in run.policies])
    weights = torch.tensor(WEIGHTS).double()
    full, reward = at_prefixes(GARNET, teachers, weights), by_penalty(GARNET, teachers, weights, "kl_reward", "k1")
    assert_mean_within(moves, (full if place == "kl_loss" else reward)(student))
    assert differs_by(moves, at_prefixes(GARNET, teachers[:1], torch.ones(1).double())(student))


def test_rewards_that_do_not_count_change_nothing_but_the_surrogate():
    group, mask = torch.tensor([0, 0, 1, 1]), torch.ones(4, 3, dtype=torch.bool)
    given = {"log_probs": -draws(4, 3).abs(), "reference": -draws(4, 3, seed=2).abs()}
    learner = build_learner("grpo", use_rewards=False, kl_loss=Penalty("k2", 0.5))
    with_rewards = replace(learner, use_rewards=True)
    weights = [learner(r, mask, group, **given)[0] for r in (draws(4, 3, seed=4), torch.zeros(4, 3).double())]
    close(weights[0], weights[1])
    close(weights[0], with_rewards(torch.zeros(4, 3).double(), mask, group, **given)[0])
    assert not torch.allclose(weights[0], with_rewards(draws(4, 3, seed=4), mask, group, **given)[0])
    assert learner.target is None
    assert with_rewards.target is not None


def test_with_teachers_no_cosine_to_a_kl_target_is_claimed():
    student, teacher = PrefixTable(GARNET, seed=0), PrefixTable(GARNET, seed=1)
    setting = TrainingSettings(steps=1, prompts=1, group=8, every=1)
    learner = build_learner("rloo", kl_reward=Penalty("k1", 0.1))
    given = (TokenTask(GARNET), learner, [student], [0], setting, TokenOracle(GARNET))
    with_teachers, without = (next(Trainer(*given, teachers=t).run()) for t in (Teachers([teacher]), None))
    assert math.isnan(with_teachers.target_cosine)
    assert not math.isnan(without.target_cosine)


def test_what_is_refused():
    tables = [PrefixTable(GARNET, seed=seed) for seed in range(2)]
    for weights in ([0.5, 0.4], [1.5, -0.5], [math.nan, 1.0], [1.0]):
        with refused("weights"):
            Teachers(tables, weights)
    with refused("weights"):
        Teachers([])
    with refused("teachers"):
        Teachers(tables).check(build_learner("grpo"))
    for place, estimator, rho in (("kl_loss", "k3", False), ("kl_loss", "k2", True), ("kl_reward", "k2", False)):
        learner = build_learner("rloo", **{place: Penalty(estimator, 0.1, rho)})
        with refused(estimator):
            Teachers(tables).check(learner)
        Teachers(tables[:1]).check(learner)
