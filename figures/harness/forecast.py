"""How long points will take, from the seconds that earlier records of the same settings took."""

import json
from dataclasses import dataclass
from pathlib import Path

from figures.harness.records import Point, canonical


@dataclass(frozen=True)
class Forecast:
    """Seconds of one core for each point, in the order of the points; None where no earlier record has its setting."""

    seconds: dict[str, float | None]

    @classmethod
    def from_records(cls, points: list[Point], out: Path) -> "Forecast":
        """Look for records with the same claim, setting and device, of any seed and any state of the code."""
        known = _seconds_by_setting({point.claim for point in points}, out)
        return cls(
            {point.id: known.get(canonical([point.claim, point.device, point.key["setting"]])) for point in points}
        )

    def of(self, point: Point) -> float | None:
        """Seconds of a point."""
        return self.seconds[point.id]

    @property
    def complete(self) -> bool:
        """Whether all points have an earlier record."""
        return None not in self.seconds.values()

    def describe(self, jobs: int) -> str:
        """How long the points take together, in words."""
        known = [seconds for seconds in self.seconds.values() if seconds is not None]
        if not known:
            return (
                "how long is not known yet (no earlier records of these settings)" if self.seconds else "nothing to run"
            )
        length = f"about {_in_words(sum(known) / jobs)} with {jobs} jobs"
        unknown = len(self.seconds) - len(known)
        return f"{length} for {len(known)} of them, not known yet for {unknown}" if unknown else length


def _in_words(seconds: float) -> str:
    return f"{max(1, seconds):.0f} s" if seconds < 180 else f"{seconds / 60:.0f} min"


def _seconds_by_setting(claims: set[str], out: Path) -> dict[str, float]:
    """Latest seconds of every setting in the records of these claims; files that are damaged do not count."""
    seconds = {}
    paths = [path for claim in sorted(claims) for path in (out / "records" / claim).glob("*.json")]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime):
        try:
            record = json.loads(path.read_text())
            seconds[canonical([record["claim"], record["device"], record["setting"]])] = float(record["seconds"])
        except (ValueError, KeyError, TypeError):
            continue
    return seconds
