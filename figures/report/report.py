"""All pictures, and the self-contained report, from verdicts.json and the records; its questions are computed anew."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures.harness.claim import ASSUMPTIONS
from figures.harness.costs import remember_drawing
from figures.harness.judge import Verdict
from figures.harness.records import write_atomically
from figures.harness.statistics import ERROR_RATE
from figures.harness.workers import in_workers
from figures.pages.glossary import glossary, linker
from figures.pages.rendering import render
from figures.report.pictures import draw_claim
from figures.report.question import Question
from figures.report.questions import questions
from figures.report.references import reference_rows
from figures.report.run_facts import Measured, common_run
from figures.report.sections import page_groups
from figures.report.titles import relation


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
    """out/report.html: one page, part by part, that needs no network; formulas as MathML, figures embedded as SVG."""
    facts = common_run(verdicts)
    records = [name for verdict in verdicts if verdict.run for name in verdict.run.records]
    groups = page_groups(verdicts, out, facts)
    page = render(
        "figures.report",
        "report.html",
        groups=groups,
        claims={section.claim.name for group in groups for section in group.sections},
        linker=linker,
        glossary=glossary("word-"),
        facts=(*Measured.by(records, out).facts(), *facts),
        tiny=("preset", "tiny") in facts,
        documented=sum(verdict.as_documented for verdict in verdicts),
        total=len(verdicts),
        assumptions=ASSUMPTIONS,
        works=reference_rows(verdicts),
        questions=known or questions(),
        relation=relation,
        error_rate=ERROR_RATE,
        explorer=(out / "explorer.html").exists(),
    )
    path = out / "report.html"
    write_atomically(path, page)
    return path
