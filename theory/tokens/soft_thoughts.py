"""Soft thoughts: relaxed tokens that are fed on before an answer is sampled; success and its gradient by quadrature.

A *thought* is one position whose input is no token but an embedding drawn around the policy's law p:
`E'softmax((log p + g) / tau)` with Gumbel noise g (SofT-GRPO), or `E'p + sigma n` with Gaussian noise n (soft tokens). A *rule*
says how it is drawn, as points with weights. Two limits are rules as well: a discrete thought (`tau -> 0`) and the mean
embedding (`sigma -> 0`, alpha = 0).

For V = 2 the relaxed token depends on the noise through `s = log p_1 - log p_0 + logistic noise` alone, so that one integral
over s is exact for each thought. Its nodes are evenly spaced in `asinh(s / c) + asinh(s - log p_1 + log p_0)`,
`c = min(tau, 1)`: they resolve the step at s = 0 for every tau, and the density for every p.

Theory page, section 6: "Gumbel noise and soft thoughts".
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from envs.arguments import check_bytes, short, whole
from envs.policy import TokenPolicy
from envs.record import short_repr
from envs.world import InputError
from theory.continuous.quadrature import gauss_hermite
from theory.tokens.softmax_bounds import log_softmax

_TAIL = 40.0  # the logistic density falls to e^-40 beyond it
_HALVINGS, _NEWTON = 30, 4  # steps to a point
_BYTES = 8 * 64  # of a point, for each unit of width and layer

# (policy, logits (rows, V)) -> embeddings (rows, n, D), weights (rows, n), constants, and log densities (rows, n)
Rule = Callable[[TokenPolicy, Tensor], tuple[Tensor, Tensor, Tensor]]


@short_repr
@dataclass(frozen=True)
class Thoughts:
    """Contexts that end in thoughts, N of them, those of one prompt next to each other.

    Attributes:
        x: embeddings of prompts and thoughts.
        weight: probabilities of the contexts given their prompt, constants.
        log_density: the logarithm of the thoughts' densities, attached to autograd's graph.
        logits: of the first token of the answer.
    """

    x: Float[Tensor, "N T D"]
    weight: Float[Tensor, "N"]
    log_density: Float[Tensor, "N"]
    logits: Float[Tensor, "N V"]


class SoftSuccess(NamedTuple):
    """Success probability of the answer, and its gradient by two roads, one number for each parameter.

    Attributes:
        P: the probability of the right answer.
        pathwise: the gradient through the thoughts, their noise held fixed.
        score: the mean of success times the slopes of all log densities, the thoughts held fixed.
    """

    P: Float[Tensor, ""]
    pathwise: Float[Tensor, "parameters"]
    score: Float[Tensor, "parameters"]


def think(policy: TokenPolicy, x: Float[Tensor, "P T D"], rules: Sequence[Rule]) -> Thoughts:
    """All thoughts that the rules follow, one rule for each thought, with every earlier one.

    Args:
        policy: whose law the thoughts are drawn around.
        x: embeddings of the prompts.
        rules: one for each thought.

    Returns:
        The contexts.
    """
    logits, cache = policy.extend(x, None, {})
    weight = torch.ones_like(logits[:, 0]).detach()
    log_density = torch.zeros_like(weight)
    for rule in rules:
        h, share, own = rule(policy, logits)
        n = h.shape[1]
        x = torch.cat([x.repeat_interleave(n, 0), h.flatten(0, 1)[:, None]], 1)
        weight = (weight[:, None] * share).flatten()
        log_density = (log_density[:, None] + own).flatten()
        logits, cache = policy.extend(x[:, -1:], cache, {})
    return Thoughts(x, weight, log_density, logits)


def logistic_rule(tau: float, nodes: int, path: bool = True) -> Rule:
    """Gumbel noise on the logits of two tokens, by quadrature.

    Args:
        tau: temperature of the relaxed token.
        nodes: of the integral over s.
        path: True for points that move with the policy, the noise held fixed; False for points that stay.

    Returns:
        The rule.
    """

    def rule(policy: TokenPolicy, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if logits.shape[-1] != 2:
            raise InputError(f"policy must have 2 tokens for this quadrature; got {logits.shape[-1]}: draw the noise")
        ell = (logits[:, 1] - logits[:, 0])[:, None]
        s, width = _two_centres(ell.detach(), min(tau, 1.0), nodes)
        log_density = logsigmoid(s - ell) + logsigmoid(ell - s)
        moved = (s + (ell - ell.detach() if path else 0.0)) / tau
        y = torch.stack([torch.sigmoid(-moved), torch.sigmoid(moved)], -1)
        return policy.embed(y), width * log_density.detach().exp(), log_density

    return rule


def _two_centres(ell: Float[Tensor, "rows 1"], c: float, nodes: int) -> tuple[Tensor, Tensor]:
    """Points s at which `asinh(s / c) + asinh(s - ell)` is evenly spaced, and the widths of a trapezoidal sum over them.

    They are close where the relaxed token changes, at s = 0 within c, and where the density lies, at s = ell within 1. The sum
    converges exponentially in the number of points, as the map is analytic.
    """
    zero = torch.zeros_like(ell)
    low, high = torch.minimum(ell, zero) - _TAIL, torch.maximum(ell, zero) + _TAIL
    share = torch.linspace(0.0, 1.0, nodes, dtype=ell.dtype, device=ell.device)

    def place(s: Tensor) -> Tensor:
        return torch.asinh(s / c) + torch.asinh(s - ell)

    def slope(s: Tensor) -> Tensor:
        return (s**2 + c**2).rsqrt() + ((s - ell) ** 2 + 1).rsqrt()

    first, length = place(low), place(high) - place(low)
    wanted = first + length * share
    left, right = low.expand_as(wanted), high.expand_as(wanted)
    for _ in range(_HALVINGS):
        middle = (left + right) / 2
        below = place(middle) < wanted
        left, right = torch.where(below, middle, left), torch.where(below, right, middle)
    s = (left + right) / 2
    for _ in range(_NEWTON):
        s = s - (place(s) - wanted) / slope(s)
    return s, length / (nodes - 1) / slope(s)


def normal_rule(sigma: float, nodes: int, path: bool = True) -> Rule:
    """Gaussian noise on the mean embedding, by a tensor Gauss-Hermite rule: `nodes^D` points.

    Args:
        sigma: standard deviation of each component.
        nodes: for each component; exact for polynomials of a degree below 2 nodes.
        path: as for `logistic_rule`.

    Returns:
        The rule.
    """

    def rule(policy: TokenPolicy, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = policy.embed(log_softmax(logits).exp())[:, None]
        D = mean.shape[-1]
        check_bytes(
            _BYTES * len(mean) * nodes**D * D, f"nodes={nodes} in {D} dimensions make points", "take fewer nodes"
        )
        one, weight = (x.to(mean) for x in gauss_hermite(nodes))
        points = torch.cartesian_prod(*[one] * D).reshape(-1, D)
        shares = torch.cartesian_prod(*[weight] * D).reshape(-1, D).prod(-1)
        h = (mean if path else mean.detach()) + sigma * points
        log_density = -((h.detach() - mean) ** 2).sum(-1) / (2 * sigma**2)
        return h, shares.expand(len(mean), -1), log_density

    return rule


def discrete_rule(policy: TokenPolicy, logits: Float[Tensor, "rows V"]) -> tuple[Tensor, Tensor, Tensor]:
    """A sampled token as the thought: the limit `tau -> 0`. It has a score and no path.

    Args:
        policy: whose tokens are embedded.
        logits: of its law.

    Returns:
        Embeddings, probabilities and log-probabilities of all tokens.
    """
    log_p = log_softmax(logits)
    tokens = torch.arange(logits.shape[-1], device=logits.device).expand(logits.shape)
    return policy.embed(tokens), log_p.detach().exp(), log_p


def mean_rule(policy: TokenPolicy, logits: Float[Tensor, "rows V"]) -> tuple[Tensor, Tensor, Tensor]:
    """The mean embedding as the thought: the limit `sigma -> 0`, the rollout at alpha = 0. It has a path and no score.

    Args:
        policy: whose tokens are embedded.
        logits: of its law.

    Returns:
        One embedding of weight 1.
    """
    one = torch.ones_like(logits[:, :1]).detach()
    return policy.embed(log_softmax(logits).exp())[:, None], one, 0 * one


def drawn_rules(
    tau: float, noise: Float[Tensor, "n thoughts V"], law: Callable[[Tensor], Tensor] = log_softmax
) -> list[Rule]:
    """Gumbel noise that was drawn before, the same for every prompt: for any number of tokens, an estimate.

    Args:
        tau: temperature of the relaxed tokens.
        noise: g of every draw, thought and token.
        law: log-probabilities that the noise is added to, of the logits.

    Returns:
        One rule for each thought; they follow n contexts of each prompt, with weights 1 / n.
    """

    def drawn(k: int) -> Rule:
        def rule(policy: TokenPolicy, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            g = noise[:, k].to(logits)
            rows = len(logits)
            own = g.expand(rows, -1, -1) if k == 0 else g.repeat(rows // len(g), 1)[:, None]
            y = torch.softmax((law(logits)[:, None] + own) / tau, -1).to(logits)
            share = torch.full_like(y[..., 0], 1 / len(g) if k == 0 else 1.0).detach()
            return policy.embed(y), share, 0 * share

        return rule

    return [drawn(k) for k in range(noise.shape[1])]


def soft_success(
    policy: TokenPolicy, prompt: Any, tau: float, thoughts: int = 2, nodes: int = 120, answer: int = 1
) -> SoftSuccess:
    """`P_tau`: the probability that the token after some soft thoughts with Gumbel noise is the right one.

    The score is that of the relaxed tokens, the conditional mean of the noise's own score `sum_a (1 - e^-g_a) grad log p_a`, so
    both have one mean: the gradient of P_tau.

    Args:
        policy: over two tokens.
        prompt: the tokens before the thoughts.
        tau: temperature of the relaxed tokens.
        thoughts: how many.
        nodes: of the integral over each thought.
        answer: the right token.

    Returns:
        P and its gradient, pathwise and by the score.

    Raises:
        InputError: tau is no finite number > 0, the policy has not two tokens, a number is out of its range, or the points
            need too much memory.
    """
    check_width("tau", tau, "a temperature")
    nodes = whole("nodes", nodes, 2)
    size = getattr(policy, "width", 1) * getattr(policy, "layers", 1)
    count = whole("thoughts", thoughts, 1)
    check_bytes(
        _BYTES * size * nodes**count, f"nodes={nodes} for each of {count} thoughts make points", "take fewer nodes"
    )
    return _by_both(policy, prompt, lambda path: [logistic_rule(tau, nodes, path)] * count, answer)


def soft_token_success(
    policy: TokenPolicy, prompt: Any, sigma: float, thoughts: int = 2, nodes: int = 5, answer: int = 1
) -> SoftSuccess:
    """The same for soft tokens, whose noise is Gaussian and in the space of embeddings, for any number of tokens.

    Args:
        policy: over any tokens, with embeddings of few dimensions.
        prompt: the tokens before the thoughts.
        sigma: standard deviation of the noise in each dimension.
        thoughts: how many.
        nodes: of the integral over each dimension of each thought.
        answer: the right token.

    Returns:
        P and its gradient, pathwise and by the score.

    Raises:
        InputError: sigma is no finite number > 0, a number is out of its range, or the points need too much memory.
    """
    check_width("sigma", sigma, "a standard deviation")
    nodes, count = whole("nodes", nodes, 2), whole("thoughts", thoughts, 1)
    D = policy.embed(torch.zeros(1, 1, dtype=torch.int64, device=next(policy.parameters()).device)).shape[-1]
    points = f"nodes={nodes} in {D} dimensions of each of {count} thoughts make points"
    check_bytes(_BYTES * D * nodes ** (D * count), points, "take fewer nodes or a narrower policy")
    return _by_both(policy, prompt, lambda path: [normal_rule(sigma, nodes, path)] * count, answer)


def discrete_success(
    policy: TokenPolicy, prompt: Any, thoughts: int = 2, answer: int = 1
) -> tuple[Float[Tensor, ""], Float[Tensor, "parameters"]]:
    """Success and its gradient where the thoughts are sampled tokens: what `tau -> 0` must give.

    Args:
        policy: over any tokens.
        prompt: the tokens before the thoughts.
        thoughts: how many.
        answer: the right token.

    Returns:
        P and its gradient.

    Raises:
        InputError: a number is out of its range.
    """
    return _with(policy, prompt, [discrete_rule] * whole("thoughts", thoughts, 1), answer, score=True)


def mean_success(
    policy: TokenPolicy, prompt: Any, thoughts: int = 2, answer: int = 1
) -> tuple[Float[Tensor, ""], Float[Tensor, "parameters"]]:
    """Success and its gradient where the thoughts are mean embeddings (alpha = 0): what `sigma -> 0` must give.

    Args:
        policy: over any tokens.
        prompt: the tokens before the thoughts.
        thoughts: how many.
        answer: the right token.

    Returns:
        P and its gradient.

    Raises:
        InputError: a number is out of its range.
    """
    return _with(policy, prompt, [mean_rule] * whole("thoughts", thoughts, 1), answer)


def check_width(name: str, value: Any, what: str) -> None:
    """Refuse a width of noise that is no finite number > 0.

    Args:
        name: of the argument in the error.
        value: what was given.
        what: it is, for the error.

    Raises:
        InputError: as said.
    """
    if isinstance(value, bool | str) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"{name} must be a finite number > 0, {what}; got {short(value)}")


def _by_both(policy: TokenPolicy, prompt: Any, rules: Callable[[bool], list[Rule]], answer: int) -> SoftSuccess:
    P, pathwise = _with(policy, prompt, rules(True), answer)
    return SoftSuccess(P, pathwise, _with(policy, prompt, rules(False), answer, score=True)[1])


def _with(
    policy: TokenPolicy, prompt: Any, rules: list[Rule], answer: int, score: bool = False
) -> tuple[Tensor, Tensor]:
    """P, and its gradient through the points or by their scores."""
    like = next(policy.parameters())
    tokens = _prompt(prompt).to(like.device)
    answer = whole("answer", answer, 0, "a token")
    drawn = think(policy, policy.embed(tokens), rules)
    if answer >= drawn.logits.shape[-1]:
        raise InputError(f"answer must be a token, 0 ... {drawn.logits.shape[-1] - 1}; got {answer}")
    log_p = log_softmax(drawn.logits)[:, answer]
    chance = drawn.weight * log_p.exp()
    total = chance.detach() @ (drawn.log_density + log_p) if score else chance.sum()
    slopes = torch.autograd.grad(total, list(policy.parameters()), allow_unused=True, materialize_grads=True)
    return chance.detach().sum(), torch.cat([slope.flatten() for slope in slopes])


def _prompt(prompt: Any) -> Tensor:
    try:
        tokens = torch.as_tensor(prompt)
    except (TypeError, ValueError, RuntimeError):
        tokens = torch.empty(0)
    if tokens.ndim != 1 or not len(tokens) or tokens.is_floating_point() or bool((tokens < 0).any()):
        raise InputError(f"prompt must be a sequence of tokens, [0] for instance; got {short(prompt)}")
    return tokens.long()[None]
