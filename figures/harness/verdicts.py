"""From records to verdicts and back: `verdicts.json`, the printed table, and the rows behind every verdict."""

import dataclasses
import json
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from envs.world import InputError
from figures.harness.claim import Claim, Preset
from figures.harness.code import revision, versions
from figures.harness.judge import Run, Subset, Verdict, judge
from figures.harness.records import Point, load_record, read_record, write_atomically
from figures.harness.registry import CLAIM_NAMES, load_claim
from figures.harness.rows import Row
from figures.harness.selection import text_of
from figures.harness.statistics import Outcome, judge_part

OWN = "own system"  # how rows of a user's system are labelled


def rows_of(points: list[Point], out: Path) -> pd.DataFrame:
    """All rows of the points' records, in the order of the plan, with the columns of `with_settings`."""
    records = []
    for point in points:
        record = load_record(point, out)
        if record is None:
            raise InputError(f"record {point.path(out)} is missing: run `costate check --out {out}` again")
        records.append(record)
    return with_settings(records)


def with_settings(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of records, each with the fields of its setting, and the seed of the run as `run_seed`, as further columns.

    A column of that name that a row has by itself stays as it is. A field that holds several values is text: "0.2,1".
    """
    rows: list[Row] = []
    for record in records:
        fields = {"run_seed": record["seed"], **record["setting"]}
        columns = {name: text_of(value) if isinstance(value, list | tuple) else value for name, value in fields.items()}
        rows += [
            {**row, **{name: value for name, value in columns.items() if name not in row}} for row in record["rows"]
        ]
    return pd.DataFrame(rows)


def judge_claim(claim: Claim, points: list[Point], out: Path, preset: Preset, partial: bool = False) -> Verdict:
    """The verdict on a claim from its records; `partial`: the points may be some of the preset's, or others."""
    rows = claim.rows_from(rows_of(points, out))
    subset = Subset.of([point.setting for point in points], claim.settings(preset)) if partial else None
    run = Run(
        preset=preset,
        device=points[0].device,
        seed=points[0].seed,
        settings=[dataclasses.asdict(point.setting) for point in points],
        records=[point.path(out).relative_to(out).as_posix() for point in points],
        versions=versions(),
        revision=revision(),
    )
    return dataclasses.replace(judge(claim, rows, subset), own_system=_own_outcomes(rows), run=run)


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


def verdicts_of(names: Iterable[str], out: Path) -> list[Verdict]:
    """The stored verdicts on the claims named, or on all that were checked; InputError where one is unknown or was not."""
    wanted = [load_claim(name).name for name in names]
    verdicts = [verdict for verdict in read_verdicts(out) if not wanted or verdict.claim in wanted]
    absent = sorted(set(wanted) - {verdict.claim for verdict in verdicts})
    if absent:
        raise InputError(f"claim {absent[0]!r} was not checked in {out}: run `costate check` for it first")
    return verdicts


def stored_rows(verdict: Verdict, out: Path) -> pd.DataFrame:
    """The rows behind a verdict, from its record files alone, whatever the code has become since; columns as in `rows_of`."""
    records = []
    for name in verdict.run.records if verdict.run else []:
        record = read_record(out / name)
        if record is None:
            raise InputError(f"record {out / name} is missing: run `costate check --out {out} {verdict.claim}` again")
        records.append(record)
    return with_settings(records)


def claim_rows(verdict: Verdict, out: Path) -> pd.DataFrame:
    """What the verdict was judged by: the stored rows, or what the claim derives from them."""
    return load_claim(verdict.claim).rows_from(stored_rows(verdict, out))


def write_rows(verdict: Verdict, out: Path) -> Path:
    """All rows of a claim as out/rows/CLAIM.csv, for other people's tools; its study's rows beside it, where it has one."""
    claim, stored = load_claim(verdict.claim), stored_rows(verdict, out)
    tables = {claim.recorded_as: stored, claim.name: claim.rows_from(stored)}
    for name, rows in tables.items():
        write_atomically(out / "rows" / f"{name}.csv", rows.to_csv(index=False))
    return out / "rows" / f"{claim.name}.csv"


def table(verdicts: list[Verdict]) -> str:
    """The verdicts as plain text in 80 columns: one claim a line, and below it what it says and what is not as documented.

    The column `documented` gives the documented outcome, and whether all came out as documented (controls included).
    """
    lines = [f"{'claim':<30} {'outcome':<10} {'documented':<10} {'measured':>9} {'target':>9} {'se':>7}"]
    for v in verdicts:
        documented, row = f"{v.documented}: {v.mark}", v.headline
        numbers = f"{_number(row, 'measured', 9)} {_number(row, 'target', 9)} {_number(row, 'standard_error', 7)}"
        lines += [f"{v.claim:<30} {v.outcome:<10} {documented:<10} {numbers}", *_below(v.statement)]
        if not v.as_documented or v.subset:
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
