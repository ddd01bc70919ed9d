"""One progress display: an overall bar with a forecast and the claims that run now; plain lines where there is no terminal."""

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

from figures.harness.forecast import Forecast
from figures.harness.records import Point

_WIDTH = 80
_QUIET = 15.0  # seconds between two lines where stderr is no terminal


class Progress:
    """Shows how far a run is: a bar of two lines on a terminal, at most a line every 15 s elsewhere.

    The bar counts seconds of forecast where every point has one, so that the time left is right from the start, else points.
    """

    def __init__(
        self, points: list[Point], todo: list[Point], forecast: Forecast, jobs: int, stream: TextIO | None = None
    ):
        self._stream = stream or sys.stderr
        self._left, self._jobs, self._forecast = list(todo), jobs, forecast
        self._total, self._kept = len(points), len(points) - len(todo)
        self._last = self._began = time.monotonic()
        self._bar: Any = None
        self._taken: dict[str, list[float]] = {}  # seconds of the points finished in this run, claim by claim
        self._known = [0.0, 0.0]  # seconds of the finished points that had a forecast: as they took, as was forecast

    def __enter__(self) -> "Progress":
        """Open the bar."""
        if self._stream.isatty():
            total = sum(self._weight(point) for point in self._left)
            self._bar = tqdm(
                total=total,
                file=self._stream,
                ncols=_WIDTH,
                mininterval=0.2,
                delay=1e-9,
                bar_format="{desc} |{bar:16}|{postfix}",
            )
            self._show()
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        if self._bar is not None:
            self._bar.close()

    def finished(self, point: Point, seconds: float) -> None:
        """Count a finished point, which took so many seconds."""
        self._taken.setdefault(point.claim, []).append(seconds)
        self._left = [other for other in self._left if other.id != point.id]
        if self._forecast.of(point):
            self._known = [self._known[0] + seconds, self._known[1] + (self._forecast.of(point) or 0.0)]
        if self._bar is not None:
            self._bar.update(self._weight(point))
            self._show()
        elif not self._left or time.monotonic() - self._last > _QUIET:
            self._last = time.monotonic()
            print(f"costate: {self._count()}, {self._time_left()}", file=self._stream, flush=True)

    def _weight(self, point: Point) -> float:
        return (self._forecast.of(point) or 0.0) if self._forecast.complete else 1.0

    def _count(self) -> str:
        return f"{self._total - len(self._left)}/{self._total} points"

    def _show(self) -> None:
        running = ", ".join(dict.fromkeys(point.claim for point in self._left[: self._jobs]))
        self._bar.set_description_str(self._count(), refresh=False)
        self._bar.set_postfix_str(f"{self._time_left()}  {running}"[: _WIDTH - 24 - len(self._count())])

    def _time_left(self) -> str:
        """What is left, from the forecast or else from the points of the same claim that this run has finished."""
        if not self._left:
            return f"done in {time.monotonic() - self._began:.0f} s"
        seconds = [self._expected(point) for point in self._left]
        known = [number for number in seconds if number is not None]
        if not known:
            return "time left not known yet"
        least = "" if len(known) == len(seconds) else "at least "
        return f"{least}{sum(known) / self._jobs:.0f} s left"

    def _expected(self, point: Point) -> float | None:
        """Seconds by the forecast, as fast as this run has been so far; else what the claim's points took."""
        forecast, taken = self._forecast.of(point), self._taken.get(point.claim)
        if forecast is not None:
            return forecast * (self._known[0] / self._known[1] if self._known[1] else 1.0)
        return sum(taken) / len(taken) if taken else None
