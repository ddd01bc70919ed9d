"""Run the points that are missing, in parallel, each once; finished points are records and are never run again."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from envs.world import InputError
from figures.harness.claim import Claim, OwnKind, Preset
from figures.harness.code import code_digest
from figures.harness.forecast import Forecast
from figures.harness.progress import Progress
from figures.harness.records import Point, load_record, save_record
from figures.harness.registry import STUDIES, measure_of, module_name
from figures.harness.workers import in_workers


def plan(
    claims: list[Claim],
    preset: Preset,
    seed: int,
    device: str,
    own: tuple[OwnKind, str] | None = None,
    choose: Callable[[list[Any]], list[Any]] = list,
) -> list[Point]:
    """Every point of the claims at this preset, as `choose` leaves them, and a user's own world where one is taken.

    Claims on one study share its points. These come first: they take longest. Raises InputError for settings that cannot be
    run, before anything is written.
    """
    points = []
    for claim in {claim.recorded_as: claim for claim in claims}.values():
        settings = choose(claim.settings(preset))
        if own is not None and claim.own_settings is not None and claim.own_kind == own[0]:
            settings = settings + claim.own_settings(preset, own[1])
        for setting in settings:
            _check_sampling(setting)
        code = code_digest(module_name(claim.recorded_as))
        points += [Point(claim.recorded_as, setting, seed, device, code) for setting in settings]
    return sorted(points, key=lambda point: point.claim not in STUDIES)


def _check_sampling(setting: Any) -> None:
    """Refuse a setting that draws too little to have a standard error, or that nothing could meet."""
    samples, margin = getattr(setting, "samples", 2), getattr(setting, "margin", 1.0)
    if samples < 2:
        raise InputError(f"samples must be a whole number >= 2: a standard error needs two; got {samples!r}")
    if not margin > 0:
        raise InputError(f"margin must be a number > 0; got {margin!r}")


def missing(points: list[Point], out: Path) -> list[Point]:
    """The points without a sound record; a damaged one is named on stderr and counts as missing."""
    absent = []
    for point in points:
        try:
            record = load_record(point, out)
        except InputError as error:
            print(f"costate: {error}: recomputing it", file=sys.stderr)
            record = None
        if record is None:
            absent.append(point)
    return absent


def run_point(point: Point, out: Path) -> tuple[Point, float]:
    """Measure one point with its own generator and write its record; the point, and the seconds that it took.

    One thread, so that the numbers are the same for any --jobs; the caller's thread count is put back.
    """
    began, threads = time.perf_counter(), torch.get_num_threads()
    rng = torch.Generator().manual_seed(point.stream)
    torch.set_num_threads(1)
    try:
        rows = measure_of(point.claim)(point.setting, rng, point.device)
    finally:
        torch.set_num_threads(threads)
    seconds = time.perf_counter() - began
    save_record(point, out, rows, seconds)
    return point, seconds


def longest_first(points: list[Point], forecast: Forecast) -> list[Point]:
    """The points by falling forecast, those that have none before all others; else in the order given."""

    def seconds(point: Point) -> float:
        known = forecast.of(point)
        return math.inf if known is None else known

    return sorted(points, key=seconds, reverse=True)


def run_missing(points: list[Point], todo: list[Point], out: Path, jobs: int) -> None:
    """Run the points `todo` under one progress display. Safe to interrupt at any time: finished points are kept.

    The longest come first, and before them those of unknown length, so that no worker is left alone with a long point.
    """
    if not todo:
        return
    forecast = Forecast.from_records(todo, out)
    todo = longest_first(todo, forecast)
    finished = in_workers(jobs, partial(run_point, out=out), todo)
    with Progress(points, todo, forecast, jobs) as progress, closing(finished):
        for point, seconds in finished:
            progress.finished(point, seconds)
