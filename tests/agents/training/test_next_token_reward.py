"""Rewards of next tokens: the mean of the sampled update against the exact one, one seed beside others, going on, refusals."""

import copy
from dataclasses import replace

import pytest
import torch

from agents.policies.transformer import Transformer
from agents.recipes.learners import Penalty, build_learner, grpo, maxrl, rloo
from agents.training.checks import check_rows_of
from agents.training.copies import Copies
from agents.training.next_token_reward import OBJECTIVES, NextTokenReward
from agents.training.pretraining import pretrain
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from envs.corpus import Corpus, next_token_world
from envs.skills import skills
from envs.token_tasks import parity
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by
from theory.groups.expected_update import expected_update
from theory.tokens.dynamic_programming import best_words
from theory.tokens.next_token import corpus_nats, least_nats

WORLD = skills(2, 1, "copy,reverse")
CORPUS = Corpus(WORLD, best_words(WORLD), 0.6, 0.2)
RECIPES = {"rpt": rloo(), "grpo": grpo(length="row sum"), "mean": maxrl()}
G, DRAWS, BATCH = 3, 300, 80


def network(seed, thoughts=0):
    return Transformer(WORLD.V, width=4, heads=1, layers=1, length=CORPUS.length + thoughts, seed=seed)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def sampled(net, reward, rng, count=DRAWS):
    """Minus the slopes of the loss of fresh documents, one row a draw: the first six numbers of the head."""
    learning, rows = Copies([net]), []
    for _ in range(count):
        loss, wrong = reward.losses(learning, CORPUS.draw(BATCH, rng)[None], [rng])
        assert 0 <= float(wrong) <= 1
        rows.append(-torch.autograd.grad(loss.sum(), net.head.weight)[0].flatten()[:6])
    return torch.stack(rows)


def exact(net, recipe, thoughts):
    """The mean over places of the exact mean updates."""
    places = range(1, CORPUS.length)
    updates = [
        expected_update(next_token_world(CORPUS, place, thoughts), net, recipe, G).mean.parameters for place in places
    ]
    (index,) = [i for i, p in enumerate(net.parameters()) if p is net.head.weight]
    return (sum(update[index] for update in updates) / len(updates)).flatten()[:6]


@pytest.mark.parametrize("thoughts", [0, 1])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_mean_of_the_sampled_update_is_the_exact_one(name, thoughts, rng):
    net = network(1, thoughts)
    count = DRAWS if thoughts == 0 else DRAWS // 3
    found = sampled(net, NextTokenReward(name, G, thoughts), rng, count).numpy()
    assert_mean_within(found, exact(net, RECIPES[name], thoughts).numpy())
    other = "mean" if name != "mean" else "rpt"
    assert thoughts or differs_by(found, exact(net, RECIPES[other], thoughts).numpy()), "the control: another factor"


@pytest.mark.parametrize("thoughts", [0, 1])
def test_a_seed_alone_is_the_same_seed_beside_others(thoughts):
    reward = NextTokenReward("mean", 4, thoughts)
    run = lambda *seeds: list(  # noqa: E731
        pretrain([network(s, thoughts) for s in seeds], CORPUS, (0, 1, 5), generators(*seeds), 8, 0.01, reward)
    )
    alone, together = run(2), run(1, 2)
    for one, both in zip(alone, together, strict=True):
        torch.testing.assert_close(one.loss[0], both.loss[1], rtol=1e-9, atol=1e-12, equal_nan=True)
        for p, q in zip(one.networks[0].parameters(), both.networks[1].parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("reward", [None, NextTokenReward("grpo", 4), NextTokenReward("rpt", 4, 1)])
@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
def test_a_run_that_goes_on_is_the_run_that_never_stopped(reward, seeds):
    thoughts = 0 if reward is None else reward.thoughts
    start = [network(seed, thoughts) for seed in seeds]
    whole = list(pretrain(start, CORPUS, (0, 3, 7), generators(*seeds), 8, 0.01, reward))
    kept = copy.deepcopy(whole[1])
    given = (CORPUS, (3, 7), generators(*(0 for _ in seeds)), 8, 0.01, reward)
    first, last = pretrain(kept.networks, *given, kept.progress)
    assert (first.updates, last.updates) == (3, 7)
    torch.testing.assert_close(last.loss, whole[2].loss, rtol=0, atol=0)
    for one, other in zip(last.networks, whole[2].networks, strict=True):
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(p, q)
    anew = list(pretrain(kept.networks, CORPUS, (0, 4), generators(*seeds), 8, 0.01, reward))[-1]
    assert not torch.equal(anew.networks[0].head.weight, whole[2].networks[0].head.weight), "the control: no progress"


def test_rpt_leaves_the_corpus_and_the_likelihood_learns_it():
    """The group is large enough for the rarest token of the corpus, of frequency 1/20: `q (G - 1) > 1`."""
    worlds = [next_token_world(CORPUS, place) for place in range(1, CORPUS.length)]
    ends = {}
    for name in (None, "rpt", "mean"):
        reward = None if name is None else NextTokenReward(name, 64)
        ends[name] = list(pretrain([network(0)], CORPUS, (0, 300), generators(0), 64, 0.02, reward))[-1]
    nats = {name: corpus_nats(worlds, end.networks[0]) for name, end in ends.items()}
    assert least_nats(worlds) < nats[None] < least_nats(worlds) + 0.05
    assert nats["mean"] < least_nats(worlds) + 0.1
    assert nats["rpt"] > least_nats(worlds) + 0.5


@pytest.mark.parametrize(
    ("argument", "given"),
    [("objective", ("rtp",)), ("group", ("rpt", 1)), ("thoughts", ("mean", 8, -1))],
)
def test_choices_that_make_no_sense_are_refused(argument, given):
    with refused(argument):
        NextTokenReward(*given)


@pytest.mark.parametrize("case", ["costs", "a penalty in the reward", "rewards"])
def test_a_trainer_divides_by_the_mean_only_of_returns_that_cannot_be_negative(case):
    world = parity(V=2, horizon=2)
    task = TokenTask(replace(world, r=world.r - 0.1) if case == "costs" else world)
    learner = build_learner("maxrl", kl_reward=Penalty("k1", 0.1) if case == "a penalty in the reward" else None)
    setting = TrainingSettings(steps=1, prompts=1, group=2)
    if case == "rewards":
        check_rows_of(task, learner, setting, 1)
        return
    with refused("rewards"):
        check_rows_of(task, learner, setting, 1)
    check_rows_of(task, build_learner("rloo", kl_reward=learner.kl_reward), setting, 1)


def test_rows_must_fit_in_memory():
    with refused("batch=1000"):
        pretrain([network(0)], CORPUS, (0, 1), generators(0), 1000, 0.01, NextTokenReward("rpt", 10**6))
