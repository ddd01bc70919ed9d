"""Linear-quadratic worlds: linear dynamics, quadratic cost, additive noise, any size, finite or infinite horizon."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float

from envs.arguments import (
    as_arrays,
    check_gamma,
    check_horizon,
    check_joint_cost,
    check_seed,
    check_semidefinite,
    check_spread,
    defaults,
)
from envs.noise import noise_family
from envs.record import short_repr
from envs.world import AnyArray, InputError, as_array, namespace, unknown, vecdot

AnyLQ = TypeVar("AnyLQ", bound="LinearQuadratic")
CLOSED_FORMS = frozenset({"value", "state moments", "costate covariance", "optimal gain"})  # those of theory/continuous


@short_repr
@dataclass(frozen=True, eq=False)
class LinearQuadratic:
    """The world `s' = A s + B a + w`, `a = u + xi`, with a quadratic cost of states and actions.

    Reward `r = -(s'Q s + a'R a + 2 s'N a + 2 q's + 2 q_a'a)`, terminal reward `-(s_T'Q_f s_T + 2 q_f's_T)`. The factors
    2 belong to the definition: a cost `(s - g)'Q (s - g)` of the distance to a goal g has `q = -Q g`, up to a constant.

    Noise: `xi` has mean 0, covariance `S_x` and the law `noise`; `w ~ N(0, S_w)`; `s_0 ~ N(m_0, S_0)`; all independent.
    `horizon` T counts actions; None means discounted and endless. Matrices are given as lists, numpy arrays or torch
    tensors; one torch tensor makes all of them torch. `A, B, S_w, S_x` and the costs may carry leading batch dimensions
    for the solvers. Omitted: S_0 is the identity, all else is zero.

    A variant (subclass) names in its own `keeps` the closed forms that still hold for it. The others refuse it; a
    variant that names none is refused by all.

    Attributes:
        A: dynamics of the state, (*worlds, n, n).
        B: effect of the action, (*worlds, n, m).
        Q: cost of the state, (*worlds, n, n).
        R: cost of the action, (*worlds, m, m).
        Q_f: cost of the last state, (*worlds, n, n).
        S_w: covariance of the process noise, (*worlds, n, n).
        S_x: covariance of the action noise, (*worlds, m, m).
        m_0: mean of the first state, (*worlds, n).
        S_0: covariance of the first state, (*worlds, n, n).
        gamma: discount per step, in (0, 1].
        horizon: number of actions T; None for an endless world.
        noise: name of the action noise's family (`envs.noise.FAMILIES`).
        N: cross term of the cost, (*worlds, n, m).
        q: linear cost of the state, (*worlds, n).
        q_a: linear cost of the action, (*worlds, m).
        q_f: linear cost of the last state, (*worlds, n).
        L_w: symmetric root of S_w.
        L_x: symmetric root of S_x.
        L_0: symmetric root of S_0.
        has_cross: whether N has to be added: it is not zero, or a gradient in it may be asked for.
        has_linear: the same for q, q_a and q_f.

    Raises:
        InputError: shapes do not fit; Q, R, Q_f or a covariance is asymmetric or indefinite; N makes
            `[[Q, N], [N', R]]` indefinite; gamma lies outside (0, 1]; the horizon is below 1; a number is NaN or
            infinite; or the noise family is unknown.
    """

    keeps: ClassVar[frozenset[str]] = CLOSED_FORMS

    A: Any
    B: Any
    Q: Any
    R: Any
    Q_f: Any = None
    S_w: Any = None
    S_x: Any = None
    m_0: Any = None
    S_0: Any = None
    gamma: float = 1.0
    horizon: int | None = None
    noise: str = "gaussian"
    N: Any = None
    q: Any = None
    q_a: Any = None
    q_f: Any = None
    L_w: Any = field(init=False, repr=False)
    L_x: Any = field(init=False, repr=False)
    L_0: Any = field(init=False, repr=False)
    has_cross: bool = field(init=False, repr=False)
    has_linear: bool = field(init=False, repr=False)

    def __init_subclass__(cls) -> None:
        """Forget what the parent keeps: a variant's closed forms are those that it names itself."""
        cls.keeps = frozenset(cls.__dict__.get("keeps", ()))
        for form in cls.keeps - CLOSED_FORMS:
            raise unknown("closed form", form, CLOSED_FORMS)

    def __post_init__(self) -> None:
        """Fill the defaults in, check everything, and take the square roots of the covariances."""
        arrays = as_arrays({name: getattr(self, name) for name in _ARRAYS})
        for name, value in {**arrays, **defaults(arrays)}.items():
            object.__setattr__(self, name, value)
        _check_shapes(self)
        for name in ("Q", "R", "Q_f", "S_w", "S_x", "S_0"):
            check_semidefinite(name, getattr(self, name))
        object.__setattr__(self, "has_cross", _counts(self.N))
        object.__setattr__(self, "has_linear", _counts(self.q) or _counts(self.q_a) or _counts(self.q_f))
        if self.has_cross:
            check_joint_cost(self.Q, self.N, self.R)
        check_gamma(self.gamma)
        check_horizon(self.horizon)
        noise_family(self.noise)
        for root, covariance in (("L_w", self.S_w), ("L_x", self.S_x), ("L_0", self.S_0)):
            object.__setattr__(self, root, symmetric_root(covariance))

    @property
    def n(self) -> int:
        """State size."""
        return int(self.A.shape[-1])

    @property
    def m(self) -> int:
        """Action size."""
        return int(self.B.shape[-1])

    def initial(self, noise: Float[AnyArray, "*batch n"]) -> Float[AnyArray, "*batch n"]:
        """`s_0 = m_0 + L_0 noise`, standard normal noise.

        Args:
            noise: standard normal numbers, one for each component of the state.

        Returns:
            The first state, in the same library.
        """
        start: AnyArray = self.m_0 + noise @ self.L_0
        return start

    def act(
        self, state: Float[AnyArray, "*batch n"], command: Float[AnyArray, "*batch m"], xi: Float[AnyArray, "*batch m"]
    ) -> Float[AnyArray, "*batch m"]:
        """`a = u + xi`: the additive noise of the theory.

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
        self, state: Float[AnyArray, "*batch n"], action: Float[AnyArray, "*batch m"]
    ) -> Float[AnyArray, "*batch"]:
        """`r = -(s'Q s + a'R a + 2 s'N a + 2 q's + 2 q_a'a)`.

        Args:
            state: one state or a batch of them, components last.
            action: the executed action of each state, components last.

        Returns:
            One reward for each state.
        """
        cost = vecdot(state @ self.Q, state) + vecdot(action @ self.R, action)
        if self.has_cross:
            cost = cost + 2 * vecdot(state @ self.N, action)
        if self.has_linear:
            cost = cost + 2 * (state @ self.q + action @ self.q_a)
        reward: AnyArray = as_array(-cost)
        return reward

    def transition(
        self, state: Float[AnyArray, "*batch n"], action: Float[AnyArray, "*batch m"], w: Float[AnyArray, "*batch n"]
    ) -> Float[AnyArray, "*batch n"]:
        """`s' = A s + B a + w`.

        Args:
            state: one state or a batch of them, components last.
            action: the executed action of each state, components last.
            w: the process noise.

        Returns:
            The next state of each.
        """
        following: AnyArray = state @ self.A.mT + action @ self.B.mT + w
        return following

    def terminal_reward(self, state: Float[AnyArray, "*batch n"]) -> Float[AnyArray, "*batch"]:
        """`-(s'Q_f s + 2 q_f's)`, paid once at the horizon.

        Args:
            state: one state or a batch of them, components last.

        Returns:
            One reward for each state.
        """
        cost = vecdot(state @ self.Q_f, state)
        reward: AnyArray = as_array(-(cost + 2 * (state @ self.q_f) if self.has_linear else cost))
        return reward

    def to(self: AnyLQ, device: str = "cpu", dtype: torch.dtype = torch.float64) -> AnyLQ:
        """The same world on torch tensors; itself when it is there already.

        Args:
            device: name of a torch device.
            dtype: a floating-point type of torch.

        Returns:
            The world on that device in that type.
        """
        wanted = torch.device(device)
        if isinstance(self.A, torch.Tensor) and self.A.dtype == dtype and self.A.device.type == wanted.type:
            return self
        names = [*_ARRAYS, *self._own_arrays]
        return self._replaced({k: torch.as_tensor(getattr(self, k), dtype=dtype, device=wanted) for k in names})

    def numpy(self: AnyLQ) -> AnyLQ:
        """The same world on numpy arrays, for the Gymnasium shells.

        Returns:
            The world on numpy arrays in float64.
        """
        names = [*_ARRAYS, *self._own_arrays]
        return self._replaced({name: np.asarray(torch.as_tensor(getattr(self, name)).cpu()) for name in names})

    def replace(self: AnyLQ, **changes: Any) -> AnyLQ:
        """A copy with some fields changed, checked like a new world.

        Args:
            changes: new values, by field.

        Returns:
            A new world of the same kind.

        Raises:
            InputError: as for a new world.
        """
        return dataclasses.replace(self, **changes)

    @property
    def _own_arrays(self) -> tuple[str, ...]:
        """Arrays that a variant adds and that move with the world."""
        return ()

    def _replaced(self: AnyLQ, arrays: dict[str, Any]) -> AnyLQ:
        return self.replace(**arrays)


_ARRAYS = ("A", "B", "Q", "R", "Q_f", "S_w", "S_x", "m_0", "S_0", "N", "q", "q_a", "q_f")


def _counts(x: Any) -> bool:
    """Whether a cost that is zero by default has to be added: it is not zero, or a gradient in it may be asked for."""
    return bool(x.any()) or bool(getattr(x, "requires_grad", False))


def symmetric_root(S: Float[AnyArray, "*batch k k"]) -> Float[AnyArray, "*batch k k"]:
    """The symmetric square root L of a positive semidefinite S: `L L = S`; diagonal where S is.

    Args:
        S: a symmetric matrix, or a batch of them.

    Returns:
        L, in the same library.
    """
    xp = namespace(S)
    values, vectors = xp.linalg.eigh(S)
    root: AnyArray = (vectors * xp.clip(values, 0, None)[..., None, :] ** 0.5) @ vectors.mT
    return root


def _check_shapes(world: LinearQuadratic) -> None:
    n, m = world.A.shape[-1], world.B.shape[-1]
    wanted = {"B": (n, m), "R": (m, m), "S_x": (m, m), "m_0": (n,), "N": (n, m), "q": (n,), "q_a": (m,), "q_f": (n,)}
    for name in _ARRAYS:
        shape, tail = tuple(getattr(world, name).shape), wanted.get(name, (n, n))
        if shape[-len(tail) :] != tail:
            source = "A is square and B has one row per state" if name in "AB" else "it must fit A and B"
            raise InputError(f"{name} must have shape {tail}, got {shape}: {source} (n={n} states, m={m} actions)")


def scalar(
    horizon: int | None = 20, gamma: float = 0.95, action_noise: float = 0.3, noise: str = "gaussian"
) -> LinearQuadratic:
    """One state, one action, slightly unstable without control (A = 1.05).

    Args:
        horizon: number of steps; None for an endless world.
        gamma: discount per step.
        action_noise: standard deviation of xi.
        noise: family of xi.

    Returns:
        The world.

    Raises:
        InputError: an option is out of its range.
    """
    check_spread("action_noise", action_noise)
    return LinearQuadratic(
        A=[[1.05]],
        B=[[0.5]],
        Q=[[1.0]],
        R=[[0.2]],
        Q_f=[[1.0]],
        S_w=[[0.01]],
        S_x=[[action_noise**2]],
        m_0=[1.0],
        S_0=[[0.25]],
        gamma=gamma,
        horizon=horizon,
        noise=noise,
    )


def double_integrator(
    horizon: int | None = 40, gamma: float = 1.0, step: float = 0.1, action_noise: float = 0.3, noise: str = "gaussian"
) -> LinearQuadratic:
    """A point mass: state (position, velocity), action = acceleration held over `step` seconds.

    Args:
        horizon: number of steps; None for an endless world.
        gamma: discount per step.
        step: seconds between two actions.
        action_noise: standard deviation of xi.
        noise: family of xi.

    Returns:
        The world, with two states and one action.

    Raises:
        InputError: an option is out of its range.
    """
    check_spread("action_noise", action_noise)
    return LinearQuadratic(
        A=[[1.0, step], [0.0, 1.0]],
        B=[[step**2 / 2], [step]],
        Q=np.diag([1.0, 0.1]),
        R=[[0.1]],
        Q_f=np.diag([5.0, 1.0]),
        S_w=np.diag([1e-4, 1e-3]),
        S_x=[[action_noise**2]],
        m_0=[1.0, 0.0],
        S_0=0.1 * np.eye(2),
        gamma=gamma,
        horizon=horizon,
        noise=noise,
    )


def random_system(
    size: int = 4,
    actions: int = 2,
    spectral_radius: float = 0.9,
    seed: int = 0,
    horizon: int | None = None,
    gamma: float = 0.9,
    action_noise: float = 0.3,
    noise: str = "gaussian",
) -> LinearQuadratic:
    """A random system whose open loop A has exactly the given spectral radius; the same seed gives the same system.

    Args:
        size: number of states n.
        actions: number of actions m.
        spectral_radius: of A.
        seed: of all random matrices.
        horizon: number of steps; None for an endless world.
        gamma: discount per step.
        action_noise: scale of the standard deviation of xi.
        noise: family of xi.

    Returns:
        The world.

    Raises:
        InputError: an option is out of its range.
    """
    for name, value in (("size", size), ("actions", actions)):
        if value < 1:
            raise InputError(f"{name} must be a whole number >= 1; got {value!r}")
    if not (math.isfinite(spectral_radius) and spectral_radius >= 0):
        raise InputError(f"spectral_radius must be a finite number >= 0; got {spectral_radius!r}")
    check_spread("action_noise", action_noise)
    rng = np.random.default_rng(check_seed(seed))
    A = rng.standard_normal((size, size))
    A *= spectral_radius / np.abs(np.linalg.eigvals(A)).max()
    return LinearQuadratic(
        A=A,
        B=rng.standard_normal((size, actions)) / math.sqrt(size),
        Q=_random_covariance(rng, size),
        R=_random_covariance(rng, actions),
        Q_f=_random_covariance(rng, size),
        S_w=0.01 * _random_covariance(rng, size),
        S_x=action_noise**2 * _random_covariance(rng, actions),
        m_0=rng.standard_normal(size),
        S_0=0.25 * np.eye(size),
        gamma=gamma,
        horizon=horizon,
        noise=noise,
    )


def _random_covariance(rng: np.random.Generator, size: int) -> np.ndarray:
    """A well-conditioned random positive definite matrix of mean eigenvalue near 1."""
    root = rng.standard_normal((size, size))
    return (root @ root.T / size + np.eye(size)) / 2
