"""Entropy, Gini index, softmax Jacobian, sampling gap, and the inequalities between them.

Letters: p probabilities over V tokens (last axis), `J(p) = diag(p) - p p'`, `G(p) = 1 - sum p^2`, `H(p)` in nats,
`osc(q) = max q - min q`, `TV` total variation. Everything batches over leading axes. The norm of J is computed without
forming J, so that it stays cheap at V = 32768.

All keep their relative accuracy for peaked laws: where p_1 = 1 - 1e-13 is rounded, `1 - p_1` is taken as the sum of the other
entries, which softmax gives to full accuracy, and differences are taken from the likeliest token.

Theory page, section 3: "Inequalities for one distribution".
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from envs.arguments import takes_numbers
from envs.world import InputError
from theory.tokens.diameter import diameter

_BISECTIONS = (
    60  # in `jacobian_norm`, of an interval whose ends differ by a factor of 2 at most: enough to reach rounding
)
_MAX_SUBSETS = 20  # largest V of `inf_to_one_norm`, which visits 2^V subsets


@takes_numbers("p")
def check_probabilities(p: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch V"]:
    """Refuse rows that are no distributions.

    Args:
        p: probabilities.

    Returns:
        p itself, as a tensor.

    Raises:
        InputError: an entry is negative or not finite, or a row does not sum to 1; the error names the worst sum.
    """
    sums = p.sum(-1)
    off = (sums - 1).abs().nan_to_num(torch.inf).detach().flatten()
    if bool((p < 0).any()) or float(off.max()) > 1e-6:
        raise InputError(
            f"p must be finite probabilities that sum to one; the smallest entry is {float(p.min()):.3g}, the worst sum "
            f"{float(sums.flatten()[off.argmax()]):.6g}"
        )
    return p


def _is_top(p: Float[Tensor, "*batch V"]) -> Bool[Tensor, "*batch V"]:
    """True at the likeliest token, the first of equals."""
    return torch.nn.functional.one_hot(p.argmax(-1), p.shape[-1]).bool()


@takes_numbers("p")
def complement(p: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch V"]:
    """`1 - p`, for the likeliest token as the sum of the others: accurate where p is next to 1.

    Args:
        p: probabilities.

    Returns:
        One number for each entry.
    """
    top = _is_top(p)
    return torch.where(top, torch.where(top, 0.0, p).sum(-1, keepdim=True), 1 - p)


@takes_numbers("p", "x")
def from_top(p: Float[Tensor, "*batch V"], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """`x_a - x_top` for numbers (*batch, V) or vectors (*batch, V, d): covariances do not change, and lose no digits.

    Args:
        p: probabilities.
        x: numbers, or vectors in a last axis of their own, for each entry of p.

    Returns:
        The differences, in the shape of x.
    """
    index = p.argmax(-1, keepdim=True).reshape(*p.shape[:-1], 1, *[1] * (x.ndim - p.ndim))
    return x - x.gather(p.ndim - 1, index.expand(*p.shape[:-1], 1, *x.shape[p.ndim :]))


@takes_numbers("p")
def entropy(p: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch"]:
    """`H = -sum p ln p`, in nats; `ln p` of a token of more than one half is `log1p` of minus the others' sum.

    Args:
        p: probabilities.

    Returns:
        The entropy in nats, between 0 and ln V.
    """
    rest = complement(p)
    log_p = torch.where(p > 0.5, torch.log1p(-rest.clamp(max=0.5)), torch.where(p > 0, p, 1.0).log())
    return -(p * log_p).sum(-1)


@takes_numbers("logits")
def log_softmax(logits: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch V"]:
    """`ln p` of `p = softmax(logits)`, for the likeliest token as `-log1p(sum of the others' p_a / p_top)`.

    Torch's log_softmax adds the others to 1 first: where `1 - p_top = 1e-13` its value, and its derivative `1 - p_top`, keep
    three digits; here both keep all.

    Args:
        logits: over V tokens (last axis); minus infinity for a token that is forbidden.

    Returns:
        Log-probabilities in nats, of the logits' shape; minus infinity for a forbidden token.
    """
    top = logits.argmax(-1, keepdim=True)
    usual = logits.gather(-1, top)
    # the top's own x, 0 (NaN for an infinite logit), is a constant: its two derivatives would cancel and leave their rounding
    x = (logits - usual).scatter(-1, top, (usual - usual).detach())
    return x - x.exp().scatter(-1, top, 0.0).sum(-1, keepdim=True).log1p()


@takes_numbers("logits")
def softmax(logits: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch V"]:
    """Probabilities `p_a = exp(z_a) / sum exp(z)` of logits z; the derivative keeps its digits for the likeliest token too.

    Torch's derivative `p_top (g_top - sum p g)` has none left where `1 - p_top` is below the rounding of 1.

    Args:
        logits: over V tokens (last axis); minus infinity for a token that is forbidden.

    Returns:
        Probabilities of the logits' shape.
    """
    return log_softmax(logits).exp()


@takes_numbers("p")
def gini(p: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch"]:
    """`G = 1 - sum p^2 = E_a TV(delta_a, p)`: the chance that two draws differ.

    Args:
        p: probabilities.

    Returns:
        The index, between 0 and 1 - 1/V.
    """
    return (p * complement(p)).sum(-1)


@takes_numbers("p")
def sampling_gap(p: Float[Tensor, "*batch V"], alpha: float) -> Float[Tensor, "*batch"]:
    """`gap = E_c TV(u, p) = alpha G(p)` of the relaxed token `u = (1 - alpha) p + alpha onehot(c)` (our definition).

    Args:
        p: probabilities.
        alpha: sampling-gap knob, 0 differentiable, 1 discrete.

    Returns:
        The gap, between 0 and 1.
    """
    return alpha * gini(p)


@takes_numbers("H")
def gini_entropy_bound(H: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """`G <= min(H / (2 ln 2), 1 - e^{-H})`.

    Args:
        H: entropies in nats.

    Returns:
        The bound for each entropy.
    """
    return torch.minimum(H / (2 * math.log(2)), -torch.expm1(-H))


@takes_numbers("G")
def spread_factor(G: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """`min(1/4, G/2)`, the factor in every bound that uses a diameter.

    Args:
        G: Gini indices.

    Returns:
        The factor for each index.
    """
    return (G / 2).clamp(max=0.25)


@takes_numbers("q")
def oscillation(q: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch"]:
    """`osc(q) = max q - min q`.

    Args:
        q: numbers in the last axis.

    Returns:
        The oscillation, in the unit of q.
    """
    return q.amax(-1) - q.amin(-1)


@takes_numbers("p")
def jacobian(p: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch V V"]:
    """`J(p) = diag(p) - p p'`, the derivative of softmax at probabilities p.

    Args:
        p: probabilities.

    Returns:
        A symmetric matrix for each distribution.
    """
    products, diagonal = p[..., :, None] * p[..., None, :], torch.eye(p.shape[-1], dtype=torch.bool, device=p.device)
    return torch.where(diagonal, (p * complement(p))[..., None], -products)


@takes_numbers("p")
def jacobian_norm(p: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch"]:
    """`||J(p)||_2` in O(V): the root x of `sum_i p_i^2 / (p_i - x) = 1` between the two largest probabilities.

    On that interval the left side rises from -inf at p_2 to +inf at p_1, so bisection finds the root to rounding. The
    norm lies in `[p_1 (1 - p_1), 2 p_1 (1 - p_1)]` too. The term of p_1, less 1, is `(x - p_1 (1 - p_1)) / (p_1 - x)`.
    Where p_1 = p_2 the norm is p_1.

    Args:
        p: probabilities.

    Returns:
        The spectral norm for each distribution, at most 1/2.
    """
    first, second = _top(p)
    spread = (p * complement(p)).gather(-1, p.argmax(-1, keepdim=True))[..., 0]
    low, high, others = torch.maximum(second, spread), torch.minimum(first, 2 * spread), torch.where(_is_top(p), 0.0, p)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        terms = others * (others / (others - middle[..., None]))  # a square would underflow
        value = terms.sum(-1) + (middle - spread) / (first - middle)
        above = (value > 0) & (middle > low)
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return low


@takes_numbers("p")
def inf_to_one_norm(p: Float[Tensor, "V"]) -> Float[Tensor, ""]:
    """`||J||_{inf->1} = max_S 4 P(S)(1 - P(S))` exactly, over all 2^V subsets S.

    Args:
        p: probabilities of one distribution.

    Returns:
        The norm, at most 1.

    Raises:
        InputError: V > 20.
    """
    if len(p) > _MAX_SUBSETS:
        raise InputError(
            f"V={len(p)} makes 2^{len(p)} subsets; the exact norm takes V <= {_MAX_SUBSETS}: use min(1, 2 G)"
        )
    mass = torch.zeros_like(p[:1])
    for weight in p[~_is_top(p)]:  # S and its complement count alike: the likeliest token is left out
        mass = torch.cat([mass, mass + weight])
    return (4 * mass * (1 - mass)).max()


@takes_numbers("p", "w", "Q")
def covariance(
    p: Float[Tensor, "*batch V"], w: Float[Tensor, "*batch V d"], Q: Float[Tensor, "*batch V"]
) -> Float[Tensor, "*batch d"]:
    """`Cov_{a~p}(w(a), Q(a))` of a vector w(a) and a number Q(a).

    Args:
        p: probabilities.
        w: a vector for each token.
        Q: a number for each token.

    Returns:
        The covariance, in the unit of w times that of Q.
    """
    Q, w = from_top(p, Q), from_top(p, w)
    centred = Q - (p * Q).sum(-1, keepdim=True)
    return torch.einsum("...a,...ad->...d", p * centred, w)


@takes_numbers("p", "w", "Q")
def covariance_bound(
    p: Float[Tensor, "*batch V"], w: Float[Tensor, "*batch V d"], Q: Float[Tensor, "*batch V"]
) -> Float[Tensor, "*batch"]:
    """Right side of `||Cov_p(w, Q)|| <= D_w osc(Q) min(1/4, G/2)`, whose constant is optimal.

    Args:
        p: probabilities.
        w: a vector for each token.
        Q: a number for each token.

    Returns:
        The bound, in the unit of w times that of Q.
    """
    return diameter(w) * oscillation(Q) * spread_factor(gini(p))


Sides = tuple[Tensor, Tensor]  # of an inequality: the smaller one first


def _top(p: Tensor) -> tuple[Tensor, Tensor]:
    """The two largest probabilities."""
    top = p.topk(2, -1).values
    return top[..., 0], top[..., 1]


def _norm_upper(p: Tensor) -> Sides:
    first, _ = _top(p)
    return jacobian_norm(p), torch.minimum(first, 2 * first * _missing(p))


def _missing(p: Tensor) -> Tensor:
    """`1 - p_1`."""
    return torch.where(_is_top(p), 0.0, p).sum(-1)


def _near_uniform(p: Tensor) -> Sides:
    V = p.shape[-1]
    return jacobian_norm(p), 1 / V + ((math.log(V) - entropy(p)).clamp(min=0) / 2).sqrt()


# Every inequality of the theory page that depends on p alone: name -> its two sides.
INEQUALITIES: dict[str, Callable[[Tensor], Sides]] = {
    "p2 <= |J|": lambda p: (_top(p)[1], jacobian_norm(p)),
    "|J| <= min(p1, 2 p1 (1 - p1))": _norm_upper,
    "min(p1, 2 p1 (1 - p1)) <= 1/2": lambda p: (_norm_upper(p)[1], torch.full_like(_top(p)[0], 0.5)),
    "p1 (1 - p1) <= |J|": lambda p: (_top(p)[0] * _missing(p), jacobian_norm(p)),
    "G / (V - 1) <= |J|": lambda p: (gini(p) / (p.shape[-1] - 1), jacobian_norm(p)),
    "|J| <= G": lambda p: (jacobian_norm(p), gini(p)),
    "G <= H / (2 ln 2)": lambda p: (gini(p), entropy(p) / (2 * math.log(2))),
    "G <= 1 - exp(-H)": lambda p: (gini(p), -torch.expm1(-entropy(p))),
    "1 - p1 <= G": lambda p: (_missing(p), gini(p)),
    "G <= 2 (1 - p1)": lambda p: (gini(p), 2 * _missing(p)),
    "|J| <= 1/V + sqrt((ln V - H) / 2)": _near_uniform,
}


@takes_numbers("p")
def inf_to_one_bound(p: Float[Tensor, "V"]) -> Sides:
    """Both sides of `max_S 4 P(S)(1 - P(S)) <= min(1, 2 G)`.

    Args:
        p: probabilities of one distribution.

    Returns:
        Left and right side.

    Raises:
        InputError: V > 20.
    """
    return inf_to_one_norm(p), (2 * gini(p)).clamp(max=1.0)


@takes_numbers("p", "E")
def embedding_spread_bound(p: Float[Tensor, "V"], E: Float[Tensor, "V d"]) -> Sides:
    """Both sides of `E_a ||e_a - ebar|| <= D_e G`, with `ebar = E_a e_a`.

    Args:
        p: probabilities of one distribution.
        E: the embedding of each token.

    Returns:
        Left and right side.
    """
    E = from_top(p, E)
    return (p * (E - p @ E).norm(dim=-1)).sum(), diameter(E) * gini(p)


@takes_numbers("p", "E", "W")
def sandwich_bound(p: Float[Tensor, "V"], E: Float[Tensor, "V d"], W: Float[Tensor, "V k"]) -> Sides:
    """Both sides of `||E'J W||_2 <= D_e D_w min(1/4, G/2)`, whose right side does not grow with V; a product of norms does.

    Args:
        p: probabilities of one distribution.
        E: a vector for each token.
        W: another vector for each token.

    Returns:
        Left and right side.
    """
    E, W = from_top(p, E), from_top(p, W)
    inner = E.mT @ (p[:, None] * W) - torch.outer(p @ E, p @ W)
    return torch.linalg.matrix_norm(inner, 2), diameter(E) * diameter(W) * spread_factor(gini(p))
