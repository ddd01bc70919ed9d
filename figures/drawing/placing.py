"""Drawings inside somebody else's figure: the room for them, and a figure that looks the same under other settings."""

from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.gridspec import GridSpec
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from envs.world import InputError
from figures.drawing.figures import WrappedPart, height_of, width_of
from figures.drawing.frame import add_frame, own_axes
from figures.drawing.labels import fit_panels

_LEAST = 1.0  # inches; less room shows nothing


@dataclass(frozen=True)
class Room:
    """Where a drawing goes: a cell of a grid in `parent`, its size in inches, and the axes that it replaces."""

    parent: Any
    cell: Any
    width: float
    height: float
    replaced: Any = None


def room_of(ax: Any, figure: Any) -> Room:
    """The room of axes, or of a whole figure that is empty.

    Args:
        ax: axes to be replaced, or None.
        figure: an empty figure or part of one, or None.

    Raises:
        InputError: both are given, the figure has axes already, or the room is smaller than an inch.
    """
    if ax is not None and figure is not None:
        raise InputError("ax and figure are both given: give one of them")
    parent = figure if ax is None else ax.get_figure(root=False)
    if ax is None and own_axes(figure):
        raise InputError("figure has axes already: give an empty one, or ax= to replace axes")
    if ax is None:
        box, cell = Bbox.unit(), GridSpec(1, 1, figure=parent)[0]
    else:
        box, cell = _seen(ax, parent)
    width, height = box.width * width_of(parent), box.height * height_of(parent)
    if min(width, height) < _LEAST:
        raise InputError(f"the room is {width:.2g} x {height:.2g} inches: at least {_LEAST:g} x {_LEAST:g} are needed")
    return Room(parent, cell, width, height, ax)


def _seen(ax: Any, parent: Any) -> tuple[Bbox, Any]:
    """What is seen of axes with their labels, as shares of the parent; a cell that covers it.

    A layout engine does its work now and is then switched off: it would move what stands beside the drawing.
    """
    root = ax.get_figure(root=True)
    if root.get_layout_engine() is not None:
        root.draw_without_rendering()
        root.set_layout_engine("none")
    tight = Bbox.union([ax.get_tightbbox() or ax.bbox, ax.bbox])
    box = Bbox.intersection(tight.transformed(parent.transSubfigure.inverted()), Bbox.unit()) or Bbox.unit()
    wide, high = (box.x0, box.width, 1 - box.x1), (1 - box.y1, box.height, box.y0)
    return box, GridSpec(3, 3, figure=parent, width_ratios=wide, height_ratios=high)[1, 1]


def empty_part(room: Room) -> WrappedPart:
    """A part of the figure that covers the room, from which the replaced axes are removed."""
    if room.replaced is not None:
        room.replaced.remove()
    part = WrappedPart(room.parent, room.cell)
    room.parent.subfigs.append(part)
    part.stale_callback = _redraw
    room.parent.stale = True
    return part


def _redraw(part: Any, stale: bool) -> None:
    if stale:
        part.get_figure(root=True).stale = True


def fill_part(part: WrappedPart, model: Figure, title: str, caption: str) -> None:
    """Give the panels of a part the places that they have in a figure of the same size, whatever the part's figure does."""
    for axis, known in zip(own_axes(part), model.axes, strict=True):
        axis.set_in_layout(False)
        axis.set_position(known.get_position(original=True))
        if axis.get_axes_locator() is None:
            axis.set_axes_locator(_Pinned(known.get_position(original=True), part))
    add_frame(part, title, caption)
    part.get_tightbbox()  # makes the ticks
    fit_panels(own_axes(part))


@dataclass(frozen=True)
class _Pinned:
    """Keeps axes in their place when the user calls `subplots_adjust` or `tight_layout` for the whole figure."""

    place: Bbox
    part: Any

    def __call__(self, axis: Any, renderer: Any) -> Bbox:
        return self.place


def freeze(figure: Any) -> None:
    """Fix what Matplotlib looks up only when it draws, so that a figure looks the same outside the house style."""
    for axis in own_axes(figure):
        for one in (axis.xaxis, axis.yaxis):
            one.get_ticklabels()  # makes the ticks
            for tick in one.get_major_ticks()[:1]:  # an empty panel has none
                one.set_tick_params(labelsize=tick.label1.get_fontsize())
    for text in figure.findobj(Text):
        text.set_fontfamily(_family(text.get_fontproperties()))


def _family(font: FontProperties) -> str:
    """The name of the font that is used, for lists such as "serif" are the user's setting."""
    return str(FontProperties(fname=findfont(font)).get_name())
