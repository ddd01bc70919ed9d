"""Groups with binary rewards, in closed form: kappa, the factor of a standard deviation, the probability of a signal.

G rows of one prompt, each a success with probability P, k successes among them, m = k / G. Every recipe whose advantage is
one number a row multiplies the true gradient by `kappa = Cov(A_1, R_1) / Var(R_1)`.

Theory page, section 4: "The mean update is kappa times the value gradient".
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy.special import betainc
from torch import Tensor

from envs.arguments import takes_numbers, whole
from envs.world import InputError
from theory.tokens.tree_gradients import TreeGradients

Chances = Float[Tensor, "*batch"]
Gradient = TreeGradients | Tensor | Sequence[Tensor]


@takes_numbers("P")
def signal_probability(P: Chances, group: int) -> Chances:
    """`1 - P^G - (1-P)^G`: the probability that the rewards of a group are not all equal.

    Args:
        P: success probabilities.
        group: G, at least 2.

    Returns:
        A probability for each entry of P.

    Raises:
        InputError: P outside [0, 1] or G < 2.
    """
    _check(P, group)
    rarer = torch.minimum(P, 1 - P)  # 1 - P is exact from one half on
    return -torch.expm1(group * torch.log1p(-rarer)) - rarer**group


def baseline_kappa(group: int, own: bool = True) -> float:
    """kappa of the mean baseline: `(G-1)/G` with the row's own reward in the mean (Dr. GRPO), 1 without (RLOO).

    Args:
        group: G.
        own: whether the mean includes the row's own reward.

    Returns:
        kappa, dimensionless.
    """
    return (group - 1) / group if own else 1.0


@takes_numbers("P")
def grpo_kappa(P: Chances, group: int, population: bool = True, eps: float = 0.0) -> Chances:
    """GRPO's kappa, `c_G(P) = E[m(1-m) / (std + eps)] / (P(1-P))`.

    The sum `sum_{k=1}^{G-1} C(G,k) P^{k-1} (1-P)^{G-k-1} m(1-m) / (std + eps)` is divided by P(1-P) term by term, so
    that it is exact at P = 0 and 1 too, where it is sqrt(G-1) for eps = 0. It tends to `1 / sqrt(P(1-P))` as G grows.

    Args:
        P: success probabilities.
        group: G.
        population: whether std is `sqrt(m(1-m))`; else it is the sample's, times `sqrt(G/(G-1))`.
        eps: what the recipe adds to the std.

    Returns:
        kappa for each entry of P, dimensionless for binary rewards.

    Raises:
        InputError: P outside [0, 1], G < 2 or eps < 0.
    """
    _check(P, group)
    total = torch.zeros_like(P)
    for k, log_weight in _terms(group, population, eps):
        total = total + (log_weight + torch.xlogy(k - 1, P) + torch.xlogy(group - k - 1, 1 - P)).exp()
    return total


@takes_numbers("P")
def grpo_objective(P: Chances, group: int, population: bool = True, eps: float = 0.0) -> Chances:
    """`F_G(P) = int_0^P c_G`: GRPO with std at group size G ascends the sum of F_G(P) over its prompts.

    The integral is taken term by term as an incomplete beta function; it tends to `2 arcsin sqrt P`.

    Args:
        P: success probabilities.
        group: G.
        population: whether std is `sqrt(m(1-m))`; else it is the sample's, times `sqrt(G/(G-1))`.
        eps: what the recipe adds to the std.

    Returns:
        F_G for each entry of P.

    Raises:
        InputError: P outside [0, 1], G < 2 or eps < 0.
    """
    _check(P, group)
    total = torch.zeros_like(P)
    for k, log_weight in _terms(group, population, eps):
        whole = math.exp(log_weight + math.lgamma(k) + math.lgamma(group - k) - math.lgamma(group))
        total = total + whole * torch.as_tensor(betainc(k, group - k, P.detach().cpu().numpy())).to(P)
    return total


@takes_numbers("P")
def mean_factor(P: Chances, group: int) -> Chances:
    """kappa where the advantage is `(R - m) / m`, m the group's mean: `(1 - (1-P)^{G-1}) / P = sum_{k<G-1} (1-P)^k`.

    It falls from G - 1 at P = 0 to 1 at P = 1 and tends to 1/P, the factor of the likelihood, as G grows.

    Args:
        P: success probabilities.
        group: G.

    Returns:
        kappa for each entry of P, dimensionless.

    Raises:
        InputError: P outside [0, 1] or G < 2.
    """
    _check(P, group)
    some = torch.where(P > 0, P, 1.0)
    return torch.where(P > 0, -torch.expm1((group - 1) * torch.log1p(-P)) / some, float(group - 1))


@takes_numbers("P")
def mean_objective(P: Chances, group: int) -> Chances:
    """`-sum_{k=1}^{G-1} (1-P)^k / k`, which division by the mean ascends: log P cut after G - 1 terms; concave.

    It is `sum_{k<G} pass@k / k`, `pass@k = 1 - (1-P)^k`, up to a constant; its slope is `mean_factor`.

    Args:
        P: success probabilities.
        group: G.

    Returns:
        The objective for each entry of P, at most 0.

    Raises:
        InputError: P outside [0, 1] or G < 2.
    """
    _check(P, group)
    total, power = torch.zeros_like(P), torch.ones_like(P)
    for k in range(1, group):
        power = power * (1 - P)
        total = total - power / k
    return total


@takes_numbers("P")
def arcsine(P: Chances) -> Chances:
    """`2 arcsin sqrt P`, the limit of `grpo_objective`; its slope is `1 / sqrt(P(1-P))`.

    Args:
        P: success probabilities.

    Returns:
        The limit for each entry of P, between 0 and pi.
    """
    return 2 * P.sqrt().asin()


def _terms(group: int, population: bool, eps: float) -> list[tuple[int, float]]:
    """The logarithm of `C(G,k) m(1-m) / (std + eps)` for k = 1 ... G-1."""
    if not eps >= 0:
        raise InputError(f"eps must be >= 0; got {eps!r}")
    terms = []
    for k in range(1, group):
        variance = k / group * (1 - k / group)
        std = math.sqrt(variance * (1.0 if population else group / (group - 1)))
        ways = math.lgamma(group + 1) - math.lgamma(k + 1) - math.lgamma(group - k + 1)
        terms.append((k, ways + math.log(variance / (std + eps))))
    return terms


def _check(P: Tensor, group: int) -> None:
    whole("group", group, 2, "one row alone has nothing to be compared with")
    if not bool(((P >= 0) & (P <= 1)).all()):
        raise InputError("P must lie in [0, 1]: it is a probability")


class Alignment(NamedTuple):
    """How a gradient stands to the true one.

    Attributes:
        cosine: of the angle between them; NaN where the gradient is 0.
        scale: `<gradient, truth> / |truth|^2`, which is kappa where they are parallel.
        bias: `|gradient - scale truth| / |truth|`, which no step size can correct.
    """

    cosine: float
    scale: float
    bias: float

    def __repr__(self) -> str:
        return f"Alignment(cosine={self.cosine:.3g}, scale={self.scale:.3g}, bias={self.bias:.3g})"


def alignment(gradient: Gradient, truth: Gradient) -> Alignment:
    """Cosine, scale and bias of a gradient against the true one; all NaN where the truth is 0.

    Args:
        gradient: `TreeGradients`, tensors, or one tensor.
        truth: the same with the true gradient, in the same order.

    Returns:
        Three dimensionless numbers.
    """
    x, y = _vector(gradient), _vector(truth)
    inner, own, size = float(x @ y), float(x.norm()), float(y.norm())
    if size == 0:
        return Alignment(math.nan, math.nan, math.nan)
    scale = inner / size**2
    return Alignment(inner / (own * size) if own else math.nan, scale, float((x - scale * y).norm()) / size)


def _vector(gradient: Gradient) -> Float[Tensor, "parameters"]:
    if isinstance(gradient, TreeGradients):
        gradient = gradient.parameters
    parts = [gradient] if isinstance(gradient, Tensor) else gradient
    return torch.cat([part.detach().flatten() for part in parts])
