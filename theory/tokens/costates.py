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

With alpha < 1 the next input is the relaxed token `(1 - alpha) pi + alpha y`. For E1 and E2 y is the one-hot token; for E3
and E5 it is what the costate's own rule makes of that token, so E3 goes from soft to straight-through as alpha goes from 0 to
1. Soft does not depend on alpha. Where the environment speaks its tokens are drawn as they are, also under soft and gumbel, and
only score and total count the slope that its law may have at alpha < 1.

Theory page, section 3: "The empirical costates E1 to E5".
"""

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import short
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError, unknown
from theory.tokens.prefix_tree import Choice, Mix, Roots, Tree, every_token, grow, one_token, prefix_roots, relaxed
from theory.tokens.tree_gradients import Surrogate, node_gradients, path_surrogate, score_surrogate, total_surrogate
from theory.tokens.tree_size import DEFAULT_BUDGET


def straight_through(logits: Tensor, pi: Tensor, hard: Tensor) -> Tensor:
    """The one-hot token forward, the derivative of pi backward.

    Args:
        logits: of the next token; not used.
        pi: its probabilities.
        hard: one-hot tokens of the edges.

    Returns:
        The next input of every edge.
    """
    return hard + (pi - pi.detach())[:, None]


def reinmax(logits: Tensor, pi: Tensor, hard: Tensor) -> Tensor:
    """The one-hot token forward, Heun's second-order rule backward (Liu et al., Bridging Discrete and Backpropagation, 2023).

    Backward it is `2 p1 - pi / 2`, with `p1` the softmax whose value is `(pi + hard) / 2` and whose slope is its own
    Jacobian.

    Args:
        logits: of the next token.
        pi: its probabilities.
        hard: one-hot tokens of the edges.

    Returns:
        The next input of every edge.
    """
    middle = (pi.detach()[:, None] + hard) / 2
    z = logits[:, None]
    p1 = torch.softmax(middle.clamp(min=1e-300).log() + z - z.detach(), -1)
    slope = 2 * p1 - pi[:, None] / 2
    return hard + slope - slope.detach()


def gumbel_softmax(tau_g: float, rng: torch.Generator) -> Mix:
    """`u = softmax((log pi + g) / tau_g)` with Gumbel noise g; the sampled token is not used.

    Args:
        tau_g: temperature, > 0.
        rng: of the Gumbel noise.

    Returns:
        The rule for the next input.

    Raises:
        InputError: tau_g is not > 0.
    """
    if not tau_g > 0:
        raise InputError(f"tau_g must be > 0; got {tau_g!r}")

    def mix(logits: Tensor, pi: Tensor, hard: Tensor) -> Tensor:
        drawn = torch.rand(hard.shape, generator=rng, dtype=pi.dtype, device=rng.device)
        uniform = drawn.to(pi.device).clamp(min=2.0**-54)
        return torch.softmax((torch.log_softmax(logits, -1)[:, None] - (-uniform.log()).log()) / tau_g, -1)

    return mix


def _without_tokens(world: TokenMDP, otherwise: Choice) -> Choice:
    """The choice for rules where u does not depend on the policy's token: one edge, unless the environment says tokens."""
    return _no_token if world.speech is None else otherwise


def _no_token(pi: Tensor) -> tuple[Tensor, Tensor]:
    """A single edge of probability 1, for rules where u does not depend on the sampled token."""
    return torch.zeros(len(pi), 1, dtype=torch.int64, device=pi.device), torch.ones_like(pi[:, :1])


def _expected_path(tree: Tree) -> Tensor:
    return path_surrogate(tree, own_token_averaged=True)


SURROGATES: dict[str, Surrogate] = {
    "attention": path_surrogate,
    "attention_expected": _expected_path,
    "score": score_surrogate,
    "total": total_surrogate,
    "straight_through": path_surrogate,
    "reinmax": path_surrogate,
    "soft": path_surrogate,
    "gumbel": path_surrogate,
}


SHORT_NAMES = {
    "E1": "attention",
    "E1b": "attention_expected",
    "E2": "score",
    "E3": "straight_through",
    "E4": "soft",
    "E5": "gumbel",
}


def _mix_of(name: str, alpha: float) -> Mix:
    if name == "soft":
        return relaxed(0.0)
    rules: dict[str, Mix] = {"straight_through": straight_through, "reinmax": reinmax}
    return relaxed(alpha, rules.get(name))


def costate_name(name: str) -> str:
    """The long name of a costate.

    Args:
        name: one of `SURROGATES`, or E1, E1b, E2, E3, E4 or E5.

    Returns:
        The name in `SURROGATES`.

    Raises:
        InputError: it is none of these.
    """
    name = SHORT_NAMES.get(name, name)
    if name not in SURROGATES:
        raise unknown("costate", name, (*SURROGATES, *SHORT_NAMES))
    return name


def expected_costates(
    world: TokenMDP,
    policy: TokenPolicy,
    name: str,
    site: str,
    alpha: float = 1.0,
    whole_prefix: bool = False,
    budget: int = DEFAULT_BUDGET,
) -> list[Float[Tensor, "N positions D"]]:
    """Exact mean of a costate at every prefix, level by level, by enumeration (soft needs one path only).

    Args:
        world: the token world.
        policy: over its tokens.
        name: one of `SURROGATES`, or its short name (E1, E2, ...), except gumbel, whose noise is continuous.
        site: where in the network the derivative is taken.
        alpha: sampling-gap knob, 0 differentiable, 1 discrete.
        whole_prefix: take the derivative at all positions of the prefix, as if the prefix were the prompt; else at its last
            position (at level 0 always at all positions of the prompt).
        budget: bytes that the tree may need.

    Returns:
        The mean costate of every prefix, in return units per unit of the site; divided by `gamma^k P(prefix)`.

    Raises:
        InputError: the name is unknown or gumbel, or the tree needs more than the budget.
    """
    name = costate_name(name)
    if name == "gumbel":
        raise InputError("costate 'gumbel' has continuous noise and no enumeration: use sampled_costates")
    choose = _without_tokens(world, every_token) if name == "soft" else every_token
    mix = _mix_of(name, alpha)
    tree = grow(world, policy, mix, (site,), choose, budget=budget)
    costates = node_gradients(tree, SURROGATES[name](tree), site)
    if whole_prefix:
        for k in range(1, world.horizon):
            roots = prefix_roots(tree, policy, k).detached()
            below = grow(world, policy, mix, (site,), choose, budget=budget, roots=roots)
            costates[k] = node_gradients(below, SURROGATES[name](below), site)[0]
    return [g.detach() for g in costates]


def sampled_costates(
    world: TokenMDP,
    policy: TokenPolicy,
    name: str,
    site: str,
    samples: int,
    rng: torch.Generator,
    alpha: float = 1.0,
    tau_g: float = 1.0,
    roots: Roots | None = None,
) -> Float[Tensor, "roots samples positions D"]:
    """Per-sample costates at the prompts, all positions: the Monte Carlo form of the same surrogate.

    Args:
        world: the token world.
        policy: over its tokens.
        name: one of `SURROGATES`, or its short name (E1 ... E5).
        site: where in the network the derivative is taken.
        samples: rollouts of every root.
        rng: of the sampled tokens, and of the Gumbel noise.
        alpha: sampling-gap knob, 0 differentiable, 1 discrete.
        tau_g: temperature of the Gumbel-softmax.
        roots: other prefixes in the place of the prompts (`theory.tokens.prefix_tree.token_roots`).

    Returns:
        One costate for each sample of each root.

    Raises:
        InputError: the name is unknown, or the samples' tree needs more than the default budget.
    """
    if not isinstance(rng, torch.Generator):
        raise InputError(
            f"rng must be a torch.Generator, torch.Generator().manual_seed(0) for instance; got {short(rng)}"
        )
    name = costate_name(name)
    mix = relaxed(alpha, gumbel_softmax(tau_g, rng)) if name == "gumbel" else _mix_of(name, alpha)
    choose = _without_tokens(world, one_token(rng)) if name in ("soft", "gumbel") else one_token(rng)
    tree = grow(world, policy, mix, (site,), choose, copies=samples, roots=roots)
    costates: Tensor = node_gradients(tree, SURROGATES[name](tree), site)[0].detach().unflatten(0, (-1, samples))
    return costates
