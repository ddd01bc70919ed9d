"""What claims cost: seconds of points and of drawing, measured in an output folder, or on the machine of the shipped table.

Nothing heavy is imported, for `costate list` shows costs at once. `python -m benchmarks.claim_costs` writes the table.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from figures.harness.code import digest

TABLE = Path(__file__).with_name("costs.json")
DRAWING = "drawing.json"  # in an output folder: claim (or "questions", "report") -> seconds


@dataclass
class Costs:
    """Seconds of one core.

    Attributes:
        points: by `setting_key`.
        presets: preset -> name of a claim -> seconds of all its points (of its study's, where it has one).
        drawing: claim -> seconds of its figure; "questions" and "report" of the report's parts.
        machine, date: where and when; "" in a folder of results.
    """

    points: dict[str, float] = field(default_factory=dict)
    presets: dict[str, dict[str, float]] = field(default_factory=dict)
    drawing: dict[str, float] = field(default_factory=dict)
    machine: str = ""
    date: str = ""

    def of_drawing(self, claims: Iterable[str]) -> float | None:
        """Seconds to draw these claims and write the report; None where one of them is not known."""
        parts = [self.drawing.get(name) for name in (*claims, "questions", "report")]
        known = [seconds for seconds in parts if seconds is not None]
        return sum(known) if len(known) == len(parts) else None


def setting_key(claim: str, device: str, setting: dict[str, Any]) -> str:
    """Name of a point whatever its seed and the state of the code: what takes equally long."""
    return digest(json.dumps([claim, device, setting], sort_keys=True))[:12]


@cache
def shipped() -> Costs:
    """The table that comes with the package; an empty one where the file is missing or damaged."""
    return Costs(**(_json(TABLE) or {}))


def measured(out: Path, claims: Iterable[str] | None = None) -> Costs:
    """What the records of a folder took, the latest of each setting; of some claims (or studies), or of all.

    Files that are damaged or from elsewhere do not count.
    """
    folders = (out / "records").glob("*") if claims is None else (out / "records" / claim for claim in sorted(claims))
    paths = [path for folder in folders for path in folder.glob("*.json")]
    costs = Costs(drawing=_numbers(_json(out / DRAWING)))
    for path in sorted(paths, key=lambda path: path.stat().st_mtime):
        record = _json(path)
        try:
            key = setting_key(record["claim"], record["device"], record["setting"])
            costs.points[key] = float(record["seconds"])
        except (KeyError, TypeError, ValueError):
            continue
    return costs


def presets_of(out: Path) -> dict[str, dict[str, float]]:
    """Preset -> claim -> seconds of the records behind each verdict of a folder."""
    presets: dict[str, dict[str, float]] = {}
    for verdict in stored_verdicts(out):
        try:
            run, claim = verdict["run"], verdict["claim"]
            seconds = sum(float(_json(out / name)["seconds"]) for name in run["records"])
            presets.setdefault(run["preset"], {})[claim] = round(seconds, 1)
        except (KeyError, TypeError, ValueError):
            continue
    return presets


def stored_verdicts(out: Path) -> list[dict[str, Any]]:
    """The verdicts of a folder as plain dictionaries; none where verdicts.json is missing or damaged."""
    verdicts = _json(out / "verdicts.json")
    return [verdict for verdict in verdicts if isinstance(verdict, dict)] if isinstance(verdicts, list) else []


def remember_drawing(out: Path, seconds: dict[str, float]) -> None:
    """Keep how long figures and report took, beside what is known of others."""
    from figures.harness.records import write_atomically  # here: it imports much

    known = _numbers(_json(out / DRAWING)) | {name: round(x, 3) for name, x in seconds.items()}
    write_atomically(out / DRAWING, json.dumps(known, indent=1, sort_keys=True))


def in_words(seconds: float) -> str:
    """A time of at least a second, in seconds or minutes."""
    return f"{max(1, seconds):.0f} s" if seconds < 180 else f"{seconds / 60:.0f} min"


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def _numbers(given: Any) -> dict[str, float]:
    entries = given.items() if isinstance(given, dict) else ()
    return {name: float(x) for name, x in entries if isinstance(x, int | float)}
