"""Whether a figure can be read: where its texts are once it is laid out, by their boxes alone."""

from itertools import combinations

import numpy as np
from matplotlib.text import Text

SLACK = 1.0  # pixels


def _corners(text):
    """The four corners of a text as it is drawn, turned texts included."""
    angle, text_box = text.get_rotation(), text.get_window_extent()
    if angle % 90 == 0:
        return np.array(
            [[text_box.x0, text_box.y0], [text_box.x1, text_box.y0], text_box.max, [text_box.x0, text_box.y1]]
        )
    text.set_rotation(0)
    flat = text.get_window_extent()
    text.set_rotation(angle)
    turn = np.deg2rad(angle)
    along, up = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    w, h = flat.width / 2 * along, flat.height / 2 * up
    middle = (np.array(text_box.min) + text_box.max) / 2
    return np.array([middle - w - h, middle + w - h, middle + w + h, middle - w + h])


def _apart(a, b):
    """Whether two rectangles have no common point but their rims: some side of one separates them."""
    for corners in (a, b):
        for i in range(4):
            side = corners[(i + 1) % 4] - corners[i]
            normal = np.array([-side[1], side[0]]) / max(np.hypot(*side), 1e-9)
            p, q = a @ normal, b @ normal
            if p.max() <= q.min() + SLACK or q.max() <= p.min() + SLACK:
                return True
    return False


def _shown(artists):
    return [a for a in artists if a.get_visible() and (not isinstance(a, Text) or a.get_text().strip())]


def _around(axis):
    """Texts around a panel: title, labels, tick labels that lie in the view."""
    texts = [axis.title, axis.xaxis.label, axis.yaxis.label] if axis.axison else []
    for one in (axis.xaxis, axis.yaxis) if axis.axison else ():
        low, high = sorted(one.get_view_interval())
        for tick in one.get_major_ticks() + one.get_minor_ticks():
            if low <= tick.get_loc() <= high and tick.label1.get_visible():
                texts.append(tick.label1)
    return _shown(texts)


def unreadable(figure):
    """Sentences on texts that are cut or stand on each other; the figure must be laid out."""
    panels = [axis for axis in figure.axes if axis.get_figure(root=False) is figure]
    texts = _shown(figure.texts) + [text for axis in panels for text in _around(axis)]
    boxes = [(repr(text.get_text()), _corners(text)) for text in texts]
    boxes += [("the legend", _rectangle(legend)) for legend in figure.legends]
    legends = [text for a in (*panels, figure) for legend in _legends(a) for text in legend.get_texts()]
    every = boxes + [(repr(text.get_text()), _corners(text)) for text in [*legends, *_inside(panels)]]
    low, high = figure.bbox.min - SLACK, figure.bbox.max + SLACK
    cut = [f"{name} is cut" for name, c in every if (c < low).any() or (c > high).any()]
    return cut + [f"{m} stands on {n}" for (m, a), (n, b) in combinations(boxes, 2) if not _apart(a, b)]


def _legends(place):
    own = place.legends if hasattr(place, "legends") else [place.get_legend()]
    return [legend for legend in own if legend is not None]


def _inside(panels):
    return _shown([text for axis in panels for text in axis.texts])


def _rectangle(artist):
    box = artist.get_window_extent()
    return np.array([[box.x0, box.y0], [box.x1, box.y0], [box.x1, box.y1], [box.x0, box.y1]])


def colliding(axis):
    """Sentences on texts inside a panel that stand on each other, on the legend or across the rim; boxes of texts count."""
    axis.get_figure(root=True).draw_without_rendering()  # texts get their places
    texts = _shown([text for text in axis.texts if text.get_text().strip()])
    boxes = [
        (repr(text.get_text()), _rectangle(text.get_bbox_patch()) if text.get_bbox_patch() else _corners(text))
        for text in texts
    ]
    boxes += [("the legend", _rectangle(legend)) for legend in _legends(axis)]
    low, high = axis.bbox.min - SLACK, axis.bbox.max + SLACK
    cut = [f"{name} is cut" for name, c in boxes if (c < low).any() or (c > high).any()]
    return cut + [f"{m} stands on {n}" for (m, a), (n, b) in combinations(boxes, 2) if not _apart(a, b)]
