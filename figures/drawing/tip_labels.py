"""Labels at the tips of arrows, each where it stands on no other label and, if it can, on no arrow."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.transforms import Bbox

_RINGS = (0.7, 1.4, 2.4, 3.6, 5.0)  # distances from the tip, over the size of the text
_TURNS = tuple(np.deg2rad(a) for a in (0, 30, -30, 60, -60, 90, -90, 120, -120, 150, -150, 180))
_LEADER = 1.0  # from this distance on a thin line leads from the tip to its label
_ON_ARROW, _OUTSIDE, _ON_LABEL = 1.0, 100.0, 300.0  # what a place costs; a ring further out costs 0.5


@dataclass(frozen=True)
class Tip:
    """A label: where it belongs, in data coordinates, its text and its colour."""

    place: np.ndarray
    text: str
    colour: Any


def label_tips(axis: Any, tips: Sequence[Tip], ends: Sequence[np.ndarray]) -> None:
    """Write the labels; the axes must be laid out, with their limits set.

    Args:
        axis: where to write.
        tips: the labels.
        ends: tips of all arrows, in data coordinates; they begin at the origin.
    """
    to_pixels = axis.transData.transform
    origin = to_pixels((0.0, 0.0))
    along = np.linspace(0.02, 1, 100)[:, None]
    points = np.concatenate([origin + along * (to_pixels(end) - origin) for end in ends])
    taken: list[Bbox] = [one.get_window_extent() for one in [axis.get_legend()] if one is not None]
    for tip in sorted(tips, key=lambda tip: -float(np.linalg.norm(tip.place))):
        text = axis.annotate(
            tip.text,
            tip.place,
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            color=tip.colour,
            fontweight="bold",
            zorder=7,
            in_layout=False,
        )
        taken.append(_move(axis, text, to_pixels(tip.place), origin, points, taken))


def _move(axis: Any, text: Any, tip: np.ndarray, origin: np.ndarray, points: np.ndarray, taken: Sequence[Bbox]) -> Bbox:
    """Move a label to the cheapest place around its tip; its box there."""
    box, dpi = text.get_window_extent(), axis.get_figure(root=True).dpi
    unit, half = text.get_fontsize() * dpi / 72, np.array([box.width, box.height]) / 2
    outward = np.arctan2(*(tip - origin)[::-1]) if np.hypot(*(tip - origin)) > 1 else -np.pi / 2
    places = []
    for ring, (turn, angle) in itertools.product(_RINGS, enumerate(outward + np.array(_TURNS))):
        way = np.array([np.cos(angle), np.sin(angle)])
        shift = way * (ring * unit + half)
        there = Bbox([tip + shift - half, tip + shift + half])
        places.append((0.5 * ring + 0.03 * turn + _cost(there, axis.bbox, points, taken), ring, shift, there))
    _, ring, shift, there = min(places, key=lambda place: place[0])
    text.set_position(tuple(shift * 72 / dpi))
    if ring > _LEADER:
        to = tip + shift * max(0.0, 1 - half[1] / max(1.0, float(np.hypot(*shift))))
        line: dict[str, Any] = {"color": text.get_color(), "lw": 0.6, "zorder": 6, "scalex": False, "scaley": False}
        axis.plot(*axis.transData.inverted().transform([tip, to]).T, **line)
    return there


def _cost(box: Bbox, view: Bbox, points: np.ndarray, taken: Sequence[Bbox]) -> float:
    near = box.expanded(1.05, 1.15)
    inside = ((points >= near.min) & (points <= near.max)).all(1).sum()
    outside = box.x0 < view.x0 or box.x1 > view.x1 or box.y0 < view.y0 or box.y1 > view.y1
    covered = sum(bool(near.overlaps(other)) for other in taken)
    return _ON_ARROW * float(inside) + _OUTSIDE * bool(outside) + _ON_LABEL * covered
