"""Token worlds and policies that claims are checked on, by name."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agents.transformer import Transformer
from envs.token_mdp import TokenMDP
from envs.token_tasks import arithmetic, combination_lock, distractor, garnet, parity

WORLDS = {
    "garnet": lambda: garnet(V=4, horizon=4, seed=1, gamma=0.9),
    "lock": lambda: combination_lock(V=3, horizon=4, seed=2),
    "arithmetic": lambda: arithmetic(modulus=3, horizon=2),
    "parity": lambda: parity(V=2, horizon=5),
    "distractor": lambda: distractor(V=3, horizon=4),
    "one choice": lambda: garnet(V=2, horizon=1, seed=3),
}
WIDTH, LAYERS = 16, 2


def build_world(name: str) -> TokenMDP:
    """The named world."""
    return WORLDS[name]()


def build_policy(
    world: TokenMDP, seed: int, temperature: float = 1.0, offset: float = 0.0, spread: float = 4.0
) -> Transformer:
    """A random small transformer; `spread` scales its head, so that at temperature 1 the tokens differ in probability."""
    policy = Transformer(world.V, width=WIDTH, layers=LAYERS, heads=2, length=32, temperature=temperature,
                         offset=offset, seed=seed)  # fmt: skip
    with torch.no_grad():
        policy.head.weight *= spread
    return policy


class DetachedPast:
    """The same policy with keys and values of the past hidden from autograd: no credit flows through attention."""

    def __init__(self, policy: Any):
        self.policy = policy
        self.embed, self.parameters, self.sites = policy.embed, policy.parameters, policy.sites
        self.width, self.layers = policy.width, policy.layers

    def extend(self, x: Tensor, cache: Any = None, probes: Any = None) -> Any:
        """Extend, and detach what later positions will see."""
        logits, longer = self.policy.extend(x, cache, probes)
        return logits, [[(k.detach(), v.detach()) for k, v in chunks] for chunks in longer]


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
