"""One look for every figure: colours that colour-blind readers can tell apart, one meaning each, and saving."""

import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from figures.harness.records import write_atomically

_PALETTE = sns.color_palette("colorblind")
COLOURS = {
    "exact": "black",
    "costate": _PALETTE[0],
    "pathwise": _PALETTE[0],
    "control": _PALETTE[3],
    "score": _PALETTE[1],
    "score_value": _PALETTE[2],
    "score_best": _PALETTE[4],
    "critic": _PALETTE[9],
    "attention": _PALETTE[2],
    "dynamics": _PALETTE[1],
    "closed": _PALETTE[3],
    "reference": _PALETTE[7],
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
EXACT = {"color": COLOURS["exact"], "linestyle": "--", "linewidth": 1.4}
TITLE_DROP, LEGEND_DROP = 0.0825, 0.2475  # inches below the figure's upper edge
WIDTH = 10.0  # inches; 110 dots per inch is what a reader sees in the README


def new_figure(height: float) -> Figure:
    """An empty figure in the house style, `height` inches high."""
    sns.set_theme(style="whitegrid", context="notebook", palette="colorblind")
    plt.rcParams.update({"axes.titlesize": 11, "axes.titleweight": "bold", "axes.labelsize": 11, "legend.fontsize": 9,
                         "legend.frameon": True, "legend.framealpha": 0.9, "svg.hashsalt": "costate",
                         "savefig.dpi": 110, "font.size": 10})  # fmt: skip
    return plt.figure(figsize=(WIDTH, height), layout="constrained")


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
        write_atomically(stem.with_suffix("." + kind), buffer.getvalue())
    plt.close(figure)
