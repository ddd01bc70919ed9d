"""All pictures, and the self-contained report, from verdicts.json and the records; its questions are computed anew."""

import base64
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from latex2mathml.converter import convert

from figures.harness.claim import ASSUMPTIONS
from figures.harness.costs import remember_drawing
from figures.harness.judge import Verdict
from figures.harness.records import write_atomically
from figures.harness.registry import load_claim
from figures.harness.verdicts import claim_rows
from figures.harness.workers import in_workers
from figures.report.pictures import draw_claim
from figures.report.question import Question
from figures.report.questions import questions


def draw_all(verdicts: list[Verdict], out: Path, jobs: int) -> tuple[Question, ...]:
    """All figures and, beside them, the numbers of the report's questions, in parallel; the questions."""
    parts = {name: (result, seconds) for name, result, seconds in in_workers(jobs, _Part(out), [None, *verdicts])}
    remember_drawing(out, {name: seconds for name, (_, seconds) in parts.items()})
    known: tuple[Question, ...] = parts["questions"][0]
    return known


@dataclass(frozen=True)
class _Part:
    """One part of the drawing, for a worker: the figure of a verdict, or for None the questions; its name, result, seconds."""

    out: Path

    def __call__(self, verdict: Verdict | None) -> tuple[str, Any, float]:
        began = time.perf_counter()
        if verdict is None:
            return "questions", questions(), time.perf_counter() - began
        draw_claim(verdict, self.out)
        return verdict.claim, None, time.perf_counter() - began


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
    advice = "" if claim.advice is None else claim.advice(claim_rows(verdict, out))
    formula = convert(claim.formula, display="block")
    return {"claim": claim, "verdict": verdict, "picture": picture, "formula": formula, "advice": advice}
