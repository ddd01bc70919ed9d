"""The cases in which a critic-free update is compared with kappa times the value gradient, by preset."""

from dataclasses import dataclass

from figures.harness.claim import Preset, knob
from figures.measures.sampled_updates import LINEAR

GROUP = 4  # rows of a sampled group
_TEMPERATURES = {"tiny": (1.0,), "quick": (0.2, 1.0, 5.0), "full": (0.2, 1.0, 5.0, 0.5, 2.0)}
# world -> largest group; completions of many lengths make many outcomes, so many groups to enumerate
_QUICK = {"lock (2,3)": 16, "arithmetic (3,2)": 16, "parity (2,5)": 16, "stop (2,4)": 4}
_LARGEST = {
    "tiny": {"lock (2,3)": 2},
    "quick": _QUICK,
    "full": _QUICK | {"stop (2,4)": 8, "copy (2,3)": 16, "lock (3,4)": 16},
}
# worlds of dense rewards, and the largest groups that can be enumerated: 32 outcomes by chance make 6e7 multisets at G = 8
_LARGEST_DENSE = {
    "tiny": {"garnet (2,3)": 2},
    "quick": {"garnet (2,3)": 4},
    "full": {"garnet (2,3)": 4, "dense (2,3)": 8},
}
_BOTH = (("stop (2,4)", "GRPO"), ("parity (2,5)", "Dr. GRPO"))
_SAMPLED = {
    "tiny": _BOTH[:1],
    "quick": _BOTH,
    "full": (("stop (2,4)", "RLOO"), *_BOTH, ("parity (2,5)", "CISPO")),
}
_GROUPS = {"tiny": (10, 0.1), "quick": (3_000, 0.1), "full": (100_000, 0.02)}  # sampled groups, margin
_LINEAR_GROUPS = {"scalar": 20_000, "random, laplace noise": 120_000}  # one resolution for both
_LINEAR_TIMES = {"tiny": (0.001, 0.05), "quick": (1, 0.05), "full": (25, 0.01)}  # so many times as many groups, margin


@dataclass(frozen=True)
class ActorSetting:
    """One case.

    Attributes:
        kind: "exact" for one world and policy with all recipes, "dense" for rewards that are not binary, "sampled" for sampled
            groups of completions, "linear" for sampled groups of rollouts in a linear-quadratic world.
        world: its name.
        most: the largest group.
        temperature, seed: of the policy.
        recipe: of a sampled case.
        groups: how many are sampled.
        sizes: of the groups with dense rewards, up to `most`.
        margin: as in `figures.harness.rows.equals`.
    """

    kind: str
    world: str
    most: int = 8
    temperature: float = 1.0
    seed: int = 0
    recipe: str = ""
    groups: int = 0
    margin: float = 0.1
    sizes: tuple[int, ...] = knob((2, 4, 8))


def settings(preset: Preset) -> list[ActorSetting]:
    """Worlds x temperatures (x seeds), the dense world, sampled worlds x recipes, linear-quadratic systems x baselines."""
    temperatures, seeds = _TEMPERATURES[preset], range(3 if preset == "full" else 1)
    cases = [
        ActorSetting("exact", world, most, tau, seed)
        for world, most in _LARGEST[preset].items()
        for tau in (temperatures[:2] if preset == "quick" and world != "arithmetic (3,2)" else temperatures)
        for seed in seeds
    ]
    cases += [
        ActorSetting("dense", world, most, tau)
        for world, most in _LARGEST_DENSE[preset].items()
        for tau in temperatures
    ]
    groups, margin = _GROUPS[preset]
    cases += [
        ActorSetting("sampled", world, GROUP, 1.0, 1, recipe, groups, margin) for world, recipe in _SAMPLED[preset]
    ]
    times, margin = _LINEAR_TIMES[preset]
    return cases + [
        ActorSetting("linear", world, GROUP, recipe=recipe, groups=int(times * _LINEAR_GROUPS[world]), margin=margin)
        for world in LINEAR
        for recipe in ("RLOO", "Dr. GRPO")
    ]
