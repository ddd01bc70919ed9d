"""Token worlds and policies that claims are checked on, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.transformer import Transformer
from envs.own_world import load_marked, names_own_world
from envs.policy import ContextPolicy, TokenPolicy
from envs.registry import WORLDS as REGISTERED
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from envs.token_tasks import arithmetic, combination_lock, copy, distractor, garnet, parity, sum_and_stop
from envs.world import InputError, one_line, unknown
from figures.harness.claim import Preset
from theory.tokens.exact_ascent import exact_ascent
from theory.tokens.prefix_tree import grow
from theory.tokens.softmax_bounds import entropy

Setting = TypeVar("Setting")  # of a claim
WORLDS = {
    "garnet": lambda: garnet(V=4, horizon=4, seed=1, gamma=0.9),
    "lock": lambda: combination_lock(V=3, horizon=4, seed=2),
    "arithmetic": lambda: arithmetic(modulus=3, horizon=2),
    "parity": lambda: parity(V=2, horizon=5),
    "distractor": lambda: distractor(V=3, horizon=4),
    "one choice": lambda: garnet(V=2, horizon=1, seed=3),
}
# (V, H): the same tasks at several sizes, for the error map
SIZED = {
    "garnet (3,3)": lambda: garnet(V=3, horizon=3, seed=1, gamma=0.9),
    "garnet (4,4)": WORLDS["garnet"],
    "garnet (6,4)": lambda: garnet(V=6, horizon=4, seed=1, gamma=0.9),
    "lock (3,4)": WORLDS["lock"],
    "lock (4,5)": lambda: combination_lock(V=4, horizon=5, seed=2),
    "parity (2,5)": WORLDS["parity"],
    "parity (2,7)": lambda: parity(V=2, horizon=7),
    "copy (2,3)": lambda: copy(V=2, length=3),
    "arithmetic (3,2)": WORLDS["arithmetic"],
    "distractor (3,4)": WORLDS["distractor"],
}
# worlds in which whole groups of completions are enumerated; the first two have an end token, so completions of many lengths
GROUPED = {
    "stop (2,4)": lambda: sum_and_stop(modulus=2, horizon=4),
    "stop (3,3)": lambda: sum_and_stop(modulus=3, horizon=3),
    "lock (2,3)": lambda: combination_lock(V=2, horizon=3, seed=2),
    "garnet (2,3)": lambda: garnet(V=2, horizon=3, seed=1, gamma=0.9),
    "dense (2,3)": lambda: garnet(V=2, horizon=3, branching=1, seed=1, gamma=0.9),  # nothing by chance: large groups
}
# further worlds of the reference systems
SYSTEMS = {
    "one choice of 3": lambda: garnet(V=3, horizon=1, seed=3),
    "stop (2,3)": lambda: sum_and_stop(modulus=2, horizon=3),
}
WIDTH, LAYERS, HEADS = 16, 2, 2
FAMILIES = ("temperature", "offset", "trained")  # ways to change the entropy of a policy
ASCENT_RATE = 0.003  # slow enough that the checkpoints of an ascent pass through all entropies
REWARDS = ("dense", "terminal", "readout")


def check_world(name: str) -> None:
    """Refuse a name that is none of the named or registered worlds; InputError with the names there are."""
    known = WORLDS | SIZED | GROUPED | SYSTEMS
    if name not in known and name not in REGISTERED:
        raise unknown("world", name, known)


def build_world(name: str) -> TokenMDP:
    """The named world, a registered one, or a user's own by its marked name (`envs.own_world.marked`).

    Raises InputError, with the names there are, for another.
    """
    if names_own_world(name) or name in REGISTERED:
        world = make_world(name) if name in REGISTERED else load_marked(name)
        if not isinstance(world, TokenMDP):
            raise InputError(f"world {one_line(name, 80)} has no tokens: this claim needs a token world")
        return world
    check_world(name)
    return (WORLDS | SIZED | GROUPED | SYSTEMS)[name]()


def with_own_world(settings: Callable[[Preset], list[Setting]]) -> Callable[[Preset, str], list[Setting]]:
    """The settings that a claim has for its first world, for a user's own world by its marked name.

    Where the environment speaks, alpha = 1 alone: a relaxed token may leave open whose turn it is.
    """

    def of_own(preset: Preset, name: str) -> list[Setting]:
        known: list[Any] = settings(preset)
        own = [replace(s, world=name) for s in known if s.world == known[0].world]
        speaks = build_world(name).speech is not None
        return [s for s in own if not speaks or getattr(s, "alpha", 1.0) == 1]

    return of_own


def with_reward(world: TokenMDP, kind: str, seed: int) -> TokenMDP:
    """The same transitions under another kind of reward.

    "dense": random tables at every step; "terminal": a random table at the last step; "readout": a random hidden readout
    of policies of width `WIDTH`, and no table.
    """
    rng = torch.Generator().manual_seed(1000 + seed)
    r = torch.rand(world.r.shape, generator=rng, dtype=torch.float64).to(world.r)
    if kind == "terminal":
        r[:-1] = 0
    if kind == "readout":
        readout = torch.randn(WIDTH, generator=rng, dtype=torch.float64).to(world.r)
        return replace(world, r=0 * r, readout=readout, optimal_return=None)
    return replace(world, r=r, optimal_return=None)


def build_policy(
    world: TokenMDP, seed: int, temperature: float = 1.0, offset: float = 0.0, spread: float = 4.0
) -> Transformer:
    """A random small transformer on the world's device.

    `spread` scales its head, so that at temperature 1 the tokens differ in probability.
    """
    policy = Transformer(
        world.V,
        width=WIDTH,
        layers=LAYERS,
        heads=HEADS,
        length=32,
        temperature=temperature,
        offset=offset,
        seed=seed,
    )
    with torch.no_grad():
        policy.head.weight *= spread
    return policy.to(world.P.device)


def changed_policies(world: TokenMDP, seed: int, family: str, values: Sequence[float]) -> list[Transformer]:
    """The random policy of a seed with its entropy changed, one policy for each of `values`.

    `family` is one of `FAMILIES`: values are temperatures, offsets, or rising numbers of steps of exact ascent.
    """
    if family == "trained":
        return exact_ascent(world, build_policy(world, seed), [int(value) for value in values], ASCENT_RATE)
    return [build_policy(world, seed, **{family: value}) for value in values]


def at_least(least: int, **sizes: int) -> None:
    """Refuse a field of a setting below what the claim needs."""
    for name, size in sizes.items():
        if size < least:
            raise InputError(f"{name} must be a whole number >= {least}; got {size}")


@dataclass(frozen=True)
class SplitSetting:
    """One world, one random policy, one alpha and one setting of each entropy knob."""

    world: str
    alpha: float
    temperature: float
    offset: float
    seed: int
    site: str = "layer1"
    whole_prompt: bool = False


def split_settings(preset: Preset) -> list[SplitSetting]:
    """Worlds x alphas x both knobs x seeds, and in the full preset other sites and the whole prompt."""
    worlds = ("garnet", "one choice") if preset == "tiny" else tuple(WORLDS)
    alphas = {"tiny": (0.0, 1.0), "quick": (0.0, 0.5, 1.0), "full": (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)}[preset]
    knobs, places = [(1.0, 0.0)], [("layer1", False)]  # (temperature, offset); (site, whether all of the prompt moves)
    if preset != "tiny":
        knobs += [(0.25, 0.0), (1.0, 4.0)]
    if preset == "full":
        knobs += [(0.1, 0.0), (4.0, 0.0), (1.0, 1.0), (1.0, 8.0)]
        places += [("embedding", True), ("layer2", False)]
    return [
        SplitSetting(world, alpha, tau, offset, seed, site, whole_prompt)
        for world in worlds
        for alpha in alphas
        for tau, offset in knobs
        for seed in range(5 if preset == "full" else 1)
        for site, whole_prompt in places
    ]


def split_world(setting: SplitSetting, device: str) -> tuple[TokenMDP, Transformer]:
    """World and policy of a setting, on the device."""
    world = build_world(setting.world).to(device)
    return world, build_policy(world, setting.seed, setting.temperature, setting.offset)


def reaches(world: TokenMDP, policy: TokenPolicy, alpha: float = 1.0) -> list[Tensor]:
    """Probability of every prefix, level by level."""
    with torch.no_grad():
        return [level.reach for level in grow(world, policy, alpha).levels]


def prompt_entropy(world: TokenMDP, policy: ContextPolicy) -> float:
    """Entropy of the first token in nats, mean over the prompts."""
    pi = torch.softmax(policy(policy.embed(world.prompts))[:, -1], -1)
    return float(entropy(pi).mean().detach())


def rms_gap(
    costate: Float[Tensor, "N positions D"], truth: Float[Tensor, "N positions D"], reach: Float[Tensor, "N"]
) -> float:
    """`sqrt(E ||costate - truth||^2 / E ||truth||^2)` over the prefixes of a level, at their last position.

    Args:
        costate: one for every prefix.
        truth: the value gradients.
        reach: probability of every prefix.

    Returns:
        The relative gap, 0 where the truth is 0.
    """
    size = _inner(truth, truth, reach)
    gap = costate - truth
    return (_inner(gap, gap, reach) / size) ** 0.5 if size > 0 else 0.0


def level_cosine(
    costate: Float[Tensor, "N positions D"], truth: Float[Tensor, "N positions D"], reach: Float[Tensor, "N"]
) -> float:
    """Cosine between costate and truth over all prefixes of a level together; arguments as in `rms_gap`; 0 if one is 0."""
    sizes = _inner(costate, costate, reach) * _inner(truth, truth, reach)
    return _inner(costate, truth, reach) / sizes**0.5 if sizes > 0 else 0.0


def _inner(x: Tensor, y: Tensor, reach: Tensor) -> float:
    """`E x'y` at the last position."""
    return float(reach @ (x[:, -1] * y[:, -1]).sum(-1))
