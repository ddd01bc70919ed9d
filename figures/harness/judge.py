"""From rows to a verdict, and from a verdict to JSON and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd

from figures.harness.claim import Claim, Part, Role
from figures.harness.rows import Row
from figures.harness.statistics import Outcome, PartResult, judge_part

_SPARED = "does not fail for"  # label of the group that a control does not see


@dataclass(frozen=True)
class PartVerdict:
    """What came out of one part, with its role and its documented outcome."""

    role: Role
    documented: Outcome
    result: PartResult

    @property
    def as_documented(self) -> bool:
        """Whether the outcome is the documented one."""
        return self.result.outcome == self.documented


@dataclass(frozen=True)
class Run:
    """Where a verdict's rows come from.

    `settings` are the points' settings as plain dictionaries, `records` the files, relative to the output folder.
    """

    preset: str
    device: str
    seed: int
    settings: list[dict[str, Any]]
    records: list[str]
    versions: dict[str, str]
    revision: str


@dataclass(frozen=True)
class Verdict:
    """A claim's outcome with the parts behind it.

    `headline` is the most extreme row of the claim's own parts: of a claim that holds, the one that came closest to failing.
    `own_system` gives the outcome of every part on the rows of a user's own system alone, and is empty where there is none.
    """

    claim: str
    statement: str
    outcome: Outcome
    documented: Outcome
    as_documented: bool
    reason: str
    headline: Row
    parts: dict[str, PartVerdict]
    own_system: dict[str, Outcome] = field(default_factory=dict)
    run: Run | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values only; the headline's numbers stand at the top as well, for other people's tools."""
        plain = asdict(self)
        for name, part in self.parts.items():
            shown = {"role": part.role, "documented": part.documented, **asdict(part.result)}
            plain["parts"][name] = {**shown, "worst": _plain(part.result.worst)}
        headline = _plain(self.headline)
        numbers = {key: headline[key] for key in ("measured", "target", "standard_error", "samples")}
        return {**plain, "headline": headline, **numbers}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "Verdict":
        """The verdict of `to_json`; raises KeyError or TypeError for what is none."""
        parts = {}
        for name, part in given["parts"].items():
            numbers = {key: value for key, value in part.items() if key not in ("role", "documented")}
            parts[name] = PartVerdict(part["role"], part["documented"], PartResult(**numbers))
        names = ("claim", "statement", "outcome", "documented", "as_documented", "reason", "headline", "own_system")
        return cls(**{name: given[name] for name in names}, parts=parts, run=Run(**given["run"]))


def _plain(row: Row) -> Row:
    """Plain Python values; columns that other parts use and this row does not (NaN) are left out."""
    plain = {key: getattr(value, "item", lambda v=value: v)() for key, value in row.items()}
    return {key: value for key, value in plain.items() if value == value}


def judge(claim: Claim, rows: pd.DataFrame) -> Verdict:
    """Test every part, then the claim.

    A failing part of the claim makes it fail. A control that is not as documented leaves it undecided, because a check
    without power has shown nothing.
    """
    judged = rows[rows["relation"] != "report"]
    parts = {
        part.name: PartVerdict(part.role, part.documented, _judge_groups(part, judged[judged["part"] == part.name]))
        for part in claim.parts
    }
    own = [part.result for part in parts.values() if part.role == "claim"]
    off = {name: part for name, part in parts.items() if not part.as_documented}
    blind = any(part.role == "control" for part in off.values())
    outcomes = {result.outcome for result in own}
    outcome: Outcome = "fails" if "fails" in outcomes else "undecided" if blind or "undecided" in outcomes else "holds"
    extreme = max(
        (result for result in own if result.worst), key=lambda result: (result.outcome == outcome, result.of_limit)
    )
    return Verdict(
        claim.name,
        claim.statement,
        outcome,
        claim.documented,
        as_documented=outcome == claim.documented and not off,
        reason=_reason(parts, off),
        headline=extreme.worst,
        parts=parts,
    )


def _judge_groups(part: Part, rows: pd.DataFrame) -> PartResult:
    """The part as a whole; one that fails as documented must do so in every group, else it is undecided."""
    whole = judge_part(rows.reset_index(drop=True))
    if part.every is None or whole.outcome != "fails" or part.documented != "fails":
        return whole
    for key, group in rows.groupby(part.every, sort=False):
        result = judge_part(group.reset_index(drop=True))
        if result.outcome != "fails":
            spared = {**result.worst, _SPARED: f"{part.every} {key}"}
            return replace(result, outcome="undecided", worst=spared)
    return whole


def _reason(parts: dict[str, PartVerdict], off: dict[str, PartVerdict]) -> str:
    if not off:
        count = sum(part.result.comparisons for part in parts.values())
        return f"{len(parts)} parts, {count} comparisons, all as documented"
    reasons = []
    for name, part in off.items():
        spared = part.result.worst.get(_SPARED)
        where = f" (does not fail for {spared}: the check is blind there)" if spared else ""
        reasons.append(f"'{name}' {part.result.outcome}, documented: {part.documented}{where}")
    return "; ".join(reasons)
