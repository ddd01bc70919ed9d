"""The page of audits: one file that needs no network; losses x properties, then every loss with its pictures."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures.audit.auditor import audit
from figures.audit.brief import MEANINGS, SIGNS, UNIVERSAL, brief
from figures.audit.record import Audit, Shown
from figures.drawing.audit import as_audits
from figures.drawing.audit_layout import found, headline
from figures.drawing.audited_loss import draw_bias, draw_slopes, draw_weights
from figures.drawing.frame import picture, scale_marks
from figures.drawing.labels import fit_labels
from figures.drawing.style import house_style, new_figure, text_scale
from figures.harness.records import write_atomically
from figures.pages.rendering import render
from figures.report.embedding import Embedded, embedded

_NARROW, _WIDE, _HIGH = 3.7, 5.2, 3.2  # inches of the pictures
_WEIGHTS = (
    "Weights of the log-probabilities in one batch; empty where no token is. Purple pushes a token up, orange down."
)
_SLOPES = "One row's tokens all have the same ratio; dashed, a slope that grows with the ratio. At 0 the clip acts."
_BIAS = "The exact mean of the first update, over every batch that can be drawn, beside the exact gradient ({place})."


@dataclass(frozen=True)
class Picture:
    """One picture of a loss, and how to read it."""

    image: Embedded
    alt: str
    text: str
    wide: bool


def audit_page(records: Audit | Sequence[Audit], path: str | Path, title: str = "") -> Path:
    """Write the page of one or several audits.

    Args:
        records: what `costate.audit(..., pictures=True)` returned, one or several. Of records without pictures the page has
            the tables alone.
        path: of the file.
        title: of the page; by default what was found.

    Returns:
        The path.

    Raises:
        InputError: there are no records.
    """
    audits = as_audits(records)
    names = list(dict.fromkeys(f.name for record in audits for f in record.findings))
    page = render(
        "figures.report",
        "audit.html",
        title=title or "What these losses do" * (len(audits) > 1) or f"What {audits[0].name} does",
        headline=headline(audits),
        audits=audits,
        names={part: [n for n in names if (n in UNIVERSAL) == universal] for part, universal in _PARTS.items()},
        found=found,
        brief=brief,
        signs=SIGNS,
        meanings=MEANINGS,
        pictures=[pictures_of(record.shown) for record in audits],
        out_of_reach=out_of_reach(),
    )
    write_atomically(Path(path), page)
    return Path(path)


_PARTS = {"What no loss may break": True, "What losses may differ in": False}


def out_of_reach() -> str:
    """The note on what an audit cannot see, from the docstring of `audit`."""
    paragraphs = (inspect.getdoc(audit) or "").split("\n\n")
    note = next(text for text in paragraphs if text.startswith("Out of reach: "))
    said = " ".join(note.removeprefix("Out of reach: ").split())
    return said[0].upper() + said[1:]


def pictures_of(shown: Shown | None) -> list[Picture]:
    """What is drawn of a loss.

    Args:
        shown: the numbers; None where none were measured.

    Returns:
        Up to three pictures.
    """
    if shown is None:
        return []
    made = [_picture(draw_weights, shown, _WIDE, "Weights of one batch", _WEIGHTS)]
    if shown.slopes:
        made.append(_picture(draw_slopes, shown, _NARROW, "Slope along the ratio", _SLOPES))
    if shown.bias:
        text = _BIAS.format(place=shown.place)
        made.append(_picture(draw_bias, shown, _NARROW, "Mean update by group size", text))
    return made


def _picture(draw: Callable[[Any, Shown], None], shown: Shown, width: float, alt: str, text: str) -> Picture:
    with house_style(width):
        figure = new_figure(_HIGH, width)
        draw(figure, shown)
        scale_marks(figure.axes, text_scale(width))
        fit_labels(figure)
        return Picture(embedded(picture(figure, "svg").decode()), alt, text, width == _WIDE)
