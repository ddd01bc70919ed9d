"""Labels of panels that are small: broken into lines, turned, or fewer of them."""

import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

_AIR = 0.1  # of the size of the type, on every side of a tick's label


def fit_labels(figure: Figure) -> None:
    """Break titles and axis labels that are longer than their panel; turn or leave out tick labels that overlap.

    The figure is laid out then, once and for all: finding the layout is most of the work, and looks up settings.
    """
    layout: Any = figure.get_layout_engine()
    for _ in range(4):  # labels of two lines leave the panels less room
        layout.execute(figure)  # drawing the figure as well would take half as long again
        if not fit_panels(figure.axes):
            break
    figure.set_layout_engine("none")
    _round_places(figure)
    _keep_titles(figure)


def _round_places(figure: Figure) -> None:
    """The layout's solver differs by rounding from call to call, and names in an SVG are hashes of such numbers."""
    for axis in figure.axes:
        place = [round(x, 9) for x in axis.get_position(original=True).bounds]
        axis._set_position(place, which="original")  # type: ignore[attr-defined]


def titles_may_move(figure: Any) -> bool:
    """Whether Matplotlib may still move a title, from one drawing to the next: away from an exponent above an axis."""
    return any(axis.yaxis.get_offset_text().get_text() for axis in figure.axes)


def _keep_titles(figure: Figure) -> None:
    """Titles that nothing can push up stay: Matplotlib looks for it at every drawing, which takes a fifth of the time."""
    for axis in [] if titles_may_move(figure) else figure.axes:
        if axis.title.get_position()[1] == 1:
            axis._autotitlepos = False  # type: ignore[attr-defined]


def fit_panels(axes: Iterable[Any]) -> bool:
    """The same for panels that are where they will be seen, with their ticks made; whether anything was changed."""
    changed = False
    for axis in axes:
        box = axis.get_window_extent()
        for label, side in ((axis.title, "width"), (axis.xaxis.label, "width"), (axis.yaxis.label, "height")):
            changed |= wrap(label, side, 1.02 * getattr(box, side))
        for ticks in (axis.xaxis, axis.yaxis):
            changed |= _fit_ticks(ticks)
    return changed


def wrap(label: Any, side: str, room: float) -> bool:
    """Break a text into lines that are no longer than so many pixels, where words allow it.

    Args:
        label: the text.
        side: "width", or "height" for a text that stands upright.
        room: in pixels.

    Returns:
        Whether the text was changed.
    """
    before = label.get_text()
    text = " ".join(label.get_text().split())
    long = getattr(label.get_window_extent(), side)
    letters = len(text) if long <= room else min(len(text) - 1, int(1.1 * len(text) * room / long))
    while text and letters > 6 and getattr(label.get_window_extent(), side) > room:
        label.set_text("\n".join(textwrap.wrap(text, letters, break_long_words=False)))
        letters -= 1
    return bool(label.get_text() != before)


def _fit_ticks(axis: Any) -> bool:
    """Without overlaps: first no labels of minor ticks, then words are turned and numbers left out; whether it was needed."""
    if not overlaps(axis):
        return False
    if any(text.get_text() for text in axis.get_ticklabels()):
        axis.set_minor_formatter(NullFormatter())
    if not overlaps(axis):
        return True
    if not any(text.get_text()[-1:].isalpha() for text in axis.get_ticklabels()):
        _leave_out(axis)
    elif axis.axis_name == "x":
        for text in axis.get_ticklabels():
            text.set(rotation=50, ha="right", rotation_mode="anchor")
    return True


def _leave_out(axis: Any) -> None:
    """Only the ticks whose labels stand free: 0 first, then from both ends inwards."""
    ticks = [tick for tick in axis.get_major_ticks() if tick.label1.get_text()]
    kept: list[Any] = []
    for tick in sorted(ticks, key=lambda tick: (tick.get_loc() != 0, -abs(tick.get_loc()))):
        box = _with_air(tick.label1)
        if not any(box.overlaps(_with_air(other.label1)) for other in kept):
            kept.append(tick)
    axis.set_ticks(sorted(tick.get_loc() for tick in kept))


def overlaps(axis: Any) -> bool:
    """Whether labels of an axis's ticks, minor ones included, stand on each other or touch.

    Args:
        axis: the x or the y axis of a panel that is laid out.
    """
    texts = [*axis.get_ticklabels(), *axis.get_ticklabels(minor=True)]
    boxes = [_with_air(text) for text in texts if text.get_text() and text.get_visible()]
    if any(text.get_rotation() % 90 for text in texts):
        return False  # slanted texts stand free although their boxes overlap
    return any(boxes[i].overlaps(boxes[j]) for i, j in np.ndindex(len(boxes), len(boxes)) if i < j)


def _with_air(text: Any) -> Any:
    """The box of a label with some air around it: boxes that touch are read as one number."""
    return text.get_window_extent().padded(_AIR * text.get_fontsize() * text.get_figure(root=True).dpi / 72)
