"""Where everything of a table of audits stands, in inches from the top left corner, so that every text fits its cell."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from figures.audit.brief import UNIVERSAL, brief
from figures.audit.finding import Finding, Status
from figures.audit.record import Audit

_LABELS = 0.36  # the most that the names of properties take of the width
_WIDEST = 2.4  # inches of a column
_MOST_LINES = 4  # of words in a cell, where losses stand beside each other
_BREAKS = re.compile(r"(?<=[_:=;,\s])|(?<=\|)(?!\|)|(?<=\+)(?=[a-z])")  # where a line may end
_PART = {True: "what no loss may break", False: "what losses may differ in"}


class Line(NamedTuple):
    """A text at its place."""

    x: float
    y: float
    text: str
    look: dict[str, Any]


class Cell(NamedTuple):
    """One property of one loss; `words` are lines, none where the sign says it all or they do not fit."""

    status: Status
    x: float
    y: float
    width: float
    height: float
    words: tuple[str, ...]
    size: float
    stacked: bool


class Key(NamedTuple):
    """Where the meaning of the signs stands."""

    x: float
    y: float
    size: float


@dataclass
class Layout:
    """All texts and cells, and how large the whole is."""

    width: float
    height: float = 0.0
    texts: list[Line] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    key: Key = field(default_factory=lambda: Key(0.0, 0.0, 8.0))

    def add(self, lines: Sequence[str], x: float, size: float, **look: Any) -> None:
        """Lines of text below what there is.

        Args:
            lines: one below the other.
            x: where they begin.
            size: in points.
            look: of the text.
        """
        for line in lines:
            self.texts.append(Line(x, self.height, line, {"fontsize": size, "va": "top", **look}))
            self.height += 1.25 * size / 72


def lay_out_table(audits: Sequence[Audit], title: str, width: float, font: float) -> Layout:
    """Place everything of a table.

    Args:
        audits: the columns.
        title: above the sentence that is computed.
        width: in inches.
        font: size of the text in points.

    Returns:
        The places.
    """
    layout = Layout(width)
    said = headline(audits)
    if title:
        layout.add(wrap(title, width, 1.25 * font, bold=True), 0.0, 1.25 * font, fontweight="bold")
    look = {"color": "0.25"} if title else {"fontweight": "bold"}
    layout.add(wrap(said, width, 1.05 * font, bold=not title), 0.0, 1.05 * font, **look)
    layout.height += 0.5 * font / 72
    shown, alike = split_rows(audits)
    labels = {name: wrap(name, _LABELS * width, 0.92 * font) for name in shown}
    left = max((extent(line, 0.92 * font) for lines in labels.values() for line in lines), default=0.0) + 0.1
    column = (width - left) / len(audits)
    if len(audits) > 1:
        column = min(_WIDEST, column)
        _headers(layout, audits, left, column, 0.92 * font)
    for universal in (True, False):
        names = [name for name in shown if (name in UNIVERSAL) == universal]
        if names:
            layout.height += 0.25 * font / 72
            layout.add([_PART[universal]], 0.0, 0.8 * font, color="0.35", fontstyle="italic")
        for name in names:
            _row(layout, labels[name], [found(audit, name) for audit in audits], left, column, font)
    layout.height += 0.6 * font / 72
    layout.key = Key(0.0, layout.height, 0.85 * font)
    layout.height += 2.0 * font / 72
    for line in alike:
        layout.add(wrap(line, width, 0.85 * font), 0.0, 0.85 * font, color="0.25")
    return layout


def headline(audits: Sequence[Audit]) -> str:
    """How many losses break something, in one sentence.

    Args:
        audits: the losses.

    Returns:
        The sentence.
    """
    universal = sum(any(f.name in UNIVERSAL for f in _undeclared(audit)) for audit in audits)
    declared = sum(bool(audit.defects) for audit in audits) - universal
    if len(audits) == 1:
        count = len(audits[0].defects)
        said = {0: "no property is broken", 1: "1 property is broken"}.get(count, f"{count} properties are broken")
        return f"{audits[0].name}: {said}"
    many = f"{universal} of {len(audits)}" if universal else f"None of {len(audits)}"
    verb = "breaks" if universal <= 1 else "break"
    said = f"{many} losses {verb} a property that no loss may break"
    return said + (f"; {declared} more {'is' if declared == 1 else 'are'} not what was declared" if declared else "")


def _undeclared(audit: Audit) -> list[Finding]:
    """Defects whatever was declared."""
    return [f for f in audit.defects if not (f.declared and f.words.startswith("declared "))]


def split_rows(audits: Sequence[Audit]) -> tuple[list[str], list[str]]:
    """The properties that are shown, and sentences on those in which all losses are alike.

    Args:
        audits: the losses.

    Returns:
        Names in the order of an audit, and sentences; of a single loss every property is shown.
    """
    names = list(dict.fromkeys(f.name for audit in audits for f in audit.findings))
    if len(audits) == 1:
        return names, []
    cells = {name: {_seen(found(audit, name)) for audit in audits} for name in names}
    one = {name: next(iter(seen)) for name, seen in cells.items() if len(seen) == 1}
    same = {name: cell for name, cell in one.items() if cell is not None and cell[0] != "defect"}
    holds = [name for name, (status, words) in same.items() if status == "holds" and not words]
    other = [f"{name}: {words or 'a choice'}" for name, (status, words) in same.items() if status != "holds" or words]
    said = [f"All hold: {', '.join(holds)}."] if holds else []
    return [name for name in names if name not in same], said + ([f"Alike: {'; '.join(other)}."] if other else [])


def _seen(finding: Finding | None) -> tuple[Status, str] | None:
    return None if finding is None else (finding.status, brief(finding))


def found(audit: Audit, name: str) -> Finding | None:
    """The finding of this name; None where the audit did not look at it.

    Args:
        audit: the record.
        name: of the property.

    Returns:
        The finding.
    """
    return next((f for f in audit.findings if f.name == name), None)


def _headers(layout: Layout, audits: Sequence[Audit], left: float, column: float, size: float) -> None:
    """Names of the losses above their columns, turned where they are too long."""
    names = [f"{audit.name} {audit.version}".strip() for audit in audits]
    lines = [wrap(name, column - 0.06, size, bold=True) for name in names]
    fits = all(extent(line, size, bold=True) <= column - 0.04 for some in lines for line in some)
    turned = not fits or max(map(len, lines)) > 4
    if turned:
        room = max(0.6, 0.24 * layout.width)
        lines = [wrap(name, room, size, bold=True)[: max(1, int(column * 72 / size / 1.3))] for name in names]
        high = max(extent(line, size, bold=True) for some in lines for line in some) + 0.06
    else:
        high = 1.25 * size / 72 * max(map(len, lines)) + 0.04
    for i, some in enumerate(lines):
        look = {"fontsize": size, "fontweight": "bold", "ha": "center", "va": "baseline", "linespacing": 1.15}
        look |= {"rotation": 90, "va": "bottom"} if turned else {}
        foot = 0.03 if turned else 0.3 * size / 72
        layout.texts.append(Line(left + (i + 0.5) * column, layout.height + high - foot, "\n".join(some), look))
    layout.height += high


def _row(
    layout: Layout, label: list[str], findings: Sequence[Finding | None], left: float, column: float, font: float
) -> None:
    """The name of a property and its cells; words only where those of every cell fit."""
    size, stacked = 0.82 * font, column < 0.095 * font
    room = column - 0.08 - (0.0 if stacked else 0.06 + 1.7 * size / 72)
    said = ["" if f is None else f.words if len(findings) == 1 else brief(f) for f in findings]
    words = [tuple(wrap(text, room, size)) for text in said]
    most = _MOST_LINES if len(findings) > 1 else 9
    fits = all(len(some) <= most and all(extent(x, size) <= room for x in some) for some in words)
    words = words if fits else [() for _ in words]
    lines = max([1, len(label), *(len(some) + (stacked and bool(some)) for some in words)])
    high = (1.2 * lines * size + 0.75 * font) / 72
    look = {"fontsize": 0.92 * font, "va": "center_baseline", "linespacing": 1.1}
    layout.texts.append(Line(0.0, layout.height + high / 2, "\n".join(label), look))
    for i, (finding, some) in enumerate(zip(findings, words, strict=True)):
        if finding is not None:
            place = (left + i * column, layout.height, column, high)
            layout.cells.append(Cell(finding.status, *place, some, size, stacked))
    layout.height += high


def wrap(text: str, room: float, size: float, bold: bool = False) -> list[str]:
    """Lines that are no wider than the room, broken at blanks and after signs; a longer piece keeps its line.

    Args:
        text: to break.
        room: in inches.
        size: in points.
        bold: whether it is printed so.

    Returns:
        The lines.
    """
    lines = [""]
    for piece in _BREAKS.split(text):
        if lines[-1] and extent((lines[-1] + piece).rstrip(), size, bold) > room:
            lines.append("")
        lines[-1] += piece
    return [line.strip() for line in lines if line.strip()]


def extent(text: str, size: float, bold: bool = False) -> float:
    """How wide a line is printed, in inches.

    Args:
        text: the line.
        size: in points.
        bold: whether it is printed so.

    Returns:
        The width.
    """
    if not text.strip():
        return 0.0
    look = FontProperties(weight="bold" if bold else "normal")
    return float(TextPath((0, 0), text.replace("$", r"\$"), size=size, prop=look).get_extents().width) / 72
