"""The single Gymnasium form: its episodes are the theory's, rebuilt here from the seed in plain numpy."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeAwareObservation

import envs  # noqa: F401  (registers the ids)
from envs.gym_env import WorldEnv
from envs.linear_quadratic import scalar
from envs.registry import WORLDS, gymnasium_id
from tests.envs.refusals import refused
from tests.envs.test_noise import ORACLES
from tests.oracles import assert_mean_within, differs_by
from tests.typecheck import unchecked
from theory.continuous.lq_gradients import expected_return

QUADRATIC = ("LQScalar", "LQDoubleIntegrator", "LQUniformNoise", "LQQuantisedAction", "LQStateScaledNoise")
every_family = pytest.mark.parametrize("noise", ORACLES)


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


def tape(rng, world):
    """Rows of m standardised action noises and n normals, 256 at once, by scipy's quantiles."""
    while True:
        rows = rng.standard_normal((256, world.m + world.n))
        if world.noise != "gaussian":
            rows[:, : world.m] = ORACLES[world.noise].ppf(rng.random((256, world.m)))
        yield from rows


@every_family
def test_episodes_are_rebuilt_from_their_seed(noise):
    env = make("LQDoubleIntegrator", horizon=100, action_noise=0.4, noise=noise)
    world, commands, rows = env.world, commands_for(env), tape(np.random.default_rng(11), env.world)
    for seed in (11, None, None, None):  # later episodes go on with the same tape
        states, actions, _, _ = play(env, commands, seed)
        s = world.m_0 + np.sqrt(0.1) * next(rows)[1:]
        for t in range(100):
            row = next(rows)
            np.testing.assert_allclose(states[t], s, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(actions[t], commands[t] + 0.4 * row[:1], rtol=1e-9, atol=1e-12)
            s = world.A @ s + world.B @ actions[t] + np.sqrt([1e-4, 1e-3]) * row[1:]
        np.testing.assert_allclose(states[100], s, rtol=1e-9, atol=1e-12)


def test_an_endless_world_is_rebuilt_with_its_full_covariances():
    env = make("LQRandom")
    world, commands, rows = env.world, commands_for(env, 600), tape(np.random.default_rng(5), env.world)
    states, actions, _, _ = play(env, commands, seed=5)
    s = world.m_0 + 0.5 * next(rows)[2:]
    for t in range(600):
        row = next(rows)
        np.testing.assert_allclose(states[t], s, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(actions[t], commands[t] + world.L_x @ row[:2], rtol=1e-9, atol=1e-12)
        s = world.A @ s + world.B @ actions[t] + world.L_w @ row[2:]


@pytest.mark.parametrize("name", [*QUADRATIC, "LQRandom", "LQStepReward", "ChaoticMap"])
def test_the_same_seed_gives_the_same_episode_and_another_seed_another(name):
    env = make(name)
    commands = commands_for(env, 15)
    one, same, other = (play(env, commands, seed) for seed in (4, 4, 5))
    assert all(np.array_equal(x, y) for x, y in zip(one[:3], same[:3], strict=True))
    assert not np.array_equal(one[0], other[0])
    assert not np.array_equal(one[1], other[1])


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


@pytest.mark.parametrize(
    ("limit", "settings"),
    [(200, {}), (7, {"max_episode_steps": 7}), (300, {"limit": 300}), (5, {"limit": 5, "max_episode_steps": 9})],
)
def test_cutting_an_endless_world_is_a_truncation(limit, settings):
    env = gymnasium.make("costate/LQRandom-v0", **settings)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2))[2:4] for _ in range(limit)]
    assert ends == [(False, False)] * (limit - 1) + [(False, True)]


@pytest.mark.parametrize("horizon", [5, 200, 201, 500])
def test_a_horizon_asked_for_is_a_termination_at_that_step(horizon):
    env = gymnasium.make("costate/LQRandom-v0", horizon=horizon)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2))[2:4] for _ in range(horizon)]
    assert ends == [(False, False)] * (horizon - 1) + [(True, False)]
    many = gymnasium.make_vec("costate/LQRandom-v0", num_envs=2, horizon=horizon)
    many.reset(seed=0)
    ends = np.array([many.step(np.zeros((2, 2)))[2:4] for _ in range(horizon)])
    assert not ends[:-1].any()
    assert ends[-1].tolist() == [[True, True], [False, False]]


def test_without_a_limit_an_endless_world_goes_on():
    env = gymnasium.make("costate/LQRandom-v0", limit=None)
    env.reset(seed=0)
    assert not any(any(env.step(np.zeros(2))[2:4]) for _ in range(1000))
    for wrong in (0, -1):
        with refused("limit"):
            gymnasium.make("costate/LQRandom-v0", limit=wrong)


ALL = [gymnasium_id(name) for name in WORLDS]
CONTINUOUS = [gymnasium_id(name) for name, entry in WORLDS.items() if entry.shell == "envs.gym_env"]


@pytest.mark.parametrize("name", ALL)
def test_the_clock_is_the_last_entry_of_every_observation_and_changes_nothing_else(name):
    plain, clocked = (gymnasium.make(name, clock=clock).unwrapped for clock in (False, True))
    many = gymnasium.make_vec(name, num_envs=2, clock=True)
    clocked.action_space.seed(0)
    seen, with_clock, of_all = (env.reset(seed=4)[0] for env in (plain, clocked, many))
    for t in range(6):
        np.testing.assert_array_equal(with_clock[:-1], seen)
        assert with_clock[-1] == t
        assert clocked.observation_space.contains(with_clock)
        np.testing.assert_allclose(of_all[0], with_clock, rtol=1e-12)
        if t == (plain.world.horizon or 9) or (t and ended):
            break
        action = clocked.action_space.sample()
        (seen, *_), (with_clock, _, ended, *_) = plain.step(action), clocked.step(action)
        of_all = many.step(np.stack([action, action]))[0]
        if ended:
            break


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_gymnasiums_time_aware_observation_works_on_every_world(name, normalise):
    env = TimeAwareObservation(gymnasium.make(name), normalize_time=normalise)
    world = env.unwrapped.world
    assert env.reset(seed=0)[0][-1] == 0
    env.action_space.seed(0)
    observation = env.step(env.action_space.sample())[0]
    assert observation[-1] == pytest.approx(1 / (world.horizon or 200) if normalise else 1)
    assert env.spec.max_episode_steps == (world.horizon or 200)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_commands_are_cut_to_the_bound_before_the_noise_is_added(name):
    free, bounded = gymnasium.make(name), gymnasium.make(name, bound=0.5)
    m = free.unwrapped.world.m
    assert bounded.action_space == gymnasium.spaces.Box(-0.5, 0.5, (m,), np.float64)
    many = gymnasium.make_vec(name, num_envs=1, bound=0.5)
    for command in (np.full(m, 3.0), np.full(m, -0.7), np.full(m, 0.2)):
        outcomes = []
        for env, given in ((free, command.clip(-0.5, 0.5)), (bounded, command), (many, command[None])):
            env.reset(seed=5)
            outcomes.append(np.ravel(env.step(given)[0]))
        np.testing.assert_array_equal(outcomes[0], outcomes[1])
        np.testing.assert_allclose(outcomes[0], outcomes[2], rtol=1e-12)


def test_a_policy_within_its_bound_has_the_value_of_the_theory():
    """From many episodes, for a gain whose commands never reach the bound; one that is cut has another return: the control."""
    K, R = np.array([[0.3]]), {}
    for bound in (50.0, 0.05):
        env = gymnasium.make_vec("costate/LQScalar-v0", num_envs=4000, horizon=5, gamma=0.8, bound=bound)
        state, total = env.reset(seed=0)[0], np.zeros(4000)
        for t in range(5):
            state, reward, *_ = env.step(-state @ K.T)
            total += 0.8**t * reward
        R[bound] = total
    world = scalar(horizon=5, gamma=0.8)
    J = float(expected_return(world, torch.as_tensor(K)))
    assert_mean_within(torch.as_tensor(R[50.0]) - J, 0.0)
    assert differs_by(torch.as_tensor(R[0.05]) - J, 0.0)


@unchecked()
def test_a_bound_may_be_numpys():
    assert make(bound=np.float32(0.5)).action_space == make(bound=0.5).action_space
    with refused("bound"):
        make(bound="0.5")


def test_bounds_that_are_none_are_refused():
    for name, bound in (
        ("LQScalar", 0.0),
        ("LQScalar", -1.0),
        ("LQScalar", np.inf),
        ("LQScalar", np.nan),
        ("TokenCopy", 1.0),
    ):
        with refused("bound"):
            make(name, bound=bound)


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
