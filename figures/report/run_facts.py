"""Where the numbers of a page come from: when they were measured, how long that took, by what, and how to repeat it."""

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from figures.harness.costs import in_words
from figures.harness.judge import Run, Verdict

Facts = tuple[tuple[str, str], ...]  # what, value


@dataclass(frozen=True)
class Measured:
    """When records were written and how long their points took.

    Attributes:
        dates: of the first and the last record file.
        seconds: of one core, all points together.
        points: how many there are.
    """

    dates: tuple[datetime, datetime] | None
    seconds: float
    points: int

    @classmethod
    def by(cls, names: Iterable[str], out: Path) -> "Measured":
        """From the record files, each once; a missing or damaged one does not count."""
        times, seconds = [], 0.0
        for path in sorted({out / name for name in names}):
            try:
                seconds += float(json.loads(path.read_text())["seconds"])
                times.append(path.stat().st_mtime)
            except (OSError, ValueError, KeyError, TypeError):
                continue
        dates = [datetime.fromtimestamp(time, UTC) for time in (min(times), max(times))] if times else []
        return cls((dates[0], dates[1]) if dates else None, seconds, len(times))

    def facts(self) -> Facts:
        """Date and duration in words; nothing where there is no record."""
        if self.dates is None:
            return ()
        first, last = (date.strftime("%Y-%m-%d %H:%M") for date in self.dates)
        same_day = first[:10] == last[:10]
        when = first if first == last else f"{first} to {last[11:] if same_day else last}"
        return (
            ("records written", f"{when} UTC"),
            ("duration", f"{in_words(self.seconds)} of one core, {self.points} points"),
        )


def of_run(run: Run) -> Facts:
    """Preset, seed, device, revision and versions of one verdict."""
    versions = ", ".join(f"{name} {number}" for name, number in run.versions.items())
    plain = (("preset", run.preset), ("seed", str(run.seed)), ("device", run.device), ("revision", run.revision))
    return (*plain, ("versions", versions))


def common_run(verdicts: Iterable[Verdict]) -> Facts:
    """The facts that most verdicts share."""
    counted = Counter(of_run(verdict.run) for verdict in verdicts if verdict.run)
    return counted.most_common(1)[0][0] if counted else ()


def other_facts(verdict: Verdict, common: Facts) -> str:
    """What is different for one verdict, in words; "" where nothing is."""
    own = of_run(verdict.run) if verdict.run else ()
    return "; ".join(f"{what} {value}" for what, value in own if (what, value) not in common)


def commands(verdict: Verdict, out: Path) -> Mapping[str, str]:
    """What to do -> the command that does it, for one claim.

    A run on chosen or changed settings, or with a user's own world, is measured again by the command that made it, which no
    record keeps.
    """
    place = f" --out {shlex.quote(out.as_posix())}"
    found = {"draw this figure again": f"costate plot {verdict.claim}{place}"}
    if verdict.run and not verdict.subset and not verdict.own_system:
        run = verdict.run
        options = f"--preset {run.preset} --seed {run.seed} --device {run.device}"
        found["measure and judge again"] = f"costate check {verdict.claim} {options}{place}"
    return found
