"""What the page shows of every claim, part by part."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from latex2mathml.converter import convert

from envs.world import InputError
from figures.harness.claim import Claim
from figures.harness.judge import Verdict
from figures.harness.registry import CLAIMS, TITLES, load_claim, module_name
from figures.harness.verdicts import claim_rows
from figures.report.embedding import Embedded, embedded
from figures.report.found_numbers import NUMBERS
from figures.report.run_facts import Facts, commands, other_facts
from figures.report.tables import TABLES, Table
from figures.report.titles import more, title

_MARKS = {"holds": "✓", "fails": "✗", "undecided": "?", "not judged": "–"}


@dataclass(frozen=True)
class Section:
    """One claim on the page.

    Attributes:
        claim, verdict: what was judged, and what came out.
        title: the finding, a true sentence.
        told: further sentences on it; `advice` says what follows in practice.
        formulas: MathML, one for each formula.
        picture: the panels of the figure.
        table: what stands below the picture; None for nothing.
        controls: what its controls did, for the filter: some of "fails", "holds", "off".
        commands: what to do -> command.
        files: what -> path beside the page, of the files that are there.
        source: the claim's file in the repository.
        differs: what its run has that most of the page's have not, in words.
    """

    claim: Claim
    verdict: Verdict
    title: str
    told: tuple[str, ...]
    advice: str
    formulas: tuple[str, ...]
    picture: Embedded
    table: Table | None
    controls: tuple[str, ...]
    commands: dict[str, str]
    files: dict[str, str]
    source: str
    differs: str

    @property
    def mark(self) -> str:
        """The outcome as a sign beside the word."""
        return _MARKS[self.verdict.outcome]


@dataclass(frozen=True)
class PageGroup:
    """The claims of one part of the suite: `name` is the folder, `title` its heading."""

    name: str
    title: str
    sections: tuple[Section, ...]


def page_groups(verdicts: Sequence[Verdict], out: Path, common: Facts) -> list[PageGroup]:
    """The parts that have a verdict, with their claims in the documented order.

    Args:
        verdicts: in any order, each with its picture in out/figures.
        out: folder of results.
        common: the facts on the run that stand once on the page.
    """
    by_name = {verdict.claim: verdict for verdict in verdicts}
    groups = []
    for part, names in CLAIMS.items():
        sections = tuple(_section(by_name[name], out, common) for name in names if name in by_name)
        if sections:
            groups.append(PageGroup(part, TITLES[part], sections))
    return groups


def _section(verdict: Verdict, out: Path, common: Facts) -> Section:
    claim = load_claim(verdict.claim)
    tellers = claim.advice is not None or claim.name in TABLES or (verdict.as_documented and claim.name in NUMBERS)
    rows = claim_rows(verdict, out) if tellers else pd.DataFrame()
    numbers = NUMBERS[claim.name](rows) if verdict.as_documented and claim.name in NUMBERS else ""
    return Section(
        claim=claim,
        verdict=verdict,
        title=title(verdict),
        told=tuple(filter(None, (more(verdict), numbers))),
        advice="" if claim.advice is None else claim.advice(rows),
        formulas=tuple(convert(formula, display="block") for formula in split_formula(claim.formula)),
        picture=_picture(claim.name, out),
        table=TABLES[claim.name](rows) if claim.name in TABLES else None,
        controls=controls(verdict),
        commands=dict(commands(verdict, out)),
        files=_files(claim.name, out),
        source=module_name(claim.name).replace(".", "/") + ".py",
        differs=other_facts(verdict, common),
    )


def _picture(name: str, out: Path) -> Embedded:
    path = out / "figures" / f"{name}.svg"
    try:
        return embedded(path.read_text())
    except (ET.ParseError, ValueError):
        raise InputError(
            f"{path} is no figure of ours: run `costate plot {name} --out {out}` to draw it again"
        ) from None


def controls(verdict: Verdict) -> tuple[str, ...]:
    """What the controls did: "fails" or "holds" where that is documented, "off" where it is not."""
    parts = [part for part in verdict.parts.values() if part.role == "control"]
    return tuple(dict.fromkeys("off" if part.unexpected else str(part.result.outcome) for part in parts))


def split_formula(latex: str) -> list[str]:
    """The formulas that stand side by side, so that each can have a line of its own on a narrow screen."""
    pieces = [piece.strip() for piece in latex.split(r"\qquad")]
    whole = all(piece.count("{") == piece.count("}") for piece in pieces)
    return [piece for piece in pieces if piece] if whole else [latex]


def _files(name: str, out: Path) -> dict[str, str]:
    """Files of a claim that lie beside the page."""
    usual = {"figure as SVG": f"figures/{name}.svg", "as PNG": f"figures/{name}.png", "rows as CSV": f"rows/{name}.csv"}
    return {what: path for what, path in usual.items() if (out / path).exists()}
