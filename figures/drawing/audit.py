"""Audits side by side: losses across, properties down, in each cell a sign, a colour and a word or two."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle

from envs.arguments import short
from envs.world import InputError
from figures.audit.brief import MEANINGS, SIGNS
from figures.audit.finding import Status
from figures.audit.record import Audit
from figures.drawing.audit_layout import Cell, Layout, lay_out_table
from figures.drawing.frame import picture
from figures.drawing.one_panel import check_width, inches, panel
from figures.drawing.style import COLOURS, house_style
from figures.harness.records import write_atomically

_PALE = 0.26  # of the colour in the ground of a cell that holds
_GROUND: dict[Status, str] = {"holds": "attention", "defect": "control"}


def draw_audits(records: Audit | Sequence[Audit], ax: Any = None, *, title: str = "", width: float = 10.0) -> Any:
    """Losses beside each other, property by property: what holds, what is a choice, what is a defect.

    Properties in which all losses are alike are named below the table.

    Args:
        records: what `costate.audit` returned, one or several.
        ax: axes of your own; None for a figure of its own.
        title: stands above what is computed: how many losses break a property that no loss may break.
        width: of a figure of its own, in inches; 3.3 for a column.

    Returns:
        The axes; `.figure` is the figure.

    Raises:
        InputError: there are no records, or the width or the axes cannot be used.
    """
    audits = as_audits(records)
    check_width(width)
    if ax is not None:
        with panel(ax, width, 1.0) as axis:
            _draw(axis, lay_out_table(audits, title, inches(axis)[0], FontProperties().get_size_in_points()))
        return axis
    with house_style(width):
        layout = lay_out_table(audits, title, width - 0.1, FontProperties().get_size_in_points())
    with panel(None, width, layout.height + 0.1) as axis:
        _draw(axis, layout)
    return axis


def as_audits(records: Audit | Sequence[Audit]) -> list[Audit]:
    """One or several records as a list.

    Args:
        records: of `costate.audit`.

    Returns:
        The list.

    Raises:
        InputError: there is none, or one is no record.
    """
    audits = [records] if isinstance(records, Audit) else list(records)
    wrong = [x for x in audits if not isinstance(x, Audit)]
    if not audits or wrong:
        got = short(wrong[0]) if wrong else "none"
        raise InputError(f"records must be what costate.audit returned, one or several; got {got}")
    return audits


def save_audits(records: Sequence[Audit], path: Path, title: str = "", width: float = 10.0) -> None:
    """The picture as PNG, whole or not at all.

    Args:
        records: of `costate.audit`.
        path: of the file.
        title: as in `draw_audits`.
        width: in inches.
    """
    figure = draw_audits(records, title=title, width=width).figure
    with house_style(width):
        write_atomically(path, picture(figure, "png", dpi=max(110.0, 1600 / width)))


def _draw(axis: Any, layout: Layout) -> None:
    """Everything at its place; the unit is an inch, from the top left corner."""
    axis.set(xlim=(0, layout.width), ylim=(layout.height, 0))
    axis.axis("off")
    for line in layout.texts:
        axis.text(line.x, line.y, line.text, **line.look)
    for cell in layout.cells:
        _draw_cell(axis, cell)
    _draw_key(axis, layout)


def _draw_cell(axis: Any, cell: Cell) -> None:
    gap = 0.02
    look: dict[str, Any] = {"color": _ground(cell.status), "linewidth": 0}
    axis.add_patch(Rectangle((cell.x + gap, cell.y + gap), cell.width - 2 * gap, cell.height - 2 * gap, **look))
    colour = "white" if cell.status == "defect" else "black"
    sign: dict[str, Any] = {
        "color": colour,
        "fontsize": cell.size * 1.15,
        "fontweight": "bold",
        "va": "center_baseline",
    }
    words: dict[str, Any] = {"color": colour, "fontsize": cell.size, "linespacing": 1.1, "va": "center_baseline"}
    middle, across = cell.y + cell.height / 2, cell.x + cell.width / 2
    if not cell.words:
        axis.text(across, middle, SIGNS[cell.status], ha="center", **sign)
    elif cell.stacked:
        up = (len(cell.words) + 1) * cell.size * 1.15 / 72 / 2
        axis.text(across, middle - up + 0.55 * cell.size / 72, SIGNS[cell.status], ha="center", **sign)
        axis.text(across, middle + 0.6 * cell.size / 72, "\n".join(cell.words), ha="center", **words)
    else:
        left = cell.x + 0.06 + 0.6 * cell.size / 72
        axis.text(left, middle, SIGNS[cell.status], ha="center", **sign)
        axis.text(left + cell.size / 72, middle, "\n".join(cell.words), ha="left", **words)


def _ground(status: Status) -> Any:
    if status not in _GROUND:
        return "0.91"
    strength = 1.0 if status == "defect" else _PALE
    return tuple(1 - strength * (1 - x) for x in to_rgb(COLOURS[_GROUND[status]]))


def _draw_key(axis: Any, layout: Layout) -> None:
    """What the signs mean, in one line below the table."""
    x, size = layout.key.x, layout.key.size
    for status, meaning in MEANINGS.items():
        wide = 1.7 * size / 72
        square = Cell(status, x, layout.key.y, wide, wide, (), size, False)
        _draw_cell(axis, square)
        look: dict[str, Any] = {"fontsize": size, "va": "center_baseline", "color": "0.2"}
        axis.text(x + 1.2 * wide, layout.key.y + wide / 2, meaning, **look)
        x += wide * 1.2 + 0.62 * size / 72 * len(meaning) + 1.2 * size / 72
