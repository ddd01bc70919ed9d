"""Names of lines beside their ends, in the place of a legend."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_APART = 0.075  # of the axis: names stand at least so far apart
_BESIDE = 0.03  # of the axis, between a line's end and its name


@dataclass(frozen=True)
class LineEnd:
    """Where a line ends, its name and its colour."""

    x: float
    y: float
    name: str
    colour: Any


def name_lines(axis: Any, ends: Sequence[LineEnd], room: float = 0.45, side: str = "right") -> None:
    """Write the name of every line beside its end, moved apart where ends are close; the axes get room on that side.

    The scales of the axes must be set before, and nothing may change their limits afterwards.

    Args:
        axis: where the lines are.
        ends: of the lines; none for nothing.
        room: for the names, as a share of what the x axis shows now.
        side: "right", or "left" for names before the first points, which are then the `ends`.
    """
    if not ends:
        return
    to_share = (axis.transScale + axis.transLimits).transform
    back = (axis.transScale + axis.transLimits).inverted().transform
    low, high = axis.get_xlim()
    axis.set_ylim(*axis.get_ylim())
    axis.set_xticks([x for x in axis.get_xticks() if low <= x <= high])
    right, height = side == "right", -1.0
    axis.set_xlim(*((low, back((1 + room, 0))[0]) if right else (back((-room, 0))[0], high)))
    at = [to_share((end.x, end.y))[0] for end in ends]
    x = max(at) + _BESIDE if right else min(at) - _BESIDE
    for end in sorted(ends, key=lambda end: end.y):
        height = max(float(to_share((end.x, end.y))[1]), height + _APART)
        look = {"color": end.colour, "fontsize": "small", "va": "center", "ha": "left" if right else "right"}
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        axis.text(x, height, end.name, transform=axis.transAxes, bbox=box, **look)
