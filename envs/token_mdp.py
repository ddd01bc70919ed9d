"""Tabular token worlds: V tokens, S abstract states, tables P and r, prompts; belief and relaxed-token dynamics.

A policy emits a distribution `u` over tokens (a one-hot one where a token was sampled). The world keeps a belief `b` over
its abstract states, a row vector (S,): `b' = sum_a u(a) b P_a`, and pays `rbar(b, u) = b' r_k u`. With one-hot tokens and
deterministic tables the belief is one-hot too and this is the plain tabular world.

The environment may speak too, a tool that answers for instance: in some abstract states the next token is not the policy's but
the environment's, with a law that depends on the state (`speech`). The belief is then also an inference: after the
environment's token c it is `b(z) speech[z, c]`, divided by its sum (Bayes' rule), before it moves on by `P[:, c]`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from envs.arguments import check_gamma, check_horizon
from envs.record import short_repr
from envs.reward_tables import completion_table, shift_register
from envs.speech import check_turns, spoken_laws
from envs.tables import by_step, number_table, probabilities, signal_tables, whole_numbers
from envs.world import InputError


@short_repr
@dataclass(frozen=True, eq=False)
class TokenMDP:
    """Tables of a token world; arrays are held as float64 torch tensors.

    A hidden readout pays `readout'h` after the last step (so discounted by `gamma^H`), where h is the policy's last
    hidden state once its last token was fed on. No Gymnasium shell can pay it: it belongs to world and policy together.

    With an end token a completion is what was said up to it, and one without it is *truncated* at the horizon. Tokens
    after it have no effect: it leads to states that pay nothing and that nothing leaves.

    Where the environment speaks, its tokens are steps like all others: they take one step of the horizon and of the
    discount, and `r` may pay for them. The tokens said so far must tell whose turn it is.

    A completion's *signal* is the sum of the signal's entries along the way, not discounted. "accuracy" is 1 for a
    success and 0 for a failure.

    Attributes:
        P: chances `P[z, a, z']` of the next abstract state, (S, V, S).
        r: rewards, (S, V), paid at every step, or (H, S, V) with one table for each step.
        prompts: token sequences of one common length >= 1, (prompts, length).
        starts: the prompts' first abstract states, (prompts,).
        horizon: number of tokens H after the prompt.
        gamma: discount per token, in (0, 1].
        weights: probabilities of the prompts, (prompts,); even where they are left out.
        optimal_return: the best expected return, where the builder knows it.
        readout: weights of the policy's last hidden state, (D,); None for no such reward.
        end: the end token, or None.
        speech: laws of the environment's token, (S, V): probabilities in the states in which it speaks, rows of zeros
            where the policy does; None where it never speaks.
        signals: by name tables of r's form, which a recipe may see beside the rewards.

    Raises:
        InputError: tables do not fit or hold NaN, a row of P does not sum to one, a token is outside of the vocabulary,
            a start state does not exist, gamma lies outside (0, 1], the horizon is below 1, something is paid after the
            end token, the tokens do not tell whose turn it is, or a signal's name is no Python name or means something
            else to a recipe.
    """

    P: Any
    r: Any
    prompts: Any
    starts: Any
    horizon: int
    gamma: float = 1.0
    weights: Any = None
    optimal_return: float | None = None
    readout: Any = None
    end: Any = None
    speech: Any = None
    signals: Any = None

    def __post_init__(self) -> None:
        """Convert and check the tables."""
        check_horizon(self.horizon)
        if self.horizon is None:
            raise InputError("horizon must be a whole number >= 1 for a token world")
        check_gamma(self.gamma)
        object.__setattr__(self, "P", probabilities("P", self.P))
        object.__setattr__(self, "r", by_step("r", self.r, self.horizon))
        object.__setattr__(self, "signals", signal_tables(self.signals, self.horizon))
        _check_tables(self)
        object.__setattr__(self, "prompts", whole_numbers("prompts", self.prompts, 2, self.V, "token", "vocabulary"))
        object.__setattr__(self, "starts", whole_numbers("starts", self.starts, 1, self.S, "state", "world"))
        _check_prompts(self)
        if self.speech is not None:
            object.__setattr__(self, "speech", spoken_laws(self.speech, self.P.shape[:2]))
        _check_end(self)
        if self.speech is not None:
            check_turns(self.P, self.speech, self.starts, self.horizon)
        if self.readout is not None:
            object.__setattr__(self, "readout", number_table("readout", self.readout))
            if self.readout.ndim != 1:
                raise InputError(
                    f"readout must be one weight per unit of the policy's width; got shape {tuple(self.readout.shape)}"
                )

    @classmethod
    def from_rewards(cls, table: Any, gamma: float = 1.0, prompts: Any = None, weights: Any = None) -> "TokenMDP":
        """The world that pays an answer of H tokens by a table, once, with its last token (so discounted by `gamma^{H-1}`).

        Args:
            table: rewards `table[a_1, ..., a_H]`, one axis of V entries for each token. With `prompts` there is an axis of
                prompts before them.
            gamma: discount, in (0, 1].
            prompts: token sequences of one length, the prompts; by default the one prompt [0].
            weights: probabilities of the prompts, even by default.

        Returns:
            A world of V^{H-1} states for each prompt, whose optimal return is known. Where all rewards are 0 or 1 they are the
            signal "accuracy" too.

        Raises:
            InputError: the table has another shape or is too large, or what `TokenMDP` refuses.
        """
        asked = [[0]] if prompts is None else prompts
        rows = torch.atleast_1d(number_table("prompts", asked))
        rewards = completion_table(table, None if prompts is None else len(rows))
        P, r, starts = shift_register(rewards)
        signals = {"accuracy": r} if bool(((r == 0) | (r == 1)).all()) else None
        world = cls(P, r, asked, starts, rewards.ndim - 1, gamma, weights, signals=signals)
        best = float(world.weights @ rewards.flatten(1).amax(1)) * gamma ** (world.horizon - 1)
        return world._with(optimal_return=best)

    @property
    def V(self) -> int:
        """Size of the vocabulary."""
        return int(self.P.shape[1])

    @property
    def S(self) -> int:
        """Number of abstract states."""
        return int(self.P.shape[0])

    @property
    def longest(self) -> int:
        """Tokens of a prompt and its longest completion, one at each step: the contexts that a policy must take."""
        return int(self.prompts.shape[1]) + self.horizon

    @cached_property
    def deterministic(self) -> bool:
        """Whether every token leads to one state for sure."""
        return bool((self.P.amax(-1) == 1).all())

    @cached_property
    def speaking(self) -> Bool[Tensor, "S"]:
        """The states in which the environment speaks."""
        if self.speech is None:
            return torch.zeros(self.S, dtype=torch.bool, device=self.P.device)
        speaking: Tensor = self.speech.sum(-1) > 0
        return speaking

    def start_belief(self, prompt: int | Int[Tensor, "*batch"]) -> Float[Tensor, "*batch S"]:
        """One-hot belief at the start state of a prompt.

        Args:
            prompt: index of a prompt, or several.

        Returns:
            One row of probabilities for each.
        """
        return torch.nn.functional.one_hot(self.starts[prompt], self.S).to(self.P)

    def step(self, belief: Float[Tensor, "*batch S"], u: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch S"]:
        """`b' = sum_a u(a) b P_a`, bilinear in belief and (relaxed) token.

        Args:
            belief: probabilities of the abstract states.
            u: probabilities of the tokens, one-hot for a token that was said.

        Returns:
            The belief after the token.
        """
        return torch.einsum("...z,zay,...a->...y", belief, self.P, u)

    def environments_turn(self, belief: Float[Tensor, "*batch S"]) -> Bool[Tensor, "*batch"]:
        """Whether the next token is the environment's.

        Args:
            belief: probabilities of the abstract states.

        Returns:
            True or False for each belief.
        """
        return belief @ self.speaking.to(belief) > 0

    def heard(
        self, belief: Float[Tensor, "N S"], tokens: Int[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N C S"]]:
        """Chance of each token where the environment speaks, and the belief once it is heard, by Bayes' rule.

        A token that it cannot say has chance 0 and no belief. At the policy's turn all chances are 0, and the belief stays.

        Args:
            belief: probabilities of the abstract states.
            tokens: C tokens for each belief.

        Returns:
            The chance of each token, and the belief after it was heard, before the state moves on.
        """
        joint = belief[:, None] * self.speech.mT[tokens]
        chance = joint.sum(-1)
        after = joint / torch.where(chance > 0, chance, 1.0)[..., None]
        return chance, torch.where(self.environments_turn(belief)[:, None, None], after, belief[:, None])

    def reward(
        self, k: int, belief: Float[Tensor, "*batch S"], u: Float[Tensor, "*batch V"]
    ) -> Float[Tensor, "*batch"]:
        """`rbar_k(b, u) = b' r_k u`.

        Args:
            k: the step.
            belief: probabilities of the abstract states.
            u: probabilities of the tokens, one-hot for a token that was said.

        Returns:
            The expected reward, not discounted.
        """
        return torch.einsum("...z,za,...a->...", belief, self.r[k], u)

    def belief_after(self, prompt: int, tokens: Int[Tensor, "steps"]) -> Float[Tensor, "S"]:
        """Belief after a prompt and some generated tokens: the state of a prefix.

        Args:
            prompt: index of the prompt.
            tokens: what was said after it.

        Returns:
            Probabilities of the abstract states.

        Raises:
            InputError: a token is outside of the vocabulary.
        """
        belief = self.start_belief(prompt)
        for token in check_tokens(self, tokens).reshape(-1, 1, 1):
            if self.speech is not None:
                belief = self.heard(belief[None], token)[1][0, 0]
            belief = belief @ self.P[:, int(token)]
        return belief

    def mask(self, tokens: Int[Tensor, "*batch steps"]) -> Bool[Tensor, "*batch steps"]:
        """Which tokens belong to the completion, whoever says them: all up to the first end token, itself included.

        Args:
            tokens: said after the prompt.

        Returns:
            True for the tokens of the completion.
        """
        if self.end is None:
            return torch.ones_like(tokens, dtype=torch.bool)
        said: Tensor = (tokens == self.end).long()
        return said.cumsum(-1) - said == 0

    def rest(self, step: int) -> "TokenMDP":
        """The same world from a step on: the reward tables of the steps before it are dropped.

        Args:
            step: the first step that is kept.

        Returns:
            A world with a shorter horizon.

        Raises:
            InputError: there is no such step.
        """
        if not 0 <= step < self.horizon:
            raise InputError(f"step must lie in 0 ... {self.horizon - 1}; got {step}")
        if step == 0:
            return self
        signals = {name: table[step:] for name, table in self.signals.items()}
        return self._with(r=self.r[step:], horizon=self.horizon - step, signals=signals)

    def first(self, steps: int) -> "TokenMDP":
        """The first `steps` steps of the same world, and nothing paid after them.

        Args:
            steps: how many are kept.

        Returns:
            A world with a shorter horizon.

        Raises:
            InputError: steps lies outside 1 ... H.
        """
        if not 1 <= steps <= self.horizon:
            raise InputError(f"steps must lie in 1 ... {self.horizon}; got {steps}")
        signals = {name: table[:steps] for name, table in self.signals.items()}
        return self._with(r=self.r[:steps], horizon=steps, readout=None, signals=signals)

    def paying(self, name: str) -> "TokenMDP":
        """The same world with a signal in the place of its rewards, not discounted: its returns are the signal.

        Args:
            name: of the signal.

        Returns:
            A world whose rewards are the signal.

        Raises:
            InputError: the world has no such signal.
        """
        if name not in self.signals:
            known = ", ".join(self.signals) or "none"
            raise InputError(f"signals of the world lack {name!r}; it has {known}: give it a table of that name")
        return self._with(r=self.signals[name], gamma=1.0, readout=None, signals={})

    def _with(self, **changes: Any) -> "TokenMDP":
        """A copy whose tables, sound already, are not checked (or moved) again."""
        changed = object.__new__(TokenMDP)
        for name, value in {**self.__dict__, "optimal_return": None, **changes}.items():
            object.__setattr__(changed, name, value)
        return changed

    def to(self, device: str = "cpu", dtype: torch.dtype = torch.float64) -> "TokenMDP":
        """The same world elsewhere; itself when it is there already.

        Args:
            device: name of a torch device.
            dtype: a floating-point type of torch.

        Returns:
            The world on that device in that type.
        """
        if self.P.dtype == dtype and self.P.device.type == torch.device(device).type:
            return self
        tables = {name: value for name, value in self.__dict__.items() if isinstance(value, Tensor)}
        moved = {name: t.to(device, dtype if t.is_floating_point() else None) for name, t in tables.items()}
        signals = {name: table.to(device, dtype) for name, table in self.signals.items()}
        return self._with(**moved, signals=signals, optimal_return=self.optimal_return)


def check_tokens(world: TokenMDP, tokens: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Refuse tokens outside the vocabulary, naming the first.

    Args:
        world: whose vocabulary is taken.
        tokens: in any shape.

    Returns:
        The tokens as they are.

    Raises:
        InputError: a token is outside of the vocabulary; the error names the first.
    """
    bad = tokens[(tokens < 0) | (tokens >= world.V)]
    if bad.numel():
        raise InputError(f"token {int(bad[0])} is outside the vocabulary: tokens are 0 ... {world.V - 1}")
    return tokens


def _check_tables(world: TokenMDP) -> None:
    P, r = world.P, world.r
    if P.ndim != 3 or P.shape[0] != P.shape[2]:
        raise InputError(f"P must have shape (S, V, S); got {tuple(P.shape)}")
    wanted = (world.horizon, P.shape[0], P.shape[1])
    for name, table in {"r": r, **{f"signals[{name!r}]": table for name, table in world.signals.items()}}.items():
        if tuple(table.shape) != wanted:
            raise InputError(f"{name} must have shape {wanted[1:]} or {wanted}; got {tuple(table.shape)}")


def _check_end(world: TokenMDP) -> None:
    if world.end is None:
        return
    if not isinstance(world.end, int) or not 0 <= world.end < world.V:
        raise InputError(f"end must be a token, 0 ... {world.V - 1}; got {world.end!r}")
    over = (world.P[:, world.end] > 0).any(0)
    leaving = world.P[over][:, :, ~over].sum()
    paid = any(bool(table[:, over].any()) for table in (world.r, *world.signals.values()))
    if float(leaving) > 0 or paid or world.readout is not None or bool(world.speaking[over].any()):
        raise InputError(
            f"end must be a token that leads to states that pay nothing, that nothing leaves and in which the environment is "
            f"silent; {world.end} does not"
        )


def _check_prompts(world: TokenMDP) -> None:
    count = len(world.prompts)
    if len(world.starts) != count:
        raise InputError(f"starts must have one state per prompt ({count}); got {len(world.starts)}")
    even = world.P.new_full((count,), 1 / count)
    weights = probabilities("weights", even if world.weights is None else world.weights)
    if weights.shape != (count,):
        raise InputError(f"weights must be {count} probabilities, one per prompt; got shape {tuple(weights.shape)}")
    object.__setattr__(world, "weights", weights)
