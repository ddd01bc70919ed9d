"""Words and their paths of states against plain loops; what is refused before it is allocated."""

import itertools

import pytest
import torch

from envs.token_mdp import TokenMDP
from envs.token_tasks import garnet, sum_and_stop
from tests.envs.refusals import refused
from tests.theory.groups.enumeration import Enumeration, policy_of, two_prompts
from tests.theory.token_cases import with_readout
from theory.tokens.completions import completions, state_paths, words
from theory.tokens.prefix_tree import grow

close = torch.testing.assert_close
WORLDS = {
    "one prompt": garnet(V=2, states=3, horizon=3, gamma=0.8, seed=3),
    "two prompts": two_prompts(),
    "three ways": garnet(V=2, states=4, horizon=2, branching=3, seed=5),
    "sure": garnet(V=3, states=3, horizon=2, branching=1, seed=1),
    "end token": sum_and_stop(2, 3, gamma=0.9),
}
EACH = pytest.mark.parametrize("name", WORLDS)


def paths_by_loops(world, prompt, word):
    """(probability given the word, rewards) of every path of states before the tokens of a word."""
    found = []
    for states in itertools.product(range(world.S), repeat=world.horizon):
        chance = float(states[0] == int(world.starts[prompt]))
        for k in range(world.horizon - 1):
            chance *= float(world.P[states[k], word[k], states[k + 1]])
        if chance > 0:
            found.append((chance, [world.gamma**k * float(world.r[k, z, word[k]]) for k, z in enumerate(states)]))
    return sorted(found)


@EACH
def test_the_paths_of_every_word_are_those_of_plain_loops(name):
    world = WORLDS[name]
    word, given, rewards = state_paths(world)
    assert word.tolist() == sorted(word.tolist())
    for q in range(len(world.prompts)):
        for i, said in enumerate(itertools.product(range(world.V), repeat=world.horizon)):
            rows = [j for j in (word == i).nonzero()[:, 0].tolist() if given[q, j] > 0]
            mine = sorted((float(given[q, j]), rewards[q, j].tolist()) for j in rows)
            theirs = paths_by_loops(world, q, said)
            assert [chance for chance, _ in mine] == pytest.approx([chance for chance, _ in theirs], rel=1e-12)
            for (_, x), (_, y) in zip(mine, theirs, strict=True):
                assert x == pytest.approx(y, abs=1e-14)


@EACH
def test_means_over_the_states_are_the_words_and_both_have_the_value(name):
    world = WORLDS[name]
    tree = grow(world, policy_of(world))
    rows, spoken = completions(tree), words(tree)
    close(rows.over_states(rows.rewards), spoken.rewards, rtol=1e-12, atol=1e-14)
    close((rows.p * rows.returns).sum(1), tree.V[0])
    close((spoken.p * spoken.returns).sum(1), tree.V[0])
    close(rows.p.sum(1), torch.ones_like(rows.p[:, 0]))
    spread = [(x.p * (x.returns - tree.V[0][:, None]) ** 2).sum(1) for x in (rows, spoken)]
    assert bool((spread[0] >= spread[1] - 1e-15).all())
    assert bool((spread[0] > spread[1] + 1e-4).all()) != world.deterministic, "the control: means scatter less"
    if world.deterministic:
        assert rows.word.tolist() == list(range(spoken.p.shape[1]))
    else:
        assert len(rows.word) >= len(set(Enumeration(world).words))


def test_paths_that_only_another_prompt_allows_have_probability_0():
    P = torch.zeros(4, 1, 4, dtype=torch.float64)
    P[0, 0, [2, 3]], P[1, 0, 2] = torch.tensor([0.25, 0.75], dtype=torch.float64), 1.0
    P[2, 0, 2] = P[3, 0, 3] = 1.0
    r = torch.zeros(2, 4, 1)
    r[1, 2, 0] = 1.0
    world = TokenMDP(P, r, [[0], [0]], [0, 1], 2)
    rows = completions(grow(world, policy_of(world)))
    assert sorted(rows.p[0].tolist()) == pytest.approx([0.25, 0.75])
    assert sorted(rows.p[1].tolist()) == pytest.approx([0.0, 1.0])
    assert rows.success().tolist() == pytest.approx([0.25, 1.0])


def test_too_many_completions_and_a_readout_are_refused():
    world = garnet(V=3, states=6, horizon=5, branching=6)
    tree = grow(world, policy_of(world))
    with refused("horizon=5"):
        completions(tree, budget=2**20)
    world = with_readout(two_prompts())
    with refused("world"):
        completions(grow(world, policy_of(world)))


@pytest.mark.parametrize("r", [2.0, -1.0, 0.5])
def test_returns_beside_0_and_1_have_no_success_probability(r):
    world = TokenMDP([[[1.0], [1.0]]], [[0.0, r]], [[0]], [0], 1)
    with refused("rewards"):
        completions(grow(world, policy_of(world))).success()
