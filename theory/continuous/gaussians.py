"""Gaussian laws: their Wasserstein distance, their KL divergence, and the mean of a quadratic value.

Theory page, section 6: "Value gradient flow".
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import check_semidefinite, takes_numbers
from envs.linear_quadratic import symmetric_root
from envs.record import short_repr
from envs.world import InputError


@short_repr
@dataclass(frozen=True)
class Gaussian:
    """The law N(mean, covariance).

    Attributes:
        mean: of the law.
        covariance: of the law, positive semidefinite.
    """

    mean: Float[Tensor, "n"]
    covariance: Float[Tensor, "n n"]


@takes_numbers("m", "S", "to_m", "to_S")
def w2(m: Float[Tensor, "n"], S: Float[Tensor, "n n"], to_m: Float[Tensor, "n"], to_S: Float[Tensor, "n n"]) -> float:
    """`W2` between two Gaussian laws, `|m - m'|^2 + min over orthogonal U of |S^(1/2) - S'^(1/2) U|^2` (Bures).

    The minimum is computed as it stands, without the difference of traces, so that small distances keep their digits.

    Args:
        m: mean of the first law.
        S: its covariance; singular ones are allowed.
        to_m: mean of the second law.
        to_S: its covariance.

    Returns:
        The distance, in units of the variable.

    Raises:
        InputError: a shape does not fit, an entry is not finite, or a covariance is not symmetric positive semidefinite.
    """
    first, second = checked_gaussian(m, S), checked_gaussian(to_m, to_S, ("to_m", "to_S"))
    check_size(len(first.mean), "to_m", second.mean)
    one, other = symmetric_root(first.covariance), symmetric_root(second.covariance)
    left, _, right = torch.linalg.svd(other @ one)
    return float(((first.mean - second.mean).square().sum() + (one - other @ left @ right).square().sum()).sqrt())


@takes_numbers("m", "S", "ref_m", "ref_S")
def gaussian_kl(
    m: Float[Tensor, "n"], S: Float[Tensor, "n n"], ref_m: Float[Tensor, "n"], ref_S: Float[Tensor, "n n"]
) -> float:
    """`KL(N(m, S) || N(ref_m, ref_S)) = (tr(W) - n - log det W + |d|^2) / 2`, W and d in units of the reference.

    Args:
        m: mean of the law.
        S: its covariance; the divergence is infinite if it is singular.
        ref_m: mean of the reference.
        ref_S: its covariance, positive definite.

    Returns:
        The divergence in nats.

    Raises:
        InputError: a shape does not fit, an entry is not finite, or a covariance is not what it must be.
    """
    own, ref = checked_gaussian(m, S), checked_gaussian(ref_m, ref_S, ("ref_m", "ref_S"))
    check_size(len(own.mean), "ref_m", ref.mean)
    L = definite_root("ref_S", ref.covariance)
    half = torch.linalg.solve_triangular(L, own.covariance, upper=False)
    excess = torch.linalg.eigvalsh(torch.linalg.solve_triangular(L, half.mT, upper=False)) - 1
    excess = excess.clamp(min=-1.0)  # eigenvalues of a covariance are not negative
    d = torch.linalg.solve_triangular(L, (own.mean - ref.mean)[:, None], upper=False)
    return float((excess - torch.log1p(excess)).sum() + d.square().sum()) / 2


@takes_numbers("R", "a_star", "m", "S")
def mean_value(
    R: Float[Tensor, "n n"], a_star: Float[Tensor, "n"], m: Float[Tensor, "n"], S: Float[Tensor, "n n"]
) -> float:
    """`E[-(a - a*)'R(a - a*)] = -tr(R (S + (m - a*)(m - a*)'))` under any law of this mean and covariance.

    Args:
        R: curvature of the value, symmetric.
        a_star: where the value is 0.
        m: mean of the law.
        S: its covariance.

    Returns:
        The mean value.

    Raises:
        InputError: a shape does not fit, an entry is not finite, R is not symmetric, or S is no covariance.
    """
    law, curvature = checked_gaussian(m, S), checked_curvature(R, len(m))
    check_size(len(law.mean), "a_star", a_star)
    return -float((curvature * second_moment(law, a_star.double())).sum())


def second_moment(law: Gaussian, about: Float[Tensor, "n"]) -> Float[Tensor, "n n"]:
    """`E[(a - about)(a - about)']`.

    Args:
        law: of a.
        about: a point.

    Returns:
        The matrix.
    """
    d = law.mean - about
    return law.covariance + torch.outer(d, d)


def checked_gaussian(m: Tensor, S: Tensor, names: tuple[str, str] = ("m", "S")) -> Gaussian:
    """A law of a mean and a covariance in float64.

    Args:
        m: the mean.
        S: the covariance.
        names: of both in the errors.

    Returns:
        The law.

    Raises:
        InputError: the mean is no vector, the covariance has another shape, is not finite, not symmetric, or has a negative
            eigenvalue.
    """
    if m.ndim != 1 or not len(m) or not bool(m.isfinite().all()):
        raise InputError(f"{names[0]} must be a vector of finite numbers; got shape {tuple(m.shape)}: write [value]")
    check_square(names[1], S, len(m))
    check_semidefinite(names[1], S)
    return Gaussian(m.double(), ((S + S.mT) / 2).double())


def checked_curvature(R: Tensor, size: int) -> Float[Tensor, "n n"]:
    """A symmetric matrix in float64; its eigenvalues may have any sign.

    Args:
        R: the matrix.
        size: number of its rows.

    Returns:
        The matrix.

    Raises:
        InputError: it has another shape, is not finite or not symmetric.
    """
    check_square("R", R, size)
    gap, rounding = float((R - R.mT).abs().max()), 8 * size * torch.finfo(R.dtype).eps
    if gap > max(1e-10, rounding) * float(R.abs().max()):
        raise InputError(f"R must be symmetric; |R - R'| reaches {gap:.3g}: pass (R + R') / 2")
    return ((R + R.mT) / 2).double()


def check_square(name: str, S: Tensor, size: int) -> None:
    """Refuse what is no square matrix of finite numbers of this size.

    Args:
        name: of the argument in the error.
        S: what the user gave.
        size: number of rows.

    Raises:
        InputError: it is none.
    """
    if tuple(S.shape) != (size, size) or not bool(S.isfinite().all()):
        raise InputError(
            f"{name} must be a matrix of {size} x {size} finite numbers, as many as the mean has; got {tuple(S.shape)}"
        )


def check_size(size: int, name: str, x: Tensor) -> None:
    """Refuse a vector of another size, or one with entries that are not finite.

    Args:
        size: number of entries.
        name: of the argument in the error.
        x: the vector.

    Raises:
        InputError: it has another shape.
    """
    if tuple(x.shape) != (size,) or not bool(x.isfinite().all()):
        raise InputError(f"{name} must be a vector of {size} finite numbers; got shape {tuple(x.shape)}")


def definite_root(name: str, S: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """The Cholesky factor of a covariance, refused where it is singular.

    Args:
        name: of the argument in the error.
        S: the covariance.

    Returns:
        The lower factor.

    Raises:
        InputError: S is singular, so that no density exists.
    """
    L: Tensor
    L, failed = torch.linalg.cholesky_ex(S)
    if int(failed) or float(L.diagonal().min()) ** 2 <= 1e-14 * float(S.abs().max()):
        raise InputError(f"{name} must be positive definite, so that a density exists; add a small multiple of I to it")
    return L
