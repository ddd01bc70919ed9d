"""Selections of groups and the extras that recipes ask for: by hand, on batches, and what is missing is refused."""

from dataclasses import replace

import pytest
import torch

from agents.recipes.advantages import leave_one_out, mean_baseline
from agents.recipes.batch import Batch
from agents.recipes.learner import Learner
from agents.recipes.learners import build_learner
from agents.recipes.selections import SELECTIONS, mixed_accuracy, mixed_returns
from agents.recipes.surrogates import token_mean
from tests.agents.cases import draws
from tests.envs.refusals import refused
from tests.typecheck import unchecked

close = torch.testing.assert_close
GROUP = torch.tensor([0, 1, 0, 2, 1, 2, 0, 3, 3])
MASK = torch.arange(3) < torch.tensor([3, 1, 2, 3, 2, 1, 3, 2, 1])[:, None]
ACCURACY = torch.tensor([1.0, 0, 0, 1, 0, 1, 0, 0.5, 0.5]).double()  # groups 0 and 3 are mixed
KEPT = torch.tensor([True, False, True, False, False, False, True, True, True])
REWARDS = draws(9, 3, seed=2) * MASK


def batch(**changes):
    given = {"rewards": REWARDS, "mask": MASK, "group": GROUP, "extras": {"accuracy": ACCURACY}}
    return Batch(**given | changes)


def test_groups_with_successes_and_failures_are_kept():
    assert mixed_accuracy(REWARDS, MASK, GROUP, accuracy=ACCURACY).tolist() == KEPT.tolist()
    returns = torch.tensor([0.3, 1, 0.1, 0, 1, 0, 0.3, 0.3, 0]).double()[:, None] * torch.eye(3)[0]
    assert mixed_returns(returns, MASK, GROUP).tolist() == [g in (0, 3) for g in GROUP.tolist()]
    rounding = torch.tensor([[0.1, 0.2, 0.0], [0.3, 0.0, 0.0]], dtype=torch.float64)
    assert not bool(mixed_returns(rounding, rounding < 9, torch.zeros(2, dtype=torch.int64)).any())
    for wrong in (ACCURACY + 1, -ACCURACY, ACCURACY * float("nan")):
        with refused("accuracy"):
            mixed_accuracy(REWARDS, MASK, GROUP, accuracy=wrong)


@pytest.mark.parametrize("name", ["dapo", "grpo", "rloo", "reinforce_pp"])
def test_an_update_of_selected_groups_is_that_of_a_batch_of_them_alone(name):
    """Normalisers, whitening and all: the others are as if they had never been drawn."""
    learner = replace(build_learner(name, entropy=0.2), select=mixed_accuracy)
    log_probs, entropy = draws(9, 3, seed=3), draws(9, 3, seed=4)
    losses, weights, bonus = learner.slopes(log_probs, entropy, batch())
    alone = replace(learner, select=None).slopes(log_probs[KEPT], entropy[KEPT], batch().rows(KEPT))
    for ours, theirs in zip((losses, weights, bonus), alone, strict=True):
        close(ours[KEPT], theirs)
        assert not bool(ours[~KEPT].any())
    whole = replace(learner, select=None).slopes(log_probs, entropy, batch())[1]
    assert not torch.allclose(weights[KEPT], whole[KEPT]), "the control: the other groups count"
    assert not learner.keeps_groups_apart


def test_a_batch_without_a_mixed_group_moves_nothing():
    learner = build_learner("dapo", dynamic_sampling="accuracy")
    log_probs = draws(9, 3, seed=3).requires_grad_()
    loss = learner.loss(log_probs, None, batch(extras={"accuracy": 0 * ACCURACY}))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not bool(log_probs.grad.any())
    junk = torch.where(MASK, log_probs.detach(), -torch.inf)
    assert not bool(learner.slopes(junk, None, batch(extras={"accuracy": 0 * ACCURACY}))[1].any())


def judged(rewards, mask, group, *, accuracy, length=1.0):
    return mean_baseline(rewards, mask, group) + length * accuracy[:, None] * mask


def test_an_advantage_gets_the_extras_that_it_names_and_no_others():
    learner = Learner("mine", judged)
    assert learner.signals == ("accuracy",)  # `length` has a default: it is not asked for
    given = batch(extras={"accuracy": ACCURACY, "length": 0 * ACCURACY})
    close(learner.advantages(given, REWARDS), judged(REWARDS, MASK, GROUP, accuracy=ACCURACY))
    weights, _ = learner(REWARDS, MASK, GROUP, accuracy=ACCURACY)
    close(weights, learner.slopes(REWARDS, None, given)[1])
    both = replace(build_learner("rloo"), select=lambda rewards, mask, group, *, style: style > 0, advantage=judged)
    assert both.signals == ("accuracy", "style")
    kept = replace(learner, drop_truncated=True, compare_dropped=False)
    ended = torch.tensor([True, True, False, True, True, True, True, False, True])
    rows = ended & torch.tensor([True] * 9)
    A = kept.advantages(replace(given, ended=ended), REWARDS)
    anew = torch.unique(GROUP[rows], return_inverse=True)[1]
    close(A[rows], judged(REWARDS[rows], MASK[rows], anew, accuracy=ACCURACY[rows]))


def test_rows_of_a_batch_keep_their_extras():
    part = batch().rows(torch.tensor([6, 0, 7]))
    assert part.extras["accuracy"].tolist() == ACCURACY[[6, 0, 7]].tolist()
    assert part.group.tolist() == [0, 0, 1]
    assert batch(extras=None).rows(slice(0, 3)).extras is None


@unchecked()
def test_extras_that_are_missing_or_do_not_fit_are_refused():
    for learner in (Learner("mine", judged), build_learner("dapo", dynamic_sampling="accuracy")):
        for extras in (None, {"style": ACCURACY}):
            with refused("extras"):
                learner.slopes(REWARDS, None, batch(extras=extras))
    for wrong in (ACCURACY[:3], ACCURACY * float("nan"), ACCURACY[:, None]):
        with refused("extras"):
            batch(extras={"accuracy": wrong})
    with refused("dynamic_sampling"):
        build_learner("dapo", dynamic_sampling="length")
    assert [build_learner("dapo", dynamic_sampling=by).signals for by in SELECTIONS] == [(), ("accuracy",), ()]
    assert build_learner("dapo").keeps_groups_apart
    assert leave_one_out is build_learner("rloo").advantage
    mixing = replace(build_learner("rloo"), normalise=token_mean)
    assert not mixing.keeps_groups_apart
