"""From records to verdicts and back: `verdicts.json`, the printed table, and the rows behind every verdict."""

import dataclasses
import json
import os
import sys
import textwrap
from pathlib import Path

import pandas as pd

from envs.world import InputError
from figures.harness.claim import Claim, Preset
from figures.harness.code import revision, versions
from figures.harness.judge import Run, Verdict, judge
from figures.harness.records import Point, load_record, read_record, write_atomically
from figures.harness.registry import CLAIM_NAMES
from figures.harness.rows import Row
from figures.harness.statistics import Outcome, judge_part

OWN = "own system"  # how rows of a user's system are labelled


def rows_of(points: list[Point], out: Path) -> pd.DataFrame:
    """All rows of the points' records, in the order of the plan."""
    rows: list[Row] = []
    for point in points:
        record = load_record(point, out)
        if record is None:
            raise InputError(f"record {point.path(out)} is missing: run `costate check --out {out}` again")
        rows += record["rows"]
    return pd.DataFrame(rows)


def judge_claim(claim: Claim, points: list[Point], out: Path, preset: Preset, partial: bool = False) -> Verdict:
    """The verdict on a claim from its records; `partial`: on the parts that have rows."""
    rows = claim.rows_from(rows_of(points, out))
    if partial:
        judged = set(rows.loc[rows["relation"] != "report", "part"])
        claim = dataclasses.replace(claim, parts=tuple(part for part in claim.parts if part.name in judged))
        if not any(part.role == "claim" for part in claim.parts):
            raise InputError("--only or --set leaves nothing of the claim to judge: keep more of its settings")
    run = Run(
        preset=preset,
        device=points[0].device,
        seed=points[0].seed,
        settings=[dataclasses.asdict(point.setting) for point in points],
        records=[point.path(out).relative_to(out).as_posix() for point in points],
        versions=versions(),
        revision=revision(),
    )
    return dataclasses.replace(judge(claim, rows), own_system=_own_outcomes(rows), run=run)


def _own_outcomes(rows: pd.DataFrame) -> dict[str, Outcome]:
    """Outcome of every part on the rows of a user's own system alone; empty where there is none."""
    if "system" not in rows:
        return {}
    own = rows[(rows["system"] == OWN) & (rows["relation"] != "report")]
    return {
        str(name): judge_part(group.reset_index(drop=True)).outcome for name, group in own.groupby("part", sort=False)
    }


def write_verdicts(out: Path, verdicts: list[Verdict]) -> None:
    """Write verdicts.json; verdicts on claims that this run did not touch are kept."""
    known = {verdict.claim: verdict for verdict in [*read_verdicts(out, missing_ok=True), *verdicts]}
    ordered = sorted(known.values(), key=lambda verdict: CLAIM_NAMES.index(verdict.claim))
    text = json.dumps([verdict.to_json() for verdict in ordered], indent=1, allow_nan=False)
    write_atomically(out / "verdicts.json", text)


def read_verdicts(out: Path, missing_ok: bool = False) -> list[Verdict]:
    """The verdicts of verdicts.json; InputError where it is missing or damaged.

    With `missing_ok` a missing file is no verdict, and a damaged one is set aside and named on stderr.
    """
    path = out / "verdicts.json"
    try:
        verdicts = [Verdict.from_json(entry) for entry in json.loads(path.read_text())]
        return [verdict for verdict in verdicts if verdict.claim in CLAIM_NAMES]
    except FileNotFoundError:
        if missing_ok:
            return []
        raise InputError(f"--out {out} holds no verdicts.json: run `costate check --out {out}` first") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        if not missing_ok:
            raise InputError(f"{path} is damaged: run `costate check --out {out}` again") from None
        os.replace(path, path.with_suffix(".damaged"))
        print(f"costate: {path} was damaged: kept as {path.with_suffix('.damaged').name}, begun anew", file=sys.stderr)
        return []


def stored_rows(verdict: Verdict, out: Path) -> pd.DataFrame:
    """The rows behind a verdict, from its record files alone, whatever the code has become since."""
    rows: list[Row] = []
    for name in verdict.run.records if verdict.run else []:
        record = read_record(out / name)
        if record is None:
            raise InputError(f"record {out / name} is missing: run `costate check --out {out} {verdict.claim}` again")
        rows += record["rows"]
    return pd.DataFrame(rows)


def write_rows(verdict: Verdict, out: Path) -> Path:
    """All rows behind a verdict as out/CLAIM.csv, for other people's tools."""
    path = out / f"{verdict.claim}.csv"
    write_atomically(path, stored_rows(verdict, out).to_csv(index=False))
    return path


def table(verdicts: list[Verdict]) -> str:
    """The verdicts as plain text in 80 columns: one claim a line, and below it what it says and what is not as documented.

    The column `documented` gives the documented outcome, and whether all came out as documented (controls included).
    """
    lines = [f"{'claim':<30} {'outcome':<10} {'documented':<10} {'measured':>9} {'target':>9} {'se':>7}"]
    for v in verdicts:
        documented, row = f"{v.documented}: {'yes' if v.as_documented else 'NO'}", v.headline
        numbers = f"{_number(row, 'measured', 9)} {_number(row, 'target', 9)} {_number(row, 'standard_error', 7)}"
        lines += [f"{v.claim:<30} {v.outcome:<10} {documented:<10} {numbers}", *_below(v.statement)]
        if not v.as_documented:
            lines += _below(v.reason)
        if v.own_system:
            outcomes = ", ".join(f"{part}: {outcome}" for part, outcome in v.own_system.items())
            lines += _below(f"own system alone: {outcomes}")
    return "\n".join(lines)


def _below(text: str) -> list[str]:
    """A text under a claim's name, in lines of 80 columns."""
    return textwrap.wrap(text, 80, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def _number(row: Row, name: str, width: int) -> str:
    """A number of the headline in at most `width` characters, with up to 4 digits, or "-" where the verdict has none."""
    if name not in row:
        return f"{'-':>{width}}"
    texts = [f"{row[name]:.{digits}g}" for digits in (2 if width < 9 else 4, 3, 2, 1)]
    return f"{next((text for text in texts if len(text) <= width), texts[-1]):>{width}}"
