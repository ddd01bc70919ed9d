"""One panel, on axes of the user's or on a figure of its own: its place, its texts, and room that they need."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from envs.arguments import as_numbers, short
from envs.world import InputError
from figures.drawing.figures import height_of, width_of
from figures.drawing.frame import scale_marks
from figures.drawing.labels import fit_labels, fit_panels
from figures.drawing.placing import freeze
from figures.drawing.style import house_style, new_figure, text_scale


@contextmanager
def panel(ax: Any, width: float, height: float) -> Iterator[Any]:
    """Axes to draw on: the user's, under the user's own settings, or those of a new figure in the house style.

    Args:
        ax: axes of the user's, or None.
        width: of a new figure, in inches.
        height: of a new figure, in inches.

    Raises:
        InputError: ax is no pair of plain axes.
    """
    if ax is not None:
        if getattr(ax, "name", None) != "rectilinear":
            raise InputError(f"ax must be plain axes of Matplotlib, or None for a figure of its own; got {short(ax)}")
        yield ax
        lay_out(ax)
        fit_panels([ax])
        return
    with house_style(width):
        figure = new_figure(height, width)
        own = figure.subplots()
        yield own
        scale_marks([own], text_scale(width))
        fit_labels(figure)
        freeze(figure)


def check_width(width: Any) -> None:
    """Refuse a width that is no number of inches from 1 to 100.

    Args:
        width: of a new figure.

    Raises:
        InputError: it is none.
    """
    if isinstance(width, bool) or not (isinstance(width, int | float) and 1 <= width <= 100):
        raise InputError(f"width must be a number of inches from 1 to 100; got {short(width)}")


def lay_out(axis: Any) -> None:
    """Let the figure's layout engine do its work now, so that sizes in pixels are those that a reader sees."""
    axis.get_figure(root=True).draw_without_rendering()


def inches(axis: Any) -> tuple[float, float]:
    """Width and height of axes in inches."""
    figure = axis.get_figure(root=False)
    place = axis.get_position()
    return place.width * width_of(figure), place.height * height_of(figure)


def numbers(name: str, given: Any) -> np.ndarray:
    """What a user brings as an array of finite numbers in float64.

    Args:
        name: of the argument in the error.
        given: a tensor, an array or lists.

    Raises:
        InputError: it is no array of finite numbers, or it is empty.
    """
    array: np.ndarray = as_numbers(name, given).detach().cpu().double().numpy()
    if array.size == 0:
        raise InputError(f"{name} is empty: give at least one number")
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds NaN or infinity; every entry must be a finite number")
    return array


def room_above(axis: Any, legend: Any) -> None:
    """Raise the upper limit of the y axis, so that a legend at the top covers nothing that is drawn."""
    lay_out(axis)
    share = legend.get_window_extent().height / axis.bbox.height
    low, high = axis.get_ylim()
    axis.set_ylim(low, low + (high - low) / max(0.25, 1 - share - 0.04))
