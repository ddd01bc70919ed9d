"""Token worlds and policies that claims are checked on, by name."""

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.policies.transformer import Transformer
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.token_tasks import arithmetic, combination_lock, copy, distractor, garnet, parity, sum_and_stop
from envs.world import InputError
from theory.tokens.prefix_tree import grow

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
}
WIDTH, LAYERS, HEADS = 16, 2, 2


def build_world(name: str) -> TokenMDP:
    """The named world; raises InputError with the names there are for another."""
    known = WORLDS | SIZED | GROUPED
    if name not in known:
        raise InputError(f"world {name!r} is unknown; there are {' | '.join(known)}")
    return known[name]()


def build_policy(
    world: TokenMDP, seed: int, temperature: float = 1.0, offset: float = 0.0, spread: float = 4.0
) -> Transformer:
    """A random small transformer; `spread` scales its head, so that at temperature 1 the tokens differ in probability."""
    policy = Transformer(world.V, width=WIDTH, layers=LAYERS, heads=HEADS, length=32, temperature=temperature,
                         offset=offset, seed=seed)  # fmt: skip
    with torch.no_grad():
        policy.head.weight *= spread
    return policy


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


def split_settings(preset: str) -> list[SplitSetting]:
    """Worlds x alphas x both knobs x seeds, and in the full preset other sites and the whole prompt."""
    quick = preset == "quick"
    alphas = (0.0, 0.5, 1.0) if quick else (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    knobs = [(1.0, 0.0), (0.25, 0.0), (1.0, 4.0)]
    knobs += [] if quick else [(0.1, 0.0), (4.0, 0.0), (1.0, 1.0), (1.0, 8.0)]
    places = [("layer1", False)] if quick else [("layer1", False), ("embedding", True), ("layer2", False)]
    return [
        SplitSetting(world, alpha, tau, offset, seed, *place)
        for world in WORLDS
        for alpha in alphas
        for tau, offset in knobs
        for seed in range(1 if quick else 5)
        for place in places
    ]


def split_world(setting: SplitSetting) -> tuple[TokenMDP, Transformer]:
    """World and policy of a setting."""
    world = build_world(setting.world)
    return world, build_policy(world, setting.seed, setting.temperature, setting.offset)


def reaches(world: TokenMDP, policy: TokenPolicy, alpha: float = 1.0) -> list[Tensor]:
    """Probability of every prefix, level by level."""
    with torch.no_grad():
        return [level.reach for level in grow(world, policy, alpha).levels]


def rms_gap(found: Tensor, truth: Tensor, reach: Tensor, size: Tensor | None = None) -> float:
    """`sqrt(E ||found - truth||^2 / E ||truth||^2)` over the prefixes of a level, at their last position.

    `size` puts another gradient in the place of the truth under the fraction bar. 0 where both are 0.
    """
    mean = lambda x: float(reach @ x[:, -1].square().sum(-1))  # noqa: E731
    whole = mean(truth if size is None else size)
    return (mean(found - truth) / whole) ** 0.5 if whole > 0 else 0.0
