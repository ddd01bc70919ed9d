"""The vector form against Gymnasium's SyncVectorEnv over the single form, step by step, in every autoreset mode."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import envs  # noqa: F401  (registers the ids)
from tests.envs.test_registration import IDS
from tests.oracles import assert_mean_within, differs_by, simulate_lq

COPIES = 3
BOTH = {"horizon": 4, "max_episode_steps": 4}  # an end may be a termination and a truncation
every_mode = pytest.mark.parametrize("mode", list(AutoresetMode))


class Twins:
    """Our vector form and Gymnasium's, driven alike; every reset and step must agree."""

    def __init__(self, name, mode, **settings):
        self.ours = gymnasium.make_vec(f"costate/{name}-v0", COPIES, autoreset_mode=mode, **settings)
        options = {"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": mode}}
        self.theirs = gymnasium.make_vec(f"costate/{name}-v0", COPIES, **options, **settings)
        self.mode, self.over, self.rng = mode, np.zeros(COPIES, dtype=bool), np.random.default_rng(0)

    def reset(self, seed, mask=None):
        options = [None if mask is None else {"reset_mask": mask.copy()} for _ in range(2)]
        ours, theirs = self.ours.reset(seed=seed, options=options[0]), self.theirs.reset(seed=seed, options=options[1])
        close(ours[0], theirs[0])
        np.testing.assert_equal(ours[1], theirs[1])
        self.over = self.over & False if mask is None else self.over & ~mask

    def step(self):
        if self.mode == AutoresetMode.DISABLED and self.over.any():
            self.reset(None, self.over)
        actions = some_actions(self.ours, self.rng)
        ours, theirs = self.ours.step(actions), self.theirs.step(actions)
        close(ours[0], theirs[0])
        close(ours[1], theirs[1])
        np.testing.assert_array_equal(ours[2], theirs[2])
        np.testing.assert_array_equal(ours[3], theirs[3])
        self.over = theirs[2] | theirs[3]
        self.compare_infos(ours[4], theirs[4])

    def compare_infos(self, ours, theirs):
        ended, nobody = theirs.get("final_info", {}), np.zeros(COPIES, dtype=bool)
        acted = theirs.get("_action", nobody) | theirs.get("_final_info", nobody)  # ours keeps them in one place
        np.testing.assert_array_equal(ours["_action"], acted)
        for i in range(COPIES):
            where = ended if ended and theirs["_final_info"][i] else theirs
            close(ours["action"][i], where["action"][i] if "action" in where else np.zeros_like(ours["action"][i]))
        assert ("final_obs" in ours) == ("final_obs" in theirs) == bool(ended)
        if ended:
            np.testing.assert_array_equal(ours["_final_obs"], theirs["_final_obs"])
            for x, y in zip(ours["final_obs"], theirs["final_obs"], strict=True):
                assert (x is None) == (y is None)
                close(x if x is not None else 0, y if y is not None else 0)
        for key in ("state", "_state"):  # of token worlds
            np.testing.assert_equal(ours.get(key), theirs.get(key))
            np.testing.assert_equal(ours.get("final_info", {}).get(key), ended.get(key))


def some_actions(env, rng):
    """Commands, or tokens."""
    shape, sizes = env.action_space.shape, getattr(env.action_space, "nvec", None)
    return rng.standard_normal(shape) if sizes is None else rng.integers(sizes)


def close(ours, theirs):
    assert np.asarray(ours).dtype == np.asarray(theirs).dtype
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


@every_mode
@pytest.mark.parametrize("name", IDS)
def test_every_world_lives_through_several_episodes_as_its_single_form_does(name, mode):
    twins, finished = Twins(name.split("/")[1][:-3], mode, max_episode_steps=25), 0
    twins.reset(4)
    for _ in range(60):
        twins.step()
        finished += twins.over.any()
    assert finished >= 2


@every_mode
@pytest.mark.parametrize(
    "settings", [{"horizon": 6}, {"horizon": 1}, {"max_episode_steps": 5}, {"max_episode_steps": 1}, BOTH]
)
def test_resets_of_any_copies_at_any_time_with_any_seeds_agree(mode, settings):
    twins, rng, clocks_differed = Twins("LQRandom", mode, **settings), np.random.default_rng(1), False
    twins.reset([7, 7, 1])
    for _ in range(120):
        if rng.random() < 0.3:
            seeds = [None if rng.random() < 0.5 else int(rng.integers(99)) for _ in range(COPIES)]
            mask = rng.random(COPIES) < 0.5
            twins.reset(seeds, mask if mask.any() else None)
        twins.step()
        clocks_differed |= 0 < twins.over.sum() < COPIES
    assert clocks_differed or 1 in settings.values()


@every_mode
@pytest.mark.parametrize("limit", [-1, 256])
def test_endless_worlds_agree_past_their_noise_blocks_whatever_their_clocks(mode, limit):
    twins = Twins("LQRandom", mode, size=1, actions=1, max_episode_steps=limit)
    twins.reset(0)
    resets = {100: [True, False, False], 256: [False, True, False], 300: [True, False, True], 301: [True, True, True]}
    for t in range(380):
        if t in resets:
            twins.reset(None, np.array(resets[t]))
        twins.step()


@every_mode
def test_a_reset_in_the_middle_starts_all_copies_anew(mode):
    twins = Twins("LQScalar", mode, horizon=5)
    for steps in (3, 5, 2, 12):
        twins.reset(9)
        for _ in range(steps):
            twins.step()


def test_the_mean_return_is_that_of_an_independent_simulation():
    env = gymnasium.make_vec("costate/LQScalar-v0", 4000, autoreset_mode="Disabled").unwrapped
    gain, total, (state, _) = np.array([[0.9]]), np.zeros(4000), env.reset(seed=0)
    for t in range(env.world.horizon):
        state, reward, terminated, _, _ = env.step(-state @ gain.T)
        total += env.world.gamma**t * reward
    assert terminated.all()
    oracle, _ = simulate_lq(env.world, gain, 4000, env.world.horizon, seed=1)
    assert_mean_within(total - oracle, 0.0)
    assert differs_by(total - 1.3 * oracle, 0.0)
