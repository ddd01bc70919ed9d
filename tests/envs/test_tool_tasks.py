"""The oracle that must be asked: its optimum against a search over all that may be said, its shells, what is refused."""

import itertools

import gymnasium
import numpy as np
import pytest
import torch

import envs  # noqa: F401  (registers the ids)
from envs.token_mdp import TokenMDP
from envs.tool_tasks import ask_oracle
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by
from theory.tokens.dynamic_programming import tables

CASES = [
    {},
    {"numbers": 3, "gamma": 0.9},
    {"noise": 0.3, "cost": 0.05},
    {"numbers": 2, "asks": 2, "noise": 0.2, "cost": 0.02, "gamma": 0.95},
    {"cost": 0.8},
    {"asks": 3, "noise": 0.3, "cost": 0.01},
    {"noise": 1.0},
]


def best_of_search(world, belief=None, step=0):
    """Expectimax over tokens: the policy chooses its own, the environment draws its own, by plain loops on joint chances."""
    joint = np.eye(world.S)[int(world.starts[0])] if belief is None else belief
    if step == world.horizon or joint.sum() < 1e-15:
        return 0.0
    P, r, speech = world.P.numpy(), world.r.numpy()[step], world.speech.numpy()
    turn = joint[speech.sum(1) > 0].sum() > 0
    options = []
    for c in range(world.V):
        said = joint * speech[:, c] if turn else joint
        options.append(said @ r[:, c] + world.gamma * best_of_search(world, said @ P[:, c], step + 1))
    return sum(options) if turn else max(options)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_optimum_is_that_of_a_search_over_all_that_may_be_said(case):
    world = ask_oracle(**case)
    assert world.optimal_return == pytest.approx(best_of_search(world), rel=1e-12)


def test_without_noise_the_optimum_has_a_closed_form_and_asking_pays_only_if_it_is_cheap():
    for numbers, cost, gamma in itertools.product([2, 4], [0.0, 0.2, 0.7], [1.0, 0.8]):
        best = ask_oracle(numbers, cost=cost, gamma=gamma).optimal_return
        assert best == pytest.approx(max(gamma / numbers, gamma**3 - cost))
    assert ask_oracle(2, 3, noise=0.3).optimal_return > ask_oracle(2, 1, noise=0.3).optimal_return > 0.5


def test_the_mean_return_in_gymnasium_is_that_of_dynamic_programming():
    env = gymnasium.make("costate/TokenOracle-v0", noise=0.2, cost=0.1, gamma=0.9).unwrapped
    world, rng, returns, turns = env.world, np.random.default_rng(0), [], set()
    env.reset(seed=1)
    for _ in range(2000):
        _, info = env.reset()
        total, over = 0.0, False
        for k in itertools.count():
            own, action = info["own"], int(rng.integers(world.V))
            _, reward, over, _, info = env.step(action)
            turns.add((own, bool(info["action"] == action)))
            total += world.gamma**k * reward
            if over:
                break
        returns.append(total)
    pi = torch.full((world.S, world.V), 1 / world.V, dtype=torch.float64)
    J = tables(world, pi).J
    assert_mean_within(returns, J)
    assert differs_by(np.array(returns) + 0.4 * np.std(returns), J)
    assert turns == {(1, True), (0, True), (0, False)}


def test_the_environments_tokens_come_by_their_law():
    env = gymnasium.make_vec("costate/TokenOracle-v0", 4000, numbers=3, noise=0.3).unwrapped
    env.reset(seed=0)
    info = env.step(np.full(4000, 3))[4]
    hidden = info["state"] - 1
    answer = env.step(np.full(4000, 3))[4]["action"]
    assert_mean_within((answer == hidden).astype(float), 0.7)
    assert_mean_within((hidden == 1).astype(float), 1 / 3)


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("numbers", {"numbers": 1}),
        ("asks", {"asks": 0}),
        ("noise", {"noise": 1.1}),
        ("noise", {"noise": float("nan")}),
        ("cost", {"cost": -0.1}),
        ("cost", {"cost": float("inf")}),
        ("gamma", {"gamma": 0.0}),
        ("numbers=100000", {"numbers": 10**5}),
    ],
)
def test_what_makes_no_task_is_refused(argument, given):
    with refused(argument):
        ask_oracle(**given)


def small(**changes):
    P = np.zeros((3, 2, 3))
    P[0, 0, 1] = P[0, 1, 2] = P[1:, :, 0] = 1
    given = {
        "P": P,
        "r": np.zeros((3, 2)),
        "prompts": [[0]],
        "starts": [0],
        "horizon": 2,
        "speech": [[0, 0], [0.5, 0.5], [0, 0]],
    }
    return TokenMDP(**(given | changes))


def test_the_tokens_must_tell_whose_turn_it_is():
    small()
    P = small().P.numpy().copy()
    P[0, 0, 1:] = 0.5
    with refused("speech"):
        small(P=P)
    small(P=P, horizon=1)  # nothing is said after the first token
    P[0, 0] = [0, 1, 0]
    P[0, 1, 1:] = [1e-300, 1]
    with refused("speech"):
        small(P=P)


@pytest.mark.parametrize(
    "speech",
    [
        [[0, 0], [1.5, -0.5], [0, 0]],
        [[0, 0], [1, 0]],
        [[0, 0], [np.nan, 1], [0, 0]],
        "ab",
    ],
)
def test_a_table_that_holds_no_laws_is_refused(speech):
    with refused("speech"):
        small(speech=speech)


def test_a_row_that_is_no_law_is_named_by_its_state():
    with refused("speech[1]"):
        small(speech=[[0, 0], [0.5, 0.4], [0, 0]])


def test_a_token_that_the_environment_cannot_say_leaves_no_doubt():
    P = np.array(small().P.numpy())
    P[1, 0], P[1, 1, :] = [1, 0, 0], [0, 0.5, 0.5]  # its token 1 would lead to states of either kind
    small(P=P, horizon=3, speech=[[0, 0], [1, 0], [0, 0]])
    with refused("speech"):
        small(P=P, horizon=3)


def test_every_prompt_is_looked_at():
    P = np.array(small().P.numpy())
    P[2, :, :] = [0, 0.5, 0.5]
    small(P=P, horizon=1, prompts=[[0], [1]], starts=[0, 2])
    with refused("speech"):
        small(P=P, prompts=[[0], [1]], starts=[1, 2])


def test_laws_of_single_precision_are_taken():
    law = torch.softmax(torch.tensor([[0.3, 0.7]]), -1)
    given = torch.cat([torch.zeros(1, 2), law, torch.zeros(1, 2)])
    assert float(small(speech=given).speech[1].sum()) == pytest.approx(1, abs=1e-15)
