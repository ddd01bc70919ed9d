"""The corpus: its law by enumerating every latent choice, its documents in standard errors, what is shown of the prompts."""

import itertools
from collections import defaultdict

import pytest
import torch

from envs.corpus import Corpus, next_token_world, prediction_world
from envs.skills import skills
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by

COUNT = 60_000
MIXES = pytest.mark.parametrize(("quality", "noise"), [(1, 0), (0.5, 0), (0, 0), (0.3, 0.5), (0.8, 0.6), (0.7, 1)])


def adding(modulus, horizon, *names):
    """The world and its answers by hand, of the skills add and say."""
    word = {
        "add": lambda a, b: [(a + (k + 1) * b) % modulus for k in range(horizon)],
        "say": lambda a, b: [k % modulus for k in range(horizon)],
    }
    numbers = list(itertools.product(range(modulus), repeat=2))
    return skills(modulus, horizon, names), torch.tensor([word[name](a, b) for name in names for a, b in numbers])


CASES = {
    "one skill": adding(2, 3, "add"),
    "two skills": adding(2, 2, "add", "say"),
    "few tokens are said": adding(4, 2, "say"),
    "one step": adding(3, 1, "add", "say"),
}
EACH = pytest.mark.parametrize("name", CASES)


def all_words(world):
    return torch.tensor(list(itertools.product(range(world.V), repeat=world.horizon)))


def law_by_hand(world, right, said, quality, noise):
    """Chance of every word that some choice leads to: right or guess, the guess, where it slips, and to what."""
    law, H = defaultdict(float), world.horizon
    intended = [(quality, tuple(right))]
    intended += [((1 - quality) / len(said) ** H, guess) for guess in itertools.product(said, repeat=H)]
    for (chance, word), slips in itertools.product(intended, itertools.product([False, True], repeat=H)):
        for instead in itertools.product(range(world.V), repeat=H):
            weight = chance / world.V**H
            for slip in slips:
                weight *= noise if slip else 1 - noise
            law[tuple(new if slip else old for old, new, slip in zip(word, instead, slips, strict=True))] += weight
    return [law[tuple(word)] for word in all_words(world).tolist()]


@MIXES
@EACH
def test_the_law_is_that_of_all_latent_choices(name, quality, noise):
    world, answers = CASES[name]
    law = Corpus(world, answers, quality, noise).chances(all_words(world))
    torch.testing.assert_close(law.sum(-1), torch.ones(len(answers), dtype=torch.float64), rtol=1e-13, atol=0)
    said = sorted({token for answer in answers.tolist() for token in answer})
    by_answer = {tuple(a): law_by_hand(world, a, said, quality, noise) for a in answers[::3].tolist()}
    for chances, answer in zip(law[::3].tolist(), answers[::3].tolist(), strict=True):
        assert chances == pytest.approx(by_answer[tuple(answer)], rel=1e-12, abs=1e-15)


def indicators(corpus, documents):
    """Which (prompt, word) a document is: (documents, prompts x words), a one in each row."""
    world = corpus.world
    radix = lambda tokens: (tokens * world.V ** torch.arange(tokens.shape[1]).flip(0)).sum(1)  # noqa: E731
    start = world.prompts.shape[1]
    asked = (radix(documents[:, :start])[:, None] == radix(world.prompts)).long()
    assert (asked.sum(1) == 1).all()
    cell = asked.argmax(1) * world.V**world.horizon + radix(documents[:, start:])
    return torch.nn.functional.one_hot(cell, len(world.prompts) * world.V**world.horizon)


@pytest.mark.parametrize("coverage", [0.5, 1.0])
@MIXES
def test_the_documents_follow_the_law(quality, noise, coverage, rng):
    """The rarest cell that can occur is expected 100 times or more: its count is nearly normal."""
    corpus = Corpus(*CASES["two skills"], quality, noise, coverage, seed=1)
    law = corpus.shown[:, None] / corpus.shown.sum() * corpus.chances(all_words(corpus.world))
    assert float(law[law > 0].min()) * COUNT > 100
    documents = corpus.draw(COUNT, rng)
    assert documents.shape == (COUNT, corpus.length) == (COUNT, 5)
    cells = indicators(corpus, documents)
    assert_mean_within(cells, law.flatten())
    other = Corpus(*CASES["two skills"], abs(quality - 0.1), abs(noise - 0.1), coverage, seed=1)
    assert differs_by(
        cells, (corpus.shown[:, None] / corpus.shown.sum() * other.chances(all_words(other.world))).flatten()
    )


@pytest.mark.parametrize("coverage", [0.0, 0.05, 0.3, 0.5, 0.8, 1.0])
def test_of_each_skill_a_share_of_the_prompts_is_shown_and_no_other_is_drawn(coverage, rng):
    world, answers = adding(3, 1, "add", "say")
    corpus = Corpus(world, answers, 0.5, 0.1, coverage, seed=3)
    for skill in (3, 4):
        count = int(corpus.shown[world.prompts[:, 0] == skill].sum())
        assert count == 1 if 9 * coverage < 1 else abs(count - 9 * coverage) <= 0.5
    drawn = {tuple(row) for row in corpus.draw(2000, rng)[:, :3].tolist()}
    assert drawn == {tuple(row) for row in world.prompts[corpus.shown].tolist()}


def test_the_seed_decides_what_is_shown():
    shown = [Corpus(*CASES["one step"], coverage=0.5, seed=seed).shown for seed in (0, 0, 1, 2)]
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])
    assert not torch.equal(shown[2], shown[3])
    assert Corpus(*CASES["one step"], seed=5).shown.all()


def test_the_same_generator_gives_the_same_documents():
    corpus = Corpus(*CASES["two skills"], 0.5, 0.2)
    one, same, other = (corpus.draw(50, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    rng = torch.Generator().manual_seed(1)
    assert not torch.equal(corpus.draw(50, rng), corpus.draw(50, rng))


def test_a_clean_corpus_holds_right_answers_only(rng):
    world, answers = CASES["one step"]
    right = {(*p, *a) for p, a in zip(world.prompts.tolist(), answers.tolist(), strict=True)}
    assert {tuple(row) for row in Corpus(world, answers).draw(1000, rng).tolist()} == right
    for quality, noise in ((0.9, 0), (1, 0.1)):
        assert {tuple(row) for row in Corpus(world, answers, quality, noise).draw(1000, rng).tolist()} > right


def test_a_guess_holds_only_tokens_that_occur_in_answers(rng):
    world, answers = CASES["few tokens are said"]
    assert Corpus(world, answers, quality=0).draw(1000, rng)[:, 3:].unique().tolist() == [0, 1]
    assert Corpus(world, answers, quality=0, noise=0.5).draw(1000, rng)[:, 3:].unique().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("share", ["quality", "noise", "coverage"])
@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_shares_outside_0_and_1_are_refused(share, value):
    with refused(share):
        Corpus(*CASES["one step"], **{share: value})


def test_answers_and_words_that_do_not_fit_are_refused():
    world, answers = CASES["two skills"]
    for wrong in (answers[:-1], answers[:, :1], torch.cat([answers, answers], 1)):
        with refused("answers"):
            Corpus(world, wrong)
    for token in (world.V, -1):
        with refused(f"token {token}"):
            Corpus(world, torch.full_like(answers, token))
        with refused(f"token {token}"):
            Corpus(world, answers).chances(torch.tensor([[0, token]]))


def test_words_of_another_length_are_refused():
    world = skills(2, 2, "say")
    with refused("words"):
        Corpus(world, torch.zeros(len(world.prompts), 2, dtype=torch.int64)).chances(torch.tensor([[0], [1]]))


def positions(corpus):
    return range(1, corpus.length)


@pytest.mark.parametrize("coverage", [0.5, 1.0])
def test_pairs_of_a_place_are_the_documents_cut_there(coverage):
    """The chance of every (context, next token) by adding up the chances of whole documents."""
    corpus = Corpus(*CASES["two skills"], 0.3, 0.5, coverage, seed=1)
    words = all_words(corpus.world)
    chance = corpus.shown[:, None] / corpus.shown.sum() * corpus.chances(words)
    for position in positions(corpus):
        law = defaultdict(float)
        for i, j in itertools.product(range(len(chance)), range(len(words))):
            document = (*corpus.world.prompts[i].tolist(), *words[j].tolist())
            law[document[: position + 1]] += float(chance[i, j])
        world = next_token_world(corpus, position, thoughts=1)
        pairs = zip(world.prompts.tolist(), world.starts.tolist(), world.weights.tolist(), strict=True)
        found = {(*context, token): p for context, token, p in pairs}
        assert found == pytest.approx({pair: p for pair, p in law.items() if p > 0}, rel=1e-12)
        best = defaultdict(float)
        for pair, p in law.items():
            best[pair[:-1]] = max(best[pair[:-1]], p)
        assert world.optimal_return == pytest.approx(sum(best.values()), rel=1e-12)


def test_only_the_true_next_token_is_paid_and_only_after_the_thoughts():
    corpus = Corpus(*CASES["one skill"], 0.5, 0.2)
    world = next_token_world(corpus, 3, thoughts=2)
    assert world.horizon == 3
    assert world.prompts.shape[1] == 3
    for i, said in itertools.product(range(len(world.prompts)), itertools.product(range(world.V), repeat=3)):
        belief, paid = world.start_belief(i), 0.0
        for k, token in enumerate(said):
            u = torch.nn.functional.one_hot(torch.tensor(token), world.V).double()
            paid += float(world.reward(k, belief, u))
            belief = world.step(belief, u)
        assert paid == (said[-1] == int(world.starts[i]))


def test_beginnings_that_do_not_exist_are_not_among_the_prompts():
    corpus = Corpus(*CASES["few tokens are said"])  # quality 1: one document for each prompt
    rows, chance = corpus.beginnings(corpus.length)
    assert len(rows) == len(corpus.world.prompts)
    assert chance.tolist() == pytest.approx([1 / len(rows)] * len(rows))


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("position", lambda corpus: next_token_world(corpus, 0)),
        ("position", lambda corpus: next_token_world(corpus, corpus.length)),
        ("thoughts", lambda corpus: next_token_world(corpus, 1, -1)),
        ("count", lambda corpus: corpus.beginnings(0)),
        ("count", lambda corpus: corpus.beginnings(corpus.length + 1)),
        ("weights", lambda corpus: prediction_world(3, torch.tensor([[0, 1]]), torch.tensor([0.5]))),
        ("V=2000", lambda corpus: prediction_world(2000, torch.tensor([[0, 1]]), torch.tensor([1.0]))),
    ],
)
def test_places_that_do_not_exist_are_refused(argument, call):
    with refused(argument):
        call(Corpus(*CASES["two skills"]))
