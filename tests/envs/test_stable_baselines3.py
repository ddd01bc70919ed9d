"""Stable-Baselines3 takes every world with a bound: its own checker, short runs of PPO and SAC. Skipped where it is absent."""

import gymnasium
import pytest

import envs  # noqa: F401  (registers the ids)
from envs.registry import WORLDS, gymnasium_id

sb3 = pytest.importorskip("stable_baselines3")
CONTINUOUS = [name for name, entry in WORLDS.items() if entry.shell == "envs.gym_env"]
TOKENS = [name for name in WORLDS if name not in CONTINUOUS]
pytestmark = pytest.mark.usefixtures("uses_global_rng")  # Stable-Baselines3 seeds torch and numpy


@pytest.mark.parametrize("name", CONTINUOUS)
def test_its_checker_and_its_learners_take_every_bounded_world(name):
    from stable_baselines3.common.env_checker import check_env

    env = gymnasium.make(gymnasium_id(name), bound=1.0, clock=True)
    check_env(env, warn=False)
    sb3.PPO("MlpPolicy", env, n_steps=64, batch_size=64, device="cpu").learn(64)
    sb3.SAC("MlpPolicy", env, learning_starts=32, device="cpu").learn(48)


@pytest.mark.parametrize("name", TOKENS)
def test_its_checker_and_ppo_take_every_token_world(name):
    from stable_baselines3.common.env_checker import check_env

    env = gymnasium.make(gymnasium_id(name))
    check_env(env, warn=False)
    sb3.PPO("MlpPolicy", env, n_steps=64, batch_size=64, device="cpu").learn(64)
