"""One look for every figure, and saving; nothing here changes the settings of a user's own plots.

A figure is made, drawn and saved inside `with house_style():`. Colours can be told apart by colour-blind readers and have one
meaning each. Seaborn, which loads pyplot, is imported here and nowhere else, when the first figure is made.
"""

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from cycler import cycler
from matplotlib import style
from matplotlib.figure import Figure

from figures.harness.records import write_atomically

# seaborn's palette "colorblind", known without importing seaborn
_BLUE, _ORANGE, _GREEN, _RED, _PINK = "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc"
_BROWN, _ROSE, _GREY, _YELLOW, _SKY = "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9"
PALETTE = (_BLUE, _ORANGE, _GREEN, _RED, _PINK, _BROWN, _ROSE, _GREY, _YELLOW, _SKY)
COLOURS = {
    "exact": "black",
    "costate": _BLUE,
    "pathwise": _BLUE,
    "control": _RED,
    "score": _ORANGE,
    "score_value": _GREEN,
    "score_best": _PINK,
    "critic": _SKY,
    "attention": _GREEN,
    "dynamics": _ORANGE,
    "closed": _RED,
    "reference": _GREY,
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
EXACT: dict[str, Any] = {"color": COLOURS["exact"], "linestyle": "--", "linewidth": 1.4}
TITLE_DROP, LEGEND_DROP = 0.0825, 0.2475  # inches below the figure's upper edge
WIDTH = 10.0  # inches; 110 dots per inch is what a reader sees in the README
_OWN = {
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.labelsize": 11,
    "legend.fontsize": 9,
    "legend.frameon": True,
    "legend.framealpha": 0.9,
    "svg.hashsalt": "costate",
    "savefig.dpi": 110,
    "font.size": 10,
    "font.family": "sans-serif",
    "axes.prop_cycle": cycler(color=PALETTE),
    "patch.facecolor": _BLUE,
}


@cache
def _parameters() -> dict[str, Any]:
    """Matplotlib's parameters: seaborn's white grid at notebook size, with our own changes."""
    import seaborn as sns

    return {**sns.axes_style("whitegrid"), **sns.plotting_context("notebook"), **_OWN}


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's parameters for what is drawn and saved inside; the user's come back after it."""
    with style.context(["default", _parameters()]):
        yield


def new_figure(height: float) -> Figure:
    """An empty figure, `height` inches high, that no window manager knows of."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def add_caption(figure: Figure, title: str, how_to_read: str) -> None:
    """Title above, how to read it below, with the room that they need kept free."""
    lines = textwrap.wrap(how_to_read, 150)
    room = (0.17 * len(lines) + 0.12) / figure.get_figheight()
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, room, 1, 1 - room - 0.63 / figure.get_figheight()))
    figure.text(
        0.012, 1 - TITLE_DROP / figure.get_figheight(), title, ha="left", va="top", fontsize=12.5, fontweight="bold"
    )
    figure.text(0.012, 0.018, "\n".join(lines), ha="left", va="bottom", fontsize=9, color="0.25", linespacing=1.25)


def save(figure: Figure, stem: Path) -> None:
    """PNG and SVG beside each other, whole or not at all; the same rows give the same bytes."""
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        figure.set_layout_engine(None)  # both show the layout of the first: finding it is most of the work
        write_atomically(stem.with_suffix("." + kind), buffer.getvalue())


def heatmap(table: Any, axis: Any, **options: Any) -> None:
    """A table as cells with their numbers (seaborn's heatmap)."""
    import seaborn as sns

    sns.heatmap(table, ax=axis, **options)
    axis.grid(visible=False)
