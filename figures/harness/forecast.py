"""How long points and figures will take, from what earlier ones of the same settings took, here or on another machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from figures.harness.costs import Costs, in_words, measured, setting_key, shipped
from figures.harness.records import Point


@dataclass(frozen=True)
class Forecast:
    """How long a run takes.

    Attributes:
        seconds: of one core for each point, in the order of the points; None where nobody has measured its setting.
        drawing: seconds of one core for the figures and the report; None where that is not known.
        elsewhere: the machine that some of the numbers come from, "" where all are from this folder.
    """

    seconds: dict[str, float | None]
    drawing: float | None = 0.0
    elsewhere: str = ""

    @classmethod
    def from_records(cls, points: list[Point], out: Path, drawn: Sequence[str] | None = None) -> "Forecast":
        """Look for records with the same claim, setting and device, of any seed and any state of the code.

        What the folder lacks comes from the shipped table, times how much longer this machine took for what both know.

        Args:
            points: what is run.
            out: the folder of results.
            drawn: the claims whose figures are drawn after that; None for no figure and no report.
        """
        keys = {point.id: setting_key(point.claim, point.device, point.key["setting"]) for point in points}
        here, table = measured(out, {point.claim for point in points}), shipped()
        absent = [key for key in keys.values() if key not in here.points]
        factor = _slowness(measured(out) if absent else here, table)
        seconds = {i: here.points.get(key, _times(table.points.get(key), factor)) for i, key in keys.items()}
        own = 0.0 if drawn is None else here.of_drawing(drawn)
        drawing = _times(table.of_drawing(drawn or ()), factor) if own is None else own
        foreign = any(key in table.points for key in absent) or (own is None and drawing is not None)
        return cls(seconds, drawing, table.machine if foreign else "")

    def of(self, point: Point) -> float | None:
        """Seconds of a point."""
        return self.seconds[point.id]

    @property
    def complete(self) -> bool:
        """Whether something is known of every point."""
        return None not in self.seconds.values()

    def describe(self, jobs: int) -> str:
        """How long the points and then the figures take together, in words."""
        known = [seconds for seconds in self.seconds.values() if seconds is not None]
        drawing = f"; figures and report about {in_words(self.drawing / jobs)}" if self.drawing else ""
        source = f" (by the times of another machine: {self.elsewhere})" if self.elsewhere else ""
        if not self.seconds:
            return f"nothing to run{drawing}{source}"
        if not known:
            return f"how long is not known yet (nobody has measured these settings){drawing}{source}"
        points = max(sum(known) / jobs, max(known))
        unknown = len(self.seconds) - len(known)
        if unknown:
            start = f"about {in_words(points)} with {jobs} jobs for {len(known)} of them, not known yet for {unknown}"
            return f"{start}{drawing}{source}"
        together = points + (self.drawing or 0.0) / jobs
        also = " with figures and report" if self.drawing else ""
        return f"about {in_words(together)} with {jobs} jobs{also}{source}"


def _times(seconds: float | None, factor: float) -> float | None:
    return None if seconds is None else factor * seconds


def _slowness(here: Costs, table: Costs) -> float:
    """Seconds here over those of the table, for the settings that both know; 1 where there is none."""
    both = [key for key in here.points if key in table.points]
    theirs = sum(table.points[key] for key in both)
    return sum(here.points[key] for key in both) / theirs if theirs > 0 else 1.0
