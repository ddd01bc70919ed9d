"""The best word of every prompt against brute force over all words."""

import itertools

import numpy as np
import pytest

from envs.skills import skills
from envs.token_mdp import TokenMDP
from envs.token_tasks import arithmetic, combination_lock, copy, distractor, garnet, parity, reverse, sum_and_stop
from tests.envs.refusals import refused
from tests.theory.token_cases import several_prompts, with_readout
from theory.tokens.dynamic_programming import best_words

SURE = garnet(V=3, states=4, horizon=4, branching=1, gamma=0.8, seed=2)
LATE = np.stack([0.2 * SURE.r[0], SURE.r[1], 2 * SURE.r[2], 4 * SURE.r[3]])
WORLDS = {
    "skills": skills(2, 2, "say,add,square"),
    "skills, dense": skills(2, 3, "reverse", sparse=False, gamma=0.7),
    "lock": combination_lock(3, 5, gamma=0.9, seed=4),
    "copy": copy(3, 2),
    "reverse, dense": reverse(3, 3, sparse=False, gamma=0.6),
    "arithmetic": arithmetic(4, 3, gamma=0.5),
    "parity": parity(2, 5, gamma=0.9),
    "distractor": distractor(3, 4, gamma=0.7),
    "stop": sum_and_stop(3, 4, gamma=0.8),
    "stop, undiscounted": sum_and_stop(2, 4),
    "stop at once": sum_and_stop(1, 3, gamma=0.8),
    "random table": SURE,
    "strongly discounted": garnet(V=3, states=4, horizon=4, branching=1, gamma=0.05, seed=2),
    "several starts": TokenMDP(SURE.P, LATE, [[0, 1], [2, 2], [1, 0], [0, 0]], [3, 0, 2, 1], 4, 0.8),
    "one table": TokenMDP(SURE.P, SURE.r[1], [[2], [1]], [1, 2], 4, 0.9, weights=[0.0, 1.0]),
}
EACH = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


def return_of(world, prompt, word):
    """Discounted return of a word, by the belief."""
    belief, total = np.eye(world.S)[int(world.starts[prompt])], 0.0
    for k, token in enumerate(word):
        total += world.gamma**k * belief @ world.r[k, :, token].numpy()
        belief = belief @ world.P[:, token].numpy()
    return total


def best_by_hand(world, prompt):
    """The first word, in the order of the tokens, that no other exceeds by more than rounding; and its return."""
    words = list(itertools.product(range(world.V), repeat=world.horizon))
    returns = np.array([return_of(world, prompt, word) for word in words])
    return words[int((returns > returns.max() - 1e-12).argmax())], returns.max()


@EACH
def test_no_word_is_better_and_the_first_of_the_best_is_given(world):
    words = best_words(world)
    assert words.shape == (len(world.prompts), world.horizon)
    best = [best_by_hand(world, i) for i in range(len(world.prompts))]
    assert [tuple(word) for word in words.tolist()] == [word for word, _ in best]
    if world.optimal_return is not None:
        mean = world.weights.numpy() @ [return_of(world, i, word) for i, word in enumerate(words.tolist())]
        assert mean == pytest.approx(world.optimal_return, rel=1e-12)


def greedy_return(world, prompt):
    """The control: always the token that is paid best at once."""
    z, total = int(world.starts[prompt]), 0.0
    for k in range(world.horizon):
        token = int(world.r[k, z].argmax())
        total += world.gamma**k * float(world.r[k, z, token])
        z = int(world.P[z, token].argmax())
    return total


@pytest.mark.parametrize("name", ["skills", "lock", "stop", "random table", "several starts", "arithmetic"])
def test_the_token_that_is_paid_best_at_once_does_not_do(name):
    world = WORLDS[name]
    assert any(greedy_return(world, i) < best_by_hand(world, i)[1] - 1e-3 for i in range(len(world.prompts)))


@pytest.mark.parametrize("world", [garnet(seed=1), several_prompts(), garnet(3, 3, 2, branching=3)])
def test_worlds_of_chance_are_refused(world):
    with refused("world must be deterministic:"):
        best_words(world)


def test_a_hidden_readout_is_refused():
    for world in (WORLDS["random table"], several_prompts()):
        with refused("readout"):
            best_words(with_readout(world))
