"""Named tasks: their optimal return by backward induction and by brute force; their prompts ask for the right answers."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from envs import token_tasks
from envs.token_tasks import (
    arithmetic,
    combination_lock,
    copy,
    distractor,
    garnet,
    parity,
    reverse,
    sequence_task,
    sum_and_stop,
)
from tests.envs.refusals import refused
from tests.typecheck import unchecked

DETERMINISTIC = {
    "lock": combination_lock(3, 4, gamma=0.9, seed=5),
    "lock of one": combination_lock(4, 1),
    "copy": copy(3, 2, gamma=0.8),
    "copy, dense": copy(2, 3, sparse=False, gamma=0.8),
    "reverse": reverse(2, 3, gamma=0.7),
    "reverse, dense": reverse(2, 3, sparse=False),
    "arithmetic": arithmetic(3, 3, gamma=0.9),
    "arithmetic, dense": arithmetic(4, 2, sparse=False, gamma=0.5),
    "parity": parity(2, 5, gamma=0.9),
    "parity of three": parity(3, 3),
    "parity at once": parity(2, 1),
    "distractor": distractor(3, 4, gamma=0.9),
    "distractor of one": distractor(3, 1, gamma=0.9),
    "sum and stop": sum_and_stop(2, 4, gamma=0.9),
    "sum of three and stop": sum_and_stop(3, 3, gamma=0.8),
    "stop at once": sum_and_stop(1, 2, gamma=0.8),
    "sum and stop, paid for length": sum_and_stop(2, 4, gamma=0.9, bonus=0.15),
    "sum and stop, paid to go on": sum_and_stop(3, 3, gamma=0.8, bonus=2.0),
    "sum and stop, fined for length": sum_and_stop(1, 3, gamma=0.9, bonus=-0.2),
}
TASKS = DETERMINISTIC | {
    "garnet": garnet(gamma=0.9),
    "small garnet": garnet(2, 2, 3, 2, gamma=0.8, seed=3),
    "sure garnet": garnet(3, 4, 3, branching=1, seed=2),
}
every_task = pytest.mark.parametrize("world", TASKS.values(), ids=TASKS)


def best_by_induction(world):
    P, r = world.P.numpy(), world.r.numpy()
    V = np.zeros(world.S)
    for k in reversed(range(world.horizon)):
        V = np.array([max(r[k, z, a] + world.gamma * P[z, a] @ V for a in range(world.V)) for z in range(world.S)])
    return float(sum(w * V[z] for w, z in zip(world.weights, world.starts, strict=True)))


def return_of(world, prompt, tokens):
    """Expected discounted return of fixed tokens after a prompt, by the belief."""
    belief, total = np.eye(world.S)[int(world.starts[prompt])], 0.0
    for k, token in enumerate(tokens):
        total += world.gamma**k * belief @ world.r[k, :, token].numpy()
        belief = belief @ world.P[:, token].numpy()
    return total


def answers(world, prompt):
    """All token sequences that reach the best return after a prompt."""
    words = list(itertools.product(range(world.V), repeat=world.horizon))
    returns = np.array([return_of(world, prompt, word) for word in words])
    return [word for word, value in zip(words, returns, strict=True) if value > returns.max() - 1e-9], returns.max()


@every_task
def test_the_optimal_return_is_that_of_backward_induction(world):
    assert world.optimal_return == pytest.approx(best_by_induction(world), rel=1e-12)
    assert world.optimal_return > 0


@pytest.mark.parametrize("world", [*DETERMINISTIC.values(), TASKS["sure garnet"]], ids=[*DETERMINISTIC, "sure garnet"])
def test_the_best_token_sequence_reaches_it_and_none_exceeds_it(world):
    assert world.deterministic
    best = [answers(world, i)[1] for i in range(len(world.prompts))]
    assert world.optimal_return == pytest.approx(world.weights.numpy() @ best, rel=1e-12)


def test_no_policy_of_a_random_table_does_better_and_one_does_as_well():
    world, returns = TASKS["small garnet"], []
    for choice in itertools.product(range(2), repeat=6):
        pi, belief, total = np.reshape(choice, (3, 2)), np.eye(2)[0], 0.0
        for k in range(3):
            total += world.gamma**k * sum(belief[z] * float(world.r[k, z, pi[k, z]]) for z in range(2))
            belief = sum(belief[z] * world.P[z, pi[k, z]].numpy() for z in range(2))
        returns.append(total)
    assert max(returns) == pytest.approx(world.optimal_return, rel=1e-12)
    assert max(return_of(world, 0, word) for word in itertools.product(range(2), repeat=3)) < world.optimal_return


@pytest.mark.parametrize("sparse", [True, False])
def test_every_prompt_has_its_one_right_answer(sparse):
    for build, right in ((copy, lambda p: p), (reverse, lambda p: p[::-1])):
        world = build(3, 2, sparse)
        assert world.prompts.tolist() == [[a, b] for a in range(3) for b in range(3)]
        for i, prompt in enumerate(world.prompts.tolist()):
            assert answers(world, i)[0] == [tuple(right(prompt))]
    world = arithmetic(4, 3, sparse)
    assert len({tuple(prompt) for prompt in world.prompts.tolist()}) == 16
    for i, (a, b) in enumerate(world.prompts.tolist()):
        assert answers(world, i)[0] == [((a + b) % 4, (a + 2 * b) % 4, (a + 3 * b) % 4)]


def test_the_lock_opens_to_one_word_that_the_seed_decides():
    words = [answers(combination_lock(4, 4, seed=seed), 0)[0] for seed in range(4)]
    assert all(len(best) == 1 for best in words)
    assert words[0] == answers(combination_lock(4, 4, seed=0), 0)[0]
    assert len({best[0] for best in words}) > 1


@pytest.mark.parametrize("name", ["lock", "copy", "reverse", "arithmetic", "parity", "distractor"])
def test_sparse_tasks_pay_at_the_last_step_only(name):
    world = TASKS[name]
    assert (world.r[:-1] == 0).all()
    assert (world.r[-1] != 0).any()


@pytest.mark.parametrize("word", list(itertools.product(range(3), repeat=3)))
def test_parity_pays_for_the_parity_of_what_was_said(word):
    assert return_of(parity(3, 3), 0, word) == (word[2] == (word[0] + word[1]) % 2)


@pytest.mark.parametrize("word", list(itertools.product(range(2), repeat=3)))
def test_the_distractor_listens_to_the_first_token_only(word):
    assert return_of(distractor(2, 3), 0, word) == (word[0] == 1)


def test_dense_answers_pay_for_every_right_token():
    world = copy(3, 3, sparse=False)
    i = world.prompts.tolist().index([1, 2, 0])
    for word, right in (((1, 2, 0), 3), ((1, 0, 0), 2), ((0, 0, 0), 1), ((0, 0, 1), 0)):
        assert return_of(world, i, word) == pytest.approx(right / 3)


def test_random_tables_follow_their_seed_and_branching():
    one, same, other = (garnet(4, 5, 3, 2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.P, same.P)
    assert torch.equal(one.r, same.r)
    assert not torch.equal(one.P, other.P)
    assert not torch.equal(one.r, other.r)
    assert ((one.P > 0).sum(-1) == 2).all()
    assert not torch.equal(one.r[0], one.r[1])
    assert (one.V, one.S, one.horizon) == (4, 5, 3)


@pytest.mark.parametrize(
    ("argument", "build", "settings"),
    [
        ("V=2", sequence_task, {"V": 2, "prompts": [[0]], "answers": [[2]]}),
        ("V=2", sequence_task, {"V": 2, "prompts": [[5]], "answers": [[1]]}),
        ("V=2", sequence_task, {"V": 2, "prompts": [[0]], "answers": [[-1]]}),
        ("answers", sequence_task, {"V": 2, "prompts": [[0], [1]], "answers": [[0]]}),
        ("answers", sequence_task, {"V": 2, "prompts": [[0], [1]], "answers": [[0], [0, 1]]}),
        ("answers", sequence_task, {"V": 2, "prompts": [[0]], "answers": [[]]}),
        ("answers", sequence_task, {"V": 2, "prompts": [], "answers": []}),
        ("prompts", sequence_task, {"V": 2, "prompts": [[0], [0, 1]], "answers": [[0], [1]]}),
        ("branching", garnet, {"branching": 0}),
        ("branching", garnet, {"states": 3, "branching": 4}),
        ("states", garnet, {"states": 0}),
        ("modulus", arithmetic, {"modulus": 0}),
        ("V", parity, {"V": 1}),
        ("V", distractor, {"V": 1}),
        *[(name, build, {name: 0}) for build in (copy, reverse) for name in ("V", "length")],
        *[("V", build, {"V": 0}) for build in (combination_lock, garnet)],
        *[("horizon", b, {"horizon": 0}) for b in (combination_lock, arithmetic, parity, distractor, garnet)],
        *[("gamma", getattr(token_tasks, b), {"gamma": 1.5}) for b in ("copy", "parity", "garnet", "distractor")],
    ],
)
def test_tasks_that_make_no_sense_are_refused(argument, build, settings):
    with refused(argument):
        build(**settings)


@pytest.mark.parametrize("word", list(itertools.product(range(3), repeat=4)))
def test_sum_and_stop_pays_for_the_right_sum_when_it_is_ended(word):
    world = sum_and_stop(2, 4)
    said = list(itertools.takewhile(lambda token: token != 2, word))
    assert return_of(world, 0, word) == (len(said) < 4 and sum(said) % 2 == 1)
    assert world.mask(torch.tensor(word)).sum() == min(len(said) + 1, 4)


@pytest.mark.parametrize("name", [name for name, world in DETERMINISTIC.items() if world.signals])
def test_accuracy_is_whether_a_word_is_right_whatever_it_is_paid(name):
    """1 for a word that earns the plain reward of the task, by loops; neither discount nor bonus moves it."""
    world = DETERMINISTIC[name]
    bonus = float(world.r[0, 0, 0]) if world.end is not None else 0.0
    judge, free = world.paying("accuracy"), replace(world, gamma=1.0)
    assert judge.gamma == 1
    for prompt in range(len(world.prompts)):
        for word in itertools.product(range(world.V), repeat=world.horizon):
            n = word.index(world.end) if world.end in word else world.horizon
            plain = return_of(free, prompt, word) - n * bonus
            assert return_of(judge, prompt, word) == pytest.approx(plain, abs=1e-12)
            assert round(plain, 12) in (0, 1)


@unchecked()
def test_dense_tasks_have_no_accuracy_and_a_bonus_is_a_number():
    assert not copy(2, 2, sparse=False).signals
    assert not garnet().signals
    for wrong in (np.nan, np.inf, "1", True, None):
        with refused("bonus"):
            sum_and_stop(2, 3, bonus=wrong)
    assert sum_and_stop(2, 3, bonus=np.float32(0.5)).r[0, 0, 0] == 0.5
