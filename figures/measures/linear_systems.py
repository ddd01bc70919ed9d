"""The linear-quadratic systems that claims are checked on, by name, and a user's own system from a JSON file."""

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from envs.linear_quadratic import LinearQuadratic, double_integrator, random_system, scalar
from envs.world import InputError
from theory.continuous.lyapunov import check_gain, check_stable, linear_value, second_moments
from theory.continuous.riccati import riccati

SYSTEMS = {
    "scalar": lambda: scalar(horizon=20),
    "double_integrator": lambda: double_integrator(horizon=30),
    "random_finite": lambda: random_system(size=3, actions=2, seed=1, horizon=10, gamma=0.95, noise="laplace"),
    "random_endless": lambda: random_system(size=4, actions=2, seed=0),
}
_MOST_STEPS = 2000
_FIELDS = ("A", "B", "Q", "R", "Q_f", "S_w", "S_x", "m_0", "S_0", "gamma", "horizon", "noise")


def build_system(name: str, gain: float = 0.7) -> tuple[LinearQuadratic, Tensor]:
    """World and gain K: a named system with `gain` times its optimal gain, or a user's own (JSON text) as it stands."""
    if name.startswith("{"):
        given = json.loads(name)
        world = LinearQuadratic(**{key: given[key] for key in _FIELDS if key in given}).to()
        return world, _own_gain(world, given.get("K"), gain)
    world = SYSTEMS[name]().to()
    return world, gain * riccati(world).K


def _own_gain(world: LinearQuadratic, K: list | None, gain: float) -> Tensor:
    if gain == 1.0 or K is None:
        return gain * riccati(world).K
    try:
        given = torch.as_tensor(K, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"K must be an array of numbers; got {K!r}") from None
    return check_gain(world, given)


def read_system(path: Path) -> str:
    """A user's system as canonical JSON text, checked whole: an InputError names the file's fault before any run."""
    try:
        given = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"--world {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"--world {path} is not JSON: {error}") from None
    if not isinstance(given, dict) or not {"A", "B", "Q", "R"} <= set(given) <= {*_FIELDS, "K"}:
        raise InputError(
            f"--world {path} must hold an object with A, B, Q, R and any of {', '.join((*_FIELDS[4:], 'K'))}"
        )
    try:
        text = json.dumps(given, sort_keys=True)
        world, K = build_system(text)
        cut = truncated(world, K)
        if not bool(linear_value(world, K).P.isfinite().all() and second_moments(cut, K).isfinite().all()):
            raise InputError("A and K make values or states beyond floating-point range: shorten the horizon")
    except (InputError, TypeError) as error:
        raise InputError(f"--world {path}: {error}") from None
    return text


def label(name: str) -> str:
    """A system's name in figures and rows."""
    return "own system" if name.startswith("{") else name.replace("_", " ")


def truncated(world: LinearQuadratic, K: Tensor, tolerance: float = 1e-8) -> LinearQuadratic:
    """An endless world cut where the rest weighs less than `tolerance`: `gamma^T rho(Phi)^T` below it; Q_f stays 0."""
    if world.horizon is not None:
        return world
    check_stable(world, K)
    decay = world.gamma * float(torch.linalg.eigvals(world.A - world.B @ K).abs().max())
    steps = max(1, math.ceil(math.log(tolerance) / math.log(decay))) if decay > 0 else 1
    if steps > _MOST_STEPS:
        raise InputError(
            f"gamma rho(A - B K) = {decay:.4g} needs paths of {steps} steps, {_MOST_STEPS} at most: give a horizon"
        )
    return world.replace(horizon=steps, Q_f=torch.zeros_like(world.Q))
