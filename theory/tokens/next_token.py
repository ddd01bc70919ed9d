"""Where next-token rewards bring the law of the next token after one context, and the likelihood beside them.

Every pair (context, true next token x) is a prompt, and naming x pays 1 (`envs.corpus.next_token_world`). After one context q
is the corpus's law of x and pi the policy's. A recipe of binary rewards moves along `sum_x q_x kappa(pi_x) grad pi_x`; the
likelihood is `kappa = 1 / pi`. A table with free logits ends at a maximum of `sum_x q_x F(pi_x)`, F' = kappa.

Theory page, section 6: "Next-token reward".
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import takes_numbers, whole
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.tokens.completions import completion_log_probs, words
from theory.tokens.prefix_tree import Tree, grow

Laws = Float[Tensor, "*contexts V"]
_HALVINGS = 54  # of an interval of length 1: then no number lies between the two sides


@takes_numbers("q")
def arcsine_optimum(q: Laws) -> Laws:
    """The maximum of `sum_a q_a 2 arcsin sqrt(pi_a)`, which GRPO with std ascends as its groups grow.

    The likeliest token takes all if and only if `q_1^2 >= sum_{a>1} q_a^2`. Else `pi_a (1 - pi_a) = (q_a / nu)^2`, where that
    token alone may lie above one half. With its rest `s = 1 - pi_1` the others are
    `pi_a = (1 - sqrt(1 - 4 (q_a/q_1)^2 s (1 - s))) / 2`, concave in s, so one s > 0 makes them sum to s.

    Args:
        q: laws of the next token, one for each context; each sums to 1.

    Returns:
        The law at the maximum; where several tokens are likeliest and one takes all, the first of them does.

    Raises:
        InputError: q is no law.
    """
    top, ratio = _ordered(q)
    taken = ratio.square().sum(-1, keepdim=True) <= 1
    low, high = torch.zeros_like(top), torch.ones_like(top)
    for _ in range(_HALVINGS):
        s = (low + high) / 2
        more = _arcsine_others(ratio, s).sum(-1, keepdim=True) > s  # the others still want more than the rest
        low, high = torch.where(more, s, low), torch.where(more, high, s)
    others = torch.where(taken, 0.0, _arcsine_others(ratio, (low + high) / 2))
    return _with_likeliest(q, others)


def _arcsine_others(ratio: Tensor, s: Tensor) -> Tensor:
    x = ratio.square() * s * (1 - s)
    return 2 * x / (1 + (1 - 4 * x).clamp(min=0.0).sqrt())


@takes_numbers("q")
def mean_optimum(q: Laws, group: int) -> Laws:
    """The maximum of `-sum_a q_a sum_{k<G} (1 - pi_a)^k / k`, which an advantage divided by the group's mean ascends.

    With `kappa(p) = (1 - (1-p)^{G-1}) / p` it is the law with `q_a kappa(pi_a) = nu`, and exactly 0 where `q_a (G - 1) <= nu`.
    It is the only one from G = 3 on; at G = 2 kappa is 1 and the likeliest token takes all. It tends to q as G grows.

    Args:
        q: laws of the next token, one for each context; each sums to 1.
        group: G, at least 2.

    Returns:
        The law at the maximum; at G = 2, where several tokens are likeliest, the first of them takes all.

    Raises:
        InputError: q is no law, or group < 2.
    """
    group = whole("group", group, 2, "one row alone has nothing to be compared with")
    top, ratio = _ordered(q)
    if group == 2:
        return _with_likeliest(q, torch.zeros_like(q))
    low, high = torch.zeros_like(top), torch.ones_like(top)  # of the likeliest token's probability
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        more = middle + _mean_others(ratio, middle, group).sum(-1, keepdim=True) > 1
        low, high = torch.where(more, low, middle), torch.where(more, middle, high)
    return _with_likeliest(q, _mean_others(ratio, (low + high) / 2, group))


def _mean_others(ratio: Tensor, first: Tensor, group: int) -> Tensor:
    """The probabilities at which `(q_a / q_1) kappa(p)` is kappa of the likeliest token; 0 where it is below at p = 0."""
    wanted = _kappa(first, group)
    low, high = torch.zeros_like(ratio), first.expand_as(ratio)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        more = ratio * _kappa(middle, group) > wanted
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    return torch.where(ratio * (group - 1) > wanted, (low + high) / 2, 0.0)


def _kappa(p: Tensor, group: int) -> Tensor:
    """`theory.groups.binary_rewards.mean_factor` for 0 < p <= 1, without its checks, which would run at every halving."""
    return -torch.expm1((group - 1) * torch.log1p(-p)) / p


def _ordered(q: Laws) -> tuple[Tensor, Tensor]:
    """The largest probability, and every other token's over it, 0 at the (first) likeliest token itself."""
    if not bool(((q >= 0) & (q <= 1)).all()) or not bool(((q.sum(-1) - 1).abs() < 1e-6).all()):
        raise InputError("q must be probabilities of the next token that sum to 1 in each row")
    q = q.double()
    top = q.amax(-1, keepdim=True)
    return top, (q / top).scatter(-1, q.argmax(-1, keepdim=True), 0.0)


def _with_likeliest(q: Laws, others: Laws) -> Laws:
    return others.scatter(-1, q.argmax(-1, keepdim=True), 1 - others.sum(-1, keepdim=True))


def log_likelihood(tree: Tree) -> Float[Tensor, ""]:
    """`sum over pairs of weight log P(x | context)`, `P(x) = sum over thoughts c of pi(c) pi(x | c)`; with its gradient.

    Args:
        tree: of a policy in a world of `envs.corpus.next_token_world`, or another one whose rewards are 0 and 1.

    Returns:
        A number of nats for each token, at most 0.
    """
    right = words(tree).returns > 0.5
    logs = torch.where(right, completion_log_probs(tree).sum(-1), -math.inf)
    total: Tensor = tree.world.weights @ torch.logsumexp(logs, -1)
    return total


def corpus_nats(worlds: Sequence[TokenMDP], policy: TokenPolicy) -> float:
    """`-mean log P(next token)` in nats, over worlds that are the places of one corpus's documents.

    Without thoughts it is the exact mean of the loss that next-token training lowers by samples.

    Args:
        worlds: `envs.corpus.next_token_world` of every place.
        policy: over their tokens.

    Returns:
        Nats for each token.

    Raises:
        InputError: a world is too large.
    """
    with torch.no_grad():
        return -sum(float(log_likelihood(grow(world, policy))) for world in worlds) / len(worlds)


def least_nats(worlds: Sequence[TokenMDP]) -> float:
    """The entropy of the next token given its context: what `corpus_nats` is for a policy that has learned the corpus.

    Args:
        worlds: as there.

    Returns:
        Nats for each token.
    """
    total = 0.0
    for world in worlds:
        _, context = torch.unique(world.prompts, dim=0, return_inverse=True)
        share = torch.zeros_like(world.weights).index_add_(0, context, world.weights)[context]
        total -= float(world.weights @ (world.weights / share).log())
    return total / len(worlds)


def jensen_bound(tree: Tree) -> Float[Tensor, ""]:
    """`sum over pairs of weight E_c log pi(x | context, c)`, at most `log_likelihood`; with its gradient.

    Its gradient is the mean update where the reward of thoughts c is `log pi(x | c)` and this reward is differentiated too.

    Args:
        tree: as there.

    Returns:
        A number of nats for each token, at most 0.
    """
    right, logs = words(tree).returns > 0.5, completion_log_probs(tree)
    thought = logs[..., :-1].sum(-1).exp()
    last = torch.where(right & (thought > 0), logs[..., -1], 0.0)  # thoughts that are never said leave none out
    total: Tensor = tree.world.weights @ (thought * last).sum(-1)
    return total
