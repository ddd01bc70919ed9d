"""One look for every figure; nothing here changes the settings of a user's own plots.

A figure is made, drawn and saved inside `with house_style():`. Colours can be told apart by colour-blind readers and have one
meaning each. Seaborn, which loads pyplot, is imported here and nowhere else, when the first figure is made.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from cycler import cycler
from matplotlib import style as matplotlib_style

from figures.drawing.colours import COLOURS, EXACT, MARKERS, Palette, chosen_colours, use_colours
from figures.drawing.figures import WIDTH, WrappedFigure
from figures.drawing.style_sheet import read_style

__all__ = ["COLOURS", "EXACT", "MARKERS", "heatmap", "house_style", "new_figure", "text_scale"]
_OWN = {
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.labelsize": 11,
    "legend.fontsize": 9,
    "legend.title_fontsize": 9,
    "legend.frameon": True,
    "legend.framealpha": 0.9,
    "figure.titlesize": 12.5,
    "figure.titleweight": "bold",
    "font.size": 10,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],  # the first is wide, so others fit as well
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "costate",
    "pdf.fonttype": 42,  # TrueType, which publishers accept; Matplotlib's default is Type 3
    "ps.fonttype": 42,
}
_PIXELS = 1100  # across a figure, where nobody asks for a resolution


def text_scale(width: float) -> float:
    """The factor of all text at a width in inches: 1 at 10, 0.72 in a column of 3.3; type shrinks less than the page."""
    return float(min(1.5, max(0.65, (width / WIDTH) ** 0.3)))


@cache
def _parameters() -> dict[str, Any]:
    """Matplotlib's parameters at the full width: seaborn's white grid at notebook size, with our own changes."""
    import seaborn as sns

    return {**sns.axes_style("whitegrid"), **sns.plotting_context("notebook"), **_OWN}


def _scaled(parameters: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Text, ticks and frames times a factor. Lines and markers are scaled when all is drawn: many have sizes of their own."""
    sizes = {k: v for k, v in parameters.items() if k.endswith(("size", "width")) and not k.startswith("lines.")}
    return {k: v * factor for k, v in sizes.items() if isinstance(v, int | float)}


@contextmanager
def house_style(
    width: float = WIDTH, palette: Palette | None = None, style: str | Path | Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Matplotlib's parameters for what is drawn and saved inside; the user's come back after it.

    Args:
        width: of the figure, in inches; text is scaled with it.
        palette: other colours (`figures.drawing.colours.chosen_colours`).
        style: a style sheet laid over ours (`figures.drawing.style_sheet.read_style`). Its `font.size` scales all text that
            it does not name.
    """
    sheet, colours = read_style(style), chosen_colours(palette)
    factor = sheet["font.size"] / _OWN["font.size"] if "font.size" in sheet else text_scale(width)
    own = {**_parameters(), **_scaled(_parameters(), factor), "legend.markerscale": text_scale(width)}
    own |= {"savefig.dpi": _PIXELS / width, "figure.dpi": _PIXELS / width}
    own |= {"axes.prop_cycle": cycler(color=list(colours.cycle)), "patch.facecolor": colours.cycle[0]}
    with matplotlib_style.context(["default", own, sheet]), use_colours(colours):
        yield


def new_figure(height: float, width: float = WIDTH) -> WrappedFigure:
    """An empty figure, so many inches high and wide, that no window manager knows of."""
    return WrappedFigure(figsize=(width, height), layout="constrained")


def heatmap(table: Any, axis: Any, **options: Any) -> None:
    """A table as cells with their numbers (seaborn's heatmap)."""
    import seaborn as sns

    sns.heatmap(table, ax=axis, **options)
    axis.grid(visible=False)
