"""Estimators of the gradient of `E f` over finitely many outcomes, two evaluations of f each, with their exact moments.

Outcomes have probabilities p, values f and scores `s = grad log p`. An estimator is a table: what it may give, and with which
chances. It is unbiased if the mean of the table is `sum p f s`. With `rest_a = 1 - p_a` and the kernel
`K_ab = (f_a - f_b)(s_a - s_b)`, RLOO on two independent draws is `K_ab / 2`, and the unordered set of two with its baseline is
`rest_a rest_b / (rest_a + rest_b) K_ab` on a pair drawn without replacement, whose chance is
`p_a p_b (1 / rest_a + 1 / rest_b)`. Their second moments are `sum_{a<b} p_a p_b w_ab |K_ab|^2` with `w_ab = 1/2` and
`w_ab = rest_a rest_b / (rest_a + rest_b) < 1/2`: the set never has the larger variance.

Unordered set: W. Kool, H. van Hoof and M. Welling, arXiv:2002.06043. Sum and sample: R. Liu et al., arXiv:1810.04777.

Theory page, section 6: "Estimators".
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import takes_numbers
from envs.world import InputError

Chances = Float[Tensor, "L"]
Scores = Float[Tensor, "L parameters"]
Table = tuple[Float[Tensor, "K"], Float[Tensor, "K parameters"]]
Estimator = Callable[[Tensor, Tensor, Tensor], Table]
ESTIMATORS: dict[str, Estimator] = {}
_ROUNDING = 1e-6  # of a sum of probabilities: those of a float32 policy are exact to this


class Moments(NamedTuple):
    """Exact moments of an estimator.

    Attributes:
        mean: the mean gradient.
        variance: trace of the covariance matrix, in squared units of the gradient.
    """

    mean: Float[Tensor, "parameters"]
    variance: float


@takes_numbers("chances", "gradients")
def moments(chances: Float[Tensor, "K"], gradients: Float[Tensor, "K parameters"]) -> Moments:
    """Mean and variance of an estimator that gives these gradients with these chances.

    Args:
        chances: probabilities, of sum 1.
        gradients: one row for each.

    Returns:
        The exact moments.

    Raises:
        InputError: the chances are no probabilities, or do not fit the gradients, or an entry is NaN or infinite.
    """
    if gradients.ndim != 2 or chances.shape != gradients.shape[:1]:
        raise InputError(
            f"gradients must have one row for each chance; got {tuple(gradients.shape)} for {tuple(chances.shape)}"
        )
    if not bool(gradients.isfinite().all()):
        raise InputError("gradients must be finite; an entry is NaN or infinite")
    chances, gradients = probabilities("chances", chances).double(), gradients.double()
    mean = chances @ gradients
    return Moments(mean, float(chances @ (gradients - mean).square().sum(1)))


def probabilities(name: str, p: Float[Tensor, "L"]) -> Float[Tensor, "L"]:
    """Probabilities as they are.

    Args:
        name: of the argument in the error.
        p: what should be probabilities.

    Returns:
        The same tensor.

    Raises:
        InputError: an entry is negative or NaN, or they do not sum to 1.
    """
    if not (bool((p >= 0).all()) and abs(float(p.sum()) - 1) < _ROUNDING):
        raise InputError(f"{name} must be probabilities, >= 0 and of sum 1; their sum is {float(p.sum()):.6g}")
    return p


def _listed(name: str) -> Callable[[Estimator], Estimator]:
    """Enter an estimator into the table. It is given float64 numbers that fit, of outcomes that are possible."""

    def enter(estimator: Estimator) -> Estimator:
        @functools.wraps(estimator)
        @takes_numbers("p", "f", "s")
        def checked(p: Chances, f: Chances, s: Scores) -> Table:
            if p.ndim != 1 or f.shape != p.shape or s.ndim != 2 or len(s) != len(p):
                raise InputError(
                    f"p, f and s must have one entry for each outcome, s a row; got shapes {tuple(p.shape)}, "
                    f"{tuple(f.shape)} and {tuple(s.shape)}"
                )
            possible = probabilities("p", p) > 0
            return estimator(*(x[possible].double() for x in (p, f, s)))

        ESTIMATORS[name] = checked
        return checked

    return enter


@_listed("REINFORCE")
def reinforce(p: Chances, f: Chances, s: Scores) -> Table:
    """`(f_a s_a + f_b s_b) / 2` of two independent draws.

    Args:
        p: probabilities of the outcomes.
        f: their values.
        s: their scores.

    Returns:
        Chances and gradients.
    """
    a, b = torch.triu_indices(len(p), len(p), device=p.device)
    terms = f[:, None] * s
    return p[a] * p[b] * torch.where(a == b, 1.0, 2.0), (terms[a] + terms[b]) / 2


@_listed("value baseline")
def value_baseline(p: Chances, f: Chances, s: Scores) -> Table:
    """REINFORCE on `f - E f`, two independent draws; the exact mean takes more than the two evaluations.

    Args:
        p: probabilities of the outcomes.
        f: their values.
        s: their scores.

    Returns:
        Chances and gradients.
    """
    return reinforce(p, f - p @ f, s)


@_listed("RLOO")
def rloo(p: Chances, f: Chances, s: Scores) -> Table:
    """`K_ab / 2` of two independent draws: each is the other's baseline.

    Args:
        p: probabilities of the outcomes.
        f: their values.
        s: their scores.

    Returns:
        Chances and gradients; the last row stands for all pairs of equal draws.
    """
    a, b = _pairs(p)
    chances, gradients = 2 * p[a] * p[b], _kernel(f, s, a, b) / 2
    return torch.cat([chances, p.square().sum()[None]]), torch.cat([gradients, torch.zeros_like(s[:1])])


@_listed("unordered set")
def unordered_set(p: Chances, f: Chances, s: Scores) -> Table:
    """`(rest_b f_a s_a + rest_a f_b s_b) / (rest_a + rest_b)` of two draws without replacement.

    Args:
        p: probabilities of the outcomes.
        f: their values.
        s: their scores.

    Returns:
        Chances and gradients.
    """
    if len(p) == 1:
        return p, f[:, None] * s
    (a, b), rest, terms = _pairs(p), _rest(p), f[:, None] * s
    gradients = (rest[b, None] * terms[a] + rest[a, None] * terms[b]) / (rest[a] + rest[b])[:, None]
    return _without_replacement(p), gradients


@_listed("unordered set, baseline")
def unordered_set_with_baseline(p: Chances, f: Chances, s: Scores) -> Table:
    """`rest_a rest_b / (rest_a + rest_b) K_ab` of two draws without replacement.

    Args:
        p: probabilities of the outcomes.
        f: their values.
        s: their scores.

    Returns:
        Chances and gradients.
    """
    if len(p) == 1:
        return p, torch.zeros_like(s)
    (a, b), rest = _pairs(p), _rest(p)
    weights = rest[a] * rest[b] / (rest[a] + rest[b])
    return _without_replacement(p), weights[:, None] * _kernel(f, s, a, b)


@_listed("sum and sample")
def sum_and_sample(p: Chances, f: Chances, s: Scores) -> Table:
    """`p_c f_c s_c + rest_c f_a s_a`, c the likeliest outcome and a drawn from the rest.

    Args:
        p: probabilities of the outcomes.
        f: their values.
        s: their scores.

    Returns:
        Chances and gradients.
    """
    if len(p) == 1:
        return p, f[:, None] * s
    c, others, rest, terms = *_likeliest(p), _rest(p), f[:, None] * s
    return p[others] / rest[c], p[c] * terms[c] + rest[c] * terms[others]


@_listed("sum and sample, baseline")
def sum_and_sample_with_baseline(p: Chances, f: Chances, s: Scores) -> Table:
    """Sum and sample on `f - f_c`: the value of the likeliest outcome, which is always known, is the baseline.

    Args:
        p: probabilities of the outcomes.
        f: their values.
        s: their scores.

    Returns:
        Chances and gradients.
    """
    return sum_and_sample(p, f - f[p.argmax()], s)


@takes_numbers("p", "f", "s")
def pair_second_moments(p: Chances, f: Chances, s: Scores) -> tuple[float, float]:
    """Second moments of RLOO and of the unordered set with its baseline, `sum_{a<b} p_a p_b w_ab |K_ab|^2`.

    No estimator is tabulated: `|K_ab|^2` comes from the scores' inner products. Less the gradient's square, which is the same
    for both, they are the variances.

    Args:
        p: probabilities of the outcomes, all > 0.
        f: their values.
        s: their scores.

    Returns:
        Both, in squared units of the gradient.

    Raises:
        InputError: p are no probabilities.
    """
    p, f, s = probabilities("p", p).double(), f.double(), s.double()
    rest, gram = _rest(p), s @ s.mT
    distance = gram.diagonal()[:, None] + gram.diagonal() - 2 * gram
    kernels = (p[:, None] * p) * (f[:, None] - f).square() * distance / 2  # every pair stands here twice
    sums = rest[:, None] + rest
    weights = rest[:, None] * rest / torch.where(sums > 0, sums, 1.0)
    return float(kernels.sum()) / 2, float((weights * kernels).sum())


def _pairs(p: Chances) -> tuple[Tensor, Tensor]:
    """Indices of all pairs a < b."""
    a, b = torch.triu_indices(len(p), len(p), 1, device=p.device)
    return a, b


def _rest(p: Chances) -> Chances:
    """`1 - p_a` as the sum of the others, which keeps its digits where one outcome has nearly all of the probability."""
    others: Tensor = p.expand(len(p), -1).clone()
    return others.fill_diagonal_(0.0).sum(1)


def _without_replacement(p: Chances) -> Float[Tensor, "pairs"]:
    """Chance of every pair."""
    (a, b), rest = _pairs(p), _rest(p)
    return p[a] * p[b] * (1 / rest[a] + 1 / rest[b])


def _kernel(f: Chances, s: Scores, a: Tensor, b: Tensor) -> Float[Tensor, "pairs parameters"]:
    """`K_ab` of every pair."""
    return (f[a] - f[b])[:, None] * (s[a] - s[b])


def _likeliest(p: Chances) -> tuple[Tensor, Tensor]:
    """The likeliest outcome, and all others."""
    c = p.argmax()
    return c, (torch.arange(len(p), device=p.device) != c).nonzero()[:, 0]
