"""Worlds with one assumption of the theory removed each: the negative controls.

`uniform_noise` breaks A3 (a smooth noise density), `StepReward` and `QuantisedAction` break A1 (differentiability),
`StateScaledNoise` breaks A2 (additive noise) and, with the path cut, A5 (total derivative), `ChaoticMap` breaks A6
(tame dynamics). The exact answers are in `theory/continuous/broken_assumptions.py`, `theory/continuous/lyapunov.py` and
`theory/continuous/chaotic_map.py`.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from envs.arguments import check_gamma, check_horizon
from envs.linear_quadratic import AnyLQ, LinearQuadratic, scalar
from envs.noise import noise_family
from envs.record import short_repr
from envs.world import AnyArray, InputError, as_array, namespace, stop_gradient


def uniform_noise(**settings: Any) -> LinearQuadratic:
    """The scalar world with uniform action noise: its density jumps, so the score function misses the edges.

    Args:
        settings: those of `envs.linear_quadratic.scalar`.

    Returns:
        The world.
    """
    return scalar(**{"noise": "uniform", **settings})


@short_repr
@dataclass(frozen=True, eq=False)
class StepReward(LinearQuadratic):
    """A linear world that pays -1 wherever the first state component leaves [-width, width], else 0.

    The reward's derivative is zero almost everywhere, so every pathwise gradient is exactly zero; the costs
    Q, R, Q_f, N, q, q_a and q_f are not used. The last state is judged like the others.

    Attributes:
        width: of the interval to either side of 0.

    Raises:
        InputError: width is not > 0.
    """

    keeps = frozenset({"state moments"})
    width: float = 1.0

    def __post_init__(self) -> None:
        """Check the width on top of the linear-quadratic fields."""
        super().__post_init__()
        if not self.width > 0:
            raise InputError(f"width must be > 0; got {self.width!r}")

    def reward(
        self, state: Float[AnyArray, "*batch n"], action: Float[AnyArray, "*batch m"]
    ) -> Float[AnyArray, "*batch"]:
        """`r = -1{|s_1| > width}`, written so that autograd sees a (zero) derivative.

        Args:
            state: one state or a batch of them, components last.
            action: the executed action of each state, components last.

        Returns:
            One reward for each state.
        """
        return self.terminal_reward(state)

    def terminal_reward(self, state: Float[AnyArray, "*batch n"]) -> Float[AnyArray, "*batch"]:
        """The same step for the last state.

        Args:
            state: one state or a batch of them, components last.

        Returns:
            One reward for each state.
        """
        first = state[..., 0]
        reward: AnyArray = as_array(0 * first - 1.0 * (abs(first) > self.width))
        return reward


@short_repr
@dataclass(frozen=True, eq=False)
class QuantisedAction(LinearQuadratic):
    """The executed action is rounded to multiples of `quantum`: `a = quantum * round((u + xi) / quantum)`.

    Autograd's derivative of `round` is zero, which cuts every action path; `straight_through` treats the rounding as
    the identity in the backward pass, the usual remedy, whose error grows with the quantum.

    Attributes:
        quantum: distance between two actions.
        straight_through: whether autograd takes the rounding for the identity.

    Raises:
        InputError: quantum is not > 0 and finite.
    """

    quantum: float = 0.5
    straight_through: bool = False

    def __post_init__(self) -> None:
        """Check the quantum on top of the linear-quadratic fields."""
        super().__post_init__()
        if not 0 < self.quantum < math.inf:
            raise InputError(f"quantum must be > 0 and finite; got {self.quantum!r}")

    def act(
        self, state: Float[AnyArray, "*batch n"], command: Float[AnyArray, "*batch m"], xi: Float[AnyArray, "*batch m"]
    ) -> Float[AnyArray, "*batch m"]:
        """Round to the grid, forward always, backward as the class says.

        Args:
            state: one state or a batch of them, components last.
            command: the policy's command u.
            xi: the action noise.

        Returns:
            The executed action.
        """
        wanted = command + xi
        rounded = self.quantum * namespace(wanted).round(wanted / self.quantum)
        executed: AnyArray = wanted + stop_gradient(rounded - wanted) if self.straight_through else rounded
        return executed


@short_repr
@dataclass(frozen=True, eq=False)
class StateScaledNoise(LinearQuadratic):
    """Noise that grows with the state: `a = u + (1 + C s) * xi`, component by component.

    The value stays an (affine) quadratic. `cut_scale_path` hides the path s -> scale from autograd: the costate then
    misses what the noise does to the reward.

    Attributes:
        C: how the scale grows with the state, (m, n); one half everywhere where it is left out.
        cut_scale_path: whether the path s -> scale is hidden from autograd.

    Raises:
        InputError: C is not finite or not of this shape.
    """

    keeps = frozenset({"value"})
    C: Any = None
    cut_scale_path: bool = False

    def __post_init__(self) -> None:
        """Default C to one half everywhere; check it like the other fields."""
        super().__post_init__()
        xp = namespace(self.A)
        C = 0.5 * xp.ones_like(self.B.mT) if self.C is None else xp.asarray(self.C, dtype=self.A.dtype)
        if C.shape != self.B.mT.shape or not bool(xp.isfinite(C).all()):
            raise InputError(f"C must be finite of shape (m, n) = {tuple(self.B.mT.shape)}; got {tuple(C.shape)}")
        object.__setattr__(self, "C", C)

    @property
    def _own_arrays(self) -> tuple[str, ...]:
        return ("C",)

    def act(
        self, state: Float[AnyArray, "*batch n"], command: Float[AnyArray, "*batch m"], xi: Float[AnyArray, "*batch m"]
    ) -> Float[AnyArray, "*batch m"]:
        """`a = u + (1 + C s) * xi`.

        Args:
            state: one state or a batch of them, components last.
            command: the policy's command u.
            xi: the action noise.

        Returns:
            The executed action.
        """
        seen = stop_gradient(state) if self.cut_scale_path else state
        executed: AnyArray = command + (1 + seen @ self.C.mT) * xi
        return executed


@dataclass(frozen=True, eq=False)
class ChaoticMap:
    """The map `s' = beta sin(s) + a`, `a = theta + xi`, reward `cos(s_T)` at the end and nothing before.

    The command of the (constant) policy is theta; `sd` is the standard deviation of xi. beta = 2.5 is chaotic,
    beta = 0.5 is tame. `s_0 = start`. Action noise may be of any family, process noise there is none.

    Attributes:
        beta: strength of the map; 2.5 is chaotic, 0.5 is tame.
        sd: standard deviation of xi.
        start: s_0.
        gamma: discount per step, in (0, 1].
        horizon: number of steps T.
        noise: name of the action noise's family.

    Raises:
        InputError: a number is not finite, sd is not > 0, the horizon is no whole number >= 1, gamma lies outside (0,
            1], or the noise family is unknown.
    """

    beta: float = 2.5
    sd: float = 0.3
    start: float = 1.0
    gamma: float = 1.0
    horizon: int | None = 20
    noise: str = "gaussian"

    n = 1
    m = 1

    def __post_init__(self) -> None:
        """Check the scalars."""
        for name in ("sd", "beta", "start"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"{name} must be a finite number; got {getattr(self, name)!r}")
        if self.sd <= 0:
            raise InputError(f"sd must be > 0; got {self.sd!r}")
        if self.horizon is None:
            raise InputError("horizon must be a whole number >= 1: the chaotic map pays at its end only")
        check_gamma(self.gamma)
        check_horizon(self.horizon)
        noise_family(self.noise)

    @property
    def L_x(self) -> np.ndarray:
        """The sd of xi as a 1x1 matrix."""
        return np.full((1, 1), self.sd)

    @property
    def L_w(self) -> np.ndarray:
        """No process noise."""
        return np.zeros((1, 1))

    def initial(self, noise: Float[AnyArray, "*batch 1"]) -> Float[AnyArray, "*batch 1"]:
        """Always `start`.

        Args:
            noise: standard normal numbers, one for each component of the state.

        Returns:
            The first state, in the same library.
        """
        return self.start + 0 * noise

    def act(
        self, state: Float[AnyArray, "*batch 1"], command: Float[AnyArray, "*batch 1"], xi: Float[AnyArray, "*batch 1"]
    ) -> Float[AnyArray, "*batch 1"]:
        """`a = u + xi`.

        Args:
            state: one state or a batch of them, components last.
            command: the policy's command u.
            xi: the action noise.

        Returns:
            The executed action.
        """
        executed: AnyArray = command + xi
        return executed

    def reward(
        self, state: Float[AnyArray, "*batch 1"], action: Float[AnyArray, "*batch 1"]
    ) -> Float[AnyArray, "*batch"]:
        """Nothing before the end.

        Args:
            state: one state or a batch of them, components last.
            action: the executed action of each state, components last.

        Returns:
            One reward for each state.
        """
        reward: AnyArray = as_array(0 * state[..., 0])
        return reward

    def transition(
        self, state: Float[AnyArray, "*batch 1"], action: Float[AnyArray, "*batch 1"], w: Float[AnyArray, "*batch 1"]
    ) -> Float[AnyArray, "*batch 1"]:
        """`s' = beta sin(s) + a`.

        Args:
            state: one state or a batch of them, components last.
            action: the executed action of each state, components last.
            w: the process noise.

        Returns:
            The next state of each.
        """
        following: AnyArray = self.beta * namespace(state).sin(state) + action + w
        return following

    def terminal_reward(self, state: Float[AnyArray, "*batch 1"]) -> Float[AnyArray, "*batch"]:
        """`cos(s_T)`.

        Args:
            state: one state or a batch of them, components last.

        Returns:
            One reward for each state.
        """
        reward: AnyArray = as_array(namespace(state).cos(state[..., 0]))
        return reward

    def to(self, device: str = "cpu", dtype: torch.dtype = torch.float64) -> "ChaoticMap":
        """Itself: the map holds no arrays, its numbers follow the state's library, device and dtype.

        Args:
            device: without effect.
            dtype: without effect.

        Returns:
            This world.
        """
        return self

    def numpy(self) -> "ChaoticMap":
        """Itself, like `to`.

        Returns:
            This world.
        """
        return self


def step_reward(**settings: Any) -> StepReward:
    """The scalar world with a step reward.

    Args:
        settings: those of `envs.linear_quadratic.scalar`, and `width`.

    Returns:
        The world.
    """
    return variant_of_scalar(StepReward, settings)


def quantised_action(**settings: Any) -> QuantisedAction:
    """The scalar world with quantised actions.

    Args:
        settings: those of `envs.linear_quadratic.scalar`, `quantum` and `straight_through`.

    Returns:
        The world.
    """
    return variant_of_scalar(QuantisedAction, settings)


def state_scaled_noise(**settings: Any) -> StateScaledNoise:
    """The scalar world with state-scaled noise.

    Args:
        settings: those of `envs.linear_quadratic.scalar`, `C` and `cut_scale_path`.

    Returns:
        The world.
    """
    return variant_of_scalar(StateScaledNoise, settings)


def variant_of_scalar(kind: type[AnyLQ], settings: dict[str, Any]) -> AnyLQ:
    """`kind` with the matrices of the scalar world.

    Args:
        kind: a variant of `LinearQuadratic`.
        settings: by name; fields of `kind` alone go to it, the rest to `scalar`.

    Returns:
        The world.
    """
    plain = {f.name for f in dataclasses.fields(LinearQuadratic)}
    own = {f.name for f in dataclasses.fields(kind)} - plain
    base = scalar(**{k: v for k, v in settings.items() if k not in own})
    fields = {f.name: getattr(base, f.name) for f in dataclasses.fields(base) if f.init}
    return kind(**fields, **{k: v for k, v in settings.items() if k in own})
