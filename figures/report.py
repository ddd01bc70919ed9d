"""Pictures and the self-contained report, from verdicts.json and the records alone."""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from joblib import Parallel, delayed
from latex2mathml.converter import convert

from figures.claim import ASSUMPTIONS, load_claim
from figures.records import write_atomically
from figures.verdicts import Entry, stored_rows


def draw_claim(entry: Entry, out: Path) -> None:
    """One claim's figure, PNG and SVG, under out/figures."""
    from figures.style import add_caption, new_figure, save

    claim = load_claim(entry["claim"])
    figure = new_figure(claim.height)
    claim.draw(stored_rows(entry, out), figure)
    add_caption(figure, f"{claim.statement}: {entry['outcome']}", claim.how_to_read)
    save(figure, out / "figures" / claim.name)


def draw_all(entries: list[Entry], out: Path, jobs: int) -> None:
    """All figures, in parallel."""
    if jobs == 1:
        for entry in entries:
            draw_claim(entry, out)
        return
    Parallel(n_jobs=jobs)(delayed(draw_claim)(entry, out) for entry in entries)


def write_report(entries: list[Entry], out: Path) -> Path:
    """out/report.html: one page that needs no network; formulas as MathML, figures embedded as SVG."""
    environment = Environment(loader=PackageLoader("figures", "."), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    page = environment.get_template("report.html").render(
        sections=[_section(entry, out) for entry in entries], assumptions=ASSUMPTIONS, entries=entries
    )
    path = out / "report.html"
    write_atomically(path, page)
    return path


def _section(entry: Entry, out: Path) -> dict[str, Any]:
    """What the page shows of one claim."""
    claim = load_claim(entry["claim"])
    picture = base64.b64encode((out / "figures" / f"{claim.name}.svg").read_bytes()).decode()
    return {"claim": claim, "entry": entry, "picture": picture, "formula": convert(claim.formula, display="block")}
