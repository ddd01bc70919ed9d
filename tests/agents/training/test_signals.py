"""What a learner sees beside rewards while it trains: drawn along the same states, and the update of the groups it keeps."""

from dataclasses import replace

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from agents.recipes.learner import Learner
from agents.recipes.learners import build_learner
from agents.sampling.completions import sample_completions
from agents.training.command_task import CommandTask
from agents.training.copies import Copies
from agents.training.noise import noise_of
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.linear_quadratic import scalar
from envs.token_mdp import TokenMDP
from envs.token_tasks import sum_and_stop
from figures.measures.oracles import TokenOracle
from tests.envs.refusals import refused
from tests.theory.token_cases import several_prompts, transformer

close = torch.testing.assert_close
LONG = sum_and_stop(2, 3, gamma=0.9, bonus=0.3)
NOISY = replace(several_prompts(3), gamma=1.0)
TOLD = replace(NOISY, signals={"paid": NOISY.r, "style": 2 * NOISY.r - 1})


def generators(*seeds):
    return [noise_of("rollouts", seed) for seed in seeds]


def policies(world, *seeds):
    return [transformer(world, seed=seed) for seed in seeds]


def right(tokens):
    """Whether numbers 0 and 1 have the sum 1 (modulo 2) when they are ended by token 2: plain Python."""
    said = tokens.tolist()
    return float(2 in said and sum(said[: said.index(2)]) % 2 == 1)


def test_signals_follow_the_states_that_the_rewards_follow_and_change_no_draw():
    task, copies = TokenTask(TOLD), Copies(policies(TOLD, 1, 2))
    rows = task.draw(copies, 5, 4, generators(3, 4), ("style", "paid"))
    plain = task.draw(copies, 5, 4, generators(3, 4))
    assert torch.equal(rows.seen[0], plain.seen[0])
    assert torch.equal(rows.rewards, plain.rewards)
    assert plain.extras == {}
    close(rows.extras["paid"], rows.rewards.sum(2))
    close(rows.extras["style"], 2 * rows.rewards.sum(2) - 3)
    assert torch.equal(rows.batch(1).extras["paid"], rows.extras["paid"][1])
    part = torch.tensor([4, 5, 6, 7])
    assert torch.equal(rows.batch(1, part).extras["paid"], rows.extras["paid"][1, part])
    assert torch.equal(rows.joined(part).extras["paid"], rows.extras["paid"][:, part].flatten())
    some = sample_completions(TOLD, policies(TOLD, 1)[0], torch.tensor([1, 0]), 6, generators(1)[0])
    close(some.batch().extras["paid"], some.rewards.sum(1))


def test_accuracy_of_drawn_answers_knows_neither_discount_nor_bonus():
    rows = TokenTask(LONG).draw(Copies(policies(LONG, 1)), 4, 8, generators(3), ("accuracy",))
    by_hand = [right(tokens[1:]) for tokens in rows.seen[0][0]]
    assert rows.extras["accuracy"][0].tolist() == by_hand
    assert 0 < sum(by_hand) < 32
    assert not torch.equal(rows.extras["accuracy"], rows.rewards.sum(2).round())


@pytest.mark.parametrize("minibatches", [1, 2])
def test_a_step_with_dynamic_sampling_is_that_of_the_groups_that_are_kept_by_hand(minibatches):
    """Two seeds in one call; the kept groups alone make a batch for plain DAPO, in every minibatch."""
    setting = TrainingSettings(steps=1, prompts=8, group=3, minibatches=minibatches, rate=0.2, optimiser="sgd", every=9)
    moved = {}
    for by in ("accuracy", "none"):
        run = Trainer(
            TokenTask(LONG), build_learner("dapo", dynamic_sampling=by), policies(LONG, 1, 2), (1, 2), setting
        )
        run.step()
        moved[by] = run.actor.flattened(run.actor.parameters)
    assert float((moved["accuracy"] - moved["none"]).norm()) > 1e-2, "the control: without the filter"
    order, dropped = torch.arange(8), 0
    if minibatches > 1:
        order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    for i, seed in enumerate((1, 2)):
        (network,) = policies(LONG, seed)
        rows = TokenTask(LONG).draw(Copies([network]), 8, 3, generators(seed))
        accuracy = torch.tensor([right(tokens[1:]) for tokens in rows.seen[0][0]])
        optimiser = torch.optim.SGD(network.parameters(), lr=0.2)
        for groups in order.chunk(minibatches):
            scores = {g: accuracy[3 * g : 3 * g + 3].tolist() for g in groups.tolist()}
            kept = [g for g, score in scores.items() if 0 < sum(score) < 3]
            dropped += len(groups) - len(kept)
            if not kept:  # nothing moves
                continue
            part = torch.tensor([3 * g + j for g in kept for j in range(3)])
            log_probs, entropy = TokenTask(LONG).log_probs(network, rows.seen[0][0][part])
            optimiser.zero_grad()
            build_learner("dapo").loss(log_probs, entropy, rows.batch(0, part)).backward()
            optimiser.step()
        close(moved["accuracy"][i], parameters_to_vector(network.parameters()).detach(), rtol=1e-9, atol=1e-10)
    assert dropped > 3


def test_a_learner_that_asks_for_what_the_world_does_not_tell_is_refused_before_anything_is_drawn():
    def judged(rewards, mask, group, *, style):
        return style[:, None] * mask

    setting = TrainingSettings(steps=1, prompts=2, group=2)
    for world, learner in (
        (NOISY, build_learner("dapo", dynamic_sampling="accuracy")),
        (LONG, Learner("mine", judged)),
    ):
        with refused("signals"):
            Trainer(TokenTask(world), learner, policies(world, 1), (1,), setting)
    assert CommandTask(scalar(3)).signals == ()
    record = Trainer(
        TokenTask(TOLD), Learner("mine", judged), policies(TOLD, 1), (1,), setting, TokenOracle(TOLD)
    ).step()
    assert bool(record.cosine.isfinite().all())


def test_a_world_without_signals_has_none_to_draw():
    world = TokenMDP(NOISY.P, NOISY.r, NOISY.prompts, NOISY.starts, 3)
    assert TokenTask(world).signals == ()
    assert TokenTask(TOLD).signals == ("paid", "style")
