"""Executed lessons as pages, notebooks and slides, and the index for the lecturer."""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from figures.harness.records import write_atomically
from figures.harness.registry import load_claims, module_name
from figures.lessons.asked import as_page
from figures.lessons.catalogue import LESSONS, Lesson
from figures.lessons.running import Executed
from figures.pages.glossary import write_glossary
from figures.pages.markdown import to_html
from figures.pages.rendering import render
from figures.report.questions import questions

_PNG, _PDF, _HTML, _TEXT = "image/png", "application/pdf", "text/html", "text/plain"


def write_lesson(executed: Executed, out: Path) -> None:
    """out/STEM.html, STEM.ipynb (with outputs), and each picture as slides/STEM_N.pdf."""
    lesson, notebook = executed.lesson, executed.notebook
    page = render(
        "figures.lessons",
        "lesson.html",
        lesson=lesson,
        cells=[_Cell(cell) for cell in notebook.cells],
        lessons=LESSONS,
        seconds=executed.seconds,
    )
    for number, pdf in enumerate(_pictures(notebook), 1):
        write_atomically(out / "slides" / f"{lesson.stem}_{number}.pdf", base64.b64decode(pdf))
    write_atomically(out / f"{lesson.stem}.ipynb", _as_file(notebook))
    write_atomically(out / f"{lesson.stem}.html", page)


def write_index(seconds: dict[int, float], slides: dict[int, int], out: Path) -> Path:
    """out/index.html, for the lecturer, out/questions.html, out/claims.html and out/glossary.html.

    Args:
        seconds: number of a lesson -> seconds that it took here.
        slides: number of a lesson -> how many pictures it has as PDF.
        out: the folder of the pages.

    Returns:
        The index.
    """
    lessons = [lesson for lesson in LESSONS if lesson.number in seconds]
    in_class = [lesson for lesson in LESSONS if lesson.in_class]
    write_glossary(out, {"index.html": "All lessons", "questions.html": "Questions", "claims.html": "Claims"})
    write_atomically(out / "questions.html", as_page(questions(), lessons))
    write_atomically(out / "claims.html", _claims_page(lessons))
    page = render("figures.lessons", "index.html", lessons=lessons, seconds=seconds, slides=slides, in_class=in_class)
    write_atomically(out / "index.html", page)
    return out / "index.html"


def _claims_page(lessons: list[Lesson]) -> str:
    """The claims that judge what these lessons show, each with its words, its file and its command."""
    names = [name for lesson in lessons for name in lesson.claims]
    claims = load_claims(names) if names else []
    files = {claim.name: module_name(claim.name).replace(".", "/") + ".py" for claim in claims}
    return render("figures.lessons", "claims.html", claims=claims, files=files, lessons=lessons)


class _Cell:
    """What a page shows of a cell: prose, or code with its outputs."""

    def __init__(self, cell: Any):
        self.is_code: bool = cell.cell_type == "code"
        self.is_exercise: bool = "exercise" in cell.metadata.get("tags", [])
        self.source = _highlighted(cell.source) if self.is_code else to_html(cell.source)
        alt = cell.metadata.get("alt", "")
        self.outputs = [_output(output, alt) for output in cell.get("outputs", [])]


def _output(output: Any, alt: str) -> Markup:
    """One output as HTML: a picture, a table, or text."""
    data = output.get("data", {_TEXT: output.get("text", "")})
    if _PNG in data:
        source = f"data:{_PNG};base64,{data[_PNG].strip()}"
        return Markup('<img src="{}" alt="{}">').format(source, alt)
    if _HTML in data:
        return Markup('<div class="scroll">{}</div>').format(Markup(data[_HTML]))
    return Markup('<pre class="output">{}</pre>').format(data.get(_TEXT, "").rstrip("\n"))


def _pictures(notebook: Any) -> Iterable[str]:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return [output["data"][_PDF] for output in outputs if _PDF in output.get("data", {})]


def picture_count(notebook: Any) -> int:
    """How many pictures a notebook shows."""
    return len(list(_pictures(notebook)))


def _as_file(notebook: Any) -> str:
    """The notebook as .ipynb, without the PDF of its pictures."""
    import nbformat

    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(_PDF, None)
    text: str = nbformat.writes(notebook)
    return text


def _highlighted(source: str) -> Markup:
    """Code with a block for each line, which wraps behind its own indent where the window is narrow."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    shown = highlight(source, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).splitlines()
    indents = [len(line) - len(line.lstrip()) for line in source.splitlines()]
    lines = zip(indents, shown, strict=True)
    return Markup("").join(
        Markup('<span class="line" style="--in: {}ch">{}\n</span>').format(n, Markup(line)) for n, line in lines
    )
