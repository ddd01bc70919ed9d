"""Every prefix of a full-attention policy at once: exact values, value gradients, parameter gradient, any alpha.

The tree grows level by level. A node is a prefix (prompt, c_0 ... c_{k-1}); its edges are the tokens c_k that are followed:
all V of them (`every_token`: exact expectations) or one that is drawn (`one_token`: a batch of samples). Both are the same
structure with other weights, so an exact mean and its Monte Carlo estimator have one definition. The token fed on along an
edge is the relaxed `u` of a `mix` rule, `u = (1 - alpha) pi + alpha onehot(c)` for `relaxed(alpha)`; belief, reward and the
policy's cache follow from u. Every node's input carries a zero *leaf* at each asked site, which only this node's subtree
sees: one backward pass of a surrogate whose weights are constants gives the derivatives of all nodes' values together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from envs.token_mdp import TokenMDP
from envs.world import InputError

DEFAULT_BUDGET = 8 * 2**30
_NUMBERS_PER_WIDTH = 48  # kept by autograd per node, layer and unit of width; the tests hold it against a measurement

Choice = Callable[[Tensor], tuple[Tensor, Tensor]]  # pi (N, V) -> tokens (N, C), their shares (N, C), constants
Mix = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits, pi (N, V), onehot (N, C, V) -> u (N, C, V)


def every_token(pi: Float[Tensor, "N V"]) -> tuple[Int[Tensor, "N V"], Float[Tensor, "N V"]]:
    """Follow all tokens, each with its probability."""
    return torch.arange(pi.shape[-1], device=pi.device).expand(pi.shape), pi.detach()


def one_token(rng: torch.Generator) -> Choice:
    """Follow one token, drawn from pi; the generator lives on the policy's device."""

    def draw(pi: Tensor) -> tuple[Tensor, Tensor]:
        tokens = torch.multinomial(pi.detach(), 1, generator=rng)
        return tokens, torch.ones_like(pi[:, :1])

    return draw


def relaxed(alpha: float) -> Mix:
    """`u = (1 - alpha) pi + alpha onehot(c)`; raises InputError for alpha outside [0, 1]."""
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha must lie in [0, 1]; got {alpha!r}")
    if alpha == 1:
        return lambda logits, pi, hard: hard
    return lambda logits, pi, hard: (1 - alpha) * pi[:, None] + alpha * hard


@dataclass(frozen=True)
class Level:
    """The N nodes of one level, children of a node next to each other, and their C edges each."""

    pi: Float[Tensor, "N V"]
    logits: Float[Tensor, "N V"]
    belief: Float[Tensor, "N S"]
    reach: Float[Tensor, "N"]  # probability of the node, that of its prompt included; a constant
    tokens: Int[Tensor, "N C"]
    share: Float[Tensor, "N C"]  # probability of the edge given the node; a constant
    u: Float[Tensor, "N C V"]
    leaves: dict[str, Tensor]  # site -> (N, positions, D): one position, or all of the prompt's at level 0


@dataclass(frozen=True)
class Tree:
    """A grown tree with its values as constants: `Q[k]` (N_k, C) after the edge's token, `V[k]` (N_k,) their mean."""

    world: TokenMDP
    levels: list[Level]
    V: list[Tensor]
    Q: list[Tensor]

    @property
    def J(self) -> Float[Tensor, ""]:
        """Expected return over the prompts (exact with every_token, an estimate with one_token)."""
        return self.levels[0].reach @ self.V[0]


def node_count(world: TokenMDP) -> int:
    """Number of prefixes that need logits: `prompts * sum_{k<H} V^k`."""
    return len(world.prompts) * sum(world.V**k for k in range(world.horizon))


def grow(
    world: TokenMDP, policy: Any, mix: Mix | float = 1.0, sites: Sequence[str] = (), choose: Choice = every_token,
    copies: int = 1, budget: int = DEFAULT_BUDGET,
) -> Tree:  # fmt: skip
    """Grow the tree and its values; `mix` is a rule or just alpha; `copies` roots per prompt (for samples).

    `policy` has `parameters`, `embed(u)` and `extend(x, cache, probes) -> (logits, cache)`. Raises InputError for alpha
    outside [0, 1], logits of the wrong shape and, before allocating, a tree that needs more than `budget` bytes.
    """
    mix = mix if callable(mix) else relaxed(mix)
    if choose is every_token:
        _check_size(world, policy, budget)
    like = next(policy.parameters())
    world = world.to(str(like.device), like.dtype)
    roots = torch.arange(len(world.prompts), device=like.device).repeat_interleave(copies)
    x, cache, belief = policy.embed(world.prompts[roots]), None, world.start_belief(roots)
    reach, levels = world.weights[roots] / copies, []
    for k in range(world.horizon):
        leaves = {site: torch.zeros_like(x).requires_grad_() for site in sites}
        logits, cache = policy.extend(x, cache, leaves)
        if tuple(logits.shape) != (len(x), world.V):
            raise InputError(f"policy must give logits of shape {(len(x), world.V)}; got {tuple(logits.shape)}")
        pi = torch.softmax(logits, -1)
        tokens, share = choose(pi)
        u = mix(logits, pi, one_hot(tokens, world.V).to(pi))
        levels.append(Level(pi, logits, belief, reach, tokens, share, u, leaves))
        if k + 1 < world.horizon:
            x = policy.embed(u).flatten(0, 1)[:, None]
            belief = torch.einsum("nz,zay,nca->ncy", belief, world.P, u).flatten(0, 1)
            reach = (reach[:, None] * share).flatten()
    return Tree(world, levels, *_values(world, levels))


def _values(world: TokenMDP, levels: list[Level]) -> tuple[list[Tensor], list[Tensor]]:
    """V and Q of all nodes from the last level up, as constants."""
    values: list[Tensor] = []
    quality: list[Tensor] = []
    for k in reversed(range(len(levels))):
        later = world.gamma * values[0].reshape(levels[k].share.shape) if values else 0.0
        quality.insert(0, edge_rewards(world, levels[k], k).detach() + later)
        values.insert(0, (levels[k].share * quality[0]).sum(-1))
    return values, quality


def edge_rewards(world: TokenMDP, level: Level, k: int) -> Float[Tensor, "N C"]:
    """`rbar_k(b, u)` along every edge."""
    return torch.einsum("nv,ncv->nc", level.belief @ world.r[k], level.u)


def _check_size(world: TokenMDP, policy: Any, budget: int) -> None:
    width, layers = getattr(policy, "width", 1), getattr(policy, "layers", 1)
    each = 8 * (_NUMBERS_PER_WIDTH * width * layers + 2 * world.V**2 + world.V * world.S)
    sizes = list(accumulate(len(world.prompts) * world.V**k for k in range(world.horizon)))
    if sizes[-1] * each > budget:
        fitting = sum(size * each <= budget for size in sizes)
        count, needed = Decimal(sizes[-1]), Decimal(sizes[-1] * each) / 2**30  # beyond what a float can hold
        raise InputError(
            f"horizon={world.horizon} with V={world.V} and {len(world.prompts)} prompts makes {count:.6g} prefixes, about "
            f"{needed:.3g} GiB of {budget / 2**30:.3g} allowed; "
            f"{f'horizon={fitting}' if fitting else 'no horizon'} would fit"
        )


def path_surrogate(tree: Tree, own_token_averaged: bool = False) -> Float[Tensor, ""]:
    """Its gradient is that of the realised reward, the tokens c held fixed, in the mean: the attention costate E1.

    `sum_k gamma^k sum_edges weight rbar(b, u)`, weights constant. With `own_token_averaged` each step's reward is averaged
    over its own token analytically, `b' r pi` (E1b); later steps still see the sampled token.
    """
    total = torch.zeros_like(tree.levels[0].reach[0])
    for k, level in enumerate(tree.levels):
        if own_token_averaged:
            rewards = tree.world.reward(k, level.belief, level.pi)
        else:
            rewards = (level.share * edge_rewards(tree.world, level, k)).sum(-1)
        total = total + tree.world.gamma**k * (level.reach @ rewards)
    return total


def score_surrogate(tree: Tree, baseline: bool = True) -> Float[Tensor, ""]:
    """Its gradient is that of `sum_k gamma^k (Q - b) log pi(c_k)` in the mean: the score costate E2.

    Q is what followed the token (exact in a whole tree, the realised return-to-go in a sample), a constant; the baseline
    is the node's V where all edges are there, else 0: it changes no mean.
    """
    total = torch.zeros_like(tree.levels[0].reach[0])
    for k, (level, Q, V) in enumerate(zip(tree.levels, tree.Q, tree.V, strict=True)):
        advantage = Q - V[:, None] if baseline and Q.shape[1] > 1 else Q
        log_pi = torch.log_softmax(level.logits, -1).gather(1, level.tokens)
        total = total + tree.world.gamma**k * (level.reach @ (level.share * advantage * log_pi).sum(-1))
    return total


def node_gradients(tree: Tree, surrogate: Float[Tensor, ""], site: str) -> list[Float[Tensor, "N positions D"]]:
    """Derivative of every node's own value: the surrogate's slope in the node's leaf over `gamma^k` times its reach.

    A surrogate that no path joins to the leaves has slope 0 (E1 of a token reward at alpha = 1). A node of probability 0
    has no gradient to be read this way: it comes as NaN, never as 0.
    """
    if site not in tree.levels[0].leaves:
        raise InputError(f"site {site!r} has no leaves in this tree; it was grown with {list(tree.levels[0].leaves)}")
    leaves = [level.leaves[site] for level in tree.levels]
    if surrogate.requires_grad:
        slopes = torch.autograd.grad(surrogate, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
    else:
        slopes = tuple(torch.zeros_like(leaf) for leaf in leaves)
    found = []
    for k, (slope, level) in enumerate(zip(slopes, tree.levels, strict=True)):
        weight = (tree.world.gamma**k * level.reach)[:, None, None]
        found.append(torch.where(weight > 0, slope / weight, torch.nan))
    return found
