"""The contract that every world keeps, and the one array type that its functions accept."""

import difflib
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

Array = np.ndarray | torch.Tensor
AnyArray = TypeVar("AnyArray", np.ndarray, torch.Tensor)  # the same library in, the same library out


_LONGEST, _CUT = (
    1000,
    380,
)  # characters of an error: the list of all claims needs 650; a longer one echoes what was given


def one_line(text: str, most: int | None = None) -> str:
    """A text as one line of printable characters, its middle left out where it has more than `most` of them.

    Control characters, which a terminal would obey, are written as escapes.

    Args:
        text: of any length.
        most: the most characters; None for any number.

    Returns:
        The line.
    """
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))
    if most is None or len(text) <= most:
        return text
    kept = (most - 3) // 2
    return f"{text[:kept]}...{text[-kept:]}"


class InputError(ValueError):
    """Bad input, said in one line that names the argument and the remedy; the command exits with 2.

    The message becomes one printable line, its middle left out where it is very long.

    Args:
        message: what is wrong with which argument, and what to do.
    """

    def __init__(self, message: str):
        line = one_line(message)
        super().__init__(line if len(line) <= _LONGEST else one_line(line, _CUT))


def unknown(what: str, name: str, known: Iterable[str], more: str = "") -> InputError:
    """The error for a name that does not exist: the nearest ones there are, or all where none is near.

    Args:
        what: what the name stands for.
        name: what the user wrote.
        known: all names there are.
        more: a sentence that is added.

    Returns:
        The error, to be raised.
    """
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.4) or names
    return InputError(f"{what} {one_line(repr(name), 50)} is unknown; did you mean {' or '.join(near)}?{more}")


def namespace(x: Array) -> Any:
    """The module (torch or numpy) whose functions take `x`: one line of dynamics then serves both.

    Args:
        x: an array.

    Returns:
        `torch` or `numpy`.
    """
    return torch if isinstance(x, torch.Tensor) else np


def as_array(x: Any) -> Any:
    """`x`, with numpy's scalars as arrays of no dimension: the reward of one state is then an array like all others.

    Args:
        x: an array or a number.

    Returns:
        An array.
    """
    return x if isinstance(x, torch.Tensor) else np.asarray(x)


def vecdot(x: AnyArray, y: AnyArray) -> Any:
    """`x'y` along the last axis, by the fast function of either library; numpy gives a scalar for single vectors.

    Args:
        x: vectors, components last.
        y: vectors, components last.

    Returns:
        One number for each pair.
    """
    return torch.linalg.vecdot(x, y) if isinstance(x, torch.Tensor) else np.vecdot(x, y)


def stop_gradient(x: AnyArray) -> AnyArray:
    """`x` as a constant for autograd; numpy arrays pass unchanged.

    Args:
        x: an array.

    Returns:
        The same numbers.
    """
    return x.detach() if isinstance(x, torch.Tensor) else x


@runtime_checkable
class World(Protocol):
    """A differentiable world with additive noise, batched over leading dimensions.

    One step from state s under command u: the executed action is `a = act(s, u, xi)` (`u + xi` unless a variant says
    otherwise), the reward is `reward(s, a)` and the next state `transition(s, a, w)`. A finite horizon T pays
    `terminal_reward(s_T)`, discounted by gamma^T. `xi` has covariance `S_x` and the law `noise`
    (see `envs.noise.FAMILIES`), `w` is Gaussian with covariance `S_w`.
    """

    @property
    def n(self) -> int:
        """State size."""
        ...

    @property
    def m(self) -> int:
        """Action size."""
        ...

    @property
    def gamma(self) -> float:
        """Discount per step, in (0, 1]."""
        ...

    @property
    def horizon(self) -> int | None:
        """Steps T until the terminal reward; None runs for ever."""
        ...

    @property
    def noise(self) -> str:
        """Name of the action-noise family."""
        ...

    @property
    def L_x(self) -> Any:
        """Symmetric square root of S_x, (m, m)."""
        ...

    @property
    def L_w(self) -> Any:
        """Symmetric square root of S_w, (n, n)."""
        ...

    def initial(self, noise: Float[AnyArray, "*batch n"]) -> Float[AnyArray, "*batch n"]:
        """First state from standard normal noise.

        Args:
            noise: standard normal numbers, one for each component of the state.

        Returns:
            The first state, in the same library.
        """
        ...

    def act(
        self, state: Float[AnyArray, "*batch n"], command: Float[AnyArray, "*batch m"], xi: Float[AnyArray, "*batch m"]
    ) -> Float[AnyArray, "*batch m"]:
        """Executed action.

        Args:
            state: one state or a batch of them, components last.
            command: the policy's command u.
            xi: the action noise.

        Returns:
            The executed action.
        """
        ...

    def reward(
        self, state: Float[AnyArray, "*batch n"], action: Float[AnyArray, "*batch m"]
    ) -> Float[AnyArray, "*batch"]:
        """Reward of one step.

        Args:
            state: one state or a batch of them, components last.
            action: the executed action of each state, components last.

        Returns:
            One reward for each state.
        """
        ...

    def transition(
        self, state: Float[AnyArray, "*batch n"], action: Float[AnyArray, "*batch m"], w: Float[AnyArray, "*batch n"]
    ) -> Float[AnyArray, "*batch n"]:
        """Next state.

        Args:
            state: one state or a batch of them, components last.
            action: the executed action of each state, components last.
            w: the process noise.

        Returns:
            The next state of each.
        """
        ...

    def terminal_reward(self, state: Float[AnyArray, "*batch n"]) -> Float[AnyArray, "*batch"]:
        """Reward of the last state of a finite horizon.

        Args:
            state: one state or a batch of them, components last.

        Returns:
            One reward for each state.
        """
        ...

    def to(self, device: str = "cpu", dtype: torch.dtype = torch.float64) -> "World":
        """The same world on torch tensors.

        Args:
            device: name of a torch device.
            dtype: a floating-point type of torch.

        Returns:
            The world on that device in that type.
        """
        ...

    def numpy(self) -> "World":
        """The same world on numpy arrays, for the Gymnasium shells.

        Returns:
            The world on numpy arrays in float64.
        """
        ...
