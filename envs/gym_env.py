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
    """A `World` for the shells: commands and states are boxes of float64.

    Args:
        world: a world with additive noise.
        bound: of every component of a command; None for none.

    Raises:
        InputError: the world is of another kind, or the bound is no finite number > 0.
    """

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

        Args:
            rng: the copy's own generator.
            rows: array (BLOCK, width) that is filled.
        """
        world = self.world
        rng.standard_normal(out=rows)
        if world.noise != "gaussian":
            rows[:, : world.m] = noise_family(world.noise).sample((BLOCK, world.m), rng)

    def scaled(self, rows: np.ndarray) -> Noise:
        """xi, w, standard normal.

        Args:
            rows: of the tape, in standard units; the numbers of a row last.

        Returns:
            Arrays whose leading axes are those of the rows.
        """
        eps, normal = np.split(rows, [self.world.m], axis=-1)
        return eps @ self.world.L_x, normal @ self.world.L_w, normal

    def first(self, noise: Noise, row: Any) -> np.ndarray:
        """The world's own first state.

        Args:
            noise: the block of the tape.
            row: index into the leading axes of the block.

        Returns:
            The state, or one for each copy.
        """
        return np.asarray(self.world.initial(noise[2][row]))

    def step(
        self, state: np.ndarray, t: Clock, action: np.ndarray, noise: Noise, row: Any
    ) -> tuple[np.ndarray, Any, np.ndarray]:
        """Next state, reward and executed action, by the world's own functions.

        Args:
            state: the state, or one for each copy.
            t: steps taken in the episode.
            action: as `checked` returned it.
            noise: the block of the tape.
            row: index into the leading axes of the block.

        Returns:
            Next state, reward and executed action.
        """
        executed = self.world.act(state, action, noise[0][row])
        reward = self.world.reward(state, executed)
        return self.world.transition(state, executed, noise[1][row]), reward, executed

    def last_reward(self, state: np.ndarray) -> Any:
        """`gamma r_T(s_T)`.

        Args:
            state: the last state, or one for each copy.

        Returns:
            The reward, or one for each copy.
        """
        return self.world.gamma * self.world.terminal_reward(state)

    def checked(self, action: Any, batch: tuple[int, ...]) -> np.ndarray:
        """The command as float64, cut to the bound.

        Args:
            action: what the agent gave.
            batch: (copies,), or () for a single copy.

        Returns:
            The action as the world takes it.

        Raises:
            InputError: the action has another shape, or an entry that the world does not take.
        """
        command, shape = np.asarray(action, dtype=np.float64), batch + self._size
        if command.shape != shape:
            raise InputError(f"action must have shape {shape}; got {command.shape}")
        if np.count_nonzero(np.isfinite(command)) < command.size:
            raise InputError("action holds NaN or infinity; every entry must be a finite number")
        return command if self.bound is None else command.clip(-self.bound, self.bound)

    def observe(self, state: np.ndarray) -> np.ndarray:
        """All of the state.

        Args:
            state: the state, or one for each copy.

        Returns:
            The observation, or one for each copy.
        """
        return state.copy()

    ends = False

    def ended(self, state: np.ndarray) -> bool:
        """Never before the horizon.

        Args:
            state: the state, or one for each copy.

        Returns:
            True or False, or one for each copy.
        """
        return False

    def info(self, state: np.ndarray) -> dict[str, Any]:
        """Nothing: the agent sees the state.

        Args:
            state: the state, or one for each copy.

        Returns:
            The entries of Gymnasium's `info`.
        """
        return {}


def _box(size: int, bound: float = np.inf) -> gym.spaces.Box:
    return gym.spaces.Box(-bound, bound, (size,), np.float64)


class WorldEnv(Shell):
    """One copy of a world; `info["action"]` is the command with its noise, as executed."""

    adapter = WorldAdapter


class WorldVectorEnv(VectorShell):
    """`num_envs` copies of a world in one batched call."""

    adapter = WorldAdapter
