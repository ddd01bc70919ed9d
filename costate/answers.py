"""Exact answers in one call each: of token worlds and of linear-quadratic ones, for one policy or many."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple, overload

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.linear import LinearPolicy
from agents.policies.transformer import Transformer
from envs.arguments import as_numbers, check_finite, names, short, whole
from envs.linear_quadratic import LinearQuadratic
from envs.lq_variants import ChaoticMap
from envs.policy import TokenPolicy
from envs.record import short_repr
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.continuous.chaotic_map import GradientMoments, circle_moments
from theory.continuous.gains import gain_at
from theory.continuous.lq_gradients import expected_return, offset_gradient, policy_gradient
from theory.continuous.lyapunov import QuadraticValue, linear_value
from theory.continuous.riccati import riccati
from theory.tokens import error_split as splits
from theory.tokens.prefix_tree import Tree, grow
from theory.tokens.tree_gradients import TreeGradients, tree_gradients

Gain = Any  # K, or (K, k), as lists, numpy or torch


def world(name: str, **options: Any) -> Any:
    """A world of the suite, or your own from a file.

    Args:
        name: a name that `costate list worlds` shows ("TokenParity"), "my_world.py:build", or "my_world.json".
        options: keywords of the world's builder.

    Returns:
        A `TokenMDP`, a `LinearQuadratic` or what your function builds.

    Raises:
        InputError: the world or an option does not exist, or a value is refused.
    """
    return make_world(name, **options)


@short_repr
@dataclass(frozen=True)
class SystemAnswers:
    """What is known of the policy `u = -K s - k` in a linear-quadratic world.

    Attributes:
        J: expected return.
        K: the gain that was judged.
        k: the offset; None for none.
        value: the value function of every time, with `value.value(state, t)` and `value.gradient(state, t)`.
        gradient: `dJ/dK`, in the shape of K.
        offset_gradient: `dJ/dk`; None without k.
    """

    J: Float[Tensor, ""]
    K: Float[Tensor, "*time m n"]
    k: Float[Tensor, "*time m"] | None
    value: QuadraticValue
    gradient: Float[Tensor, "*time m n"]
    offset_gradient: Float[Tensor, "*time m"] | None

    def frame(self) -> pd.DataFrame:
        """One row for each time (one in all where the world is endless).

        Returns:
            Columns `t`, the entries `P.i.j`, `p.i` and `c` of the value function, and those of the gain, `K.i.j`, and of the
            offset, `k.i`, where there is an action at that time.
        """
        times = range(len(self.value.P)) if self.value.P.ndim == 3 else [0]
        last = len(times) - 1
        rows = []
        for t in times:
            P, p, c = self.value.at(t)
            row = {"t": t, **_entries("P", P), **_entries("p", p), "c": float(c)}
            if t < last or last == 0:
                row |= _entries("K", gain_at(self.K, t))
                row |= {} if self.k is None else _entries("k", self.k[t] if self.k.ndim == 2 else self.k)
            rows.append(row)
        return pd.DataFrame(rows)


def _entries(name: str, x: Tensor) -> dict[str, float]:
    places = itertools.product(*(range(size) for size in x.shape))
    return {".".join([name, *map(str, place)]): float(x[place]) for place in places}


@overload
def exact(
    world: TokenMDP, policy: TokenPolicy, sites: str | Sequence[str] = (), alpha: float = 1.0
) -> TreeGradients: ...


@overload
def exact(world: LinearQuadratic, policy: Gain = None) -> SystemAnswers: ...


@overload
def exact(world: ChaoticMap, policy: float) -> GradientMoments: ...


def exact(world: Any, policy: Any = None, sites: str | Sequence[str] = (), alpha: float = 1.0) -> Any:
    """Everything that is exact of a policy in a world: return, parameter gradient, values and value gradients.

    Args:
        world: a token world that can be enumerated, a linear-quadratic one, or the chaotic map.
        policy: over the world's tokens; or a gain K, a pair (K, k) or a `LinearPolicy`, None for the optimal one; or theta, the
            constant command in the chaotic map.
        sites: of a token policy: places in the network where value gradients are taken, one name or several.
        alpha: of a token world: the sampling-gap knob, 0 differentiable, 1 discrete.

    Returns:
        `TreeGradients` for a token world, `SystemAnswers` for a linear-quadratic one; both have `.frame()`. For the chaotic
        map `GradientMoments`: of every horizon the return, its gradient, and the standard deviation of both estimators.

    Raises:
        InputError: the world has no exact answers or is too large, or the policy does not fit it.
    """
    if (
        (names(sites) or alpha != 1.0)
        and not isinstance(world, TokenMDP)
        and isinstance(world, LinearQuadratic | ChaoticMap)
    ):
        raise InputError(f"sites and alpha are for token worlds: leave them out; got {short(world)}")
    if isinstance(world, TokenMDP):
        return tree_gradients(world, _over_tokens(policy), alpha, sites)
    if isinstance(world, ChaoticMap):
        return circle_moments(world, _theta(policy))
    if not isinstance(world, LinearQuadratic):
        raise InputError(f"world must be a TokenMDP or a LinearQuadratic for exact answers; got {short(world)}")
    K, k = gain_of(world, policy)
    slopes = policy_gradient(world, K, k), None if k is None else offset_gradient(world, K, k)
    return SystemAnswers(expected_return(world, K, k), K, k, linear_value(world, K, k), *slopes)


def _theta(policy: Any) -> float:
    if isinstance(policy, bool) or not isinstance(policy, int | float):
        raise InputError(f"policy must be a number in the chaotic map, its constant command theta; got {short(policy)}")
    check_finite("policy", policy)
    return float(policy)


def gain_of(world: LinearQuadratic, policy: Any) -> tuple[Tensor, Tensor | None]:
    """Gain and offset of what was given as a policy.

    Args:
        world: whose optimal gain is taken where there is no policy.
        policy: a gain K, a pair (K, k), a `LinearPolicy`, or None for the optimal one.

    Returns:
        K, and k or None.

    Raises:
        InputError: K or k is no array of numbers.
    """
    if policy is None:
        best = riccati(world)
        return best.K, best.k if world.has_linear else None
    if isinstance(policy, LinearPolicy):
        return policy.K.detach(), None if policy.k is None else policy.k.detach()
    if isinstance(policy, tuple) and len(policy) == 2:
        K, k = policy
        return as_numbers("K", K).double(), None if k is None else as_numbers("k", k).double()
    return as_numbers("K", policy).double(), None


def prefix_tree(world: TokenMDP, policy: TokenPolicy, alpha: float = 1.0) -> Tree:
    """The tree of all prefixes with the policy's law, V and Q at each, for `draw_tree`.

    Args:
        world: a token world that can be enumerated.
        policy: over its tokens.
        alpha: sampling-gap knob, 0 differentiable, 1 discrete.

    Returns:
        The tree: `levels` (with `pi`, `reach`, `rewards`), `V` and `Q`, one entry for each level.

    Raises:
        InputError: the world is no token world or too large, or the policy is not one over tokens.
    """
    if not isinstance(world, TokenMDP):
        raise InputError(f"world must be a TokenMDP for a tree of prefixes; got {short(world)}")
    with torch.no_grad():
        return grow(world, _over_tokens(policy), alpha)


def _over_tokens(policy: Any) -> TokenPolicy:
    if not isinstance(policy, TokenPolicy):
        raise InputError(
            f"policy must be one over tokens (costate.ModulePolicy wraps your network); got {short(policy)}"
        )
    return policy


class PolicyLabel(NamedTuple):
    """How a policy of a grid was made.

    Attributes:
        seed: of its parameters.
        temperature: the first entropy knob.
        offset: the second, added to the logit of token 0.
    """

    seed: int
    temperature: float
    offset: float


def random_policies(
    world: TokenMDP,
    seeds: int | Iterable[int] = 1,
    temperatures: float | Iterable[float] = 1.0,
    offsets: float | Iterable[float] = 0.0,
    **sizes: Any,
) -> dict[PolicyLabel, Transformer]:
    """A grid of random transformers for a token world: every seed at every temperature and offset.

    Args:
        world: the token world.
        seeds: how many, or which.
        temperatures: the first entropy knob, one or several.
        offsets: the second, added to the logit of token 0, one or several.
        sizes: `width`, `layers` and `heads` of `Transformer`, and `dtype`.

    Returns:
        Label -> policy, as `error_split` takes them.

    Raises:
        InputError: a size or knob is refused.
    """
    if not isinstance(world, TokenMDP):
        raise InputError(f"world must be a TokenMDP for policies over tokens; got {short(world)}")
    if not isinstance(seeds, Iterable):
        seeds = range(whole("seeds", seeds, 1, "or a list of seeds"))
    axes = (seeds, _several(temperatures), _several(offsets))
    length = world.longest
    return {
        PolicyLabel(seed, float(temperature), float(offset)): Transformer(
            world.V, length=length, seed=seed, temperature=float(temperature), offset=float(offset), **sizes
        )
        for seed, temperature, offset in itertools.product(*axes)
    }


def _several(given: float | Iterable[float]) -> list[float]:
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]


def error_split(
    world: TokenMDP, policies: Any, alpha: float | Iterable[float] = 1.0, site: str = "layer1"
) -> pd.DataFrame:
    """The error of the attention costate E1 and the four tiers of its bound, for one policy or many (`theory.tokens`).

    Args:
        world: a token world that can be enumerated.
        policies: one, a list of them, or a dictionary label -> policy, as `random_policies` gives it.
        alpha: sampling-gap knob, 0 differentiable, 1 discrete; one or several.
        site: where in the network the costate is read.

    Returns:
        One row for each policy, alpha and prompt: the policy's label (`policy`, or the fields of a label that has some),
        `alpha`, and the columns of `ErrorSplit.frame`.

    Raises:
        InputError: the world is too large, or the site does not exist.
    """
    alphas = [float(a) if isinstance(a, Real) else a for a in _several(alpha)]  # what is no number is refused below
    frames = []
    for label, policy in _labelled(policies):
        for value in alphas:
            frame = splits.error_split(world, policy, value, site).frame()
            for place, (name, entry) in enumerate({**label, "alpha": value}.items()):
                frame.insert(place, name, [entry] * len(frame))
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _labelled(policies: Any) -> list[tuple[dict[str, Any], TokenPolicy]]:
    """Policies, each with the columns that name it."""
    if isinstance(policies, Mapping):
        named = list(policies.items())
    else:
        named = list(enumerate(policies)) if isinstance(policies, list | tuple) else [(0, policies)]
    if not named:
        raise InputError("policies must hold at least one policy")
    for label, policy in named:
        if not isinstance(policy, TokenPolicy):
            raise InputError(
                f"policies must be over tokens (costate.ModulePolicy wraps your network); policy {short(label)} is "
                f"{short(policy)}"
            )
    return [(label._asdict() if hasattr(label, "_asdict") else {"policy": label}, policy) for label, policy in named]
