"""Worlds from tables of rewards: returns by going through all answers, any discount, Gymnasium's episodes, and JSON files."""

import itertools
import json

import gymnasium
import numpy as np
import pytest
import torch

import envs  # noqa: F401  (registers the ids)
from agents.policies.transformer import Transformer
from envs.own_world import fingerprint, load_own_world
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from envs.token_tasks import parity
from envs.world import InputError
from tests.envs.refusals import refused
from theory.tokens.prefix_tree import grow


def table_of(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@torch.no_grad()
def brute_force(table, policy, gamma, prompts, weights):
    """J as a sum over prompts and answers of chance times reward, by the policy's probabilities alone."""
    V, H, J = table.shape[-1], table.ndim - 1, 0.0
    for (i, prompt), answer in itertools.product(enumerate(prompts), itertools.product(range(V), repeat=H)):
        tokens = torch.tensor([[*prompt, *answer]])
        laws = torch.log_softmax(policy(policy.embed(tokens))[0], -1)[len(prompt) - 1 : -1]
        chance = float(sum(laws[k, a] for k, a in enumerate(answer)).exp())
        J += weights[i] * chance * gamma ** (H - 1) * table[(i, *answer)]
    return J


def network(V, length):
    return Transformer(V, width=4, layers=1, heads=1, length=length, seed=3)


@pytest.mark.parametrize(("V", "H", "gamma"), [(2, 1, 1.0), (2, 4, 0.9), (3, 3, 1.0), (4, 2, 0.5)])
def test_the_return_of_a_policy_is_the_sum_over_all_answers(V, H, gamma):
    table, policy = table_of(*[V] * H), network(V, H + 1)
    world = TokenMDP.from_rewards(table, gamma)
    expected = brute_force(table[None], policy, gamma, [[0]], [1.0])
    assert float(grow(world, policy).J) == pytest.approx(expected, rel=1e-12)
    assert world.optimal_return == pytest.approx(gamma ** (H - 1) * table.max(), rel=1e-14)
    other = table.copy()
    other[(0,) * H] += 1e-3  # the same check sees one wrong entry
    assert float(grow(world, policy).J) != pytest.approx(
        brute_force(other[None], policy, gamma, [[0]], [1.0]), rel=1e-9
    )


def test_every_prompt_has_its_own_table_and_weight():
    table, prompts, weights = table_of(3, 2, 2, 2), [[0, 1], [1, 1], [1, 0]], [0.5, 0.2, 0.3]
    world, policy = TokenMDP.from_rewards(table, 0.9, prompts, weights), network(2, 5)
    assert float(grow(world, policy).J) == pytest.approx(brute_force(table, policy, 0.9, prompts, weights), rel=1e-12)
    assert world.optimal_return == pytest.approx(0.81 * np.dot(weights, table.reshape(3, -1).max(1)), rel=1e-14)
    swapped = TokenMDP.from_rewards(table[::-1], 0.9, prompts, weights)
    assert float(grow(swapped, policy).J) != pytest.approx(float(grow(world, policy).J), rel=1e-6)


def test_a_registered_world_comes_back_from_its_own_rewards():
    table = np.zeros((2,) * 4)
    for answer in np.ndindex(*table.shape):
        table[answer] = answer[-1] == sum(answer[:-1]) % 2
    policy, known = network(2, 5), parity(V=2, horizon=4, gamma=0.9)
    world = TokenMDP.from_rewards(table, 0.9)
    assert float(grow(world, policy).J) == pytest.approx(float(grow(known, policy).J), rel=1e-13)
    assert world.optimal_return == pytest.approx(known.optimal_return)
    assert set(world.signals) == {"accuracy"}
    assert not any(TokenMDP.from_rewards(other).signals for other in (2 * table, table / 2, table - 1))


@pytest.mark.parametrize("answer", list(itertools.product(range(3), repeat=3)))
def test_an_episode_pays_the_table_once_at_its_end(answer):
    table = table_of(3, 3, 3)
    env = gymnasium.make("costate/World-v0", world=TokenMDP.from_rewards(table))
    env.reset(seed=0)
    paid = [env.step(token)[1:3] for token in answer]
    assert paid == [(0.0, False), (0.0, False), (table[answer], True)]


@pytest.mark.parametrize("table", [1.0, [[1.0, 2.0, 3.0]], [[1.0, 2.0], [3.0]], np.zeros((2, 0)), np.zeros((3, 2, 2))])
def test_what_is_no_table_of_answers_is_refused(table):
    with refused("table"):
        TokenMDP.from_rewards(table)


def test_tables_that_do_not_fit_their_prompts_or_the_memory_are_refused():
    with refused("table"):
        TokenMDP.from_rewards(np.zeros((3, 2, 2)), prompts=[[0], [1]])
    with pytest.raises(InputError, match="horizon=18"):
        TokenMDP.from_rewards(np.zeros((2,) * 18))
    with refused("prompts:"):
        TokenMDP.from_rewards(np.zeros((1, 2, 2)), prompts=[[2]])


# ---- the same in JSON


def written(path, **fields):
    path.write_text(json.dumps(fields))
    return str(path)


def test_json_of_rewards_is_that_world_nested_or_flat(tmp_path):
    table = table_of(2, 2, 2)
    world = TokenMDP.from_rewards(table, 0.9)
    for rewards in (table.tolist(), table.flatten().tolist()):
        spec = written(tmp_path / "own.json", V=2, horizon=3, gamma=0.9, rewards=rewards)
        assert fingerprint(load_own_world(spec)) == fingerprint(make_world(spec)) == fingerprint(world)
        assert fingerprint(gymnasium.make("costate/World-v0", world=spec).unwrapped.world) == fingerprint(world)
    spec = written(tmp_path / "own.json", V=2, horizon=3, gamma=0.9, rewards=table.flatten()[::-1].tolist())
    assert fingerprint(load_own_world(spec)) != fingerprint(world), "the order counts"


def test_json_of_rewards_takes_prompts(tmp_path):
    table, prompts = table_of(2, 3, 3), [[0, 2], [1, 1]]
    world = TokenMDP.from_rewards(table, prompts=prompts, weights=[0.25, 0.75])
    for rewards in (table.tolist(), table.flatten().tolist()):
        fields = {"V": 3, "horizon": 2, "rewards": rewards, "prompts": prompts, "weights": [0.25, 0.75]}
        assert fingerprint(load_own_world(written(tmp_path / "own.json", **fields))) == fingerprint(world)


TABLES = {
    "P": [[[1.0, 0], [0, 1]], [[0, 1], [1, 0]]],
    "r": [[0, 1], [1, 0]],
    "prompts": [[0]],
    "starts": [0],
    "horizon": 3,
}
REWARDS = {"V": 2, "horizon": 2, "rewards": [0, 1, 1, 0]}


def test_json_of_tables_is_that_world(tmp_path):
    spec = written(tmp_path / "own.json", **TABLES, V=2, gamma=0.9)
    assert fingerprint(load_own_world(spec)) == fingerprint(TokenMDP(**TABLES, gamma=0.9))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({**REWARDS, "rewards": [0, 1, 1]}, "rewards"),
        ({**REWARDS, "rewards": [[0, 1], [1]]}, "rewards"),
        ({**REWARDS, "rewards": "high"}, "rewards"),
        ({**REWARDS, "rewards": [[0, 1, 1, 0]]}, "rewards"),
        ({**REWARDS, "horizon": 2.5}, "horizon"),
        ({**REWARDS, "horizon": 10**9}, "rewards"),
        ({**REWARDS, "V": 1}, "V"),
        ({**REWARDS, "V": None}, "V"),
        ({"V": 2, "rewards": [0, 1]}, "horizon"),
        ({"V": 2, "horizon": 1}, "rewards"),
        ({**REWARDS, "gamma": 2}, "gamma"),
        ({**REWARDS, "prompts": []}, "prompts"),
        ({**REWARDS, "prompts": [[5]]}, "prompts"),
        ({**REWARDS, "weights": [0.5]}, "weights"),
        ({**REWARDS, "starts": [0]}, "starts"),
        ({**REWARDS, "horizn": 3}, "'horizn'"),
        ({**TABLES, "V": 3}, "V"),
        ({name: x for name, x in TABLES.items() if name != "starts"}, "starts"),
        ({**TABLES, "P": [[[0.5, 0.6]]]}, "P"),
        ({**TABLES, "A": [[1]]}, "'A'"),
        ({"A": [[1]], "B": [[1]], "Q": [[1]], "rewards": [0]}, "R is missing"),
        ({}, "A is missing"),
    ],
    ids=lambda x: str(x)[:60],
)
def test_a_file_with_a_fault_is_refused_in_one_line_that_names_the_key(fields, named, tmp_path):
    with pytest.raises(InputError) as caught:
        load_own_world(written(tmp_path / "own.json", **fields))
    said = str(caught.value)
    assert said.startswith(f"world {tmp_path / 'own.json'}: ")
    assert named in said.removeprefix(f"world {tmp_path / 'own.json'}: ")[: len(named) + 10]
    assert "\n" not in said


def test_near_fields_are_named(tmp_path):
    with pytest.raises(InputError, match="did you mean horizon"):
        load_own_world(written(tmp_path / "own.json", V=2, horizn=2, rewards=[0, 1, 1, 0]))
