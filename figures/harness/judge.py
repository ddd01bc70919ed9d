"""From rows to a verdict, and from a verdict to JSON and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd

from figures.harness.claim import Claim, Part, Role
from figures.harness.rows import Row
from figures.harness.statistics import Outcome, PartResult, judge_part

_SPARED = "does not fail for"  # label of the group that a control does not see
NOT_JUDGED: Outcome = "not judged"


@dataclass(frozen=True)
class Subset:
    """A choice among a claim's settings, on which less can be judged than on all of them.

    A part that is documented to fail does so somewhere: whether it must fail on some of the settings is known only where
    `every` says so and all settings with that value are there.

    Attributes:
        left_out: settings of the preset that were not run.
        changed: whether settings were run that the preset does not have.
    """

    left_out: tuple[Any, ...]
    changed: bool

    @classmethod
    def of(cls, chosen: Sequence[Any], whole: Sequence[Any]) -> "Subset | None":
        """The subset that `chosen` is of the settings `whole`; None where it is all of them."""
        left_out, changed = set(whole) - set(chosen), not set(chosen) <= set(whole)
        return cls(tuple(left_out), changed) if left_out or changed else None

    def covers(self, column: str | None, value: Any) -> bool:
        """Whether all settings of the preset whose field `column` has this value are there."""
        if self.changed or column is None or not hasattr(self.left_out[0], column):
            return False
        names = {str(getattr(setting, column)).replace("_", " ") for setting in self.left_out}  # as rows show them
        return str(value).replace("_", " ") not in names


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

    @property
    def unexpected(self) -> bool:
        """Whether the outcome contradicts what is documented; on a subset a part may not be judged at all."""
        return self.result.outcome not in (self.documented, NOT_JUDGED)


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
    It is empty where no such row was judged. `own_system` gives the outcome of every part on the rows of a user's own system
    alone, and is empty where there is none. `subset` says that the rows are those of a part of the preset's settings, or of
    changed ones: the parts without rows are then left out, and `outcome` is "not judged" where too little is left.
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
    subset: bool = False
    run: Run | None = None

    def __repr__(self) -> str:
        return f"Verdict({self.claim}: {self.outcome}, documented: {self.documented}; {self.reason})"

    @property
    def unexpected(self) -> bool:
        """Whether the outcome contradicts what is documented; "not judged" does not."""
        return not self.as_documented and self.outcome != NOT_JUDGED

    @property
    def mark(self) -> str:
        """As documented: "yes", "NO", or "-" where nothing was judged."""
        return "yes" if self.as_documented else "NO" if self.unexpected else "-"

    def to_json(self) -> dict[str, Any]:
        """Plain values only; the headline's numbers stand at the top as well, for other people's tools."""
        plain = asdict(self)
        for name, part in self.parts.items():
            shown = {"role": part.role, "documented": part.documented, **asdict(part.result)}
            plain["parts"][name] = {**shown, "worst": _plain(part.result.worst)}
        headline = _plain(self.headline)
        numbers = {key: headline.get(key) for key in ("measured", "target", "standard_error", "samples")}
        return {**plain, "headline": headline, **numbers}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "Verdict":
        """The verdict of `to_json`; raises KeyError or TypeError for what is none."""
        parts = {}
        for name, part in given["parts"].items():
            numbers = {key: value for key, value in part.items() if key not in ("role", "documented")}
            parts[name] = PartVerdict(part["role"], part["documented"], PartResult(**numbers))
        names = ("claim", "statement", "outcome", "documented", "as_documented", "reason", "headline", "own_system")
        subset = bool(given.get("subset", False))  # verdicts of old do not say
        return cls(**{name: given[name] for name in names}, parts=parts, subset=subset, run=Run(**given["run"]))


def _plain(row: Row) -> Row:
    """Plain Python values; columns that other parts use and this row does not (NaN) are left out."""
    plain = {key: getattr(value, "item", lambda v=value: v)() for key, value in row.items()}
    return {key: value for key, value in plain.items() if value == value}


def judge(claim: Claim, rows: pd.DataFrame, subset: Subset | None = None) -> Verdict:
    """Test every part, then the claim.

    A failing part of the claim makes it fail. A control that is not as documented leaves it undecided, because a check
    without power has shown nothing.

    Args:
        claim: what is judged.
        rows: comparison rows.
        subset: which settings they come from, where these are not all of a preset: parts without rows are then left out, and
            the outcome is "not judged" where what is left could not show an error, or is not known to fail by itself.
    """
    judged = rows[rows["relation"] != "report"] if len(rows) else pd.DataFrame({"part": []})
    there = set(judged["part"])
    parts = {
        part.name: PartVerdict(
            part.role, part.documented, _judge_groups(part, judged[judged["part"] == part.name], subset)
        )
        for part in claim.parts
        if subset is None or part.name in there
    }
    off = {name: part for name, part in parts.items() if part.unexpected}
    missing = _missing(claim, parts) if subset is not None and not off else ""
    outcome = NOT_JUDGED if missing else _outcome(parts, off)
    return Verdict(
        claim.name,
        claim.statement,
        outcome,
        claim.documented,
        as_documented=outcome == claim.documented and not off,
        reason=f"not judged on this subset: {missing}" if missing else _reason(claim, parts, off, subset is not None),
        headline=_headline(parts, outcome),
        parts=parts,
        subset=subset is not None,
    )


def _outcome(parts: dict[str, PartVerdict], off: dict[str, PartVerdict]) -> Outcome:
    """Of the whole claim, from its parts and from those that are not as documented."""
    outcomes = {part.result.outcome for part in parts.values() if part.role == "claim"}
    blind = any(part.role == "control" for part in off.values())
    return "fails" if "fails" in outcomes else "undecided" if blind or "undecided" in outcomes else "holds"


def _headline(parts: dict[str, PartVerdict], outcome: Outcome) -> Row:
    """The most extreme row of the claim's own parts, of those with its outcome first; empty where none has a row."""
    own = [part.result for part in parts.values() if part.role == "claim" and part.result.worst]
    extreme = max(own, key=lambda result: (result.outcome == outcome, result.of_limit), default=None)
    return {} if extreme is None else extreme.worst


def _missing(claim: Claim, parts: dict[str, PartVerdict]) -> str:
    """What a subset, on which nothing contradicts the claim, lacks to be judged; "" where it lacks nothing."""
    unseen = [name for name, part in parts.items() if part.result.outcome == NOT_JUDGED]
    controls = {part.name for part in claim.parts if part.role == "control" and part.documented == "fails"}
    if all(part.role == "control" for part in parts.values()):
        return "no part of the claim is left, keep more of its settings"
    if unseen:
        return f"'{unseen[0]}' does not fail here, and is documented to fail only on more of the settings"
    if claim.documented == "holds" and controls and not controls & set(parts):
        return f"'{sorted(controls)[0]}' is left out, so no control is left that must fail"
    return ""


def _judge_groups(part: Part, rows: pd.DataFrame, subset: Subset | None) -> PartResult:
    """The part as a whole; one that fails as documented must do so in every group, else it is undecided.

    On a subset, a part or a group that does not fail is judged only where all settings of the group are there.
    """
    whole = judge_part(rows.reset_index(drop=True))
    if part.documented != "fails" or rows.empty:
        return whole
    groups = [] if part.every is None else list(rows.groupby(part.every, sort=False))
    results = {key: judge_part(group.reset_index(drop=True)) for key, group in groups} or {"": whole}
    spared = {key: result for key, result in results.items() if result.outcome != "fails"}
    known = {key: result for key, result in spared.items() if subset is None or subset.covers(part.every, key)}
    if spared and not known:
        return replace(whole, outcome=NOT_JUDGED)
    if whole.outcome != "fails" or not known:
        return whole
    key, result = next(iter(known.items()))
    return replace(result, outcome="undecided", worst={**result.worst, _SPARED: f"{part.every} {key}"})


def _reason(claim: Claim, parts: dict[str, PartVerdict], off: dict[str, PartVerdict], subset: bool) -> str:
    if not off:
        count = sum(part.result.comparisons for part in parts.values())
        number = f"on a subset: {len(parts)} of {len(claim.parts)} parts" if subset else f"{len(parts)} parts"
        return f"{number}, {count} comparisons, all as documented"
    reasons = []
    for name, part in off.items():
        spared = part.result.worst.get(_SPARED)
        where = f" (does not fail for {spared}: the check is blind there)" if spared else ""
        reasons.append(f"'{name}' {part.result.outcome}, documented: {part.documented}{where}")
    return ("on a subset: " if subset else "") + "; ".join(reasons)
