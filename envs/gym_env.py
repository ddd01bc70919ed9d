"""Gymnasium shells around any world: `Env` and `VectorEnv`, with no dynamics of their own.

The agent's action is the command u; the world adds its action noise xi (pass `action_noise=0.0` to bring your own).
The discounted sum (by `world.gamma`) of an episode's rewards is the return R_0 of the theory: the last step of a finite
horizon pays `r_{T-1} + gamma r_T(s_T)`.

Termination or truncation? A finite horizon belongs to the problem (its value function is 0 after T), so reaching it is a
*termination*. An endless world never ends by itself; cutting it after `max_episode_steps` is a *truncation*, and a
learner must bootstrap there.

Copy i of the vector form, seeded with `seed + i`, lives through the same episodes as the single form with that seed:
each copy has a tape of noise from its own generator, drawn in blocks, and every reset and every step takes its next row.
That is also what makes the vector form fast: copies that end together stay in step, and a slice of a block is free.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.noise import noise_family
from envs.world import InputError, World

_BLOCK = 256  # rows of noise drawn at once; part of what a seed means

Clock = int | np.ndarray  # one int while all copies agree, else one for each copy


def _build(make_world: str, settings: dict[str, Any]) -> Any:
    builder: Any = load_env_creator(make_world)
    return builder(**settings).numpy()


def _box(size: int) -> gym.spaces.Box:
    return gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)


def _draw_rows(world: World, rng: np.random.Generator) -> np.ndarray:
    """The next block of one copy's tape, in standard units: m numbers of the world's action noise, then n normals.

    A step scales its row to xi and w; a reset makes the first state of its normals.
    """
    rows = rng.standard_normal((_BLOCK, world.m + world.n))
    if world.noise != "gaussian":
        rows[:, : world.m] = noise_family(world.noise).sample((_BLOCK, world.m), rng)
    return rows


class WorldEnv(gym.Env[np.ndarray, np.ndarray]):
    """One copy of the world built by `make_world` ("module:function"), with the builder's keywords as keywords."""

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, make_world: str, render_mode: str | None = None, **settings: Any):
        self.world = _build(make_world, settings)
        self.render_mode = render_mode
        self.observation_space = _box(self.world.n)
        self.action_space = _box(self.world.m)
        self._t, self._row = -1, _BLOCK

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode; a seed starts a new tape of noise."""
        super().reset(seed=seed)
        self._row = self._row if seed is None else _BLOCK
        self._t = 0
        self._state = np.asarray(self.world.initial(self._next_row()[2]))
        return self._state.copy(), {}

    def _next_row(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The next row of the tape: xi, w, standard normal."""
        if self._row == _BLOCK:
            eps, normal = np.split(_draw_rows(self.world, self.np_random), [self.world.m], axis=1)
            self._block, self._row = (eps @ self.world.L_x, normal @ self.world.L_w, normal), 0
        xi, w, normal = self._block
        self._row += 1
        return xi[self._row - 1], w[self._row - 1], normal[self._row - 1]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step under the command `action`; `info["action"]` is what the world executed."""
        world, t = self.world, self._t
        if t < 0 or (world.horizon and t >= world.horizon):
            raise gym.error.ResetNeeded("the episode has not begun or is over: call reset() first")
        command = _checked(action, (world.m,))
        xi, w, _ = self._next_row()
        executed = world.act(self._state, command, xi)
        reward = world.reward(self._state, executed)
        self._state = world.transition(self._state, executed, w)
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
    if np.count_nonzero(np.isfinite(command)) < command.size:
        raise InputError("action holds NaN or infinity; every entry must be a finite number")
    return command


def _step_limit(steps: int | None) -> int | None:
    """None, and Gymnasium's -1, mean no limit."""
    if steps is None or steps == -1:
        return None
    if steps < 1:
        raise InputError(f"max_episode_steps must be >= 1, or -1 for no limit; got {steps!r}")
    return steps


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
        if num_envs < 1:
            raise InputError(f"num_envs must be >= 1; got {num_envs!r}")
        self.world = _build(make_world, settings)
        self.num_envs, self.render_mode = num_envs, render_mode
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode(autoreset_mode)}
        self.max_episode_steps = _step_limit(max_episode_steps)
        self.single_observation_space, self.single_action_space = _box(self.world.n), _box(self.world.m)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rngs = [seeding.np_random()[0] for _ in range(num_envs)]
        self._copies, self._everyone = np.arange(num_envs), np.ones(num_envs, dtype=bool)
        self._state = np.zeros((num_envs, self.world.n))
        sizes = (self.world.m + self.world.n, self.world.m, self.world.n)
        self._rows, self._xi, self._w = (np.zeros((_BLOCK, num_envs, size)) for size in sizes)
        self._eps, self._normal = np.split(self._rows, [self.world.m], axis=-1)  # views of the tape
        self._t: Clock = -1  # steps into the episode; -1 before the first
        self._row: Clock = _BLOCK  # next row of the tape
        self._over, self._waiting = self._everyone, True  # which copies must be reset, and whether any
        self._last = min(self.world.horizon or np.inf, self.max_episode_steps or np.inf)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """New episodes for all copies, or for those in `options["reset_mask"]`; an int seeds copy i with seed + i."""
        mask = np.asarray((options or {}).get("reset_mask", self._everyone))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise InputError(f"options['reset_mask'] must be {self.num_envs} booleans, at least one of them True")
        seeds = [seed + i for i in self._copies] if isinstance(seed, int) else seed or [None] * self.num_envs
        if len(seeds) != self.num_envs:
            raise InputError(f"seed must be an int or a list of {self.num_envs}; got {len(seeds)} entries")
        seeded = mask & np.array([one is not None for one in seeds])
        for i in self._copies[seeded]:
            self._rngs[i], _ = seeding.np_random(int(seeds[i]))
        self._row = _joined(np.where(seeded, _BLOCK, self._row))
        self._begin(mask)
        return self._state.copy(), {}

    def _begin(self, mask: np.ndarray) -> None:
        """First states for the copies in `mask`, each from its next row."""
        first = self.world.initial(self._normal[self._next_row(mask)])
        self._state = np.where(mask[:, None], first, self._state)
        self._t, self._row = _joined(np.where(mask, 0, self._t)), _joined(self._row)
        self._over = self._over & ~mask
        self._waiting = bool(self._over.any())

    def _next_row(self, mask: np.ndarray | bool = True) -> Any:
        """Index of every copy's next row in the blocks; moves on the copies in `mask`."""
        spent = self._row == _BLOCK
        if np.any(spent) if isinstance(spent, np.ndarray) else spent:
            self._refill(self._copies[self._everyone & spent])
            self._row = self._row * (1 - spent)
        row = self._row
        self._row = row + mask
        return (row, self._copies) if isinstance(row, np.ndarray) else row

    def _refill(self, copies: np.ndarray) -> None:
        for i in copies:
            self._rows[:, i] = _draw_rows(self.world, self._rngs[i])
        part = copies if len(copies) < self.num_envs else slice(None)  # a slice spares numpy a gather
        self._xi[:, part] = self._eps[:, part] @ self.world.L_x
        self._w[:, part] = self._normal[:, part] @ self.world.L_w

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of every copy; a finished copy is reset as the autoreset mode says."""
        command = _checked(actions, (self.num_envs, self.world.m))
        if self._waiting:
            return self._step_with_resets(command)
        self._state, reward, executed = self._advance(command, self._next_row())
        if isinstance(self._t, int) and self._t + 1 < self._last:  # in step, and nobody is over: the usual case
            self._t += 1
            info = {"action": executed, "_action": self._everyone.copy()}
            return self._state.copy(), reward, ~self._everyone, ~self._everyone, info
        return self._close_step(reward, executed, self._everyone.copy())

    def _advance(self, command: np.ndarray, row: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Next state, reward and executed action of all copies, by the world's own functions."""
        executed = self.world.act(self._state, command, self._xi[row])
        reward = self.world.reward(self._state, executed)
        return self.world.transition(self._state, executed, self._w[row]), reward, executed

    def _step_with_resets(self, command: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """NEXT_STEP: copies that ended at the last step begin anew now, ignore their action, do and earn nothing."""
        if np.any(self._t < 0):
            raise gym.error.ResetNeeded("some copies have not begun: call reset() first")
        if self.metadata["autoreset_mode"] == AutoresetMode.DISABLED:
            raise gym.error.ResetNeeded("some copies are over: reset them with options={'reset_mask': mask} first")
        fresh, row = self._over, self._next_row()
        self._over, self._waiting = ~self._everyone, False
        state, reward, executed = self._advance(command, row)
        self._state = np.where(fresh[:, None], self.world.initial(self._normal[row]), state)
        self._t = _joined(np.where(fresh, -1, self._t))  # `_close_step` counts a step for every copy
        return self._close_step(np.where(fresh, 0.0, reward), np.where(fresh[:, None], 0.0, executed), ~fresh)

    def _close_step(
        self, reward: np.ndarray, executed: np.ndarray, took: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Count the step, pay the terminal reward, say who is over; `took` marks the copies that took an action."""
        info: dict[str, Any] = {"action": executed, "_action": took}
        self._t = self._t + 1
        clock = np.broadcast_to(self._t, self.num_envs)
        terminated, truncated = clock == (self.world.horizon or -1), clock == (self.max_episode_steps or -1)
        if terminated.any():
            reward = reward + np.where(terminated, self.world.gamma * self.world.terminal_reward(self._state), 0.0)
        self._over = terminated | truncated
        self._waiting = bool(self._over.any())
        observation = self._state.copy()
        if self._waiting and self.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP:
            info |= {"final_obs": _rows_as_objects(observation, self._over), "_final_obs": self._over}
            self._begin(self._over)
            observation = self._state.copy()
        return observation, reward, terminated, truncated, info


def _joined(clock: Clock) -> Clock:
    """The clock as one int where all copies agree: slices of the noise are then views."""
    first = int(np.ravel(clock)[0])
    return first if np.all(clock == first) else clock


def _rows_as_objects(rows: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Gymnasium's form of `final_obs`: one array or None for each copy."""
    out = np.full(len(rows), None, dtype=object)
    for i in np.flatnonzero(mask):
        out[i] = rows[i].copy()
    return out
