"""The single Gymnasium form: its episodes are the theory's, rebuilt here from the seed in plain numpy."""

import gymnasium
import numpy as np
import pytest

import envs  # noqa: F401  (registers the ids)
from envs.gym_env import WorldEnv
from tests.envs.refusals import refused

QUADRATIC = ("LQScalar", "LQDoubleIntegrator", "LQUniformNoise", "LQQuantisedAction", "LQStateScaledNoise")


def make(name="LQScalar", **settings):
    return gymnasium.make(f"costate/{name}-v0", **settings).unwrapped


def play(env, commands, seed=None):
    """States (one more than steps), executed actions, rewards and the ends of one episode."""
    states, actions, rewards, ends = [env.reset(seed=seed)[0]], [], [], []
    for command in commands:
        state, reward, terminated, truncated, info = env.step(command)
        assert type(reward) is float
        states.append(state)
        actions.append(info["action"])
        rewards.append(reward)
        ends.append((terminated, truncated))
    return np.stack(states), np.stack(actions), np.array(rewards), ends


def commands_for(env, steps=None, seed=7):
    return np.random.default_rng(seed).standard_normal((steps or env.world.horizon, env.world.m))


@pytest.mark.parametrize("name", QUADRATIC)
def test_the_discounted_rewards_of_an_episode_are_the_return_of_the_theory(name):
    env = make(name, gamma=0.8, horizon=12)
    world, (states, actions, rewards, _) = env.world, play(env, commands_for(env), seed=3)
    expected = 0.0
    for t in range(12):
        expected -= 0.8**t * (states[t] @ world.Q @ states[t] + actions[t] @ world.R @ actions[t])
    expected -= 0.8**12 * states[12] @ world.Q_f @ states[12]
    assert sum(0.8**t * r for t, r in enumerate(rewards)) == pytest.approx(expected, rel=1e-12)
    assert states[12] @ world.Q_f @ states[12] > 0  # the end matters: leaving it out would be seen


def test_returns_of_worlds_without_a_quadratic_reward():
    env = make("LQStepReward", gamma=0.8, horizon=12, width=0.5)
    states, _, rewards, _ = play(env, commands_for(env), seed=3)
    out = 0.8 ** np.arange(13) * (abs(states[:, 0]) > 0.5)
    assert 0 < (out > 0).sum() < 13
    assert sum(0.8**t * r for t, r in enumerate(rewards)) == pytest.approx(-out.sum(), rel=1e-12)
    env = make("ChaoticMap", gamma=0.8, horizon=12)
    states, _, rewards, _ = play(env, commands_for(env), seed=3)
    assert rewards[:-1].tolist() == [0.0] * 11
    assert rewards[-1] == pytest.approx(0.8 * np.cos(states[-1, 0]), rel=1e-12)


def test_an_episode_is_rebuilt_from_its_seed():
    env = make("LQDoubleIntegrator", horizon=9, action_noise=0.4)
    world, commands, rng = env.world, commands_for(env), np.random.default_rng(11)
    for seed in (11, None):  # the second episode goes on with the same generator
        states, actions, _, _ = play(env, commands, seed)
        s = world.m_0 + np.sqrt(0.1) * rng.standard_normal(2)
        xi, w = 0.4 * rng.standard_normal((9, 1)), rng.standard_normal((9, 2)) * np.sqrt([1e-4, 1e-3])
        for t in range(9):
            np.testing.assert_allclose(states[t], s, rtol=1e-12)
            np.testing.assert_allclose(actions[t], commands[t] + xi[t], rtol=1e-12)
            s = world.A @ s + world.B @ actions[t] + w[t]
        np.testing.assert_allclose(states[9], s, rtol=1e-12)


def test_an_endless_world_draws_its_noise_in_blocks_of_256_steps():
    env = make("LQRandom")
    world, commands, rng = env.world, commands_for(env, 600), np.random.default_rng(5)
    states, actions, _, _ = play(env, commands, seed=5)
    s = world.m_0 + 0.5 * rng.standard_normal(4)
    for t in range(600):
        if t % 256 == 0:
            xi, w = rng.standard_normal((256, 2)) @ world.L_x, rng.standard_normal((256, 4)) @ world.L_w
        np.testing.assert_allclose(states[t], s, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(actions[t], commands[t] + xi[t % 256], rtol=1e-9)
        s = world.A @ s + world.B @ actions[t] + w[t % 256]


@pytest.mark.parametrize("noise", ["laplace", "logistic", "gumbel", "uniform"])
def test_every_noise_family_reaches_the_executed_action(noise):
    env = make(noise=noise, horizon=400, action_noise=0.5)
    actions = play(env, np.zeros((400, 1)), seed=0)[1]
    gaussian = play(make(horizon=400, action_noise=0.5), np.zeros((400, 1)), seed=0)[1]
    assert actions.std() == pytest.approx(0.5, rel=0.3)
    assert not np.isclose(actions, gaussian).any()


@pytest.mark.parametrize("name", [*QUADRATIC, "LQRandom", "LQStepReward", "ChaoticMap"])
def test_the_same_seed_gives_the_same_episode_and_another_seed_another(name):
    env = make(name)
    commands = commands_for(env, 15)
    one, same, other = (play(env, commands, seed) for seed in (4, 4, 5))
    for x, y, z in zip(one[:3], same[:3], other[:3], strict=True):
        np.testing.assert_array_equal(x, y)
        assert name == "LQStepReward" or not np.array_equal(x, z)
    assert not np.array_equal(one[0], other[0])


def test_without_a_seed_every_episode_is_new():
    env = make()
    one, two = play(env, commands_for(env)), play(env, commands_for(env))
    assert not (one[0] == two[0]).any()


def test_without_action_noise_the_command_is_what_happens():
    env = make(action_noise=0.0)
    np.testing.assert_array_equal(play(env, commands_for(env), seed=0)[1], commands_for(env))


def test_what_a_variant_executes_is_in_the_info():
    env = make("LQQuantisedAction", quantum=0.25)
    executed = play(env, commands_for(env), seed=0)[1]
    np.testing.assert_allclose(executed / 0.25, np.round(executed / 0.25), atol=1e-12)
    assert not np.allclose(executed, commands_for(env))


@pytest.mark.parametrize("name", [*QUADRATIC, "LQStepReward", "ChaoticMap"])
def test_reaching_the_horizon_is_a_termination(name):
    env = make(name)
    ends = play(env, commands_for(env), seed=0)[3]
    assert ends == [(False, False)] * (env.world.horizon - 1) + [(True, False)]


@pytest.mark.parametrize(("limit", "settings"), [(200, {}), (7, {"max_episode_steps": 7})])
def test_cutting_an_endless_world_is_a_truncation(limit, settings):
    env = gymnasium.make("costate/LQRandom-v0", **settings)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2))[2:4] for _ in range(limit)]
    assert ends == [(False, False)] * (limit - 1) + [(False, True)]


def test_stepping_before_the_start_or_after_the_end_is_refused():
    env = make(horizon=2)
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        env.step(np.zeros(1))
    play(env, np.zeros((2, 1)))
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        env.step(np.zeros(1))
    play(env, np.zeros((2, 1)))


@pytest.mark.parametrize(
    "action", [np.zeros(1), np.zeros((1, 2)), 0.0, [1.0, 2.0, 3.0], [0.0, np.nan], [np.inf, 0.0], [np.inf, -np.inf]]
)
def test_bad_actions_are_refused_and_leave_the_world_as_it_was(action):
    env = make("LQRandom")
    env.reset(seed=0)
    with refused("action"):
        env.step(np.asarray(action))
    after = env.step(np.ones(2))[0]
    env.reset(seed=0)
    np.testing.assert_array_equal(after, env.step(np.ones(2))[0])


def test_what_is_handed_out_can_be_written_to_without_harm():
    kept, spoiled = make(), make()
    for env in (kept, spoiled):
        observation, _ = env.reset(seed=0)
        for _ in range(3):
            if env is spoiled:
                observation[:] = 99.0
            observation = env.step(np.zeros(1))[0]
    np.testing.assert_array_equal(kept.step(np.zeros(1))[0], spoiled.step(np.zeros(1))[0])


def test_the_builder_is_named_as_module_and_function():
    assert WorldEnv("envs.linear_quadratic:double_integrator", step=0.5).world.A[0, 1] == 0.5
