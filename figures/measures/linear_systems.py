"""The linear-quadratic systems that claims are checked on, by name, and a user's own system from a JSON file."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from agents.policies.linear import ConstantPolicy, LinearPolicy
from envs.arguments import as_numbers, short
from envs.linear_quadratic import LinearQuadratic, double_integrator, random_system, scalar
from envs.lq_variants import ChaoticMap, state_scaled_noise
from envs.own_world import SYSTEM_FIELDS, parse_fields, read_fields, system_of
from envs.world import InputError, unknown
from theory.continuous.endless import cut_endless
from theory.continuous.gains import check_gain, check_offset, check_one_system, gain_at, offset_at
from theory.continuous.lyapunov import linear_value, second_moments
from theory.continuous.riccati import riccati

SYSTEMS: dict[str, Callable[[], LinearQuadratic]] = {
    "scalar": lambda: scalar(horizon=20),
    "double_integrator": lambda: double_integrator(horizon=30),
    "random_finite": lambda: random_system(size=3, actions=2, seed=1, horizon=10, gamma=0.95, noise="laplace"),
    "random_endless": lambda: random_system(size=4, actions=2, seed=0),
}


def check_system(name: str, known: Collection[str] = ()) -> None:
    """Refuse a name that is none of `known` (by default of `SYSTEMS`) and no system in JSON."""
    names = known or SYSTEMS
    if name.startswith("{"):
        try:
            parsed_system(name)
        except InputError as error:
            raise InputError(f"system {short(name)}: {error}") from None
    elif name not in names:
        raise unknown("system", name, names)


def build_system(name: str, gain: float = 0.7) -> tuple[LinearQuadratic, Tensor, Tensor | None]:
    """Return the world and a policy u = -K s - k: the gain K, and the offset k or None.

    Args:
        name: a key of `SYSTEMS`, or a user's own system as JSON text (see `read_system`).
        gain: the policy is `gain` times the optimal one; a user's own K and k stand in its place unless `gain` is 1. Where no
            cost is linear, and beside a user's own K without k, there is no offset.

    Raises:
        InputError: the user's matrices, K or k are not valid.
    """
    world, K, k = parsed_system(name) if name.startswith("{") else (SYSTEMS[name]().to(), None, None)
    if K is not None and gain != 1.0:
        return world, K, k
    best = riccati(world)
    return world, gain * best.K, gain * best.k if world.has_linear else None


def parsed_system(text: str) -> tuple[LinearQuadratic, Tensor | None, Tensor | None]:
    """The one system that a JSON text describes, and its gain K and offset k if it has them.

    Raises:
        InputError: in one line, what is wrong with the text.
    """
    fields = parse_fields(text)
    world = system_of({name: x for name, x in fields.items() if name in SYSTEM_FIELDS})
    try:
        check_one_system(world)
        K, k = (None if fields.get(name) is None else as_numbers(name, fields[name]) for name in ("K", "k"))
        if K is None and k is not None:
            raise InputError("k is the offset of the policy -K s - k: give K too")
        return world, None if K is None else check_gain(world, K), check_offset(world, k)
    except (TypeError, OverflowError) as error:
        raise InputError(f"a field is no number: {short(str(error))}") from None


def read_system(path: Path, what: str = "--world") -> str:
    """Return a user's system as canonical JSON text, after building it once so that no later run can fail on it.

    Args:
        path: a JSON file, an object with A, B, Q, R and any of Q_f, N, q, q_a, q_f, S_w, S_x, m_0, S_0, gamma, horizon, noise,
            K, k.
        what: what named the file; every error begins with it.

    Raises:
        InputError: in one line, what is wrong with the file.
    """
    return checked_system(json.dumps(read_fields(path, what), sort_keys=True), f"{what} {path}")


def checked_system(canonical: str, where: str) -> str:
    """The JSON text of a system, once it has been built and its values found finite; errors begin with `where`."""
    try:
        world, K, k = build_system(canonical)
        cut = cut_endless(world, K, k=k)
        if not bool(linear_value(world, K, k).P.isfinite().all() and second_moments(cut, K, k).isfinite().all()):
            raise InputError("A and K make values or states beyond floating-point range: shorten the horizon")
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return canonical


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
        return _linear_system(state_scaled_noise(horizon=10).to(), gain, None)
    world, K, k = build_system(name)
    return _linear_system(cut_endless(world, K, k=k), K, k)


def _linear_system(world: LinearQuadratic, K: Tensor, k: Tensor | None) -> MemorylessSystem:
    def command(state: Tensor, t: int) -> Tensor:
        u, offset = -state @ gain_at(K, t).to(state).mT, offset_at(k, t)
        return u if offset is None else u - offset.to(state)

    return MemorylessSystem(world, LinearPolicy(K, k), command)
