"""Recipes that see more than rewards: exact means against loops over all batches, in worlds whose reward is not accuracy."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from agents.recipes.advantages import leave_one_out
from agents.recipes.batch import Batch
from agents.recipes.learner import Learner
from agents.recipes.learners import build_learner
from agents.recipes.selections import mixed_accuracy
from agents.recipes.surrogates import row_mean
from envs.token_mdp import TokenMDP
from envs.token_tasks import arithmetic, sum_and_stop
from tests.envs.refusals import refused
from tests.theory.groups.enumeration import Enumeration, paths_of, policy_of
from tests.theory.groups.test_batches import noisy_prompts
from tests.typecheck import unchecked
from theory.groups.binary_rewards import alignment
from theory.groups.expected_update import expected_update
from theory.groups.targets import pass_at_k, success, target_gradients
from theory.groups.variance import group_variance, word_scores
from theory.tokens.completions import completions, drawn_signal
from theory.tokens.prefix_tree import grow

close = torch.testing.assert_close


def judged_by_state():
    """Accuracy is decided by chance and differs where rewards are equal: only state 1 at the second step is right."""
    world, accuracy = noisy_prompts(), torch.zeros(2, 4, 3)
    accuracy[1, 1, :2] = 1.0
    return replace(world, signals={"accuracy": accuracy})


WORLDS = {"length bonus": sum_and_stop(2, 2, gamma=0.9, bonus=0.3), "by chance": judged_by_state()}


def on_accuracy(rewards, mask, group, *, accuracy):
    """RLOO paid by accuracy alone."""
    return leave_one_out(accuracy[:, None] * torch.eye(mask.shape[1])[:1].to(rewards), mask, group)


def gated(rewards, mask, group, *, accuracy):
    """The return, for right rows only."""
    return (rewards.sum(1) * accuracy)[:, None] * mask


LEARNERS = {
    "rloo on accuracy": Learner("mine", on_accuracy, least=2),
    "gated, mean over a row": Learner("mine", gated, normalise=row_mean),
    "dapo that filters by accuracy": build_learner("dapo", dynamic_sampling="accuracy"),
    "dapo that filters by reward": build_learner("dapo", dynamic_sampling="reward"),
    "rloo with a filter": replace(build_learner("rloo"), select=mixed_accuracy),
}


def accuracy_of(every):
    """The signal of every completion, by plain loops along its states."""
    table = every.world.signals["accuracy"]
    return torch.tensor(
        [
            sum(float(table[k, states[k], word[k]]) for k in range(n))
            for (_, word, n), states in zip(every.words, every.states, strict=True)
        ],
        dtype=torch.float64,
    )


@unchecked()
def by_loops(learner, world, policy, G, batches):
    """`sum over (prompts of a batch, share)` of all ordered batches, each the minus gradient of its loss."""
    every, total = Enumeration(world), None
    p, accuracy, tables = every.chances(policy).tolist(), accuracy_of(every), every.evaluate(policy)
    weights = torch.zeros_like(tables[0])
    for prompts, share in batches:
        own = [itertools.product((every.prompt == q).nonzero()[:, 0].tolist(), repeat=G) for q in prompts]
        index = torch.arange(len(prompts)).repeat_interleave(G)
        for groups in itertools.product(*own):
            rows = [i for group in groups for i in group]
            chosen = {name: x[rows] for name, x in every.fields().items()}
            batch = Batch(group=index, extras={"accuracy": accuracy[rows]}, **chosen)
            w = learner.slopes(*(x[rows].detach() for x in tables), batch)[1]
            weights.index_add_(0, torch.tensor(rows), share * math.prod(p[i] for i in rows) * w)
    total = (weights * tables[0]).sum()
    return parameters_to_vector(torch.autograd.grad(total, policy.parameters(), materialize_grads=True))


def one_each(world):
    return [((q,), w) for q, w in enumerate(world.weights.tolist())]


@pytest.mark.parametrize("place", WORLDS)
@pytest.mark.parametrize("name", LEARNERS)
def test_the_mean_is_that_of_all_ordered_groups(place, name):
    world, learner = WORLDS[place], LEARNERS[name]
    policy = policy_of(world)
    update = expected_update(world, policy, learner, 2, prompts=1)
    close(update.mean.flat, by_loops(learner, world, policy, 2, one_each(world)), rtol=1e-9, atol=1e-12)
    assert float(update.mean.flat.norm()) > 1e-3


def test_a_filter_has_the_mean_of_all_ordered_batches_and_that_of_its_docstring():
    """One prompt: `(1 - (1 - s)^N) E[u | kept]`; the direction does not depend on N, and is not that of reward filters."""
    whole = sum_and_stop(1, 3, gamma=0.9, bonus=0.3)
    learner, policy = LEARNERS["dapo that filters by accuracy"], policy_of(whole, 1)
    exact = expected_update(whole, policy, learner, 2, prompts=2).mean.flat
    close(exact, by_loops(learner, whole, policy, 2, [((0, 0), 1.0)]), rtol=1e-9, atol=1e-12)
    one = expected_update(whole, policy, learner, 2, prompts=1).mean.flat
    P = float(target_gradients(whole, policy, success)[0])
    s = 2 * P * (1 - P)
    close(exact, one / s * (1 - (1 - s) ** 2), rtol=1e-9, atol=1e-12)
    plain = expected_update(whole, policy, build_learner("dapo"), 2).mean.flat
    assert alignment(plain, one).bias > 1e-3, "the control: without the filter"
    with refused("recipe mixes"):
        expected_update(whole, policy, learner, 2)


@unchecked()
def test_a_filters_mean_over_prompts_that_are_drawn_counts_the_share_of_all_groups_that_are_kept():
    world, learner = WORLDS["by chance"], LEARNERS["rloo with a filter"]
    policy = policy_of(world)
    tree = grow(world, policy)
    P = (completions(tree).p * drawn_signal(world, "accuracy")).sum(-1)
    s = float(world.weights @ (2 * P * (1 - P)))
    one, two = (expected_update(world, policy, learner, 2, prompts=n).mean.flat for n in (1, 2))
    close(two, one / s * (1 - (1 - s) ** 2), rtol=1e-9, atol=1e-12)
    assert 0.05 < s < 0.6


def test_where_the_reward_is_the_accuracy_a_filter_changes_the_size_alone():
    world = sum_and_stop(2, 2)
    policy = policy_of(world, 1)
    plain, kept = (
        expected_update(world, policy, build_learner("dapo", dynamic_sampling=by), 3, prompts=1).mean.flat
        for by in ("none", "accuracy")
    )
    close(plain, kept, rtol=1e-9, atol=1e-13)
    P = float(target_gradients(world, policy, success)[0])
    s = 1 - P**3 - (1 - P) ** 3
    two = expected_update(world, policy, build_learner("dapo", dynamic_sampling="reward"), 3, prompts=2).mean.flat
    close(two, plain * (1 - (1 - s) ** 2) / s, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("place", WORLDS)
def test_success_and_pass_at_k_are_of_the_accuracy_and_not_of_the_reward(place):
    world = WORLDS[place]
    policy, every = policy_of(world), Enumeration(world)
    chance = (every.evaluate(policy)[0] * every.mask).sum(1).exp() * every.given * accuracy_of(every)
    P = torch.stack([chance[every.prompt == q].sum() for q in range(len(world.prompts))])
    for target, exact in ((success, P), (pass_at_k(3), 1 - (1 - P) ** 3)):
        value, gradients = target_gradients(world, policy, target)
        total = world.weights @ exact
        close(value, total.detach())
        slopes = torch.autograd.grad(total, list(policy.parameters()), retain_graph=True, materialize_grads=True)
        close(gradients.flat, parameters_to_vector(slopes), rtol=1e-9, atol=1e-13)
    update = expected_update(world, policy, LEARNERS["rloo on accuracy"], 2, target=success)
    close(update.mean.flat, update.truth.flat, rtol=1e-9, atol=1e-13)
    close(update.J, expected_update(world, policy, build_learner("rloo"), 2).J)
    paid = expected_update(world, policy, build_learner("rloo"), 2, target=success)
    assert alignment(paid.mean, paid.truth).bias > 1e-2, "the control: a recipe that sees rewards alone"


def test_signals_of_completions_follow_their_states_in_the_order_of_their_rows():
    """A signal that is the reward itself, not discounted, in a world of chance and in one without."""
    for world in (noisy_prompts(), arithmetic(2, 2)):
        same = replace(world, gamma=1.0, signals={"paid": world.r})
        rows = completions(grow(same, policy_of(same)))
        possible = rows.given > 0
        close(drawn_signal(same, "paid")[possible], rows.returns[possible])
    first = judged_by_state()
    assert len(paths_of(first, 0, (0, 0), 2)) == 2
    assert set(drawn_signal(first, "accuracy").unique().tolist()) == {0.0, 1.0}


@unchecked()
def test_a_plain_function_asks_by_its_keywords_and_its_variance_is_that_of_all_groups():
    world = replace(judged_by_state(), prompts=[[0]], starts=[0], weights=None)
    policy, every = policy_of(world), Enumeration(world)
    accuracy, seen = accuracy_of(every), []

    def recipe(rewards, mask, group, *, accuracy, **others):
        seen.append(set(others))
        return gated(rewards, mask, group, accuracy=accuracy - 0.25) / (2 * (group.max() + 1)), None

    tree = grow(world, policy)
    variance, mean = group_variance(tree, word_scores(tree, policy), recipe, 2)
    close(mean, expected_update(world, policy, recipe, 2).mean.flat)
    log_pi, p, total, square = every.evaluate(policy)[0], every.chances(policy).tolist(), 0.0, 0.0
    scores = [
        parameters_to_vector(torch.autograd.grad((row * m).sum(), policy.parameters(), retain_graph=True))
        for row, m in zip(log_pi, every.mask, strict=True)
    ]
    w = (every.rewards.sum(1) * (accuracy - 0.25) / 2).tolist()
    for i, j in itertools.product(range(len(p)), repeat=2):
        update = w[i] * scores[i] + w[j] * scores[j]
        total, square = total + p[i] * p[j] * update, square + p[i] * p[j] * float(update @ update)
    close(mean, total)
    assert variance == pytest.approx(square - float(total @ total), rel=1e-9)
    assert seen[0] == {"ended"}


def test_what_the_world_does_not_tell_is_refused():
    world = noisy_prompts()
    policy = policy_of(world)
    for recipe in (LEARNERS["rloo on accuracy"], LEARNERS["dapo that filters by accuracy"], gated):
        with refused("signals"):
            expected_update(world, policy, recipe, 2, prompts=1)
    half = TokenMDP(world.P, world.r, world.prompts, world.starts, 2, 0.9, end=2, signals={"accuracy": world.r / 2})
    with refused("signals"):
        target_gradients(half, policy, success)
