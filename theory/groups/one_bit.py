"""Estimators of the slope of `E f(b)` in the logit of one bit b, with their exact moments.

`p = sigmoid(ell)`, `q = 1 - p`, `D = f_1 - f_0`; the slope is `D p q`. A pair of two bits:

- RLOO, two independent bits: variance `D^2 p q (1 - 2 p q) / 2`.
- DisARM, two bits of u and 1 - u, `D max(p, q) / 2` where they differ (with the sign of D): variance
  `D^2 p q max(p, q) (1 - 2 min(p, q)) / 2`, never larger and 0 at p = 1/2.

REBAR, one bit b = 1[z > 0] of `z = ell + logistic noise`, with `c(z) = f_0 + D sigmoid(z / tau)` and z~ drawn again given b:
`(f(b) - eta c(z~)) (b - p) + eta dc(z) - eta dc(z~)`, d the derivative in ell with the noise held fixed. It is unbiased at
every tau and eta, and its variance is quadratic in eta. Its expectations are integrals over the noise given the bit, taken by
double-exponential quadrature.

DisARM: Z. Dong, A. Mnih and G. Tucker, arXiv:2006.10680. REBAR: G. Tucker et al., arXiv:1703.07370.

Theory page, section 6: "Estimators".
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from envs.arguments import check_finite
from envs.world import InputError
from theory.groups.estimators import ESTIMATORS, Moments, moments

_REACH, _STEP = 4.5, 0.02  # of the quadrature, in its own variable: beyond it the weights are 0 to rounding


class NoiseGivenBit(NamedTuple):
    """The law of z given the bit, as nodes of a quadrature.

    Attributes:
        bit: b.
        chance: probability of the bit.
        z: nodes, above 0 where the bit is 1 and below where it is 0.
        slope: dz / d ell with the noise within the bit held fixed.
        weight: of the nodes; they sum to 1.
    """

    bit: int
    chance: Float[Tensor, ""]
    z: Float[Tensor, "nodes"]
    slope: Float[Tensor, "nodes"]
    weight: Float[Tensor, "nodes"]

    def mean(self, x: Float[Tensor, "nodes"] | float) -> Float[Tensor, ""]:
        """Expectation given the bit.

        Args:
            x: a function of z at the nodes, or a constant.

        Returns:
            One number.
        """
        return (self.weight * x).sum()


def noise_given_bit(ell: float) -> tuple[NoiseGivenBit, NoiseGivenBit]:
    """Quadratures for z given b = 0 and given b = 1.

    With w uniform in (0, 1), z given b = 1 is `log(1 + e^ell w) - log(1 - w)`, and dz / d ell is `sigmoid(ell + log w)`; b = 0
    is its mirror image. The nodes crowd at both ends of w, so that steep functions near z = 0 are resolved too.

    Args:
        ell: logit of the bit.

    Returns:
        The law given b = 0 and that given b = 1.

    Raises:
        InputError: ell is no finite number.
    """
    check_finite("ell", ell)
    at = torch.tensor(float(ell), dtype=torch.float64)
    t = torch.arange(-_REACH, _REACH + _STEP / 2, _STEP, dtype=torch.float64)
    log_w, log_rest = logsigmoid(math.pi * t.sinh()), logsigmoid(-math.pi * t.sinh())
    weight = t.cosh() * (log_w + log_rest).exp()
    weight = weight / weight.sum()

    def given(bit: int, sign: int) -> NoiseGivenBit:
        logit = sign * at + log_w
        z = softplus(logit, threshold=1e4) - log_rest
        return NoiseGivenBit(bit, torch.sigmoid(sign * at), sign * z, torch.sigmoid(logit), weight)

    return given(0, -1), given(1, 1)


def one_bit(ell: float, f0: float, f1: float, tau: float = 1.0, eta: float | None = None) -> dict[str, Moments]:
    """Exact moments of four estimators of `d E f(b) / d ell`.

    Args:
        ell: logit of the bit.
        f0: the value at b = 0.
        f1: the value at b = 1.
        tau: temperature of REBAR's relaxed bit.
        eta: weight of REBAR's control variate; None for the best one, `rebar_weight`.

    Returns:
        By name: "REINFORCE" and "RLOO" on two independent bits, "DisARM" on two bits of opposite noise, "REBAR" on one bit.

    Raises:
        InputError: an argument is no finite number, or tau is not above 0.
    """
    mean, variance, control, cross = _rebar_parts(ell, f0, f1, tau)
    eta = rebar_weight(ell, f0, f1, tau) if eta is None else float(eta)
    check_finite("eta", eta)
    of_bit = _bit(ell, f0, f1)
    rebar = Moments((mean + eta * control.mean)[None], float(variance + 2 * eta * cross + eta**2 * control.square))
    return {
        **{name: moments(*ESTIMATORS[name](*of_bit)) for name in ("REINFORCE", "RLOO")},
        "DisARM": moments(*disarm(ell, f0, f1)),
        "REBAR": rebar,
    }


def rebar_weight(ell: float, f0: float, f1: float, tau: float) -> float:
    """The eta at which REBAR has its smallest variance; 0 where the control variate does not vary.

    Args:
        ell: logit of the bit.
        f0: the value at b = 0.
        f1: the value at b = 1.
        tau: temperature of the relaxed bit.

    Returns:
        `-Cov(f(b)(b - p), h) / Var h`, h the control variate.

    Raises:
        InputError: an argument is no finite number, or tau is not above 0.
    """
    _, _, control, cross = _rebar_parts(ell, f0, f1, tau)
    return -float(cross / control.square) if control.square > 0 else 0.0


def disarm(ell: float, f0: float, f1: float) -> tuple[Float[Tensor, "3"], Float[Tensor, "3 1"]]:
    """DisARM as a table: both bits of u and 1 - u are 0, both are 1, or they differ.

    Args:
        ell: logit of the bit.
        f0: the value at b = 0.
        f1: the value at b = 1.

    Returns:
        Chances and gradients.

    Raises:
        InputError: an argument is no finite number.
    """
    (q, p), f, _ = _bit(ell, f0, f1)
    less = torch.minimum(p, q)
    chances = torch.stack([(q - p).clamp(min=0), (p - q).clamp(min=0), 2 * less])
    differ = (f[1] - f[0]) * torch.maximum(p, q) / 2
    return chances, torch.stack([torch.zeros_like(p), torch.zeros_like(p), differ])[:, None]


class _Control(NamedTuple):
    """Mean and variance of REBAR's control variate."""

    mean: Tensor
    square: Tensor


def _bit(ell: float, f0: float, f1: float) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities, values and scores of the two outcomes 0 and 1."""
    for name, number in (("ell", ell), ("f0", f0), ("f1", f1)):
        check_finite(name, number)
    p = torch.sigmoid(torch.tensor([-float(ell), float(ell)], dtype=torch.float64))
    return p, torch.tensor([float(f0), float(f1)], dtype=torch.float64), torch.stack([-p[1], p[0]])[:, None]


def _rebar_parts(ell: float, f0: float, f1: float, tau: float) -> tuple[Tensor, Tensor, _Control, Tensor]:
    """Mean and variance of `f(b)(b - p)`; the control variate `h = dc(z) - dc(z~) - c(z~)(b - p)`; their covariance."""
    p, f, score = _bit(ell, f0, f1)
    check_finite("tau", tau)
    if not tau > 0:
        raise InputError(f"tau must be > 0; got {tau!r}: it is a temperature")
    terms = f * score[:, 0]
    mean, control, square, cross = p @ terms, p.new_zeros(()), p.new_zeros(()), p.new_zeros(())
    for given in noise_given_bit(ell):
        y = torch.sigmoid(given.z / tau)
        c, slope = f[0] + (f[1] - f[0]) * y, (f[1] - f[0]) * y * torch.sigmoid(-given.z / tau) / tau
        again = -c * score[given.bit, 0] - slope * given.slope  # of z~, which is drawn apart from z given the bit
        both = given.mean(slope) + given.mean(again)
        varies = given.mean(slope**2) + 2 * given.mean(slope) * given.mean(again) + given.mean(again**2)
        control, square = control + given.chance * both, square + given.chance * varies
        cross = cross + given.chance * (terms[given.bit] - mean) * both
    return mean, p @ (terms - mean).square(), _Control(control, square - control**2), cross
