"""Gymnasium shells around any kind of world: one `Env` and one `VectorEnv`, with no dynamics of their own.

A kind of world is known by its `Adapter`: how to draw noise, begin, step, show the state. A shell keeps clock, tape and seeds.

Termination or truncation? A finite horizon belongs to the problem (its value is 0 after T), so reaching it, or saying an end
token before, is a *termination*. Cutting an endless world after `limit` steps is a *truncation*: bootstrap there. Gymnasium's
`max_episode_steps` can truncate any world earlier.

Copy i of the vector form, seeded with `seed + i`, lives through the same episodes as the single form with that seed:
each copy has a tape of noise from its own generator, drawn in blocks, and every reset and every step takes its next row.
That is also what makes the vector form fast: copies that end together stay in step, and a slice of a block is free.
"""

import dataclasses
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator

from envs.arguments import whole
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from envs.world import InputError, World

BLOCK = 256  # rows of noise drawn at once; part of what a seed means

Clock = int | np.ndarray  # one int while all copies agree, else one for each copy
Noise = tuple[np.ndarray, ...]  # a block of the tape, as the world uses it; `row` is an index into each of its arrays


class Adapter(Protocol):
    """One kind of world, as a shell sees it; states and actions come alone or as a batch of copies.

    Attributes:
        world: the world itself.
        observation_space: of one copy.
        action_space: of one copy.
        width: numbers in a row of the tape.
        ends: whether `ended` can ever be true; the vector form must then look at every step.
    """

    world: World | TokenMDP
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    width: int
    ends: bool

    def draw(self, rng: np.random.Generator, rows: np.ndarray) -> None:
        """Fill (BLOCK, width) with the next block of one copy's tape, in standard units.

        Args:
            rng: the copy's own generator.
            rows: array (BLOCK, width) that is filled.
        """
        ...

    def scaled(self, rows: np.ndarray) -> Noise:
        """Rows of any number of copies, (BLOCK, copies, width) or without copies, in the world's own units.

        Args:
            rows: of the tape, in standard units; the numbers of a row last.

        Returns:
            Arrays whose leading axes are those of the rows.
        """
        ...

    def first(self, noise: Noise, row: Any) -> np.ndarray:
        """First state of an episode.

        Args:
            noise: the block of the tape.
            row: index into the leading axes of the block.

        Returns:
            The state, or one for each copy.
        """
        ...

    def step(self, state: np.ndarray, t: Clock, action: Any, noise: Noise, row: Any) -> tuple[np.ndarray, Any, Any]:
        """Next state, reward and executed action of step t (of copies that are over too: the shell drops those).

        Args:
            state: the state, or one for each copy.
            t: steps taken in the episode.
            action: as `checked` returned it.
            noise: the block of the tape.
            row: index into the leading axes of the block.

        Returns:
            Next state, reward and executed action.
        """
        ...

    def last_reward(self, state: np.ndarray) -> Any:
        """What is paid on top of the last reward when the horizon is reached, discounted by one step.

        Args:
            state: the last state, or one for each copy.

        Returns:
            The reward, or one for each copy.
        """
        ...

    def checked(self, action: Any, batch: tuple[int, ...]) -> Any:
        """The action as a numpy array, or an InputError that names what is wrong with it.

        Args:
            action: what the agent gave.
            batch: (copies,), or () for a single copy.

        Returns:
            The action as the world takes it.

        Raises:
            InputError: the action has another shape, or an entry that the world does not take.
        """
        ...

    def observe(self, state: np.ndarray) -> np.ndarray:
        """A copy of what the agent sees of a state.

        Args:
            state: the state, or one for each copy.

        Returns:
            The observation, or one for each copy.
        """
        ...

    def ended(self, state: np.ndarray) -> Any:
        """Whether the agent has ended the episode before its horizon; False where no world of this kind can be.

        Args:
            state: the state, or one for each copy.

        Returns:
            True or False, or one for each copy.
        """
        ...

    def info(self, state: np.ndarray) -> dict[str, Any]:
        """What else there is to say about a state: one number per name and copy.

        Args:
            state: the state, or one for each copy.

        Returns:
            The entries of Gymnasium's `info`.
        """
        ...


def build(world: Any, settings: dict[str, Any]) -> Any:
    """A world: itself, or what its builder makes of these keywords.

    The builder is named as "module:function", as a registered world or as a user's file (`envs.registry.make_world`).

    Args:
        world: a world, or the name of its builder.
        settings: keywords of the builder.

    Returns:
        The world.

    Raises:
        InputError: there are keywords for a world that is built already, or as in `envs.registry.make_world`.
    """
    if not isinstance(world, str):
        if settings:
            raise InputError(f"world is built already and takes no options: leave out {', '.join(settings)}")
        return world
    module, colon, _ = world.partition(":")
    if not colon or module.endswith(".py"):
        return make_world(world, **settings)
    builder: Any = load_env_creator(world)
    return builder(**settings)


def step_limit(limit: int | None, world: World | TokenMDP) -> int | None:
    """Steps after which a shell truncates an episode; None for a world with a horizon, whose end is a termination.

    Args:
        limit: what the user gave.
        world: of the shell.

    Returns:
        The number of steps, or None.

    Raises:
        InputError: the limit is neither None nor a whole number >= 1.
    """
    number = None if limit is None else whole("limit", limit, 1, "or None for no limit")
    return None if world.horizon else number


def shown_space(space: gym.Space[Any], clock: bool, world: World | TokenMDP) -> gym.Space[Any]:
    """The space of observations, with a last entry for the number of steps taken if there is a clock.

    Args:
        space: without the clock.
        clock: whether there is one.
        world: of the shell.

    Returns:
        The space.
    """
    if not clock:
        return space
    assert isinstance(space, gym.spaces.Box)
    last = world.horizon or (np.inf if space.dtype == np.float64 else np.iinfo(np.int64).max)
    return gym.spaces.Box(
        np.append(space.low, 0), np.append(space.high, last).astype(space.dtype), dtype=space.dtype.type
    )


def shown(observation: np.ndarray, t: Clock, clock: bool) -> np.ndarray:
    """One observation or those of all copies, with the number of steps taken as last entry if there is a clock.

    Args:
        observation: without the clock.
        t: steps taken in the episode.
        clock: whether there is one.

    Returns:
        The observation.
    """
    if not clock:
        return observation
    steps = np.broadcast_to(np.asarray(t, observation.dtype)[..., None], (*observation.shape[:-1], 1))
    return np.concatenate([observation, steps], -1)


class Shell(gym.Env[np.ndarray, Any]):
    """One copy of a world.

    Args:
        make_world: the world itself, or what builds it: "module:function", the name of a registered world, `my_world.py:build`,
            or a JSON file (`envs.own_world`).
        render_mode: None; nothing is drawn.
        limit: an endless world is truncated after so many steps, None for never; a world with a horizon terminates there.
        clock: whether the number of steps taken is the last entry of every observation.
        bound: of every component of a command, where commands are numbers; None leaves them unbounded. A command beyond it is
            cut to the bound, then the action noise is added. The value of every policy that stays within the bound is exact as
            ever; the optimal policy leaves it where `|K s + k|` is larger, so that the Riccati value is an upper bound there.
        settings: the builder's keywords; none where the world is built already.
    """

    metadata: dict[str, Any] = {"render_modes": []}
    adapter: type[Any]  # makes an Adapter of a world

    def __init__(
        self,
        make_world: Any,
        render_mode: str | None = None,
        limit: int | None = None,
        clock: bool = False,
        bound: float | None = None,
        **settings: Any,
    ):
        self._adapter: Adapter = self.adapter(build(make_world, settings), bound)
        self.world, self.clock = self._adapter.world, clock
        self.limit = step_limit(limit, self.world)
        self.render_mode = render_mode
        self.observation_space = shown_space(self._adapter.observation_space, clock, self.world)
        self.action_space = self._adapter.action_space
        self._t, self._row = -1, BLOCK
        self._rows = np.zeros((BLOCK, self._adapter.width))
        self._spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """Gymnasium's record of how this was made; its `max_episode_steps` is the horizon, or the limit of an endless world.

        Wrappers such as `TimeAwareObservation` ask for it.
        """
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        steps = self.world.horizon or self.limit
        self._spec = None if spec is None else dataclasses.replace(spec, max_episode_steps=steps)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode; a seed starts a new tape of noise.

        Args:
            seed: of the tape; None goes on with the tape.
            options: not used.

        Returns:
            The first observation, and the info.
        """
        super().reset(seed=seed)
        self._row = self._row if seed is None else BLOCK
        self._t, row = 0, self._next_row()
        self._state = self._adapter.first(self._noise, row)
        return self._observe(), self._adapter.info(self._state)

    def _observe(self) -> np.ndarray:
        return shown(self._adapter.observe(self._state), self._t, self.clock)

    def _next_row(self) -> int:
        """Index of the next row in the block."""
        if self._row == BLOCK:
            self._adapter.draw(self.np_random, self._rows)
            self._noise, self._row = self._adapter.scaled(self._rows), 0
        self._row += 1
        return self._row - 1

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step under `action`; `info["action"]` is what the world executed.

        Args:
            action: a command, or a token.

        Returns:
            Observation, reward, terminated, truncated, info.

        Raises:
            InputError: the world does not take the action.
        """
        world, t = self.world, self._t
        if t < 0 or (world.horizon and t >= world.horizon):
            raise gym.error.ResetNeeded("the episode has not begun or is over: call reset() first")
        command, row = self._adapter.checked(action, ()), self._next_row()
        self._state, reward, executed = self._adapter.step(self._state, t, command, self._noise, row)
        self._t = world.horizon if world.horizon and self._adapter.ended(self._state) else t + 1
        terminated, truncated = self._t == world.horizon, self.limit is not None and self._t >= self.limit
        if terminated:
            reward = reward + self._adapter.last_reward(self._state)
        info = {"action": executed, **self._adapter.info(self._state)}
        return self._observe(), float(reward), terminated, truncated, info
