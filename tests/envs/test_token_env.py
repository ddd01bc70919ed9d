"""Token worlds as Gymnasium environments: what an episode shows and pays, its law, its seeds, what is refused."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

import envs  # noqa: F401  (registers the ids)
from envs.token_env import TokenEnv, TokenVectorEnv
from envs.token_mdp import TokenMDP
from tests.envs.refusals import refused
from tests.envs.test_registration import IDS
from tests.envs.test_vector_env import Twins
from tests.oracles import assert_mean_within, differs_by
from theory.tokens.dynamic_programming import tables

NAMES = [name for name in IDS if name.startswith("costate/Token")]
every_world = pytest.mark.parametrize("name", NAMES)
ORACLE = "costate/TokenOracle-v0"
every_silent_world = pytest.mark.parametrize("name", [name for name in NAMES if name != ORACLE])
WITH_END = "costate/TokenSumAndStop-v0"


def going_on(world):
    """How many tokens, from 0 on, do not end the episode."""
    return world.V if world.end is None else world.end


def uneven_prompts():
    """Three prompts of uneven weight (one of weight 0), stochastic tables, four steps, one reward table a step."""
    rng = np.random.default_rng(3)
    P, r = rng.dirichlet([0.3] * 4, (4, 3)), rng.standard_normal((4, 4, 3))
    return TokenMDP(P, r, [[0, 1], [2, 2], [1, 0]], [3, 0, 2], 4, gamma=0.7, weights=[0.2, 0.0, 0.8])


UNEVEN = "tests.envs.test_token_env:uneven_prompts"


def play(env, tokens, seed=None):
    """Contexts, abstract states, rewards and ends of one episode."""
    context, info = env.reset(seed=seed)
    contexts, states, rewards, ends = [context], [info["state"]], [], []
    for token in tokens:
        context, reward, terminated, truncated, info = env.step(token)
        contexts, states, rewards = [*contexts, context], [*states, info["state"]], [*rewards, reward]
        ends.append((terminated, truncated))
    return np.stack(contexts), np.array(states), np.array(rewards), ends


def test_all_ten_tasks_are_registered():
    tasks = (
        "Lock",
        "Copy",
        "Reverse",
        "Arithmetic",
        "Parity",
        "Garnet",
        "Distractor",
        "SumAndStop",
        "Oracle",
        "Skills",
    )
    assert set(NAMES) == {f"costate/Token{task}-v0" for task in tasks}


@every_silent_world
def test_an_episode_shows_the_context_pays_the_tables_and_terminates_at_the_horizon(name):
    env = gymnasium.make(name).unwrapped
    world, rng = env.world, np.random.default_rng(0)
    for _ in range(3):
        tokens = rng.integers(going_on(world), size=world.horizon)
        contexts, states, rewards, ends = play(env, tokens)
        prompt = contexts[0, : world.prompts.shape[1]]
        which = world.prompts.tolist().index(prompt.tolist())
        assert states[0] == world.starts[which]
        for k, context in enumerate(contexts):
            said = [*prompt, *tokens[:k]]
            assert context.tolist() == [*said, *[world.V] * (world.horizon - k)]
        for k, token in enumerate(tokens):
            assert rewards[k] == world.r[k, states[k], token]
            assert world.P[states[k], token, states[k + 1]] > 0
        assert ends == [(False, False)] * (world.horizon - 1) + [(True, False)]


@every_silent_world
def test_the_same_seed_gives_the_same_episodes_and_another_seed_others(name):
    env, other = gymnasium.make(name).unwrapped, gymnasium.make(name).unwrapped
    tokens = np.random.default_rng(1).integers(going_on(env.world), size=env.world.horizon)
    runs = [[play(e, tokens, s) for s in (seed, *[None] * 8)] for e, seed in ((env, 5), (other, 5), (env, 6))]
    one, same, another = (np.array([np.append(run[0], run[1]) for run in episodes]) for episodes in runs)
    np.testing.assert_array_equal(one, same)
    chance = len(env.world.prompts) > 1 or not env.world.deterministic
    assert (one == another).all() == (not chance)


def test_without_a_seed_two_environments_differ():
    envs_ = [TokenEnv(UNEVEN) for _ in range(2)]
    one, two = (np.array([play(env, [0, 1, 2, 0])[1] for _ in range(20)]) for env in envs_)
    assert (one != two).any()


@pytest.mark.parametrize("name", [*(name for name in NAMES if name not in (WITH_END, ORACLE)), UNEVEN])
def test_the_mean_return_of_the_uniform_policy_is_that_of_dynamic_programming(name):
    kind = {"autoreset_mode": "Disabled"}
    many = TokenVectorEnv(UNEVEN, 4000, **kind) if name == UNEVEN else gymnasium.make_vec(name, 4000, **kind).unwrapped
    world, rng, total = many.world, np.random.default_rng(2), np.zeros(4000)
    many.reset(seed=0)
    for k in range(world.horizon):
        _, reward, terminated, _, _ = many.step(rng.integers(world.V, size=4000))
        total += world.gamma**k * reward
    assert terminated.all()
    pi = torch.full((world.S, world.V), 1 / world.V, dtype=torch.float64)
    assert_mean_within(total, tables(world, pi).J)
    assert differs_by(total - 0.2 * total.std(), tables(world, pi).J)


def test_prompts_come_by_weight_and_next_states_by_the_rows_of_the_table():
    many = TokenVectorEnv(UNEVEN, 20_000)
    contexts, info = many.reset(seed=0)
    world, start = many.world, info["state"]
    for prompt, weight, first in zip(world.prompts.numpy(), world.weights, world.starts, strict=True):
        drawn = (contexts[:, :2] == prompt).all(1)
        assert_mean_within(drawn.astype(float), weight)
        assert (start[drawn] == int(first)).all()
    after = many.step(np.full(20_000, 1))[4]["state"]
    for z in (2, 3):
        assert_mean_within(np.eye(4)[after[start == z]], world.P[z, 1])
        assert differs_by(np.eye(4)[after[start == z]], world.P[z, 0])


def test_copy_i_lives_as_the_single_form_with_seed_plus_i():
    many, rng = TokenVectorEnv(UNEVEN, 3), np.random.default_rng(4)
    singles = [TokenEnv(UNEVEN) for _ in range(3)]
    contexts, info = many.reset(seed=10)
    alone = [env.reset(seed=10 + i) for i, env in enumerate(singles)]
    for _ in range(4):
        np.testing.assert_array_equal(contexts, [c for c, *_ in alone])
        np.testing.assert_array_equal(info["state"], [row[-1]["state"] for row in alone])
        tokens = rng.integers(3, size=3)
        contexts, reward, *_, info = many.step(tokens)
        alone = [env.step(token) for env, token in zip(singles, tokens, strict=True)]
        np.testing.assert_array_equal(reward, [row[1] for row in alone])
    np.testing.assert_array_equal(contexts, [c for c, *_ in alone])


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_resets_of_any_copies_at_any_time_agree_with_gymnasiums_own_vector_form(mode):
    twins, rng, clocks_differed = Twins("TokenGarnet", mode), np.random.default_rng(1), False
    twins.reset([7, 7, 1])
    for _ in range(60):
        if rng.random() < 0.3:
            mask = rng.random(3) < 0.5
            twins.reset(
                [None if rng.random() < 0.5 else int(rng.integers(99)) for _ in range(3)], mask if mask.any() else None
            )
        twins.step()
        clocks_differed |= 0 < twins.over.sum() < 3
    assert clocks_differed


@pytest.mark.parametrize("action", [3, -1, 1.0, True, "a", None, np.nan, [1], np.zeros(2, dtype=int)])
def test_bad_tokens_are_refused_and_leave_the_world_as_it_was(action):
    env = TokenEnv(UNEVEN)
    env.reset(seed=0)
    with refused("action"):
        env.step(action)
    after = env.step(1)[-1]["state"]
    env.reset(seed=0)
    assert after == env.step(np.int32(1))[-1]["state"]


@pytest.mark.parametrize(
    "actions", [[0, 1, 3], [0, -1, 0], [0.0, 1.0, 2.0], [0, 1], 0, [[0], [1], [2]], ["a", "b", "c"]]
)
def test_the_vector_form_refuses_bad_tokens(actions):
    env = TokenVectorEnv(UNEVEN, 3)
    env.reset(seed=0)
    with refused("action"):
        env.step(np.array(actions))


def test_stepping_before_the_start_or_after_the_end_is_refused():
    env = TokenEnv(UNEVEN)
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        env.step(0)
    play(env, [0, 1, 2, 0])
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        env.step(0)


@pytest.mark.parametrize("seed", [0, 8])
def test_what_is_handed_out_can_be_written_to_without_harm(seed):
    kept, spoiled, outputs = TokenVectorEnv(UNEVEN, 3), TokenVectorEnv(UNEVEN, 3), []
    for env in (kept, spoiled):
        context, info = env.reset(seed=seed)
        outputs.append([])
        for k in range(11):
            if env is spoiled:
                for array in (context, *info.values()):
                    if isinstance(array, np.ndarray):
                        array[:] = 0
            tokens = np.array([k, k + 1, k + 2]) % 3
            context, reward, terminated, _, info = env.step(tokens)
            assert not np.shares_memory(info["action"], tokens)
            outputs[-1].append((context.copy(), reward, terminated, info["state"].copy()))
    for ours, theirs in zip(*outputs, strict=True):
        for x, y in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(x, y)


def test_the_prompts_tables_are_not_written_to_by_the_episodes():
    env = TokenEnv("envs.token_tasks:copy")
    for seed in range(20):
        play(env, [0, 1, 2], seed)
    assert (env.reset(seed=3)[0][3:] == env.world.V).all()


def test_the_end_token_ends_the_episode_and_nothing_before_the_horizon_does_else():
    env = gymnasium.make(WITH_END, modulus=2, horizon=4).unwrapped
    for tokens, ends, paid in (
        ([1, 2], [False, True], [0, 1]),
        ([0, 2], [False, True], [0, 0]),
        ([2], [True], [0]),
        ([0, 1, 0, 2], [False, False, False, True], [0, 0, 0, 1]),
        ([0, 1, 0, 0], [False, False, False, True], [0, 0, 0, 0]),
    ):
        _, _, rewards, ended = play(env, tokens)
        assert ended == [(end, False) for end in ends]
        assert rewards.tolist() == paid
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(0)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_copies_that_end_at_different_times_agree_with_gymnasiums_own_vector_form(mode):
    twins, clocks_differed = Twins("TokenSumAndStop", mode), False
    twins.reset([7, 7, 1])
    for _ in range(60):
        if mode == AutoresetMode.DISABLED and twins.over.any():
            twins.reset([None] * 3, twins.over.copy())
        twins.step()
        clocks_differed |= 0 < twins.over.sum() < 3
    assert clocks_differed


def test_the_mean_return_with_an_end_token_is_that_of_dynamic_programming():
    many = gymnasium.make_vec(WITH_END, 4000, modulus=3, gamma=0.8, autoreset_mode="SameStep").unwrapped
    world, rng, total, over = many.world, np.random.default_rng(2), np.zeros(4000), np.zeros(4000, dtype=bool)
    many.reset(seed=0)
    for k in range(world.horizon):
        _, reward, terminated, truncated, _ = many.step(rng.integers(world.V, size=4000))
        total, over = total + world.gamma**k * reward * ~over, over | terminated
        assert not truncated.any()
        assert over.all() == (k + 1 == world.horizon)
    pi = torch.full((world.S, world.V), 1 / world.V, dtype=torch.float64)
    assert_mean_within(total, tables(world, pi).J)
    assert differs_by(total - 0.2 * total.std(), tables(world, pi).J)
