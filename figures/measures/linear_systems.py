"""The linear-quadratic systems that claims are checked on, by name, and a user's own system from a JSON file."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.policies.linear import ConstantPolicy, LinearPolicy
from envs.linear_quadratic import LinearQuadratic, double_integrator, random_system, scalar
from envs.lq_variants import ChaoticMap, state_scaled_noise
from envs.world import InputError
from theory.continuous.endless import cut_endless
from theory.continuous.lyapunov import check_gain, gain_at, linear_value, second_moments
from theory.continuous.riccati import riccati

SYSTEMS: dict[str, Callable[[], LinearQuadratic]] = {
    "scalar": lambda: scalar(horizon=20),
    "double_integrator": lambda: double_integrator(horizon=30),
    "random_finite": lambda: random_system(size=3, actions=2, seed=1, horizon=10, gamma=0.95, noise="laplace"),
    "random_endless": lambda: random_system(size=4, actions=2, seed=0),
}
_FIELDS = ("A", "B", "Q", "R", "Q_f", "S_w", "S_x", "m_0", "S_0", "gamma", "horizon", "noise")


def build_system(name: str, gain: float = 0.7) -> tuple[LinearQuadratic, Tensor]:
    """Return the world and a gain K.

    Args:
        name: a key of `SYSTEMS`, or a user's own system as JSON text (see `read_system`).
        gain: K is `gain` times the optimal gain; a user's own K stands in its place unless `gain` is 1.

    Raises:
        InputError: the user's matrices or K are not valid.
    """
    if name.startswith("{"):
        fields = json.loads(name)
        world = LinearQuadratic(**{key: fields[key] for key in _FIELDS if key in fields}).to()
        return world, _own_gain(world, fields.get("K"), gain)
    world = SYSTEMS[name]().to()
    return world, gain * riccati(world).K


def _own_gain(world: LinearQuadratic, K: Any, gain: float) -> Tensor:
    if gain == 1.0 or K is None:
        return gain * riccati(world).K
    try:
        matrix = torch.as_tensor(K, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"K must be an array of numbers; got {K!r}") from None
    return check_gain(world, matrix)


def read_system(path: Path) -> str:
    """Return a user's system as canonical JSON text, after building it once so that no later run can fail on it.

    Args:
        path: a JSON file, an object with A, B, Q, R and any of Q_f, S_w, S_x, m_0, S_0, gamma, horizon, noise, K.

    Raises:
        InputError: in one line, what is wrong with the file.
    """
    try:
        fields = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"--world {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"--world {path} is not JSON: {error}") from None
    if not isinstance(fields, dict) or not {"A", "B", "Q", "R"} <= set(fields) <= {*_FIELDS, "K"}:
        raise InputError(
            f"--world {path} must hold an object with A, B, Q, R and any of {', '.join((*_FIELDS[4:], 'K'))}"
        )
    try:
        text = json.dumps(fields, sort_keys=True)
        world, K = build_system(text)
        cut = cut_endless(world, K)
        if not bool(linear_value(world, K).P.isfinite().all() and second_moments(cut, K).isfinite().all()):
            raise InputError("A and K make values or states beyond floating-point range: shorten the horizon")
    except (InputError, TypeError) as error:
        raise InputError(f"--world {path}: {error}") from None
    return text


def label(name: str) -> str:
    """A system's name in figures and rows."""
    return "own system" if name.startswith("{") else name.replace("_", " ")


@dataclass(frozen=True)
class MemorylessSystem:
    """A differentiable world of finite horizon and a policy that reads the current state only, in two forms.

    Attributes:
        world: where the policy acts.
        policy: for rollouts.
        command: the same policy as a plain function (state, t) -> command, of one state (n,) or of a batch.
    """

    world: LinearQuadratic | ChaoticMap
    policy: LinearPolicy | ConstantPolicy
    command: Callable[[Tensor, int], Tensor]


MEMORYLESS = (*SYSTEMS, "state-scaled noise", "chaotic map")


def memoryless_system(name: str) -> MemorylessSystem:
    """Return a system of `MEMORYLESS`, or a user's own; endless worlds are cut (`theory.continuous.endless`)."""
    if name == "chaotic map":
        theta = torch.tensor([0.5], dtype=torch.float64)
        return MemorylessSystem(ChaoticMap(horizon=6), ConstantPolicy(theta), lambda s, t: theta.to(s))
    if name == "state-scaled noise":
        gain = torch.tensor([[0.8]], dtype=torch.float64)
        return _linear_system(state_scaled_noise(horizon=10).to(), gain)
    world, gain = build_system(name)
    return _linear_system(cut_endless(world, gain), gain)


def _linear_system(world: LinearQuadratic, K: Tensor) -> MemorylessSystem:
    return MemorylessSystem(world, LinearPolicy(K), lambda s, t: -s @ gain_at(K, t).to(s).mT)
