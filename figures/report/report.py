"""Pictures and the self-contained report, from verdicts.json and the records; its questions are computed anew."""

import base64
import re
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from joblib import Parallel, delayed
from latex2mathml.converter import convert

from figures.harness.claim import ASSUMPTIONS, load_claim
from figures.harness.records import write_atomically
from figures.harness.verdicts import Entry, stored_rows
from figures.report.questions import questions


def draw_claim(entry: Entry, out: Path) -> None:
    """One claim's figure, PNG and SVG, under out/figures."""
    _draw(entry, out, load_claim(entry["claim"]).rows_from(stored_rows(entry, out)), "", entry["claim"])


def draw_each(entry: Entry, out: Path) -> int:
    """One more figure for every value of the claim's column `figure_for_each`; how many."""
    claim = load_claim(entry["claim"])
    column, rows = claim.figure_for_each, claim.rows_from(stored_rows(entry, out))
    values = [] if column is None else list(dict.fromkeys(rows[column]))
    for value in values:
        name = re.sub(r"[^a-z0-9]+", "_", str(value).lower()).strip("_")
        _draw(entry, out, rows[rows[column] == value], f"{column} {value}, ", f"{entry['claim']}-{name}")
    return len(values)


def _draw(entry: Entry, out: Path, rows: pd.DataFrame, which: str, stem: str) -> None:
    from figures.drawing.style import add_caption, new_figure, save

    claim = load_claim(entry["claim"])
    figure = new_figure(claim.height)
    claim.draw(rows, figure)
    add_caption(figure, f"{claim.statement}: {which}{entry['outcome']}{' in all' if which else ''}", claim.how_to_read)
    save(figure, out / "figures" / stem)


def draw_all(entries: list[Entry], out: Path, jobs: int) -> None:
    """All figures, in parallel."""
    if jobs == 1:
        for entry in entries:
            draw_claim(entry, out)
        return
    Parallel(n_jobs=jobs)(delayed(draw_claim)(entry, out) for entry in entries)


def write_report(entries: list[Entry], out: Path) -> Path:
    """out/report.html: one page that needs no network; formulas as MathML, figures embedded as SVG; questions at the end."""
    environment = Environment(loader=PackageLoader("figures.report", "."), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    page = environment.get_template("report.html").render(
        sections=[_section(entry, out) for entry in entries],
        assumptions=ASSUMPTIONS,
        entries=entries,
        questions=questions(),
    )
    path = out / "report.html"
    write_atomically(path, page)
    return path


def _section(entry: Entry, out: Path) -> dict[str, Any]:
    """What the page shows of one claim."""
    claim = load_claim(entry["claim"])
    picture = base64.b64encode((out / "figures" / f"{claim.name}.svg").read_bytes()).decode()
    return {"claim": claim, "entry": entry, "picture": picture, "formula": convert(claim.formula, display="block")}
