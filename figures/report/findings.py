"""FINDINGS.md: the verdicts as sentences with their numbers, written from verdicts.json and the records."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from envs.world import InputError
from figures.harness.claim import Claim
from figures.harness.judge import NOT_JUDGED, Verdict
from figures.harness.records import write_atomically
from figures.harness.registry import CLAIMS, TITLES, load_claim, module_name
from figures.harness.rows import Row
from figures.harness.verdicts import claim_rows
from figures.report.found import FOUND
from figures.report.found_numbers import NUMBERS
from figures.report.readings import READINGS
from figures.report.references import reference_rows

PACKAGE = Path(__file__).resolve().parent.parent  # figures/
_MOST_LABELS = 8  # of a comparison; the rest is in verdicts.json
_RELATIONS = {"==": "exact", "<=": "at most", ">=": "at least"}
_NOT_LABELS = {"part", "relation", "margin", "samples", "measured", "target", "standard_error", "scale", "tolerance"}


def write_findings(verdicts: list[Verdict], out: Path, path: Path) -> Path:
    """Write the findings as Markdown.

    Args:
        verdicts: the verdicts of `out`, in any order.
        out: folder of results with the records behind them.
        path: the file. In the folder of `figures/FINDINGS.md` it links to the claims and shows the pictures of the gallery.

    Returns:
        The path.

    Raises:
        InputError: there is no verdict, or a record is missing.
    """
    if not verdicts:
        raise InputError(f"--out {out} holds no verdict: run `costate check --out {out}` first")
    linked = path.resolve().parent == PACKAGE
    by_name = {verdict.claim: verdict for verdict in verdicts}
    environment = Environment(
        loader=PackageLoader("figures.report", "."), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("findings.md").render(
        run=verdicts[0].run,
        linked=linked,
        documented=sum(verdict.as_documented for verdict in verdicts),
        total=len(verdicts),
        readings=_readings(by_name, linked),
        works=reference_rows(verdicts),
        parts=_parts(by_name, out, linked),
    )
    write_atomically(path, page)
    return path


def _readings(by_name: dict[str, Verdict], linked: bool) -> list[dict[str, str]]:
    """Rows of the table of the abstract; a sentence stands only in its first row."""
    rows, last = [], ""
    for reading in READINGS:
        verdict = by_name.get(reading.claim)
        outcome = "not checked" if verdict is None else verdict.outcome
        sentence = "" if reading.sentence == last else reading.sentence
        last = reading.sentence
        rows.append({**vars(reading), "sentence": sentence, "outcome": outcome, "file": _file(reading.claim, linked)})
    return rows


def _parts(by_name: dict[str, Verdict], out: Path, linked: bool) -> list[dict[str, Any]]:
    """The claims that have a verdict, part by part."""
    parts = []
    for key, names in CLAIMS.items():
        claims = [_entry(by_name[name], out, linked) for name in names if name in by_name]
        if claims:
            parts.append({"title": TITLES[key], "claims": claims})
    return parts


def _entry(verdict: Verdict, out: Path, linked: bool) -> dict[str, Any]:
    """What the page says of one claim."""
    claim = load_claim(verdict.claim)
    picture = PACKAGE / "gallery" / f"{claim.name}.png"
    return {
        "name": claim.name,
        "statement": cell(claim.statement),
        "outcome": verdict.outcome,
        "documented": verdict.documented,
        "unexpected": verdict.unexpected,
        "reason": cell(verdict.reason),
        "finding": finding(verdict),
        "numbers": _numbers(claim, verdict, out) if verdict.as_documented else [],
        "picture": f"gallery/{picture.name}" if linked and picture.exists() else "",
        "headline": cell(headline(verdict.headline)),
        "must_fail": cell("; ".join(n for n, part in verdict.parts.items() if part.result.outcome == "fails")),
        "assumptions": ", ".join(claim.assumptions) or "none",
        "file": _file(claim.name, linked),
    }


def _numbers(claim: Claim, verdict: Verdict, out: Path) -> list[str]:
    """Sentences with numbers from the claim's rows: its own, and its advice for practice."""
    tellers = [teller for teller in (NUMBERS.get(claim.name), claim.advice) if teller is not None]
    if not tellers:
        return []
    rows = claim_rows(verdict, out)
    return [sentence for teller in tellers if (sentence := teller(rows))]


def finding(verdict: Verdict) -> str:
    """The finding in words, where the verdict is the documented one; else what came out instead."""
    if verdict.outcome == NOT_JUDGED:
        return f'**Not judged on these settings.** The statement "{verdict.statement}": {verdict.reason}.'
    if not verdict.as_documented:
        return (
            f'**Not as documented.** The statement "{verdict.statement}" came out as *{verdict.outcome}*; documented is '
            f"*{verdict.documented}*."
        )
    if verdict.claim not in FOUND:
        return f'**The statement "{verdict.statement}" {verdict.outcome}.**'
    found = FOUND[verdict.claim]
    return f"**{found.says}** {found.more}"


def headline(row: Row) -> str:
    """The most extreme row as text: part, place, what was measured, against what."""
    places = [f"{name} {_short(value)}" for name, value in row.items() if name not in _NOT_LABELS][:_MOST_LABELS]
    where = f" ({', '.join(places)})" if places else ""
    error = f" +- {row['standard_error']:.2g}" if row["standard_error"] else ""
    target = f"{_RELATIONS.get(row['relation'], 'beside')} {row['target']:.4g}"
    return f"{row['part']}{where}: measured {row['measured']:.4g}{error}, {target}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _file(name: str, linked: bool) -> str:
    path = module_name(name).replace(".", "/") + ".py"
    return f"[{path}]({path.removeprefix('figures/')})" if linked else f"`{path}`"
