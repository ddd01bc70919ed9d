"""The tree of all prefixes of a token policy, grown level by level with the policy's cache, for any alpha.

A node is a prefix (prompt, c_0 ... c_{k-1}). Its edges are the tokens c_k that are followed: all V of them (`every_token`,
for exact expectations) or one that is drawn (`one_token`, for a batch of samples). The two differ only in the edges' weights,
so an exact mean and its Monte Carlo estimator have one definition. The next input along an edge is the relaxed token u of a
`mix` rule, `u = (1 - alpha) pi + alpha onehot(c)` for `relaxed(alpha)`; belief, reward and cache follow from u. Every node's
input has a *leaf* at each requested site: a zero tensor that is added there and that only this node's subtree sees. A tree
begins at *roots*: the world's prompts, or any other prefixes, which then take the place of the prompts.

Where the environment speaks, its law takes the place of the policy's: `logits` are the logarithms of its chances, given the
tokens before, its token is never relaxed, and `own` is False.

Theory page, section 3: "The policy, its two entropy knobs, and the relaxed rollout".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from envs.arguments import names, short, whole
from envs.policy import TokenPolicy
from envs.record import short_repr
from envs.token_mdp import TokenMDP, check_tokens
from envs.world import InputError
from theory.tokens.environment import paid, spoken_logits
from theory.tokens.softmax_bounds import log_softmax, softmax
from theory.tokens.tree_size import DEFAULT_BUDGET, check_size

Choice = Callable[[Tensor], tuple[Tensor, Tensor]]  # pi (N, V) -> tokens (N, C), their shares (N, C), constants
Mix = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits, pi (N, V), onehot (N, C, V) -> u (N, C, V)


def every_token(pi: Float[Tensor, "N V"]) -> tuple[Int[Tensor, "N V"], Float[Tensor, "N V"]]:
    """Follow all tokens, each with its probability.

    Args:
        pi: probabilities at every node.

    Returns:
        The tokens, and the share of each.
    """
    return torch.arange(pi.shape[-1], device=pi.device).expand(pi.shape), pi.detach()


def one_token(rng: torch.Generator) -> Choice:
    """A choice that follows one token, drawn from pi on the generator's own device.

    Args:
        rng: of the draws.

    Returns:
        The choice, a function of pi.
    """

    def draw(pi: Tensor) -> tuple[Tensor, Tensor]:
        tokens = torch.multinomial(pi.detach().to(rng.device), 1, generator=rng)
        return tokens.to(pi.device), torch.ones_like(pi[:, :1])

    return draw


def relaxed(alpha: float, token: Mix | None = None) -> Mix:
    """The rule `u = (1 - alpha) pi + alpha y`; y is onehot(c), or what the rule `token` makes of onehot(c).

    Args:
        alpha: sampling-gap knob, 0 differentiable, 1 discrete.
        token: a rule for the token itself, straight-through for instance; None for the one-hot token.

    Returns:
        The rule.

    Raises:
        InputError: alpha lies outside [0, 1].
    """
    if not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
        raise InputError(f"alpha must lie in [0, 1]; got {alpha!r}")
    y = token or (lambda logits, pi, hard: hard)
    if alpha == 1:
        return y
    # mul.Scalar keeps the number a constant in forward mode, where `(1 - alpha) * pi` is slow: see `agents.policies.knobs`
    return lambda logits, pi, hard: torch.ops.aten.mul.Scalar(pi[:, None], 1 - alpha) + alpha * y(logits, pi, hard)


@short_repr
@dataclass(frozen=True)
class Roots:
    """Where a tree begins: N contexts of T embeddings, their beliefs, their probabilities (constants), and the step.

    Attributes:
        x: embeddings of the contexts.
        belief: probabilities of the abstract states after each.
        reach: probabilities of the roots, constants.
        step: how many tokens were said before.
    """

    x: Float[Tensor, "N T D"]
    belief: Float[Tensor, "N S"]
    reach: Float[Tensor, "N"]
    step: int = 0

    def detached(self) -> "Roots":
        """The same roots, cut off from autograd's graph.

        Returns:
            A copy.
        """
        return Roots(self.x.detach(), self.belief.detach(), self.reach, self.step)


@short_repr
@dataclass(frozen=True)
class Level:
    """The N nodes of one level, the children of a node next to each other, with C edges each.

    Attributes:
        x: embeddings read at this level: one position, or all of the root's at level 0.
        pi: the law of the next token.
        logits: of that law.
        policy_logits: the policy's, also where the environment speaks.
        own: whether the policy speaks.
        belief: probabilities of the abstract states.
        reach: probability of the node, that of its root included; a constant.
        tokens: the token of every edge.
        share: probability of the edge given the node; a constant.
        u: the (relaxed) token that is read next along every edge.
        heard: where the environment may speak, the belief once the edge's token is known; else None.
        rewards: `rbar(b, u)` along every edge, and on the last ones what is paid after them.
        leaves: by site the zeros (N, new, D) that are added there.
    """

    x: Float[Tensor, "N new D"]
    pi: Float[Tensor, "N V"]
    logits: Float[Tensor, "N V"]
    policy_logits: Float[Tensor, "N V"]
    own: Bool[Tensor, "N"]
    belief: Float[Tensor, "N S"]
    reach: Float[Tensor, "N"]
    tokens: Int[Tensor, "N C"]
    share: Float[Tensor, "N C"]
    u: Float[Tensor, "N C V"]
    heard: Float[Tensor, "N C S"] | None
    rewards: Float[Tensor, "N C"]
    leaves: dict[str, Tensor]


@short_repr
@dataclass(frozen=True)
class Tree:
    """A grown tree and its values, as constants: `Q[k]` (N_k, C) after an edge's token, and their means `V[k]` (N_k,).

    Attributes:
        world: the token world, on the policy's device and in its dtype.
        levels: the nodes, from the roots on.
        V: values of the nodes, level by level.
        Q: values after an edge's token, level by level.
    """

    world: TokenMDP
    levels: list[Level]
    V: list[Tensor]
    Q: list[Tensor]

    @property
    def J(self) -> Float[Tensor, ""]:
        """Expected return over the roots (exact with every_token, an estimate with one_token)."""
        return self.levels[0].reach @ self.V[0]


def prompt_roots(world: TokenMDP, policy: TokenPolicy) -> Roots:
    """The world's prompts as roots, with their weights as probabilities.

    Args:
        world: the token world.
        policy: whose embeddings are taken.

    Returns:
        The roots, at step 0.
    """
    rows = torch.arange(len(world.prompts), device=world.prompts.device)
    return Roots(policy.embed(world.prompts), world.start_belief(rows), world.weights)


def token_roots(world: TokenMDP, policy: TokenPolicy, prompt: int, tokens: Sequence[int]) -> Roots:
    """One prefix as a root of probability 1: a prompt's index, and the tokens after it.

    Args:
        world: the token world.
        policy: whose embeddings are taken.
        prompt: index of the prompt.
        tokens: what was said after it; it may be empty.

    Returns:
        One root.

    Raises:
        InputError: the prompt does not exist, or a token is outside of the vocabulary.
    """
    if not 0 <= prompt < len(world.prompts):
        raise InputError(f"prompt {prompt} does not exist: the world's are 0 ... {len(world.prompts) - 1}")
    like = next(policy.parameters())
    world = world.to(str(like.device), like.dtype)
    prefix = check_tokens(world, torch.as_tensor(tokens, dtype=torch.int64, device=world.prompts.device).reshape(-1))
    x = policy.embed(torch.cat([world.prompts[prompt], prefix]))[None]
    belief = world.belief_after(prompt, prefix)[None]
    return Roots(x, belief, torch.ones_like(belief[:, 0]), len(prefix))


def prefix_roots(tree: Tree, policy: TokenPolicy, k: int) -> Roots:
    """All nodes of level k = 1 ... number of levels as roots, whole contexts, still attached to autograd's graph.

    Args:
        tree: the tree that was grown from the prompts.
        policy: the policy that it was grown with.
        k: the level.

    Returns:
        The roots, at step k.
    """
    x, belief, reach = _children(tree.world, policy, tree.levels[k - 1])
    before = [level.x.repeat_interleave(len(x) // len(level.x), 0) for level in tree.levels[:k]]
    return Roots(torch.cat([*before, x], 1), belief, reach, k)


def _check_kinds(world: Any, policy: Any) -> None:
    if not isinstance(world, TokenMDP):
        raise InputError(f"world must be a TokenMDP, costate.world('TokenParity') for instance; got {short(world)}")
    if not (hasattr(policy, "embed") and hasattr(policy, "extend")):
        raise InputError(
            f"policy must be one over tokens (costate.ModulePolicy wraps your network); got {short(policy)}"
        )


def grow(
    world: TokenMDP,
    policy: TokenPolicy,
    mix: Mix | float = 1.0,
    sites: str | Sequence[str] = (),
    choose: Choice = every_token,
    copies: int = 1,
    budget: int = DEFAULT_BUDGET,
    roots: Roots | None = None,
) -> Tree:
    """Grow the tree and compute its values.

    Args:
        world: the token world.
        policy: over its tokens; with a method `hidden` where the world pays a hidden readout.
        mix: the rule for the next input, or alpha for `relaxed(alpha)`.
        sites: places in the network that get leaves.
        choose: which edges are followed, `every_token` or `one_token(rng)`.
        copies: of every root; the number of samples.
        budget: bytes that the tree may need.
        roots: other prefixes in the place of the prompts.

    Returns:
        The tree, attached to autograd's graph.

    Raises:
        InputError: alpha outside [0, 1], logits of the wrong shape, NaN or infinite, or, before allocating, a tree larger than
            the budget.
    """
    _check_kinds(world, policy)
    mix = mix if callable(mix) else relaxed(mix)
    copies, sites = whole("copies (samples)", copies, 1), names(sites)
    count = copies * (len(world.prompts) if roots is None else len(roots.x))
    check_size(world.rest(roots.step if roots else 0), policy, count, choose is every_token, budget)
    like = next(policy.parameters(), None)
    if like is None:
        raise InputError("policy must have a parameter: device and dtype are taken from it")
    world = world.to(str(like.device), like.dtype)
    roots = prompt_roots(world, policy) if roots is None else roots
    world = world.rest(roots.step)
    x, belief, reach = (part.repeat_interleave(copies, 0) for part in (roots.x, roots.belief, roots.reach / copies))
    levels, cache = list[Level](), None
    for k in range(world.horizon):
        leaves = {site: torch.zeros_like(x).requires_grad_() for site in sites}
        logits, cache = policy.extend(x, cache, leaves)
        if tuple(logits.shape) != (len(x), world.V):
            raise InputError(
                f"policy must give logits of shape {(len(x), world.V)}, one for each of the world's {world.V} tokens; got "
                f"{tuple(logits.shape)}: build it for this vocabulary"
            )
        levels.append(_level(world, k, (x, belief, reach), logits, leaves, mix, choose))
        if k + 1 < world.horizon:
            x, belief, reach = _children(world, policy, levels[-1])
    if world.readout is not None:
        levels[-1] = replace(
            levels[-1], rewards=levels[-1].rewards + world.gamma * _readout(world, policy, levels[-1], cache)
        )
    tree = Tree(world, levels, *edge_values(world, levels))
    _check_numbers(tree)
    return tree


def _level(
    world: TokenMDP,
    k: int,
    nodes: tuple[Tensor, Tensor, Tensor],
    policy_logits: Tensor,
    leaves: dict[str, Tensor],
    mix: Mix,
    choose: Choice,
) -> Level:
    """Level k from its nodes (embeddings, beliefs, probabilities) and the policy's logits there: tokens, inputs, rewards."""
    x, belief, reach = nodes
    own, logits = spoken_logits(world, belief, policy_logits)
    pi = softmax(logits)
    tokens, share = choose(pi)
    hard = one_hot(tokens, world.V).to(pi)
    u, heard = mix(logits, pi, hard), None
    if world.speech is not None:
        u, heard = torch.where(own[:, None, None], u, hard), world.heard(belief, tokens)[1]
    rewards = paid(world, k, belief, heard, u)
    return Level(x, pi, logits, policy_logits, own, belief, reach, tokens, share, u, heard, rewards, leaves)


def _check_numbers(tree: Tree) -> None:
    """Refuse logits that are NaN or +infinity, which make J NaN; -infinity forbids a token and is sound."""
    try:
        sound = not bool(tree.J.isnan())
    except RuntimeError:  # under vmap no number can be looked at
        return
    if not sound:
        raise InputError("policy gives logits that are NaN or infinite: no probabilities can be made of them")


def _children(world: TokenMDP, policy: TokenPolicy, level: Level) -> tuple[Tensor, Tensor, Tensor]:
    """Embedding (N C, 1, D), belief and probability of every edge's end."""
    if level.heard is None:
        belief = torch.einsum("nz,zay,nca->ncy", level.belief, world.P, level.u).flatten(0, 1)
    else:
        belief = torch.einsum("ncz,zay,nca->ncy", level.heard, world.P, level.u).flatten(0, 1)
    return policy.embed(level.u).flatten(0, 1)[:, None], belief, (level.reach[:, None] * level.share).flatten()


def _readout(world: TokenMDP, policy: TokenPolicy, level: Level, cache: Any) -> Float[Tensor, "N C"]:
    """`readout'h` after every last edge."""
    if not hasattr(policy, "hidden"):
        raise InputError("a world with a hidden readout needs a policy with `hidden(x, cache)`; this one has none")
    h, _ = policy.hidden(policy.embed(level.u).flatten(0, 1)[:, None], cache)
    if world.readout.shape != h.shape[1:]:
        raise InputError(f"readout must have the policy's width, {h.shape[1]}; got {len(world.readout)}")
    rewards: Tensor = (h @ world.readout).reshape(level.share.shape)
    return rewards


def possible_log_probs(logits: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch V"]:
    """`log pi`, and 0 for a token that a logit of -infinity forbids: times its probability it is 0 either way, not NaN.

    Args:
        logits: of the tokens, in the last axis.

    Returns:
        Log-probabilities in nats, finite.
    """
    log_pi = log_softmax(logits)
    return log_pi.masked_fill(log_pi == -torch.inf, 0.0)


def edge_values(
    world: TokenMDP, levels: list[Level], after: Float[Tensor, "N"] | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """V and Q of all nodes from the last level up, as constants; `after` are the values at the ends of the last edges.

    Args:
        world: the token world.
        levels: of a tree.
        after: values at the ends of the last edges; None where nothing follows.

    Returns:
        V (N,) and Q (N, C) of every level.
    """
    values: list[Tensor] = []
    quality: list[Tensor] = []
    for level in reversed(levels):
        later = 0.0 if after is None else world.gamma * after.reshape(level.share.shape)
        quality.insert(0, level.rewards.detach() + later)
        after = (level.share * quality[0]).sum(-1)
        values.insert(0, after)
    return values, quality
