"""Typed makers of comparison rows: what was measured, against what, how far it may be off, and how it is judged."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from envs.world import InputError
from figures.harness.statistics import Estimate

Row = dict[str, Any]
Labels = Mapping[str, Any]
Numbers = float | np.ndarray | torch.Tensor  # numbers that broadcast against each other

MARGIN = 0.1  # of the scale: the largest deviation that does not matter, unless a claim says otherwise


def equals(
    part: str,
    measured: Estimate | Numbers,
    target: Numbers,
    scale: Numbers = 1.0,
    *,
    tolerance: Numbers = 0.0,
    margin: float = MARGIN,
    judged: bool = True,
    labels: Labels | None = None,
    axes: tuple[str, ...] = (),
) -> list[Row]:
    """Rows that say `measured = target`, one for each entry; `axes` name the indices that become columns.

    Args:
        part: the family of rows that is judged together.
        measured: an estimate with its standard error, or numbers that are known exactly.
        target: the exact answer.
        scale: the size against which a deviation is small or not.
        tolerance: rounding that is allowed, in the unit of `measured`.
        margin: deviations above `margin * scale` must be seen, else the part is undecided.
        judged: False for rows that are reported only.
        labels: further columns, the same in all rows.
        axes: names of the axes of `measured`.

    Raises:
        InputError: a number is not finite.
    """
    return _rows(part, measured, target, scale, tolerance, margin, "==" if judged else "report", labels, axes)


def vanishes(
    part: str,
    measured: Estimate | Numbers,
    tolerance: Numbers,
    *,
    judged: bool = True,
    labels: Labels | None = None,
    axes: tuple[str, ...] = (),
) -> list[Row]:
    """Rows that say `measured = 0` up to rounding; arguments as in `equals`."""
    return equals(part, measured, 0.0, tolerance=tolerance, judged=judged, labels=labels, axes=axes)


def at_most(
    part: str,
    measured: Estimate | Numbers,
    bound: Numbers,
    *,
    tolerance: Numbers = 0.0,
    judged: bool = True,
    labels: Labels | None = None,
    axes: tuple[str, ...] = (),
) -> list[Row]:
    """Rows that say `measured <= bound`; arguments as in `equals`."""
    return _rows(part, measured, bound, 1.0, tolerance, MARGIN, "<=" if judged else "report", labels, axes)


def at_least(
    part: str,
    measured: Estimate | Numbers,
    bound: Numbers,
    *,
    tolerance: Numbers = 0.0,
    judged: bool = True,
    labels: Labels | None = None,
    axes: tuple[str, ...] = (),
) -> list[Row]:
    """Rows that say `measured >= bound`; arguments as in `equals`."""
    return _rows(part, measured, bound, 1.0, tolerance, MARGIN, ">=" if judged else "report", labels, axes)


def report(
    part: str,
    measured: Estimate | Numbers,
    reference: Numbers = 0.0,
    scale: Numbers = 1.0,
    *,
    labels: Labels | None = None,
    axes: tuple[str, ...] = (),
) -> list[Row]:
    """Rows that are shown and not judged, beside a reference value; arguments as in `equals`."""
    return _rows(part, measured, reference, scale, 0.0, MARGIN, "report", labels, axes)


def _rows(
    part: str,
    measured: Estimate | Numbers,
    target: Numbers,
    scale: Numbers,
    tolerance: Numbers,
    margin: float,
    relation: str,
    labels: Labels | None,
    axes: tuple[str, ...],
) -> list[Row]:
    known = measured if isinstance(measured, Estimate) else Estimate(_plain(measured), np.zeros(()), 2)
    columns = {
        "measured": known.mean,
        "target": target,
        "standard_error": known.standard_error,
        "scale": scale,
        "tolerance": tolerance,
    }
    arrays = np.broadcast_arrays(*map(_plain, columns.values()))
    if not all(np.isfinite(array).all() for array in arrays):
        raise InputError(f"part {part!r} of {dict(labels or {})} is not finite: out of floating-point range")
    fixed = {"part": part, "relation": relation, "margin": margin, "samples": int(known.samples), **(labels or {})}
    return [
        {
            **fixed,
            **dict(zip(axes, (int(i) for i in index), strict=False)),
            **{name: float(array[index]) for name, array in zip(columns, arrays, strict=True)},
        }
        for index in np.ndindex(arrays[0].shape)
    ]


def _plain(x: Any) -> np.ndarray:
    return np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x, dtype=np.float64)
