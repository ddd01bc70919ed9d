"""Value-gradient flow of a Gaussian law under a quadratic value, beside the best transport and the KL-regularised optimum.

The value is `-(a - a*)'R(a - a*)`, the reference N(m, S). A particle follows its own value gradient over alpha for a time t:
`a -> a* + F (a - a*)` with `F = exp(-2 R t / alpha)`. F is symmetric positive definite, hence the gradient of a convex
function, hence the cheapest map between the two laws: its cost is their Wasserstein distance. R and S need not commute.

Theory page, section 6: "Value gradient flow".
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import quad
from scipy.optimize import brentq
from torch import Tensor

from envs.arguments import check_semidefinite, takes_numbers, whole
from envs.linear_quadratic import symmetric_root
from envs.record import short_repr
from envs.world import InputError
from theory.continuous.gaussians import (
    Gaussian,
    check_size,
    checked_curvature,
    checked_gaussian,
    definite_root,
    second_moment,
)

Matrix = Float[Tensor, "n n"]
Vector = Float[Tensor, "n"]
_LOWEST = -300.0  # of a logarithm that is searched


@short_repr
@dataclass(frozen=True)
class Transport:
    """A linear map `a -> a* + F (a - a*)` and the law that it makes of the reference.

    Attributes:
        map: F, symmetric.
        mean: of the new law.
        covariance: of the new law, `F S F`.
        distance: `sqrt E|T(a) - a|^2 = sqrt tr[(I - F)^2 (S + (m - a*)(m - a*)')]`. It is W2 of the two laws, for a reference
            of any form with this mean and covariance, unless F has a negative eigenvalue (Euler steps that are too large).
    """

    map: Matrix
    mean: Vector
    covariance: Matrix
    distance: float


@takes_numbers("R", "a_star", "m", "S")
def flow(
    R: Matrix, a_star: Vector, m: Vector, S: Matrix, t: float, alpha: float = 1.0, steps: int | None = None
) -> Transport:
    """The law after a time t of value-gradient flow, each particle along its own gradient (bandwidth 0).

    `F = exp(-2 R t / alpha)`, or `(I - 2 (t / steps) R / alpha)^steps` in Euler steps. In the kernel form with N particles the
    gradient has a factor 1/N even at bandwidth 0: there `t = step size * steps / N`.

    Args:
        R: curvature of the value, symmetric; with a negative eigenvalue the value has no maximum.
        a_star: where the value is 0.
        m: mean of the reference.
        S: its covariance; a singular one is allowed.
        t: the time, >= 0.
        alpha: the weight that divides the gradient, > 0.
        steps: number of Euler steps; None for the flow itself.

    Returns:
        The map, the new law and the distance.

    Raises:
        InputError: a shape does not fit, R is not symmetric, S is no covariance, or t, alpha or steps is out of its range.
    """
    law, curvature = _problem(R, a_star, m, S)
    check_time(t, alpha)
    rates, U = torch.linalg.eigh(2 * curvature * t / alpha)
    factors = (-rates).exp() if steps is None else (1 - rates / whole("steps", steps, 1)) ** steps
    return _moved(law, a_star.double(), (U * factors) @ U.mT)


@takes_numbers("R", "a_star", "m", "S")
def proximal(R: Matrix, a_star: Vector, m: Vector, S: Matrix, multiplier: float) -> Transport:
    """`F = (I + R / l)^{-1}`: of all laws at the same W2 from the reference the one with the largest mean value.

    Args:
        R: curvature of the value, positive semidefinite.
        a_star: where the value is 0.
        m: mean of the reference.
        S: its covariance.
        multiplier: l > 0 of the squared distance.

    Returns:
        The map, the new law and the distance.

    Raises:
        InputError: as for `flow`, R has a negative eigenvalue, or the multiplier is not > 0.
    """
    law, curvature = _problem(R, a_star, m, S, definite=True)
    _check_positive("multiplier", multiplier)
    rates, U = torch.linalg.eigh(curvature)
    return _moved(law, a_star.double(), (U / (1 + rates.clamp(min=0) / multiplier)) @ U.mT)


@takes_numbers("R", "a_star", "m", "S")
def multiplier_of_distance(R: Matrix, a_star: Vector, m: Vector, S: Matrix, distance: float) -> float:
    """The multiplier l at which the proximal map lies at this W2 from the reference.

    Args:
        R: curvature of the value, positive semidefinite.
        a_star: where the value is 0.
        m: mean of the reference.
        S: its covariance.
        distance: the wanted distance, > 0.

    Returns:
        The multiplier.

    Raises:
        InputError: as for `proximal`, or the distance is beyond that of the best law of all.
    """
    law, curvature = _problem(R, a_star, m, S, definite=True)
    rates, U = torch.linalg.eigh(curvature)
    rates, spread = rates.clamp(min=0), _spread(law, a_star.double(), U)
    most = float((spread * (rates > 1e-14 * rates.max())).sum().sqrt())
    if not 0 < distance < most:
        raise InputError(
            f"distance must lie between 0 and {most:.6g}, where the value cannot rise any more; got {distance!r}"
        )

    def gap(log_l: float) -> float:
        share = rates / (rates + math.exp(log_l))
        return float((share.square() * spread).sum()) / distance**2 - 1

    return math.exp(_root(gap, math.log(float(rates.max()))))


@takes_numbers("R", "a_star", "m", "S")
def tilted(R: Matrix, a_star: Vector, m: Vector, S: Matrix, beta: float) -> Gaussian:
    """The KL-regularised optimum `prop ref exp(value / beta)`: precision `S^{-1} + 2 R / beta`.

    It has the largest mean value of all laws with the same KL divergence from the reference.

    Args:
        R: curvature of the value, positive semidefinite.
        a_star: where the value is 0.
        m: mean of the reference.
        S: its covariance; a singular one is allowed.
        beta: weight of the divergence, > 0.

    Returns:
        The law.

    Raises:
        InputError: as for `flow`, R has a negative eigenvalue, or beta is not > 0.
    """
    law, curvature = _problem(R, a_star, m, S, definite=True)
    _check_positive("beta", beta)
    root = symmetric_root(law.covariance)
    inner = torch.eye(len(root)).to(root) + 2 * root @ curvature @ root / beta
    covariance = root @ torch.linalg.solve(inner, root)
    mean = law.mean - 2 * covariance @ curvature @ (law.mean - a_star.double()) / beta
    return Gaussian(mean, (covariance + covariance.mT) / 2)


@takes_numbers("R", "a_star", "m", "S")
def beta_of_kl(R: Matrix, a_star: Vector, m: Vector, S: Matrix, kl: float) -> float:
    """The beta whose tilt has this KL divergence from the reference.

    Args:
        R: curvature of the value, positive semidefinite.
        a_star: where the value is 0.
        m: mean of the reference.
        S: its covariance; a singular one is allowed, as a tilt stays where the reference lives.
        kl: the wanted divergence in nats, > 0.

    Returns:
        beta.

    Raises:
        InputError: as for `tilted`, R is 0 where the reference lives, or kl is not > 0.
    """
    law, curvature = _problem(R, a_star, m, S, definite=True)
    _check_positive("kl", kl)
    root = symmetric_root(law.covariance)
    pull, V = torch.linalg.eigh(root @ curvature @ root)
    size = float(pull.max())
    if size <= 0:
        raise InputError("R must change the value where the reference lives: here no tilt moves the law")
    along, pull = V.mT @ root @ curvature @ (law.mean - a_star.double()), pull.clamp(min=0)

    def gap(log_beta: float) -> float:
        x, shift = 2 * pull / math.exp(log_beta), 2 * along / math.exp(log_beta)
        twice = torch.log1p(x) - x / (1 + x) + (shift / (1 + x)).square()
        return float(twice.sum()) / (2 * kl) - 1

    return math.exp(_root(gap, math.log(size)))


@takes_numbers("R", "a_star", "m", "S")
def flow_kl(R: Matrix, a_star: Vector, m: Vector, S: Matrix, t: float, alpha: float = 1.0) -> float:
    """`KL(flow || reference)`, with `log det F = -2 t tr R / alpha` in closed form, so that it is exact at every t.

    Where R is positive it grows without bound, in the long run by `2 tr R / alpha` per unit of time.

    Args:
        R: curvature of the value, symmetric.
        a_star: where the value is 0.
        m: mean of the reference.
        S: its covariance, positive definite.
        t: the time, >= 0.
        alpha: the weight that divides the gradient, > 0.

    Returns:
        The divergence in nats.

    Raises:
        InputError: as for `flow`, or S is singular.
    """
    law, moved = checked_gaussian(m, S), flow(R, a_star, m, S, t, alpha)
    L = definite_root("S", law.covariance)
    inward = torch.linalg.solve_triangular(L, torch.stack([moved.mean - law.mean], 1), upper=False)
    spread = torch.linalg.solve_triangular(L, moved.map @ L, upper=False)
    twice = (
        spread.square().sum() - len(L) + inward.square().sum() + 4 * t / alpha * checked_curvature(R, len(m)).trace()
    )
    return float(twice) / 2


@takes_numbers("R", "a_star", "m", "S")
def path_length(R: Matrix, a_star: Vector, m: Vector, S: Matrix, t: float, alpha: float = 1.0) -> float:
    """`int_0^t sqrt(E|velocity|^2) ds`, the length of the flow's path of laws in W2; the distance is at most that.

    The integrand is `sqrt(tr(4 R F (S + (m - a*)(m - a*)') F R)) / alpha`.

    Args:
        R: curvature of the value, symmetric.
        a_star: where the value is 0.
        m: mean of the reference.
        S: its covariance.
        t: the time, >= 0.
        alpha: the weight that divides the gradient, > 0.

    Returns:
        The length, in units of the variable.

    Raises:
        InputError: as for `flow`.
    """
    law, curvature = _problem(R, a_star, m, S)
    check_time(t, alpha)
    rates, U = torch.linalg.eigh(2 * curvature / alpha)
    weights, decay = (rates.square() * _spread(law, a_star.double(), U)).cpu().numpy(), rates.cpu().numpy()
    fastest = float(abs(decay).max())
    halvings = max(0, math.ceil(math.log2(fastest * t))) if fastest * t > 0 else 0
    edges = [
        0.0,
        *(t / 2**k for k in reversed(range(halvings + 1))),
    ]  # the first piece ends where the fastest rate acts

    def velocity(s: float) -> float:
        return math.sqrt((weights * np.exp(-2 * decay * s)).sum())

    if fastest * t == 0:
        return 0.0
    look = {"epsabs": 1e-14 * velocity(0.0) / fastest, "epsrel": 1e-12, "limit": 200}
    return float(sum(quad(velocity, *ends, **look)[0] for ends in itertools.pairwise(edges)))


def check_time(t: float, alpha: float) -> None:
    """Refuse a time that is negative and an alpha that is not positive.

    Args:
        t: the time.
        alpha: what the gradient is divided by.

    Raises:
        InputError: one of them is out of its range.
    """
    if isinstance(t, bool) or not 0 <= t < math.inf:
        raise InputError(f"t must be a finite number >= 0, the time of the flow; got {t!r}")
    _check_positive("alpha", alpha)


def _check_positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not 0 < value < math.inf:
        raise InputError(f"{name} must be a finite number > 0; got {value!r}")


def _problem(R: Tensor, a_star: Tensor, m: Tensor, S: Tensor, definite: bool = False) -> tuple[Gaussian, Matrix]:
    """The reference and the curvature, in float64 and checked."""
    law = checked_gaussian(m, S)
    check_size(len(law.mean), "a_star", a_star)
    curvature = checked_curvature(R, len(law.mean))
    if definite:
        check_semidefinite("R", R)
    return law, curvature


def _moved(law: Gaussian, a_star: Vector, F: Matrix) -> Transport:
    stay = torch.eye(len(F)).to(F) - F
    distance = float((stay @ second_moment(law, a_star) @ stay).trace().clamp(min=0).sqrt())
    if not math.isfinite(distance):
        raise InputError("t must be smaller: the value has no maximum, and particles leave the range of numbers")
    return Transport(F, a_star + F @ (law.mean - a_star), F @ law.covariance @ F, distance)


def _spread(law: Gaussian, a_star: Vector, U: Matrix) -> Vector:
    """`E (u_i'(a - a*))^2` along the eigenvectors of R."""
    return (U.mT @ second_moment(law, a_star) @ U).diagonal().clamp(min=0)


def _root(gap: Callable[[float], float], start: float) -> float:
    """Where a falling function of a logarithm is 0; the end of the range where rounding leaves no such place."""
    low = high = start
    while gap(low) < 0 and low > _LOWEST:
        low -= 2.0
    while gap(high) > 0:
        high += 2.0
    return float(brentq(gap, low, high, xtol=1e-14, rtol=1e-14)) if gap(low) > 0 else low
