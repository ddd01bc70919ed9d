"""Figures whose panels move to further rows where the width is too small for one row."""

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure, FigureBase, SubFigure

WIDTH = 10.0  # inches; the width for which the claims' drawings are written
_TWO_COLUMNS = 3.0  # inches
_CLOSER = 0.72  # smaller text lets panels stand this much closer together than at the full width


def width_of(figure: Any) -> float:
    """Width of a figure or of a part of one, in inches."""
    return float(figure.bbox.width / figure.dpi)


def height_of(figure: Any) -> float:
    """Height of a figure or of a part of one, in inches."""
    return float(figure.bbox.height / figure.dpi)


def columns_that_fit(columns: int, width: float, rows: int = 1) -> int:
    """How many of so many panels may stand side by side; all of them from 8 inches on, and rows are filled evenly.

    Args:
        columns: panels side by side at the full width.
        width: in inches.
        rows: of such panels. More than four panels in several rows stand in two columns: they fit on a page then.
    """
    if width >= 0.8 * WIDTH:
        return columns
    least = 2 if rows > 1 and rows * columns > 4 and width >= _TWO_COLUMNS else 1
    most = min(columns, max(least, round(columns * width / (WIDTH * _CLOSER))))
    return -(-columns // -(-columns // most))


class _WrappedPanels(FigureBase):
    """`subplots` and `subplot_mosaic` as in Matplotlib, in more rows where the figure is narrow."""

    def subplots(self, nrows: int = 1, ncols: int = 1, **options: Any) -> Any:
        """Axes as `Figure.subplots` returns them; where a row does not fit, it continues in the next row.

        Args:
            nrows: rows at the full width, and of what is returned.
            ncols: columns at the full width, and of what is returned.
            **options: as for `Figure.subplots`; ratios hold where all columns fit.
        """
        columns = columns_that_fit(ncols, width_of(self), nrows)
        if columns == ncols:
            return super().subplots(nrows, ncols, **options)
        rows_of_one = -(-ncols // columns)
        shared = {name: options.get(name, False) for name in ("sharex", "sharey")}
        grid = self.add_gridspec(nrows * rows_of_one, columns)
        axes = np.empty((nrows, ncols), dtype=object)
        for i, j in np.ndindex(nrows, ncols):
            place = grid[i * rows_of_one + j // columns, j % columns]
            axes[i, j] = panel = self.add_subplot(place, **{k: _partner(axes, i, j, how) for k, how in shared.items()})
            if shared["sharey"] and j % columns:
                panel.tick_params(labelleft=False, which="both")
        if not options.get("squeeze", True):
            return axes
        return axes.item() if axes.size == 1 else axes.squeeze()

    def subplot_mosaic(self, mosaic: Any, **options: Any) -> Any:
        """Axes by name as `Figure.subplot_mosaic` returns them; where the mosaic is too wide, one below the other.

        Args:
            mosaic: rows of names, a name once for each cell that its panel covers.
            **options: as for `Figure.subplot_mosaic`; ratios hold where the mosaic fits.
        """
        widest = max(len(dict.fromkeys(row)) for row in mosaic)
        if columns_that_fit(widest, width_of(self)) == widest:
            return super().subplot_mosaic([list(row) for row in mosaic], **options)
        names = list(dict.fromkeys(name for row in mosaic for name in row))
        axes = super().subplots(len(names), 1, squeeze=False)[:, 0]
        return dict(zip(names, axes, strict=True))


def _partner(axes: np.ndarray, i: int, j: int, how: bool | str) -> Any:
    """The axes that panel (i, j) shares an axis with: the first of all, of its row or of its column."""
    first = {True: (0, 0), "all": (0, 0), "row": (i, 0), "col": (0, j)}.get(how)
    return None if first in (None, (i, j)) else axes[first]


class WrappedFigure(_WrappedPanels, Figure):
    """A figure of its own, which no window manager knows of; a notebook shows it."""

    def _repr_png_(self) -> bytes:
        """The picture for notebooks."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=self.dpi)
        return buffer.getvalue()


class WrappedPart(_WrappedPanels, SubFigure):
    """A part of somebody else's figure."""
