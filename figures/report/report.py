"""All pictures, and the self-contained report, from verdicts.json and the records; its questions are computed anew."""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from joblib import Parallel, delayed
from latex2mathml.converter import convert

from figures.harness.claim import ASSUMPTIONS
from figures.harness.judge import Verdict
from figures.harness.records import write_atomically
from figures.harness.registry import load_claim
from figures.harness.verdicts import stored_rows
from figures.report.pictures import draw_claim
from figures.report.question import Question
from figures.report.questions import questions


def draw_all(verdicts: list[Verdict], out: Path, jobs: int) -> tuple[Question, ...]:
    """All figures and, beside them, the numbers of the report's questions, in parallel; the questions."""
    if jobs == 1:
        for verdict in verdicts:
            draw_claim(verdict, out)
        return questions()
    tasks = [delayed(questions)(), *(delayed(draw_claim)(verdict, out) for verdict in verdicts)]
    return tuple(Parallel(n_jobs=jobs)(tasks)[0])


def write_report(verdicts: list[Verdict], out: Path, known: tuple[Question, ...] = ()) -> Path:
    """out/report.html: one page that needs no network; formulas as MathML, figures embedded as SVG; questions at the end."""
    loader = PackageLoader("figures.report", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html").render(
        sections=[_section(verdict, out) for verdict in verdicts],
        assumptions=ASSUMPTIONS,
        verdicts=verdicts,
        questions=known or questions(),
    )
    path = out / "report.html"
    write_atomically(path, page)
    return path


def _section(verdict: Verdict, out: Path) -> dict[str, Any]:
    """What the page shows of one claim."""
    claim = load_claim(verdict.claim)
    picture = base64.b64encode((out / "figures" / f"{claim.name}.svg").read_bytes()).decode()
    advice = "" if claim.advice is None else claim.advice(claim.rows_from(stored_rows(verdict, out)))
    formula = convert(claim.formula, display="block")
    return {"claim": claim, "verdict": verdict, "picture": picture, "formula": formula, "advice": advice}
