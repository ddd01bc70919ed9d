"""The Gymnasium shells of token worlds, single and vector: say a token, see all that was said so far.

The observation is the context, prompt and then generated tokens, padded with V to the length of a whole episode. The
abstract state is in `info["state"]`: a policy that reads the context has to work it out. Prompts are drawn by their
weights and next states from the rows of P, by inverse transform of one uniform number each. Reaching the horizon, or
saying the world's end token, is a termination; the sum of an episode's rewards, discounted by `world.gamma`, is its return.

Where the environment speaks, its tokens are steps too: on its turn `info["own"]` of the step before is False, the action is
ignored, and `info["action"]` is the token that it says.
"""

from typing import Any

import gymnasium as gym
import numpy as np

from envs.shell import Clock, Noise, Shell
from envs.token_mdp import TokenMDP
from envs.vector_shell import VectorShell
from envs.world import InputError


class TokenAdapter:
    """A `TokenMDP` for the shells; a state is the padded context with the abstract state as last entry.

    Args:
        world: a token world.
        bound: must be None; commands have a bound, tokens none.

    Raises:
        InputError: the world is of another kind or pays a hidden readout, or a bound is given.
    """

    def __init__(self, world: TokenMDP, bound: float | None = None):
        if not isinstance(world, TokenMDP):
            raise InputError(f"world must be a TokenMDP in this shell: take WorldEnv for {type(world).__name__}")
        if bound is not None:
            raise InputError(f"bound must be left out: the actions of a token world are tokens; got {bound!r}")
        if world.readout is not None:
            raise InputError("readout is paid by world and policy together: a Gymnasium shell needs a world without it")
        self.world = world
        self.prompt, self.r, self.ends = world.prompts.shape[1], world.r.numpy(), world.end is not None
        self.cumulative_P, self.cumulative_weights = _cumulative(world.P.numpy()), _cumulative(world.weights.numpy())
        self.speaking, self.width = world.speaking.numpy(), 1 if world.speech is None else 2
        self.cumulative_speech = None if world.speech is None else _cumulative(world.speech.numpy())
        blank = np.full((len(world.prompts), world.horizon), world.V)
        self.firsts = np.concatenate([world.prompts.numpy(), blank, world.starts.numpy()[:, None]], 1)
        self.observation_space = gym.spaces.Box(0, world.V, (self.prompt + world.horizon,), np.int64)
        self.action_space = gym.spaces.Discrete(world.V)

    def draw(self, rng: np.random.Generator, rows: np.ndarray) -> None:
        """A uniform number for the next state, and one for the environment's token where it may speak.

        Args:
            rng: the copy's own generator.
            rows: array (BLOCK, width) that is filled.
        """
        rng.random(out=rows)

    def scaled(self, rows: np.ndarray) -> Noise:
        """The uniform numbers.

        Args:
            rows: of the tape, in standard units; the numbers of a row last.

        Returns:
            Arrays whose leading axes are those of the rows.
        """
        return tuple(rows[..., i] for i in range(self.width))

    def first(self, noise: Noise, row: Any) -> np.ndarray:
        """A prompt, nothing said yet, its start state.

        Args:
            noise: the block of the tape.
            row: index into the leading axes of the block.

        Returns:
            The state, or one for each copy.
        """
        start: np.ndarray = self.firsts[_pick(self.cumulative_weights, noise[0][row])]
        return start

    def step(self, state: np.ndarray, t: Clock, action: Any, noise: Noise, row: Any) -> tuple[np.ndarray, Any, Any]:
        """`r_t[z, a]`; the token joins the context and the abstract state moves to a draw from `P[z, a]`.

        Where the environment speaks, a is a draw from `speech[z]` in the place of the action.

        Args:
            state: the state, or one for each copy.
            t: steps taken in the episode.
            action: as `checked` returned it.
            noise: the block of the tape.
            row: index into the leading axes of the block.

        Returns:
            Next state, reward and executed action.
        """
        z, k = state[..., -1], np.minimum(t, self.world.horizon - 1)
        if self.cumulative_speech is not None:
            said = _pick(self.cumulative_speech[z], noise[1][row])
            action = np.where(self.speaking[z], said, action)[()]
        after, place = state.copy(), np.broadcast_to(self.prompt + k, z.shape)
        np.put_along_axis(after, place[..., None], action[..., None], -1)
        after[..., -1] = _pick(self.cumulative_P[z, action], noise[0][row])
        return after, self.r[k, z, action], action

    def last_reward(self, state: np.ndarray) -> float:
        """A token world pays all its rewards at its steps.

        Args:
            state: the last state, or one for each copy.

        Returns:
            The reward, or one for each copy.
        """
        return 0.0

    def checked(self, action: Any, batch: tuple[int, ...]) -> Any:
        """The token(s) as int64.

        Args:
            action: what the agent gave.
            batch: (copies,), or () for a single copy.

        Returns:
            The action as the world takes it.

        Raises:
            InputError: the action has another shape, or an entry that the world does not take.
        """
        tokens = np.asarray(action)
        if tokens.dtype.kind not in "iu":
            raise InputError(f"action must be a token, a whole number; got {tokens.dtype} numbers or objects")
        if tokens.shape != batch:
            raise InputError(f"action must have shape {batch}; got {tokens.shape}")
        bad = tokens[(tokens < 0) | (tokens >= self.world.V)]
        if bad.size:
            raise InputError(f"action {bad[0]} is outside the vocabulary: tokens are 0 ... {self.world.V - 1}")
        return tokens.astype(np.int64)[()]

    def observe(self, state: np.ndarray) -> np.ndarray:
        """The context, padded with V.

        Args:
            state: the state, or one for each copy.

        Returns:
            The observation, or one for each copy.
        """
        return state[..., :-1].copy()

    def ended(self, state: np.ndarray) -> Any:
        """Whether the end token was said.

        Args:
            state: the state, or one for each copy.

        Returns:
            True or False, or one for each copy.
        """
        return (state[..., self.prompt : -1] == self.world.end).any(-1) if self.ends else False

    def info(self, state: np.ndarray) -> dict[str, Any]:
        """The abstract state, and whether the agent says the next token where the environment may.

        Args:
            state: the state, or one for each copy.

        Returns:
            The entries of Gymnasium's `info`.
        """
        z = state[..., -1].copy()[()]
        return {"state": z} if self.cumulative_speech is None else {"state": z, "own": np.int64(1) - self.speaking[z]}


def _cumulative(p: np.ndarray) -> np.ndarray:
    """Distribution functions along the last axis, ending in exactly 1; zeros where p is 0 everywhere."""
    total = p.cumsum(-1)
    distribution: np.ndarray = total / np.where(total[..., -1:] > 0, total[..., -1:], 1.0)
    return distribution


def _pick(cumulative: np.ndarray, uniform: Any) -> Any:
    """The first outcome whose distribution function exceeds the uniform number: one of probability 0 never does."""
    return (cumulative <= np.asarray(uniform)[..., None]).sum(-1)


class TokenEnv(Shell):
    """One copy of a token world; `info["state"]` is its abstract state."""

    adapter = TokenAdapter


class TokenVectorEnv(VectorShell):
    """`num_envs` copies of a token world in one batched call."""

    adapter = TokenAdapter
