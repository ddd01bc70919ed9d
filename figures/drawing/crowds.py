"""Panels with very many marks become an image inside a vector picture, so that a file stays small whatever is drawn."""

from typing import Any

import numpy as np
from matplotlib.collections import Collection
from matplotlib.lines import Line2D

MOST_MARKS = 3000  # of a figure, as vectors; about 100 bytes each
IMAGE_DPI = 220  # of what becomes an image


def rasterise_crowds(figure: Any) -> int:
    """Mark what is drawn in the most crowded panels as an image, until so many marks are left; text and axes stay vectors.

    Args:
        figure: with its panels.

    Returns:
        How many panels become images.
    """
    marks = {axis: sum(map(_marks, _drawn(axis))) for axis in figure.axes}
    left, images = sum(marks.values()), 0
    for axis in sorted(marks, key=lambda axis: -marks[axis]):
        if left <= MOST_MARKS:
            break
        for artist in _drawn(axis):
            artist.set_rasterized(True)
        left, images = left - marks[axis], images + 1
    return images


def _drawn(axis: Any) -> list[Any]:
    return [*axis.lines, *axis.collections, *axis.patches]


def _marks(artist: Any) -> int:
    """How many marks, or corners of lines and areas, an artist has."""
    if isinstance(artist, Line2D):
        return int(np.size(artist.get_xdata()))
    if isinstance(artist, Collection):
        corners = sum(np.size(path.vertices, 0) for path in artist.get_paths())
        return max(corners, np.size(artist.get_offsets(), 0))
    return 1
