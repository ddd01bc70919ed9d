"""The plane in which vectors are drawn, and what of each lies in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from envs.arguments import short
from envs.world import InputError, unknown
from figures.drawing.one_panel import numbers

_ZERO, _SAME = 1e-12, 1e-6  # of the longest vector: rounding of a vector that is 0, and of two that are one
_MOST = 12


@dataclass(frozen=True)
class Arrow:
    """One vector in the plane.

    Attributes:
        name: what the user calls it.
        tip: its two coordinates in the plane, in the unit of the picture.
        length: of the whole vector, in the same unit; 0 for one that is zero up to rounding.
        share: of its length that lies in the plane; 1 for a vector of length 0.
        same: whether it is the reference, up to rounding.
        samples: how many it is the mean of; None for one that is exact.
        spread: covariance of that mean in the plane; None for one that is exact.
    """

    name: str
    tip: np.ndarray
    length: float
    share: float
    same: bool
    samples: int | None = None
    spread: np.ndarray | None = None


@dataclass(frozen=True)
class ArrowPlane:
    """All vectors in one plane.

    Attributes:
        arrows: by their names, in the order in which they were given.
        reference: name of the one that lies along the first axis.
        unit: length of the reference, by which all were divided; 1 where it is zero.
        chosen: whether the user chose the plane.
    """

    arrows: dict[str, Arrow]
    reference: str
    unit: float
    chosen: bool


def arrow_plane(vectors: Mapping[str, Any], reference: str | None, basis: Any) -> ArrowPlane:
    """The vectors in the plane of the reference and of the direction that holds most of what the others have besides.

    Args:
        vectors: name -> (D,), or (samples, D) for the mean of samples.
        reference: name of the vector along the first axis; None for the first.
        basis: two vectors that span another plane, the first along its first axis; None for the plane above.

    Raises:
        InputError: the vectors or the basis do not fit, hold NaN, or have no direction; or there is no such reference.
    """
    given = _checked(vectors)
    reference = next(iter(given)) if reference is None else reference
    if reference not in given:
        raise unknown("reference: vector", str(reference), given)
    means = {name: rows.mean(0) for name, rows in given.items()}
    longest = max(float(np.linalg.norm(mean)) for mean in means.values())
    if longest == 0:
        raise InputError("vectors are all 0: there is no direction to draw")
    means = {name: mean if np.linalg.norm(mean) > _ZERO * longest else 0 * mean for name, mean in means.items()}
    first = means[reference]
    axes = _plane(first, np.stack(list(means.values())), longest) if basis is None else _spanned(basis, len(first))
    unit = float(np.linalg.norm(first)) or 1.0
    arrows = {}
    for name, mean in means.items():
        length, rows = float(np.linalg.norm(mean)), given[name]
        share = float(np.linalg.norm(axes @ mean)) / length if length else 1.0
        same = bool(np.linalg.norm(mean - first) <= _SAME * longest)
        sampled = (len(rows), np.cov((rows @ axes.T / unit).T) / len(rows)) if len(rows) > 1 else (None, None)
        arrows[name] = Arrow(name, axes @ mean / unit, length / unit, min(1.0, share), same, *sampled)
    return ArrowPlane(arrows, reference, unit, basis is not None)


def _checked(vectors: Any) -> dict[str, np.ndarray]:
    """Name -> (samples, D); one row where the vector is exact."""
    if not isinstance(vectors, Mapping) or not vectors:
        raise InputError(f"vectors must be a dictionary name -> vector with at least one entry; got {short(vectors)}")
    if len(vectors) > _MOST:
        raise InputError(f"vectors must be at most {_MOST} for one picture; got {len(vectors)}: leave some out")
    given = {str(name): numbers(f"vectors[{name!r}]", x) for name, x in vectors.items()}
    size = next(iter(given.values())).shape[-1:]
    for name, x in given.items():
        if x.ndim not in (1, 2) or x.shape[-1:] != size:
            first = next(iter(given))
            raise InputError(
                f"vectors[{name!r}] must be (D,) or (samples, D) with the D of {first!r}, {size[0] if size else 1}; got shape "
                f"{x.shape}: take one prefix and one position"
            )
    return {name: np.atleast_2d(x) for name, x in given.items()}


def _plane(first: np.ndarray, rows: np.ndarray, longest: float) -> np.ndarray:
    """Two orthonormal rows: the reference's direction, and the main direction of what is orthogonal to it."""
    x = first / np.linalg.norm(first) if first.any() else _main(rows)
    rest = rows - np.outer(rows @ x, x)
    rest -= np.outer(rest @ x, x)  # once more: what rounding left
    y = _main(rest) if np.linalg.norm(rest) > _ZERO * longest else _orthogonal(x)
    return np.stack([x, y])


def _main(rows: np.ndarray) -> np.ndarray:
    """The direction that holds most of the rows, pointing where the longest of them along it points."""
    direction: np.ndarray = np.linalg.svd(rows, full_matrices=False)[2][0]
    along = rows @ direction
    return direction if along[np.abs(along).argmax()] >= 0 else -direction


def _orthogonal(x: np.ndarray) -> np.ndarray:
    """Any direction that is orthogonal to x; zeros where there is none."""
    if len(x) == 1:
        return np.zeros(1)
    y = np.eye(len(x))[np.abs(x).argmin()]
    y = y - (y @ x) * x
    direction: np.ndarray = y / np.linalg.norm(y)
    return direction


def _spanned(basis: Any, size: int) -> np.ndarray:
    """Two orthonormal rows that span what the user's two vectors span."""
    rows = [numbers("basis", x) for x in basis] if isinstance(basis, Sequence | np.ndarray | Tensor) else []
    if [x.shape for x in rows] != [(size,)] * 2:
        raise InputError(f"basis must be two vectors of {size} numbers; got {short(basis)}")
    given = np.stack(rows)
    lengths = np.linalg.norm(given, axis=1)
    x = given[0] / (lengths[0] or 1.0)
    y = given[1] - (given[1] @ x) * x
    if lengths.min() == 0 or np.linalg.norm(y) <= 1e-9 * lengths[1]:
        raise InputError("basis must be two vectors of different directions, neither of them 0")
    return np.stack([x, y / np.linalg.norm(y)])
