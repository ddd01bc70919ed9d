"""Mean updates where the environment speaks, against every ordered group of conversations, by plain loops."""

import pytest
import torch

from agents.recipes.batch import Batch
from agents.recipes.learners import Penalty, build_learner
from envs.tool_tasks import ask_oracle
from tests.theory.speech_cases import Conversations, by_the_clock, policy_of, talking
from tests.theory.tokens.test_environment import slope_of, true_gradient
from theory.groups.binary_rewards import alignment
from theory.groups.expected_update import expected_update
from theory.groups.kl import exact_kl
from theory.groups.targets import kl_regularised, max_at_k, target_gradients
from theory.groups.variance import group_variance, hoeffding, word_scores
from theory.tokens.prefix_tree import grow

close = torch.testing.assert_close
SMALL = {
    "talking": talking(2),
    "by the clock": by_the_clock(3),
    "oracle": ask_oracle(2, 1, noise=0.2, cost=0.1, gamma=0.9),
}
RECIPES = {
    "rloo": ("rloo", {}),
    "grpo": ("grpo", {}),
    "whole rows count": ("grpo", {"count_environment": True}),
    "token mean": ("grpo", {"length": "group token mean"}),
    "token mean of all": ("grpo", {"length": "group token mean", "count_environment": True}),
    "to go": ("reinforce", {"baseline": True, "to_go": True}),
}


def brute_force(every, learner, policy, G, **fields):
    """Minus the mean slope of the loss over all ordered groups: one batch of them, weighted by their chances."""
    tables = [x.detach().requires_grad_() for x in every.log_probs(policy)]
    groups, chances = zip(*every.groups(policy, G), strict=True)
    rows, M = torch.tensor(groups).flatten(), len(groups)
    index = torch.arange(M).repeat_interleave(G)
    batch = Batch(group=index, **{name: x[rows] for name, x in (every.fields() | fields).items()})
    losses = learner.row_losses(*(x[rows] for x in tables), batch)  # a batch's loss is the mean over its groups
    total = -M * losses @ torch.tensor(chances, dtype=torch.float64)[index]
    slopes = torch.autograd.grad(total, tables, allow_unused=True, materialize_grads=True)
    return slope_of(sum((x * s).sum() for x, s in zip(every.log_probs(policy), slopes, strict=True)), policy)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["talking", "by the clock"])
def test_the_mean_update_is_that_of_every_ordered_group(name, recipe):
    world, (kind, options) = SMALL[name], RECIPES[recipe]
    policy, learner = policy_of(world), build_learner(kind, **options)
    close(
        expected_update(world, policy, learner, 2).mean.flat,
        brute_force(Conversations(world), learner, policy, 2),
        rtol=1e-8,
        atol=1e-12,
    )


def test_counting_the_environments_tokens_changes_the_length_and_nothing_else():
    world = SMALL["talking"]
    for length, changes in [("row mean", True), ("group token mean", True), ("row sum", False)]:
        both = [
            expected_update(
                world, policy_of(world), build_learner("grpo", length=length, count_environment=count), 2
            ).mean.flat
            for count in (False, True)
        ]
        assert torch.allclose(*both, rtol=1e-6) is not changes


@pytest.mark.parametrize("name", SMALL)
def test_recipes_without_bias_have_the_true_gradient_as_their_mean(name):
    world = SMALL[name]
    policy, truth = policy_of(world), true_gradient(Conversations(world), policy_of(world))
    truth = true_gradient(Conversations(world), policy)
    for kind, options in [("rloo", {}), ("reinforce", {"baseline": True, "to_go": True}), ("reinforce", {})]:
        update = expected_update(world, policy, build_learner(kind, **options), 2)
        close(update.mean.flat, truth, rtol=1e-8, atol=1e-12)
        close(update.truth.flat, truth, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_gae_crosses_the_holes_without_bias_on_exact_values_and_with_one_factor_a_step_of_the_policy(lam):
    world = SMALL["oracle"]
    policy, every = policy_of(world), Conversations(world)
    V, learner = grow(world, policy).V, build_learner("ppo", lam=lam, critic="exact")
    update = expected_update(world, policy, learner, 1, values=V)
    close(update.mean.flat, true_gradient(every, policy), rtol=1e-8, atol=1e-12)
    off = [v + 0.3 * (k + 1) for k, v in enumerate(V)]
    along = torch.zeros_like(every.rewards)
    for i, word in enumerate(every.words):
        node = int(every.prompt[i])
        for k, c in enumerate(word):
            along[i, k], node = world.gamma**k * off[k][node], node * world.V + c
    biased = expected_update(world, policy, learner, 1, values=off).mean.flat
    close(biased, brute_force(every, learner, policy, 1, values=along), rtol=1e-8, atol=1e-12)
    assert torch.allclose(biased, update.mean.flat) is (lam == 1)


def unmasked_learner():
    """RLOO that takes every step of the completion for the policy's."""

    class Unmasked:
        def loss(self, log_probs, entropy, batch):
            return build_learner("rloo").loss(log_probs, entropy, Batch(batch.rewards, batch.span, batch.group))

    return Unmasked()


class Unmasked:
    """RLOO that takes every step of the completion for the policy's."""

    def __call__(self, rewards, mask, group, span):
        return build_learner("rloo")(rewards, span, group)

    def row_losses(self, log_probs, entropy, batch):
        return build_learner("rloo").row_losses(log_probs, entropy, Batch(batch.rewards, batch.span, batch.group))


def test_a_loss_on_the_environments_tokens_is_shown_as_another_gradient():
    world, policy = SMALL["talking"], policy_of(SMALL["talking"])
    wrong = expected_update(world, policy, Unmasked(), 2)
    close(wrong.mean.flat, brute_force(Conversations(world), Unmasked(), policy, 2), rtol=1e-8, atol=1e-12)
    assert not torch.allclose(wrong.mean.flat, wrong.truth.flat, rtol=0.1)


def test_binary_rewards_behind_a_tool_have_grpos_factor():
    world = ask_oracle()
    policy = policy_of(world)
    update = expected_update(world, policy, build_learner("grpo", length="row sum"), 3)
    cosine, scale, _ = alignment(update.mean, update.truth)
    assert cosine == pytest.approx(1, abs=1e-12)
    assert scale == pytest.approx(2**0.5, rel=1e-9)


def test_divergences_are_those_of_the_policys_own_steps():
    world = SMALL["talking"]
    policy, other, every = policy_of(world), policy_of(world, seed=3), Conversations(world)
    with torch.no_grad():
        ratio = every.log_probs(policy)[0] - every.log_probs(other)[0]
        p = every.p(policy) * world.weights[every.prompt]
    exact = exact_kl(world, policy, other, {})
    assert exact.values["KL"] == pytest.approx(float(p @ (ratio * every.mask).sum(1)), rel=1e-10)
    assert bool(exact.total["KL"].isfinite().all())
    mean = expected_update(
        world, policy, build_learner("rloo", kl_reward=Penalty("k1", 0.3)), 2, reference=other
    ).mean.flat
    plain = true_gradient(every, policy)
    undiscounted = exact.total["KL"]
    close(mean, plain - 0.3 * undiscounted, rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("name", SMALL)
def test_other_targets_are_those_of_plain_loops(name):
    world = SMALL[name]
    policy, every = policy_of(world), Conversations(world)
    p, R = every.p(policy), every.rewards.sum(1)
    value = torch.zeros((), dtype=torch.float64)
    for q, weight in enumerate(world.weights):
        rows = (every.prompt == q).nonzero()[:, 0]
        best = torch.maximum(R[rows][:, None], R[rows])
        value = value + weight * (p[rows] @ best @ p[rows])
    exact, gradients = target_gradients(world, policy, max_at_k(2))
    close(exact, value.detach())
    close(gradients.flat, slope_of(value, policy), rtol=1e-8, atol=1e-12)
    other = policy_of(world, seed=3)
    ratio = every.log_probs(policy)[0] - every.log_probs(other)[0].detach()
    J = every.J(policy) - 0.4 * ((every.p(policy) * world.weights[every.prompt]) @ (ratio * every.mask).sum(1))
    exact, gradients = target_gradients(world, policy, kl_regularised(other, 0.4))
    close(exact, J.detach())
    close(gradients.flat, slope_of(J, policy), rtol=1e-8, atol=1e-12)


def test_the_mean_beside_the_variance_is_that_of_the_policys_own_scores():
    world, learner = SMALL["oracle"], build_learner("rloo")
    policy = policy_of(world)
    tree = grow(world, policy)
    variance, mean = group_variance(tree, word_scores(tree, policy), learner, 2)
    close(mean, expected_update(world, policy, learner, 2).mean.flat, rtol=1e-8, atol=1e-12)
    every = Conversations(world)
    oracle, remainder = hoeffding(every.p(policy).detach(), every.rewards.sum(1), own_scores(every, policy), 2)
    assert variance == pytest.approx(oracle + remainder, rel=1e-9)


def own_scores(every, policy):
    """`sum_t grad log pi(c_t)` over the policy's own steps of every conversation."""
    totals = torch.where(every.mask, every.log_probs(policy)[0], 0.0).sum(1)
    parameters = list(policy.parameters())
    each = torch.eye(len(totals), dtype=totals.dtype)
    slopes = torch.autograd.grad(
        totals, parameters, each, is_grads_batched=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([slope.flatten(1) for slope in slopes], 1)
