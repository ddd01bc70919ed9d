"""Every registered id passes Gymnasium's own checker and can be made from any folder."""

import re
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs  # noqa: F401  (registers the ids)
from envs.linear_quadratic import LinearQuadratic, scalar
from envs.lq_variants import ChaoticMap, QuantisedAction, StateScaledNoise, StepReward
from envs.token_mdp import TokenMDP
from tests.envs.refusals import refused

OWN = "costate/World-v0"  # takes any world: tests/envs/test_own_world.py
IDS = sorted(name for name in gymnasium.registry if name.startswith("costate/") and name != OWN)
UNBOUNDED = re.compile("Box (observation|action) space(s| m|, we recommend)")
every_id = pytest.mark.parametrize("name", IDS)


@every_id
@pytest.mark.usefixtures("uses_global_rng")
def test_gymnasiums_checker_finds_nothing_but_unbounded_boxes(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(gymnasium.make(name).unwrapped)
    unbounded = not gymnasium.make(name).observation_space.is_bounded()
    assert bool(caught) == unbounded  # an unbounded space is always remarked on: the recording works
    assert [str(w.message) for w in caught if not UNBOUNDED.search(str(w.message))] == []


@pytest.mark.usefixtures("uses_global_rng")
def test_the_checker_would_see_a_world_that_ignores_its_seed():
    env = gymnasium.make("costate/LQScalar-v0").unwrapped
    generator, plain = np.random.default_rng(0), env.reset

    def reset(*, seed=None, options=None):
        plain(seed=seed, options=options)
        env._state = generator.standard_normal(1)
        return env._state.copy(), {}

    env.reset = reset
    with pytest.raises(AssertionError):
        check_env(env)


@every_id
@pytest.mark.usefixtures("uses_global_rng")
def test_spaces_hold_what_the_world_returns_in_double_precision(name):
    env = gymnasium.make(name)
    world, observation = env.unwrapped.world, env.reset(seed=1)[0]
    env.action_space.seed(0)
    tokens = isinstance(world, TokenMDP)
    steps = 1 if tokens and world.end is not None else world.horizon or 5  # the sample may be the end token
    observations = [observation, *(env.step(env.action_space.sample())[0] for _ in range(steps))]
    assert env.observation_space.shape == ((world.prompts.shape[1] + world.horizon) if tokens else world.n,)
    assert env.action_space.shape == (() if tokens else (world.m,))
    wanted = np.dtype(np.int64 if tokens else np.float64)
    assert {x.dtype for x in observations} == {env.observation_space.dtype} == {env.action_space.dtype} == {wanted}
    assert all(x in env.observation_space for x in observations)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("LQScalar", LinearQuadratic),
        ("LQRandom", LinearQuadratic),
        ("LQStepReward", StepReward),
        ("LQQuantisedAction", QuantisedAction),
        ("LQStateScaledNoise", StateScaledNoise),
        ("ChaoticMap", ChaoticMap),
        ("TokenLock", TokenMDP),
        ("TokenGarnet", TokenMDP),
    ],
)
@pytest.mark.parametrize("make", [gymnasium.make, gymnasium.make_vec])
def test_the_world_is_at_hand_and_takes_the_keywords(name, kind, make):
    world = make(f"costate/{name}-v0", horizon=4, gamma=0.5).unwrapped.world
    assert type(world) is kind
    assert (world.horizon, world.gamma) == (4, 0.5)
    with refused("gamma"):
        make(f"costate/{name}-v0", gamma=0.0)


def test_the_world_of_a_shell_is_the_builders_own():
    world = gymnasium.make("costate/LQScalar-v0", action_noise=0.7).unwrapped.world
    assert all(np.array_equal(getattr(world, k), getattr(scalar(action_noise=0.7), k)) for k in ("A", "B", "Q", "S_x"))


EVERYWHERE = """
import gymnasium
env = gymnasium.make("envs:costate/LQScalar-v0")
env.reset(seed=0)
print(env.step(env.action_space.sample())[0].dtype, type(env.unwrapped.world).__name__)
many = gymnasium.make_vec("envs:costate/LQRandom-v0", num_envs=3)
print(many.reset(seed=0)[0].shape, type(many.unwrapped).__name__, many.unwrapped.max_episode_steps)
"""


def test_an_id_with_its_module_works_from_any_folder(tmp_path):
    command = [sys.executable, "-W", "error", "-W", "ignore:.*Box:UserWarning", "-c", EVERYWHERE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines() == ["float64 LinearQuadratic", "(3, 4) WorldVectorEnv 200"], done.stderr
