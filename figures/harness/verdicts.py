"""From records to verdicts and back: `verdicts.json`, the printed table, and the rows behind every verdict."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from envs.world import InputError
from figures.harness.claim import CLAIM_NAMES, Claim, Preset, Verdict, judge
from figures.harness.records import Point, load_record, read_record, revision, versions, write_atomically
from figures.harness.statistics import judge_part

OWN = "own system"  # how rows of a user's system are labelled (figures.measures.linear_systems.label)
Entry = dict[str, Any]
_PROMISED = {"claim", "statement", "outcome", "expected_outcome", "as_documented", "reason", "measured", "target",
             "standard_error", "samples", "parts", "seed", "settings", "records", "versions", "revision"}  # fmt: skip


def rows_of(points: list[Point], out: Path) -> pd.DataFrame:
    """All rows of the points' records, in the order of the plan."""
    rows: list[dict[str, Any]] = []
    for point in points:
        record = load_record(point, out)
        if record is None:
            raise InputError(f"record {point.path(out)} is missing: run `costate check --out {out}` again")
        rows += record["rows"]
    return pd.DataFrame(rows)


def judge_claim(
    claim: Claim, points: list[Point], out: Path, preset: Preset, partial: bool = False
) -> tuple[Verdict, Entry]:
    """The verdict on a claim from its records, and its entry for verdicts.json; `partial`: on the parts that have rows."""
    rows = claim.rows_from(rows_of(points, out))
    if partial:
        judged = set(rows.loc[rows["relation"] != "report", "part"])
        claim = dataclasses.replace(claim, parts={name: part for name, part in claim.parts.items() if name in judged})
        if not any(role == "claim" for role, _ in claim.parts.values()):
            raise InputError("--only or --set leaves nothing of the claim to judge: keep more of its settings")
    verdict = judge(claim, rows)
    row = verdict.headline
    entry = {
        "claim": claim.name,
        "statement": claim.statement,
        "outcome": verdict.outcome,
        "expected_outcome": verdict.expected_outcome,
        "as_documented": verdict.as_documented,
        "reason": verdict.reason,
        "measured": row["measured"],
        "target": row["target"],
        "standard_error": row["standard_error"],
        "samples": int(row["samples"]),
        "headline": _jsonable(row),
        "parts": {name: _part_entry(claim, name, verdict) for name in claim.parts},
        "own_system": _own_outcomes(claim, rows),
        "seed": points[0].seed,
        "settings": {
            "preset": preset,
            "device": points[0].device,
            "points": [dataclasses.asdict(point.setting) for point in points],
        },
        "records": [str(point.path(out).relative_to(out)) for point in points],
        "versions": versions(),
        "revision": revision(),
    }
    return verdict, entry


def _own_outcomes(claim: Claim, rows: pd.DataFrame) -> dict[str, str]:
    """Outcome of every part on the rows of a user's own system alone; empty where there is none."""
    if "system" not in rows:
        return {}
    own = rows[(rows["system"] == OWN) & (rows["relation"] != "report")]
    return {name: judge_part(group.reset_index(drop=True)).outcome for name, group in own.groupby("part", sort=False)}


def _part_entry(claim: Claim, name: str, verdict: Verdict) -> Entry:
    role, expected = claim.parts[name]
    fields = dataclasses.asdict(verdict.parts[name])
    return {**fields, "worst": _jsonable(fields["worst"]), "role": role, "expected_outcome": expected}


def _jsonable(row: dict[str, Any]) -> dict[str, Any]:
    """Plain Python values; columns that other parts use and this row does not (NaN) are left out."""
    plain = {key: getattr(value, "item", lambda v=value: v)() for key, value in row.items()}
    return {key: value for key, value in plain.items() if value == value}


def write_verdicts(out: Path, entries: list[Entry]) -> None:
    """Write verdicts.json; entries of claims that this run did not touch are kept."""
    known = {entry["claim"]: entry for entry in read_verdicts(out, missing_ok=True)}
    known |= {entry["claim"]: entry for entry in entries}
    ordered = sorted(known.values(), key=lambda entry: CLAIM_NAMES.index(entry["claim"]))
    write_atomically(out / "verdicts.json", json.dumps(ordered, indent=1, allow_nan=False))


def read_verdicts(out: Path, missing_ok: bool = False) -> list[Entry]:
    """The entries of verdicts.json; InputError where it is missing (and that matters) or damaged (and it matters)."""
    path = out / "verdicts.json"
    try:
        entries: list[Entry] = json.loads(path.read_text())
        if not all(set(entry) >= _PROMISED for entry in entries):
            raise ValueError("an entry lacks fields")
        return [entry for entry in entries if entry["claim"] in CLAIM_NAMES]
    except FileNotFoundError:
        if missing_ok:
            return []
        raise InputError(f"--out {out} holds no verdicts.json: run `costate check --out {out}` first") from None
    except (ValueError, TypeError):
        if not missing_ok:
            raise InputError(f"{path} is damaged: run `costate check --out {out}` again") from None
        os.replace(path, path.with_suffix(".damaged"))
        print(f"costate: {path} was damaged: kept as {path.with_suffix('.damaged').name}, begun anew", file=sys.stderr)
        return []


def stored_rows(entry: Entry, out: Path) -> pd.DataFrame:
    """The rows behind an entry, from its record files alone, whatever the code has become since."""
    rows: list[dict[str, Any]] = []
    for name in entry["records"]:
        record = read_record(out / name)
        if record is None:
            raise InputError(f"record {out / name} is missing: run `costate check --out {out} {entry['claim']}` again")
        rows += record["rows"]
    return pd.DataFrame(rows)


def write_rows(entry: Entry, out: Path) -> Path:
    """All rows behind an entry as out/CLAIM.csv, for other people's tools."""
    path = out / f"{entry['claim']}.csv"
    write_atomically(path, stored_rows(entry, out).to_csv(index=False))
    return path


def table(entries: list[Entry]) -> str:
    """The verdicts as a plain text table, one claim a line."""
    lines = [
        f"{'claim':<25} {'outcome':<10} {'expected':<10} {'as documented':<14} "
        f"{'measured':>11} {'target':>11} {'se':>9}  statement"
    ]
    for e in entries:
        told = "yes" if e["as_documented"] else "NO"
        lines.append(
            f"{e['claim']:<25} {e['outcome']:<10} {e['expected_outcome']:<10} {told:<14} {e['measured']:>11.4g} "
            f"{e['target']:>11.4g} {e['standard_error']:>9.2g}  {e['statement']}"
        )
        if not e["as_documented"]:
            lines.append(f"{'':<25} {e['reason']}")
        if e.get("own_system"):
            told = ", ".join(f"{part}: {outcome}" for part, outcome in e["own_system"].items())
            lines.append(f"{'':<25} own system alone: {told}")
    return "\n".join(lines)
