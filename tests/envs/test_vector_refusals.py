"""What the vector form promises beside its episodes: refusals, limits, seeds, and copies of what it hands out."""

import gymnasium
import numpy as np
import pytest

import envs  # noqa: F401  (registers the ids)
from tests.envs.refusals import refused


def make(name="LQScalar", copies=3, **settings):
    return gymnasium.make_vec(f"costate/{name}-v0", copies, **settings)


def test_batched_spaces_hold_float64():
    env = make("LQRandom", size=5, actions=2)
    observation, _ = env.reset(seed=0)
    assert observation.dtype == np.float64
    assert observation.shape == env.observation_space.shape == (3, 5)
    assert env.action_space.shape == (3, 2)
    assert observation in env.observation_space
    assert env.unwrapped.world.n == 5


def test_copies_differ_and_seeds_decide():
    env, actions = make(), np.zeros((3, 1))
    one, same, other = ([env.reset(seed=seed)[0], *(env.step(actions)[0] for _ in range(5))] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(np.array(one)[:, 1:], np.array(other)[:, :-1])  # copy i is seeded with seed + i
    assert not (np.array(one)[:, 0] == np.array(one)[:, 1]).any()


def test_without_a_seed_every_episode_is_new():
    env = make()
    one, two, other = env.reset()[0], env.reset()[0], make().reset()[0]
    assert len({*one[:, 0], *two[:, 0], *other[:, 0]}) == 9


@pytest.mark.parametrize(("settings", "limit"), [({}, 200), ({"max_episode_steps": 4}, 4)])
def test_the_registered_limit_truncates_unless_another_is_asked_for(settings, limit):
    env = make("LQRandom", **settings)
    env.reset(seed=0)
    ends = np.array([env.step(np.zeros((3, 2)))[2:4] for _ in range(limit)])
    assert not ends[:, 0].any()
    assert not ends[:-1, 1].any()
    assert ends[-1, 1].all()


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_stepping_before_every_copy_has_begun_is_refused(mode):
    env = make(autoreset_mode=mode)
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        env.step(np.zeros((3, 1)))
    for begun in ([False, False, True], [True, False, False]):
        env.reset(seed=0, options={"reset_mask": np.array(begun)})
        with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
            env.step(np.zeros((3, 1)))
    env.reset(seed=0, options={"reset_mask": np.array([False, True, False])})
    env.step(np.zeros((3, 1)))


def test_without_autoreset_stepping_after_an_end_is_refused():
    env = make(horizon=2, autoreset_mode="Disabled")
    env.reset(seed=0)
    env.step(np.zeros((3, 1)))
    env.reset(options={"reset_mask": np.array([False, True, True])})
    assert env.step(np.zeros((3, 1)))[2].tolist() == [True, False, False]
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset_mask"):
        env.step(np.zeros((3, 1)))


@pytest.mark.parametrize("entry", [np.nan, np.inf, -np.inf])
def test_actions_that_are_no_numbers_are_refused_and_leave_the_world_as_it_was(entry):
    env, bad = make(), np.zeros((3, 1))
    bad[1] = entry
    env.reset(seed=0)
    for action in (bad, np.array([[np.inf], [-np.inf], [0.0]]), np.zeros((2, 1)), np.zeros(3), np.zeros((3, 2))):
        with refused("action"):
            env.step(action)
    after = env.step(np.ones((3, 1)))[0]
    env.reset(seed=0)
    np.testing.assert_array_equal(after, env.step(np.ones((3, 1)))[0])


@pytest.mark.parametrize(
    "mask", [np.array([True, False]), np.array([1, 0, 0]), np.zeros(3, dtype=bool), np.array(True)]
)
def test_a_reset_mask_is_one_boolean_for_each_copy_with_one_true(mask):
    env = make()
    env.reset(seed=0)
    with refused("options['reset_mask']"):
        env.reset(options={"reset_mask": mask})


@pytest.mark.parametrize("seed", [[1], [1, 2, 3, 4]])
def test_a_list_of_seeds_has_one_for_each_copy(seed):
    with refused("seed"):
        make().reset(seed=seed)


@pytest.mark.parametrize(
    ("name", "value"), [("num_envs", 0), ("num_envs", -1), ("max_episode_steps", 0), ("max_episode_steps", -2)]
)
def test_no_copies_and_no_steps_are_refused(name, value):
    with refused(name):
        gymnasium.make_vec("costate/LQScalar-v0", **({"num_envs": 3} | {name: value}))


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("value", [0, 1])
def test_what_is_handed_out_can_be_written_to_without_harm(mode, value):
    kept, spoiled = (make(horizon=3, autoreset_mode=mode) for _ in range(2))
    np.testing.assert_equal(kept.reset(seed=0), spoiled.reset(seed=0))
    for _ in range(8):
        ours, theirs = kept.step(np.ones((3, 1))), spoiled.step(np.ones((3, 1)))
        np.testing.assert_equal(ours, theirs)
        for array in (*theirs[:4], *theirs[4].values()):
            array[:] = value


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_gymnasiums_wrappers_see_whole_episodes(mode):
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(make(horizon=4, autoreset_mode=mode))
    env.reset(seed=0)
    lengths = []
    for _ in range(20):
        info = env.step(np.zeros((3, 1)))[4]
        lengths += info["episode"]["l"][info["_episode"]].tolist() if "episode" in info else []
    assert set(lengths) == {4}
    assert len(lengths) == 3 * (4 if mode == "NextStep" else 5)
