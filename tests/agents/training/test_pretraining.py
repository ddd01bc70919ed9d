"""Pretraining: the loss by hand, the updates against plain Adam, one seed against several, and what is learnt in the end."""

import copy
import itertools

import numpy as np
import pytest
import torch

from agents.policies.transformer import Transformer
from agents.training.pretraining import log_grid, next_token_loss, pretrain
from envs.corpus import Corpus
from envs.skills import skills
from tests.agents.cases import Network
from tests.envs.refusals import refused
from theory.tokens.completions import completions
from theory.tokens.dynamic_programming import best_words
from theory.tokens.prefix_tree import grow

close = torch.testing.assert_close
BATCH, RATE = 8, 0.01


def corpus_of(quality=0.5, noise=0.0, horizon=2, names="add,say"):
    world = skills(2, horizon, names)
    return Corpus(world, best_words(world), quality, noise)


CORPUS = corpus_of()


def network(seed, corpus=CORPUS, layers=2):
    return Transformer(corpus.world.V, width=8, heads=2, layers=layers, length=corpus.length, seed=seed)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def run(seeds, grid, corpus=CORPUS, batch=BATCH, rate=RATE):
    return list(pretrain([network(s, corpus) for s in seeds], corpus, grid, generators(*seeds), batch, rate))


def loss_by_hand(net, documents):
    """Every prefix read alone, no token after it in sight."""
    terms = []
    for row, t in itertools.product(documents, range(1, documents.shape[1])):
        terms.append(-torch.log_softmax(net(net.embed(row[None, :t]))[0, -1], -1)[row[t]])
    return sum(terms) / len(terms)


def assert_same(one, other, rtol=1e-9, atol=1e-9):  # Adam blows the rounding of a slope that is 0 up
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        close(p, q, rtol=rtol, atol=atol)


def gap(one, other):
    return max(float((p - q).detach().abs().max()) for p, q in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("first", "last", "count"), [(1, 1000, 7), (10, 10_000, 4), (4, 2000, 12), (5, 5, 3), (2, 9, 2)]
)
def test_the_grid_is_even_in_the_logarithm_from_0_to_the_last(first, last, count):
    grid = log_grid(first, last, count)
    assert grid == [0, *np.unique(np.geomspace(first, last, count).round().astype(int)).tolist()]
    assert (grid[1], grid[-1]) == (first, last)
    assert all(type(step) is int for step in grid)


def test_a_grid_too_fine_for_whole_numbers_holds_each_once_and_one_step_still_ends_at_the_last():
    assert log_grid(1, 5, 50) == [0, 1, 2, 3, 4, 5]
    assert log_grid(3, 9, 1) == [0, 3, 9]
    assert log_grid(10, 10_000, 4) == [0, 10, 100, 1000, 10_000]


@pytest.mark.parametrize("given", [(0, 5, 3), (6, 5, 3), (-1, 5, 3), (1, 5, 0)])
def test_grids_that_make_no_sense_are_refused(given):
    with refused("first and last"):
        log_grid(*given)


def test_the_loss_is_the_mean_over_all_tokens_but_the_first(rng):
    net, documents = network(1), CORPUS.draw(6, rng)
    loss, truth = next_token_loss(net, documents), loss_by_hand(net, documents)
    close(loss, truth, rtol=1e-12, atol=1e-13)
    for mine, theirs in zip(
        torch.autograd.grad(loss, list(net.parameters())),
        torch.autograd.grad(truth, list(net.parameters())),
        strict=True,
    ):
        close(mine, theirs, rtol=1e-9, atol=1e-12)
    answer = loss_by_hand(net, documents) * (CORPUS.length - 1) - loss_by_hand(net, documents[:, :3]) * 2
    assert abs(float((answer / CORPUS.world.horizon - loss).detach())) > 1e-3, "the control: the prompt counts as well"


@pytest.mark.parametrize("seeds", [(3,), (3, 4, 5)])
def test_checkpoints_are_those_of_plain_adam_on_the_same_documents(seeds):
    path = run(seeds, (0, 1, 4))
    assert [(c.updates, c.tokens, len(c.networks)) for c in path] == [
        (n, n * BATCH * (3 + 2), len(seeds)) for n in (0, 1, 4)
    ]
    for i, seed in enumerate(seeds):
        net, (rng,), losses = network(seed), generators(seed), []
        optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
        for done in range(5):
            for checkpoint in path:
                if checkpoint.updates == done:
                    assert_same(checkpoint.networks[i], net, *((0, 0) if done == 0 else ()))
            optimiser.zero_grad()
            loss = loss_by_hand(net, CORPUS.draw(BATCH, rng))
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        assert path[0].loss[i].isnan()
        assert [float(c.loss[i]) for c in path[1:]] == pytest.approx([losses[0], sum(losses[1:4]) / 3], rel=1e-9)
        assert gap(path[1].networks[i], path[0].networks[i]) == pytest.approx(RATE, rel=1e-3)  # Adam's first: the rate


def test_the_documents_are_fresh_at_every_update():
    """The control: the same batch again and again leads elsewhere."""
    path, net, (rng,) = run((3,), (0, 4)), network(3), generators(3)
    documents, optimiser = CORPUS.draw(BATCH, rng), torch.optim.Adam(net.parameters(), lr=RATE)
    for _ in range(4):
        optimiser.zero_grad()
        next_token_loss(net, documents).backward()
        optimiser.step()
    assert gap(path[-1].networks[0], net) > RATE / 10


@pytest.mark.parametrize("count", [1, 3])
def test_the_networks_given_and_earlier_checkpoints_stay_as_they_are(count):
    given = [network(seed) for seed in range(count)]
    given[0].requires_grad_(False)
    before, seen = copy.deepcopy(given), []
    for checkpoint in pretrain(given, CORPUS, (0, 1, 3), generators(*range(count)), BATCH, RATE):
        seen.append((checkpoint, copy.deepcopy(checkpoint.networks)))
    for one, same in zip(given, before, strict=True):
        assert_same(one, same, 0, 0)
        assert [p.requires_grad for p in one.parameters()] == [p.requires_grad for p in same.parameters()]
        assert all(p.grad is None for p in one.parameters())
    for checkpoint, kept in seen:
        for one, same in zip(checkpoint.networks, kept, strict=True):
            assert_same(one, same, 0, 0)
            assert all(p.requires_grad for p in one.parameters())
    assert gap(seen[2][0].networks[0], seen[1][0].networks[0]) > RATE / 10


def test_a_checkpoint_may_be_trained_further_without_a_trace_in_the_run():
    untouched, path = run((1, 2), (0, 2, 5)), []
    for c in pretrain([network(1), network(2)], CORPUS, (0, 2, 5), generators(1, 2), BATCH, RATE):
        path.append(copy.deepcopy(c.networks))
        with torch.no_grad():
            for p in c.networks[0].parameters():
                p += 1
    for mine, theirs in zip(path, untouched, strict=True):
        for one, other in zip(mine, theirs.networks, strict=True):
            assert_same(one, other, 0, 0)


def test_a_seed_alone_is_the_same_seed_beside_others():
    alone, together = run((2,), (0, 1, 10)), run((1, 2, 3), (0, 1, 10))
    for one, many in zip(alone, together, strict=True):
        assert_same(one.networks[0], many.networks[1])
        close(one.loss[0], many.loss[1], rtol=1e-9, atol=1e-9, equal_nan=True)
    assert gap(alone[-1].networks[0], together[-1].networks[0]) > RATE


def said(net, corpus):
    """Exact chance of every word after every prompt."""
    words = completions(grow(corpus.world, net))
    return words.tokens[0], words.p


UPDATES, LAST, READ = 400, 100, 128
LEARNT = {
    "one skill": corpus_of(horizon=1, names="copy"),
    "two skills, slips": corpus_of(0.5, 0.2, horizon=1, names="copy,reverse"),
}


@pytest.mark.parametrize("name", LEARNT)
def test_in_the_end_it_says_what_the_corpus_says(name):
    """Exact chances, their mean over the last 100 updates: to five standard errors of a frequency in what was read then.

    A logit's slope is the chance said less the frequency read, and slopes sum to about 0 where a network has come to
    rest: the mean chance is the frequency. The clean corpus and the first draw lie more than two tolerances away.
    """
    corpus, grid = LEARNT[name], (0, *range(UPDATES - LAST, UPDATES + 1, 5))
    path = list(pretrain([network(0, corpus, layers=1)], corpus, grid, generators(0), READ, 0.01))
    words, first = said(path[0].networks[0], corpus)
    p = torch.stack([said(checkpoint.networks[0], corpus)[1] for checkpoint in path[1:]]).mean(0)
    truth, clean = corpus.chances(words), Corpus(corpus.world, corpus.answers).chances(words)
    tolerance = 5 * 0.5 / (LAST * READ / len(corpus.world.prompts)) ** 0.5
    assert float((p - truth).abs().max()) < tolerance
    assert float((p - clean).abs().amax(1).min()) > 2 * tolerance
    assert float((first - truth).abs().max()) > 2 * tolerance
    assert float(path[-1].loss) < float(path[1].loss)  # the last five updates against the first three hundred


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("grid", {"grid": (0, 2, 1)}),
        ("grid", {"grid": (0, 1, 1)}),
        ("grid", {"grid": ()}),
        ("grid", {"grid": (-1, 2)}),
        ("noise", {"noise": generators(1)}),
        ("noise", {"noise": generators(1, 2, 3)}),
        ("batch", {"batch": 0}),
        *[("batch", {"rate": rate}) for rate in (0.0, -1.0, float("inf"), float("nan"))],
        ("networks", {"networks": [], "noise": []}),
        ("networks", {"networks": [network(0), Network()]}),
    ],
)
def test_runs_that_make_no_sense_are_refused(argument, changes):
    given = {"networks": [network(0), network(1)], "corpus": CORPUS, "grid": (0, 1), "noise": generators(1, 2)}
    with refused(argument):
        next(pretrain(**given | changes))


def test_documents_of_all_networks_together_must_fit_in_memory():
    """Eight bytes a number, one number a token and a word of the vocabulary: 2^29 numbers are the most."""
    most = 2**29 // (CORPUS.length * CORPUS.world.V)
    pretrain([network(1)], CORPUS, (0, 1), generators(1), batch=most)  # draws nothing before its first step
    for seeds, batch in (((1,), most + 1), ((1, 2), most // 2 + 1)):
        with refused(f"batch={batch}"):
            pretrain([network(seed) for seed in seeds], CORPUS, (0, 1), generators(*seeds), batch)
