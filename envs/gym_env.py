"""Gymnasium shells around any world: `Env` and `VectorEnv`, with no dynamics of their own.

The agent's action is the command u; the world adds its action noise xi (pass `action_noise=0.0` to bring your own).
The discounted sum (by `world.gamma`) of an episode's rewards is the return R_0 of the theory: the last step of a finite
horizon pays `r_{T-1} + gamma r_T(s_T)`.

Termination or truncation? A finite horizon belongs to the problem (its value function is 0 after T), so reaching it is a
*termination*. An endless world never ends by itself; cutting it after `max_episode_steps` is a *truncation*, and a
learner must bootstrap there.

Copy i of the vector form, seeded with `seed + i`, lives through the same episodes as the single form with that seed:
each copy draws its noise in blocks from its own generator, which is also what makes the vector form fast.
"""

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.noise import FAMILIES, noise_family
from envs.world import InputError, World

_BLOCK = 256  # steps of noise drawn at once for an endless world; part of what a seed means


def _build(make_world: str, settings: dict[str, Any]) -> Any:
    builder: Any = load_env_creator(make_world)
    return builder(**settings).numpy()


def _box(size: int) -> gym.spaces.Box:
    return gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)


def _draw_first(world: World, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(world.initial(rng.standard_normal(world.n)))


def _draw_block(world: World, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Action and process noise, (steps, m) and (steps, n), of the next block of one copy."""
    steps = world.horizon or _BLOCK
    xi = noise_family(world.noise).sample((steps, world.m), rng) @ world.L_x
    w = FAMILIES["gaussian"].sample((steps, world.n), rng) @ world.L_w
    return np.asarray(xi), np.asarray(w)


class WorldEnv(gym.Env[np.ndarray, np.ndarray]):
    """One copy of the world built by `make_world` ("module:function"), with the builder's keywords as keywords."""

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, make_world: str, render_mode: str | None = None, **settings: Any):
        self.world = _build(make_world, settings)
        self.render_mode = render_mode
        self.observation_space = _box(self.world.n)
        self.action_space = _box(self.world.m)
        self._t = -1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode: first state, then a block of noise, both from this copy's generator."""
        super().reset(seed=seed)
        self._state = _draw_first(self.world, self.np_random)
        self._xi, self._w = _draw_block(self.world, self.np_random)
        self._t = 0
        return self._state.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step under the command `action`; `info["action"]` is what the world executed."""
        world, t = self.world, self._t
        if t < 0 or (world.horizon and t >= world.horizon):
            raise gym.error.ResetNeeded("the episode has not begun or is over: call reset() first")
        command = _checked(action, (world.m,))
        if t and t % len(self._xi) == 0:
            self._xi, self._w = _draw_block(world, self.np_random)
        block = t % len(self._xi)
        executed = world.act(self._state, command, self._xi[block])
        reward = world.reward(self._state, executed)
        self._state = world.transition(self._state, executed, self._w[block])
        self._t = t + 1
        terminated = self._t == world.horizon
        if terminated:
            reward = reward + world.gamma * world.terminal_reward(self._state)
        return self._state.copy(), float(reward), terminated, False, {"action": executed}


def _checked(action: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The action as float64, or an error that names what is wrong with it."""
    command = np.asarray(action, dtype=np.float64)
    if command.shape != shape:
        raise InputError(f"action must have shape {shape}; got {command.shape}")
    if not math.isfinite(np.add.reduce(command, axis=None)):  # one pass: NaN and infinity survive a sum
        raise InputError("action holds NaN or infinity; every entry must be a finite number")
    return command


class WorldVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` copies of a world in one batched call; autoreset modes and `reset_mask` as in Gymnasium 1.x."""

    def __init__(
        self,
        make_world: str,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **settings: Any,
    ):
        self.world = _build(make_world, settings)
        self.num_envs, self.render_mode = num_envs, render_mode
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode(autoreset_mode)}
        self.max_episode_steps = None if max_episode_steps in (None, -1) else max_episode_steps
        self.single_observation_space, self.single_action_space = _box(self.world.n), _box(self.world.m)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rngs = [seeding.np_random()[0] for _ in range(num_envs)]
        self._rows = np.arange(num_envs)
        self._t = np.full(num_envs, -1)
        self._together: int | None = None  # the common clock while all copies run in step; `_t` lags behind it then
        self._over = np.ones(num_envs, dtype=bool)
        steps = self.world.horizon or _BLOCK
        self._state = np.zeros((num_envs, self.world.n))
        self._xi = np.zeros((steps, num_envs, self.world.m))
        self._w = np.zeros((steps, num_envs, self.world.n))
        self._last = min(self.world.horizon or np.inf, self.max_episode_steps or np.inf)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """New episodes for all copies, or for those in `options["reset_mask"]`; an int seeds copy i with seed + i."""
        if self._together is not None:
            self._t[:] = self._together
        mask = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool)))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise InputError(f"options['reset_mask'] must be {self.num_envs} booleans, at least one of them True")
        seeds = [seed + i for i in self._rows] if isinstance(seed, int) else seed or [None] * self.num_envs
        if len(seeds) != self.num_envs:
            raise InputError(f"seed must be an int or a list of {self.num_envs}; got {len(seeds)} entries")
        for i in self._rows[mask]:
            if seeds[i] is not None:
                self._rngs[i], _ = seeding.np_random(int(seeds[i]))
        self._begin(mask)
        return self._state.copy(), {}

    def _begin(self, mask: np.ndarray) -> None:
        for i in self._rows[mask]:
            self._state[i] = _draw_first(self.world, self._rngs[i])
            self._xi[:, i], self._w[:, i] = _draw_block(self.world, self._rngs[i])
        self._t[mask] = 0
        self._over = self._over & ~mask
        self._follow_clocks()

    def _follow_clocks(self) -> None:
        """Remember the common time while all copies run in step: slices of the noise are then free views."""
        self._together = int(self._t[0]) if (self._t == self._t[0]).all() and not self._over.any() else None

    def _noise_now(self) -> tuple[np.ndarray, np.ndarray]:
        block = len(self._xi)
        if self._together is not None:
            if self._together and self._together % block == 0:
                self._refill(self._rows)
            return self._xi[self._together % block], self._w[self._together % block]
        self._refill(self._rows[(self._t > 0) & (self._t % block == 0) & ~self._over])
        now = self._t % block
        return self._xi[now, self._rows], self._w[now, self._rows]

    def _refill(self, rows: np.ndarray) -> None:
        for i in rows:
            self._xi[:, i], self._w[:, i] = _draw_block(self.world, self._rngs[i])

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of every copy; a finished copy is reset as the autoreset mode says."""
        if self._together is None and self._t[0] < 0:
            raise gym.error.ResetNeeded("no episode has begun: call reset() first")
        command = _checked(actions, (self.num_envs, self.world.m))
        if self._together is None and self._over.any():
            return self._step_with_resets(command)
        state, reward, executed = self._advance(command)
        self._state = state
        return self._close_step(reward, executed)

    def _advance(self, command: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Next state, reward and executed action of all copies, by the world's own functions."""
        xi, w = self._noise_now()
        executed = self.world.act(self._state, command, xi)
        reward = self.world.reward(self._state, executed)
        return self.world.transition(self._state, executed, w), reward, executed

    def _step_with_resets(self, command: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """NEXT_STEP: copies that ended at the last step begin anew now, ignore their action and earn nothing."""
        if self.metadata["autoreset_mode"] == AutoresetMode.DISABLED:
            raise gym.error.ResetNeeded("some copies are over: reset them with options={'reset_mask': mask} first")
        fresh = self._over.copy()
        state, reward, executed = self._advance(command)
        self._state = np.where(fresh[:, None], self._state, state)
        self._begin(fresh)
        self._t[fresh], self._together = -1, None  # `_close_step` counts a step for every copy; these stay at 0
        return self._close_step(np.where(fresh, 0.0, reward), executed)

    def _close_step(
        self, reward: np.ndarray, executed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Count the step, pay the terminal reward, say who is over."""
        info: dict[str, Any] = {"action": executed}
        if self._together is not None:
            self._together += 1
            if self._together < self._last:
                never = np.zeros(self.num_envs, dtype=bool)
                return self._state.copy(), reward, never, never.copy(), info
            self._t[:] = self._together - 1
        self._t += 1
        horizon, limit = self.world.horizon or -1, self.max_episode_steps or -1
        terminated, truncated = self._t == horizon, self._t == limit
        if terminated.any():
            reward = reward + np.where(terminated, self.world.gamma * self.world.terminal_reward(self._state), 0.0)
        self._over = terminated | truncated
        observation = self._state.copy()
        if self._over.any() and self.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP:
            info |= {"final_obs": _rows_as_objects(observation, self._over), "_final_obs": self._over.copy()}
            self._begin(self._over.copy())
            observation = self._state.copy()
        self._follow_clocks()
        return observation, reward, terminated, truncated, info


def _rows_as_objects(rows: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Gymnasium's form of `final_obs`: one array or None for each copy."""
    out = np.full(len(rows), None, dtype=object)
    for i in np.flatnonzero(mask):
        out[i] = rows[i].copy()
    return out
