"""The empirical costates of a token policy, E1 ... E5: exact means and per-sample values from one definition.

| name                     | what autodiff does                                            | mean                             |
|--------------------------|---------------------------------------------------------------|----------------------------------|
| attention (E1)           | slope of the realised reward, sampled tokens detached         | biased; token reward, alpha 1: 0 |
| attention_expected (E1b) | the same, each reward averaged over its own token             | biased                           |
| score (E2)               | slope of the actor surrogate `sum (Q - b) log pi(c)`          | grad V at alpha = 1              |
| total (E1 + E2)          | both: the stochastic computation graph                        | grad V_alpha, always             |
| straight_through (E3)    | one-hot forward, softmax Jacobian backward                    | exact for multi-affine returns   |
| reinmax (E3)             | the same with the second-order rule                           | exact for one quadratic token    |
| soft (E4)                | alpha = 0 rollout, all the way back                           | grad V_0                         |
| gumbel (E5)              | Gumbel-softmax rollout at tau_g (samples only)                | its own relaxed objective's      |
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.prefix_tree import (
    DEFAULT_BUDGET,
    Choice,
    Mix,
    Tree,
    every_token,
    grow,
    node_gradients,
    one_token,
    path_surrogate,
    relaxed,
    score_surrogate,
)


def straight_through(logits: Tensor, pi: Tensor, hard: Tensor) -> Tensor:
    """One-hot forward, the slope of pi backward."""
    return hard + (pi - pi.detach())[:, None]


def reinmax(logits: Tensor, pi: Tensor, hard: Tensor) -> Tensor:
    """One-hot forward, Heun's second-order slope backward (Liu et al., Bridging Discrete and Backpropagation, 2023).

    `2 p1 - pi / 2` with `p1` the softmax whose value is `(pi + hard) / 2` and whose slope is its own Jacobian.
    """
    middle = (pi.detach()[:, None] + hard) / 2
    z = logits[:, None]
    p1 = torch.softmax(middle.clamp(min=1e-300).log() + z - z.detach(), -1)
    slope = 2 * p1 - pi[:, None] / 2
    return hard + slope - slope.detach()


def gumbel_softmax(tau_g: float, rng: torch.Generator) -> Mix:
    """`u = softmax((log pi + g) / tau_g)`, g Gumbel noise; it does not look at the sampled token."""
    if not tau_g > 0:
        raise InputError(f"tau_g must be > 0; got {tau_g!r}")

    def mix(logits: Tensor, pi: Tensor, hard: Tensor) -> Tensor:
        uniform = torch.rand(hard.shape, generator=rng, dtype=pi.dtype, device=pi.device).clamp(min=2.0**-54)
        return torch.softmax((torch.log_softmax(logits, -1)[:, None] - (-uniform.log()).log()) / tau_g, -1)

    return mix


def _no_token(pi: Tensor) -> tuple[Tensor, Tensor]:
    """One edge that carries everything: where u does not depend on the sampled token."""
    return torch.zeros(len(pi), 1, dtype=torch.int64, device=pi.device), torch.ones_like(pi[:, :1])


def _path_and_score(tree: Tree) -> Tensor:
    return path_surrogate(tree) + score_surrogate(tree)


def _expected_path(tree: Tree) -> Tensor:
    return path_surrogate(tree, own_token_averaged=True)


SURROGATES: dict[str, Callable[[Tree], Tensor]] = {
    "attention": path_surrogate,
    "attention_expected": _expected_path,
    "score": score_surrogate,
    "total": _path_and_score,
    "straight_through": path_surrogate,
    "reinmax": path_surrogate,
    "soft": path_surrogate,
    "gumbel": path_surrogate,
}


def _mix_of(name: str, alpha: float) -> Mix:
    rules: dict[str, Mix] = {"straight_through": straight_through, "reinmax": reinmax, "soft": relaxed(0.0)}
    return rules.get(name) or relaxed(alpha)


def _check_name(name: str) -> None:
    if name not in SURROGATES:
        raise InputError(f"costate {name!r} is unknown; there are {', '.join(SURROGATES)}")


def expected_costates(
    world: TokenMDP, policy: Any, name: str, site: str, alpha: float = 1.0, budget: int = DEFAULT_BUDGET
) -> list[Float[Tensor, "N positions D"]]:
    """Exact mean of a costate at every prefix, level by level, by enumeration (soft needs one path only).

    Raises InputError for gumbel, whose noise is continuous: sample it.
    """
    _check_name(name)
    if name == "gumbel":
        raise InputError("costate 'gumbel' has continuous noise and no enumeration: use sampled_costates")
    choose: Choice = _no_token if name == "soft" else every_token
    tree = grow(world, policy, _mix_of(name, alpha), (site,), choose, budget=budget)
    return [g.detach() for g in node_gradients(tree, SURROGATES[name](tree), site)]


def sampled_costates(
    world: TokenMDP, policy: Any, name: str, site: str, samples: int, rng: torch.Generator, alpha: float = 1.0,
    tau_g: float = 1.0,
) -> Float[Tensor, "prompts samples positions D"]:  # fmt: skip
    """Per-sample costates at the prompt, `samples` rollouts of every prompt: the Monte Carlo form of the same surrogate."""
    _check_name(name)
    mix = gumbel_softmax(tau_g, rng) if name == "gumbel" else _mix_of(name, alpha)
    choose = _no_token if name in ("soft", "gumbel") else one_token(rng)
    tree = grow(world, policy, mix, (site,), choose, copies=samples)
    found = node_gradients(tree, SURROGATES[name](tree), site)[0].detach()
    return found.unflatten(0, (len(world.prompts), samples))
