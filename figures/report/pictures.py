"""The claims' figures: as the report shows them, and as an author wants them (`costate plot`, `draw`)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from envs.world import InputError, one_line, unknown
from figures.drawing.colours import Palette
from figures.drawing.figures import WIDTH, WrappedFigure
from figures.drawing.frame import FORMATS, USUAL, add_frame, panels_height, picture, scale_marks
from figures.drawing.labels import fit_labels
from figures.drawing.placing import empty_part, fill_part, freeze, room_of
from figures.drawing.style import house_style, new_figure, text_scale
from figures.harness.claim import Claim
from figures.harness.judge import Verdict
from figures.harness.records import write_atomically
from figures.harness.registry import load_claim
from figures.harness.verdicts import claim_rows
from figures.report.titles import heading

# what pandas, Matplotlib and torch raise where rows are not as a figure expects them
_UNDRAWABLE = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError)
_MOST_FIGURES = 60  # for the values of one column


@dataclass(frozen=True)
class Look:
    """What an author may choose of a figure.

    Attributes:
        width: in inches.
        height: in inches; None for one that suits the width.
        title: above the panels: the claim's statement; False for none.
        verdict: after the title.
        caption: below the panels: how to read them.
        style: a Matplotlib style sheet, laid over ours.
        palette: other colours (`figures.drawing.colours.chosen_colours`).
        dpi: dots per inch of PNG; None for 1100 dots across.
    """

    width: float = WIDTH
    height: float | None = None
    title: bool = True
    verdict: bool = True
    caption: bool = True
    style: str | Path | Mapping[str, Any] | None = None
    palette: Palette | None = None
    dpi: float | None = None

    def context(self) -> Any:
        """The house style with what was chosen."""
        return house_style(self.width, self.palette, self.style)


def draw(
    claim_name: str,
    rows: pd.DataFrame | Sequence[Mapping[str, Any]],
    *,
    ax: Any = None,
    figure: Any = None,
    palette: Palette | None = None,
    caption: bool = True,
    title: bool = True,
    style: str | Path | Mapping[str, Any] | None = None,
    width: float = WIDTH,
) -> Any:
    """Draw a claim's rows as a figure of their own or inside another figure; the user's settings stay as they are.

    Args:
        claim_name: the claim, "error_map" for instance.
        rows: its comparison rows, as a table or as dictionaries.
        ax: axes whose place the drawing takes; they are removed, and all others stay as they are.
        figure: an empty figure, or an empty part of one (`SubFigure`), that is drawn in.
        palette: name of a colour -> colour, or colours in the order costate, control, score, ..., or the name of a palette of
            seaborn (`figures.drawing.colours.chosen_colours`).
        caption: whether the text on how to read the figure stands below it.
        title: whether the claim's statement stands above it.
        style: a Matplotlib style sheet (file, name, or parameter -> value) laid over ours.
        width: of a figure of its own, in inches; with `ax` or `figure` the room that is there decides.

    Returns:
        The `Figure`, which a notebook shows, or with `ax` the `SubFigure` in its place.

    Raises:
        InputError: the claim, a colour or the style is unknown, the rows are not this claim's, or there is no room.
    """
    claim, table = load_claim(claim_name), pd.DataFrame(rows)
    _check_rows(claim, table)
    if ax is None and figure is None:
        look = Look(_width(width), None, title, False, caption, style, palette)
        with look.context():
            own = drawn(claim, table, claim.statement, look)
            freeze(own)
        return own
    room = room_of(ax, figure)
    look = Look(room.width, room.height, title, False, caption, style, palette)
    with look.context():
        model = drawn(claim, table, claim.statement, look)
        part = empty_part(room)
        _draw_panels(claim, table, part, look)
        fill_part(part, model, *_texts(claim, claim.statement, look))
        freeze(part)
    return part


def _width(width: Any) -> float:
    if not (isinstance(width, int | float) and 1 <= width <= 100):
        raise InputError(f"width must be a number of inches from 1 to 100; got {one_line(repr(width), 50)}")
    return float(width)


def _check_rows(claim: Claim, rows: pd.DataFrame) -> None:
    absent = [name for name in ("part", "measured") if name not in rows]
    if rows.empty or absent:
        what = "have no column " + absent[0] if absent and not rows.empty else "are empty"
        raise InputError(f"rows {what}: give comparison rows of claim {claim.name}, from its records for instance")
    if not set(rows["part"]) & {part.name for part in claim.parts}:
        names = ", ".join(repr(part.name) for part in claim.parts[:3])
        raise InputError(f"rows have no part of claim {claim.name} ({names}, ...): give rows of this claim")


def drawn(claim: Claim, rows: pd.DataFrame, title: str, look: Look) -> WrappedFigure:
    """A claim's figure, inside `look.context()`."""
    figure = new_figure(look.height or claim.height, look.width)
    _draw_panels(claim, rows, figure, look)
    free = look.height is None and look.width != WIDTH
    add_frame(figure, *_texts(claim, title, look), panels_height(figure, claim.height) if free else None)
    fit_labels(figure)
    return figure


def _draw_panels(claim: Claim, rows: pd.DataFrame, figure: Any, look: Look) -> None:
    claim.draw(rows, figure)
    if look.width != WIDTH:
        scale_marks(figure.axes, text_scale(look.width))


def _texts(claim: Claim, title: str, look: Look) -> tuple[str, str]:
    """Title and caption; "" for none."""
    return title if look.title else "", claim.how_to_read if look.caption else ""


def draw_claim(verdict: Verdict, out: Path) -> None:
    """One claim's figure as the report shows it: PNG and SVG, under out/figures."""
    _write(pictures(verdict, claim_rows(verdict, out), USUAL, Look()), out / "figures")


def draw_each(verdict: Verdict, out: Path) -> int:
    """One more figure for every value of the claim's column `figure_for_each`; how many."""
    column = load_claim(verdict.claim).figure_for_each
    if column is None:
        return 0
    files = pictures_by(verdict, out, column, USUAL, Look())
    _write(files, out / "figures")
    return len(files) // len(USUAL)


def author_figures(verdict: Verdict, out: Path, formats: Sequence[str], look: Look, by: str | None) -> dict[str, bytes]:
    """File name -> content: a claim's figure, or one for each value of the column `by`, from the records alone."""
    if by is not None:
        return pictures_by(verdict, out, by, formats, look)
    return pictures(verdict, claim_rows(verdict, out), formats, look)


def pictures_by(verdict: Verdict, out: Path, column: str, formats: Sequence[str], look: Look) -> dict[str, bytes]:
    """File name -> content: a figure for every value of a column of the claim's rows.

    Raises:
        InputError: there is no such column, it has too many values, or rows of one value cannot be drawn alone.
    """
    claim, rows = load_claim(verdict.claim), claim_rows(verdict, out)
    if column not in rows:
        raise InputError(f"--by {one_line(column, 50)}: rows of {claim.name} have the columns {', '.join(rows)}")
    values = list(dict.fromkeys(rows[column].dropna()))
    if len(values) > _MOST_FIGURES:
        raise InputError(
            f"--by {column}: {claim.name} has {len(values)} values of it; at most {_MOST_FIGURES} are drawn"
        )
    files: dict[str, bytes] = {}
    for value in values:
        stem = _stem(value, {name.rsplit(".", 1)[0] for name in files}, verdict.claim)
        files |= pictures(verdict, rows[rows[column] == value], formats, look, f"{column} {value}", stem)
    return files


def _stem(value: Any, taken: set[str], claim: str) -> str:
    """A file's name for a value, another one where two values would have the same."""
    text = str(value).lower().replace("-", " minus ") if isinstance(value, int | float) else str(value).lower()
    name = f"{claim}-{re.sub(r'[^a-z0-9]+', '_', text).strip('_') or 'empty'}"
    return next(x for x in (name, *(f"{name}_{i}" for i in range(2, 10**6))) if x not in taken)


def pictures(
    verdict: Verdict, rows: pd.DataFrame, formats: Sequence[str], look: Look, which: str = "", stem: str = ""
) -> dict[str, bytes]:
    """File name -> content of one figure in every format; `which` names what the rows are restricted to.

    Raises:
        InputError: these rows cannot be drawn.
    """
    claim = load_claim(verdict.claim)
    with look.context():
        try:
            figure = drawn(claim, rows, heading(verdict, which, look.verdict), look)
            return {f"{stem or claim.name}.{kind}": picture(figure, kind, look.dpi) for kind in formats}
        except _UNDRAWABLE as error:
            given = f"the rows of {which} alone" if which else "these rows"
            text = one_line(repr(error), 200)
            raise InputError(f"claim {claim.name} cannot be drawn from {given}: {text}") from error


def check_formats(text: str) -> tuple[str, ...]:
    """The formats of a list with commas, each once; raises InputError for an unknown one."""
    formats = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    for name in formats:
        if name not in FORMATS:
            raise unknown("--format: format", name, FORMATS)
    if not formats:
        raise InputError(f"--format is empty: give some of {', '.join(FORMATS)}")
    return formats


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        write_atomically(folder / name, content)
