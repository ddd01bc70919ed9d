"""What stands around the panels: title and legend above, how to read them below; and saving."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine

from figures.drawing.crowds import IMAGE_DPI, rasterise_crowds
from figures.drawing.figures import WIDTH, height_of, width_of
from figures.drawing.labels import titles_may_move, wrap
from figures.drawing.style import text_scale
from figures.harness.records import write_atomically

_PAD = 0.08  # inches between title, legend, panels and caption at the full width
_LEFT = 0.012  # share of the width
_METADATA: dict[str, dict[str, Any]] = {  # no date and no version: the same rows give the same bytes
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}
FORMATS = tuple(_METADATA)
USUAL = ("png", "svg")  # unless the author asks for others


def add_frame(figure: Any, title: str = "", caption: str = "", panels: float | None = None) -> None:
    """Title above, then the legends of the whole figure, the caption below, each as long as its text.

    A figure of its own keeps its panels between them; in a part of a figure they are where they are.

    Args:
        figure: a figure or a part of one, with its panels.
        title: what stands above; "" for nothing.
        caption: what stands below; "" for nothing.
        panels: inches for the panels; the figure becomes as high as they and the texts need. None: it keeps its height.
    """
    pad = _PAD * text_scale(width_of(figure))
    above = _text(figure, title, "top", fontsize="large", fontweight="bold", gid="title")
    below = _text(figure, caption, "bottom", fontsize="small", color="0.25", linespacing=1.25, gid="caption")
    legends = sum(_inches(legend) for legend in figure.legends)
    title_end = pad + _inches(above) if title else 0.0
    top = title_end + legends + (pad / 2 if title or legends else 0.0)
    bottom = 1.5 * pad + _inches(below) if caption else 0.0
    if panels is not None and isinstance(figure, Figure):
        figure.set_figheight(panels + top + bottom)
    height = height_of(figure)
    above.set_position((_LEFT, 1 - pad / height))
    below.set_position((_LEFT, pad / height))
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0.0, 1 - title_end / height))
    _repeat_labels(own_axes(figure))
    if isinstance(figure, Figure):
        layout: Any = figure.get_layout_engine()
        layout.set(rect=(0, bottom / height, 1, 1 - (top + bottom) / height))


def _inches(artist: Any) -> float:
    """How high something is drawn."""
    return float(artist.get_window_extent().height) / float(artist.get_figure(root=True).dpi)


def own_axes(figure: Any) -> list[Any]:
    """The axes of a figure or of a part of one, without those of other parts."""
    return [axis for axis in figure.axes if axis.get_figure(root=False) is figure]


def _text(figure: Any, text: str, side: str, **look: Any) -> Any:
    """A text that is no wider than the figure."""
    drawn = figure.text(_LEFT, 0.5, text, ha="left", va=side, **look)
    wrap(drawn, "width", (1 - 2 * _LEFT) * figure.bbox.width)
    return drawn


def _repeat_labels(axes: Sequence[Any]) -> None:
    """Panels that begin a further row have the label of the y axis that they share."""
    for axis in axes:
        place = axis.get_subplotspec()
        if place is None or axis.get_ylabel() or not place.is_first_col():
            continue
        labels = [other.get_ylabel() for other in axes if axis.get_shared_y_axes().joined(axis, other)]
        axis.set_ylabel(next(filter(None, labels), ""))


def scale_marks(axes: Iterable[Any], factor: float) -> None:
    """Lines and markers times a factor: what is drawn at sizes for the full width."""
    for axis in axes:
        for line in axis.lines:
            line.set(
                markersize=factor * line.get_markersize(),
                markeredgewidth=factor * line.get_markeredgewidth(),
                linewidth=factor * line.get_linewidth(),
            )
        for bars in axis.collections:
            if isinstance(bars, LineCollection):
                bars.set_linewidth((factor * np.asarray(bars.get_linewidth())).tolist())


def panels_height(figure: Any, height: float) -> float:
    """A height in inches for the panels of a figure that is not of the full width.

    Args:
        figure: with its panels.
        height: of the whole figure at the full width.
    """
    width, scale = width_of(figure), text_scale(width_of(figure))
    places = [axis.get_subplotspec() for axis in figure.axes if axis.get_subplotspec() is not None]
    if width >= 0.8 * WIDTH or not places:
        return (height - 1.2) * width / WIDTH
    grid = places[0].get_topmost_subplotspec().get_gridspec()
    ratios = grid.get_height_ratios()
    shape = {1: 0.55 if grid.nrows < 4 else 0.38, 2: 0.8}.get(grid.ncols, 0.9)  # of a panel, height over width
    bars = sum(axis.get_subplotspec() is None for axis in figure.axes)  # of colours, below the panels
    return float(sum(ratios) / min(ratios) * (shape * width / grid.ncols + 0.55 * scale) + 0.6 * scale * bars)


def picture(figure: Any, kind: str, dpi: float | None = None) -> bytes:
    """The bytes of a file of one of the `FORMATS`; what is too crowded for vectors is an image in SVG and PDF."""
    buffer = io.BytesIO()
    if kind != "png":
        rasterise_crowds(figure)
        dpi = dpi or IMAGE_DPI
    if isinstance(figure.get_layout_engine(), PlaceHolderLayoutEngine) and not titles_may_move(figure):
        figure.set_layout_engine(
            None
        )  # laid out by now: Matplotlib would draw once more for an engine that does nothing
    figure.savefig(buffer, format=kind, metadata=_METADATA[kind], **({} if dpi is None else {"dpi": dpi}))
    figure.set_layout_engine(None)  # all show the layout of the first: finding it is most of the work
    return buffer.getvalue()


def save(figure: Figure, stem: Path) -> None:
    """PNG and SVG beside each other, whole or not at all."""
    for kind in USUAL:
        write_atomically(stem.with_suffix("." + kind), picture(figure, kind))
