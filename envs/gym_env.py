"""The Gymnasium shells of worlds with additive noise, single and vector.

The agent's action is the command u; the world adds its action noise xi (pass `action_noise=0.0` to bring your own).
The discounted sum (by `world.gamma`) of an episode's rewards is the return R_0 of the theory: the last step of a finite
horizon pays `r_{T-1} + gamma r_T(s_T)`.
"""

from typing import Any

import gymnasium as gym
import numpy as np

from envs.arguments import short
from envs.noise import noise_family
from envs.shell import BLOCK, Clock, Noise, Shell
from envs.vector_shell import VectorShell
from envs.world import InputError, World


class WorldAdapter:
    """A `World` for the shells: commands and states are boxes of float64."""

    def __init__(self, world: World, bound: float | None = None):
        if not isinstance(world, World):
            raise InputError(f"world must be one with additive noise in this shell; got {type(world).__name__}")
        if bound is not None and (not isinstance(bound, int | float | np.number) or not 0 < float(bound) < np.inf):
            raise InputError(f"bound must be a finite number > 0, or None for no bound; got {short(bound)}")
        self.world, self.bound = world.numpy(), None if bound is None else float(bound)
        self.observation_space, self.action_space = _box(self.world.n), _box(self.world.m, self.bound or np.inf)
        self._size, self.width = (self.world.m,), self.world.m + self.world.n

    def draw(self, rng: np.random.Generator, rows: np.ndarray) -> None:
        """m numbers of the world's action noise, then n normals a row.

        A step scales its row to xi and w; a reset makes the first state of its normals.
        """
        world = self.world
        rng.standard_normal(out=rows)
        if world.noise != "gaussian":
            rows[:, : world.m] = noise_family(world.noise).sample((BLOCK, world.m), rng)

    def scaled(self, rows: np.ndarray) -> Noise:
        """xi, w, standard normal."""
        eps, normal = np.split(rows, [self.world.m], axis=-1)
        return eps @ self.world.L_x, normal @ self.world.L_w, normal

    def first(self, noise: Noise, row: Any) -> np.ndarray:
        """The world's own first state."""
        return np.asarray(self.world.initial(noise[2][row]))

    def step(
        self, state: np.ndarray, t: Clock, action: np.ndarray, noise: Noise, row: Any
    ) -> tuple[np.ndarray, Any, np.ndarray]:
        """Next state, reward and executed action, by the world's own functions."""
        executed = self.world.act(state, action, noise[0][row])
        reward = self.world.reward(state, executed)
        return self.world.transition(state, executed, noise[1][row]), reward, executed

    def last_reward(self, state: np.ndarray) -> Any:
        """`gamma r_T(s_T)`."""
        return self.world.gamma * self.world.terminal_reward(state)

    def checked(self, action: Any, batch: tuple[int, ...]) -> np.ndarray:
        """The command as float64, cut to the bound."""
        command, shape = np.asarray(action, dtype=np.float64), batch + self._size
        if command.shape != shape:
            raise InputError(f"action must have shape {shape}; got {command.shape}")
        if np.count_nonzero(np.isfinite(command)) < command.size:
            raise InputError("action holds NaN or infinity; every entry must be a finite number")
        return command if self.bound is None else command.clip(-self.bound, self.bound)

    def observe(self, state: np.ndarray) -> np.ndarray:
        """All of the state."""
        return state.copy()

    ends = False

    def ended(self, state: np.ndarray) -> bool:
        """Never before the horizon."""
        return False

    def info(self, state: np.ndarray) -> dict[str, Any]:
        """Nothing: the agent sees the state."""
        return {}


def _box(size: int, bound: float = np.inf) -> gym.spaces.Box:
    return gym.spaces.Box(-bound, bound, (size,), np.float64)


class WorldEnv(Shell):
    """One copy of a world; `info["action"]` is the command with its noise, as executed."""

    adapter = WorldAdapter


class WorldVectorEnv(VectorShell):
    """`num_envs` copies of a world in one batched call."""

    adapter = WorldAdapter
