"""The vector form of the Gymnasium shells: many copies of a world in one batched call, with the episodes of the single form.

Copies that end together stay in step, so that one clock and slices of one block of noise serve them all: that makes it fast.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.shell import BLOCK, Adapter, Clock, Noise, build, shown, shown_space, step_limit
from envs.world import InputError

# observations, rewards, terminated, truncated, infos
Step = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


def _step_limit(steps: int | None) -> int | None:
    """None, and Gymnasium's -1, mean no limit."""
    if steps is None or steps == -1:
        return None
    if steps < 1:
        raise InputError(f"max_episode_steps must be >= 1, or -1 for no limit; got {steps!r}")
    return steps


class VectorShell(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` copies of a world in one batched call; autoreset modes and `reset_mask` as in Gymnasium 1.x.

    Args:
        make_world: as in `envs.shell.Shell`.
        num_envs: number of copies.
        max_episode_steps: episodes are truncated after so many steps; None or -1 for never.
        autoreset_mode: when a copy that is over begins anew, one of Gymnasium's `AutoresetMode`.
        render_mode: None; nothing is drawn.
        limit: as in `envs.shell.Shell`.
        clock: as in `envs.shell.Shell`.
        bound: as in `envs.shell.Shell`.
        settings: the builder's keywords; none where the world is built already.

    Raises:
        InputError: num_envs or a limit is no whole number >= 1, or as in `envs.registry.make_world`.
    """

    adapter: type[Any]  # makes an Adapter of a world

    def __init__(
        self,
        make_world: Any,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        limit: int | None = None,
        clock: bool = False,
        bound: float | None = None,
        **settings: Any,
    ):
        if num_envs < 1:
            raise InputError(f"num_envs must be >= 1; got {num_envs!r}")
        self._adapter: Adapter = self.adapter(build(make_world, settings), bound)
        self.world, self.clock = self._adapter.world, clock
        self.num_envs, self.render_mode = num_envs, render_mode
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode(autoreset_mode)}
        limits = [x for x in (_step_limit(max_episode_steps), step_limit(limit, self.world)) if x is not None]
        self.max_episode_steps = min(limits, default=None)
        self.single_observation_space = shown_space(self._adapter.observation_space, clock, self.world)
        self.single_action_space = self._adapter.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rngs = [seeding.np_random()[0] for _ in range(num_envs)]
        self._copies, self._everyone = np.arange(num_envs), np.ones(num_envs, dtype=bool)
        self._rows = np.zeros((num_envs, BLOCK, self._adapter.width))
        self._noise: Noise = ()  # the tape in the world's units, filled by the first reset
        self._state = np.zeros((num_envs, 1), np.int64)  # the first reset gives it its width and type
        self._t: Clock = -1  # steps into the episode; -1 before the first
        self._row: Clock = BLOCK  # next row of the tape
        self._over, self._waiting = self._everyone, True  # which copies must be reset, and whether any
        self._last = min(self.world.horizon or np.inf, self.max_episode_steps or np.inf)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """New episodes for all copies, or for those in `options["reset_mask"]`; an int seeds copy i with seed + i.

        Args:
            seed: of copy 0, or one for each copy; None goes on with the tapes.
            options: `reset_mask` holds True for the copies that begin anew.

        Returns:
            The first observations, and the infos.

        Raises:
            InputError: the mask or the seeds do not fit the number of copies.
        """
        mask = np.asarray((options or {}).get("reset_mask", self._everyone))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise InputError(f"options['reset_mask'] must be {self.num_envs} booleans, at least one of them True")
        seeds = (
            [seed + i for i in self._copies] if isinstance(seed, int | np.integer) else seed or [None] * self.num_envs
        )
        if len(seeds) != self.num_envs:
            raise InputError(f"seed must be an int or a list of {self.num_envs}; got {len(seeds)} entries")
        seeded = mask & np.array([one is not None for one in seeds])
        for i in self._copies[seeded]:
            self._rngs[i], _ = seeding.np_random(int(seeds[i]))
        self._row = _joined(np.where(seeded, BLOCK, self._row))
        self._begin(mask)
        return self._observe(), self._info(mask)

    def _observe(self) -> np.ndarray:
        return shown(self._adapter.observe(self._state), self._t, self.clock)

    def _begin(self, mask: np.ndarray) -> None:
        """First states for the copies in `mask`, each from its next row."""
        row = self._next_row(mask)
        first = self._adapter.first(self._noise, row)
        self._state = np.where(mask[:, None], first, self._state)
        self._t, self._row = _joined(np.where(mask, 0, self._t)), _joined(self._row)
        self._over = self._over & ~mask
        self._waiting = bool(self._over.any())

    def _next_row(self, mask: np.ndarray | bool = True) -> Any:
        """Index of every copy's next row in the blocks; moves on the copies in `mask`."""
        spent = self._row == BLOCK
        if np.any(spent) if isinstance(spent, np.ndarray) else spent:
            self._refill(self._copies[self._everyone & spent])
            self._row = self._row * (1 - spent)
        row = self._row
        self._row = row + mask
        return (row, self._copies) if isinstance(row, np.ndarray) else row

    def _refill(self, copies: np.ndarray) -> None:
        for i in copies:
            self._adapter.draw(self._rngs[i], self._rows[i])
        if len(copies) == self.num_envs:  # always so at the first reset
            self._noise = self._adapter.scaled(self._rows.swapaxes(0, 1))
            return
        for block, part in zip(self._noise, self._adapter.scaled(self._rows[copies].swapaxes(0, 1)), strict=True):
            block[:, copies] = part

    def step(self, actions: np.ndarray) -> Step:
        """One step of every copy; a finished copy is reset as the autoreset mode says.

        Args:
            actions: one for each copy.

        Returns:
            Observations, rewards, terminated, truncated, infos.

        Raises:
            InputError: the world does not take an action.
        """
        command = self._adapter.checked(actions, (self.num_envs,))
        if self._waiting:
            return self._step_with_resets(command)
        row = self._next_row()
        self._state, reward, executed = self._adapter.step(self._state, self._t, command, self._noise, row)
        if isinstance(self._t, int) and self._t + 1 < self._last and not self._adapter.ends:  # all in step, none over
            self._t += 1
            info = {"action": executed, "_action": self._everyone.copy(), **self._info(self._everyone)}
            terminated, truncated = np.zeros(self.num_envs, dtype=bool), np.zeros(self.num_envs, dtype=bool)
            return self._observe(), reward, terminated, truncated, info
        return self._close_step(reward, executed, self._everyone.copy())

    def _step_with_resets(self, command: np.ndarray) -> Step:
        """NEXT_STEP: copies that ended at the last step begin anew now, ignore their action, do and earn nothing."""
        if np.any(self._t < 0):
            raise gym.error.ResetNeeded("some copies have not begun: call reset() first")
        if self.metadata["autoreset_mode"] == AutoresetMode.DISABLED:
            raise gym.error.ResetNeeded("some copies are over: reset them with options={'reset_mask': mask} first")
        if self._over.all():  # copies that are in step end together: the usual case
            return self._begin_together(command)
        fresh, row = self._over, self._next_row()
        self._over, self._waiting = ~self._everyone, False
        state, reward, executed = self._adapter.step(self._state, self._t, command, self._noise, row)
        self._state = np.where(fresh[:, None], self._adapter.first(self._noise, row), state)
        self._t = _joined(np.where(fresh, -1, self._t))  # `_close_step` counts a step for every copy
        return self._close_step(np.where(fresh, 0.0, reward), np.where(fresh, 0, executed.T).T, ~fresh)

    def _begin_together(self, command: np.ndarray) -> Step:
        """The step in which every copy begins anew: no dynamics to compute."""
        self._state = self._adapter.first(self._noise, self._next_row())
        self._t, self._over, self._waiting = 0, ~self._everyone, False
        info = {"action": np.zeros_like(command), "_action": ~self._everyone, **self._info(self._everyone)}
        return self._observe(), np.zeros(self.num_envs), ~self._everyone, ~self._everyone, info

    def _close_step(self, reward: np.ndarray, executed: np.ndarray, took: np.ndarray) -> Step:
        """Count the step, pay the terminal reward, say who is over; `took` marks the copies that took an action."""
        self._t = self._t + 1
        clock, ended = self._t + np.zeros(self.num_envs, dtype=int), self._adapter.ended(self._state)
        terminated, truncated = ended | (clock == (self.world.horizon or -1)), clock == (self.max_episode_steps or -1)
        if terminated.any():
            reward = reward + np.where(terminated, self._adapter.last_reward(self._state), 0.0)
        self._over = terminated | truncated
        self._waiting = bool(self._over.any())
        observation, last = self._observe(), {}
        if self._waiting and self.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP:
            last = self._ended(observation)
            self._begin(self._over)
            observation = self._observe()
        info = {"action": executed, "_action": took, **self._info(self._everyone), **last}
        return observation, reward, terminated, truncated, info

    def _ended(self, observation: np.ndarray) -> dict[str, Any]:
        """What SAME_STEP says of the copies that end: their last observation and the info of their last state."""
        last, over = self._info(self._over), self._over
        ended: dict[str, Any] = {"final_obs": _rows_as_objects(observation, over), "_final_obs": over}
        return ended | ({"final_info": last, "_final_info": over.copy()} if last else {})

    def _info(self, mask: np.ndarray) -> dict[str, Any]:
        """Gymnasium's form of the adapter's info for the copies in `mask`."""
        info: dict[str, Any] = {}
        for key, value in self._adapter.info(self._state).items():
            info |= {key: np.where(mask, value, 0), f"_{key}": mask.copy()}
        return info


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
