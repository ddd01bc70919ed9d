"""Run the points that are missing, in parallel, each once; finished points are records and are never run again."""

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from tqdm import tqdm

from envs.world import InputError
from figures.harness.claim import STUDIES, Claim, Preset, measure_of, source_of
from figures.harness.records import Point, code_digest, digest, load_record, save_record


def plan(
    claims: list[Claim], preset: Preset, seed: int, device: str, own: str | None = None,
    choose: Callable[[list[Any]], list[Any]] = list,
) -> list[Point]:  # fmt: skip
    """Every point of the claims at this preset, as `choose` leaves them, and a user's own system where one is taken.

    Claims on one study share its points. These come first: they take longest.
    """
    points = []
    for claim in _one_for_each_run(claims):
        code = digest(code_digest() + source_of(claim))
        settings = choose(claim.settings(preset))
        if own is not None and claim.own_settings is not None:
            settings = settings + claim.own_settings(preset, own)
        points += [Point(claim.runs, setting, seed, device, code) for setting in settings]
    return sorted(points, key=lambda point: point.claim not in STUDIES)


def _one_for_each_run(claims: list[Claim]) -> list[Claim]:
    return list({claim.runs: claim for claim in claims}.values())


def forecast(claims: list[Claim], points: list[Point], todo: list[Point], preset: Preset, jobs: int) -> str:
    """How much there is to do and about how long it takes, said before it begins."""
    seconds = 0.0
    for claim in _one_for_each_run(claims):
        settings = [point.setting for point in todo if point.claim == claim.runs]
        even = claim.seconds[preset == "full"] / len(claim.settings(preset))
        seconds += sum(even if claim.cost is None else claim.cost(setting) for setting in settings)
    total = seconds / jobs + 10
    length = f"{total:.0f} s" if total < 180 else f"{total / 60:.0f} min"
    kept = f" ({len(points) - len(todo)} kept from before)" if len(todo) < len(points) else ""
    return f"{len(claims)} claims, {len(points)} points{kept}: about {length} with {jobs} jobs"


def missing(points: list[Point], out: Path) -> list[Point]:
    """The points without a sound record; a damaged one is named on stderr and counts as missing."""
    absent = []
    for point in points:
        try:
            found = load_record(point, out)
        except InputError as error:
            print(f"costate: {error}: recomputing it", file=sys.stderr)
            found = None
        if found is None:
            absent.append(point)
    return absent


def run_point(point: Point, out: Path) -> str:
    """Measure one point with its own generator, on one thread (the same numbers for any --jobs), and write its record."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    rng = torch.Generator().manual_seed(point.stream)
    rows = measure_of(point.claim)(point.setting, rng, point.device)
    save_record(point, out, rows, time.perf_counter() - began)
    return point.claim


def run_missing(points: list[Point], todo: list[Point], out: Path, jobs: int) -> None:
    """Run the points `todo` with one progress bar per claim. Safe to interrupt at any time."""
    bars = _bars(points, todo)
    try:
        for claim in _results(todo, out, jobs):
            bars[claim].update()
    except BaseException:
        if jobs > 1:
            get_reusable_executor().shutdown(wait=True, kill_workers=True)
        raise
    finally:
        for bar in bars.values():
            bar.close()


def _results(todo: list[Point], out: Path, jobs: int) -> Iterable[str]:
    if jobs == 1 or len(todo) <= 1:
        return (run_point(point, out) for point in todo)
    workers = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="all")
    results: Iterable[str] = workers(delayed(run_point)(point, out) for point in todo)
    return results


def _bars(points: list[Point], todo: list[Point]) -> dict[str, Any]:
    """A bar per claim, already filled up to the points that are kept from before."""
    bars = {}
    for position, name in enumerate(dict.fromkeys(point.claim for point in points)):
        total = sum(point.claim == name for point in points)
        left = sum(point.claim == name for point in todo)
        bars[name] = tqdm(
            total=total, initial=total - left, desc=f"{name:<25}", position=position, unit="point",
            file=sys.stderr, ncols=88, mininterval=0.2,
        )  # fmt: skip
    return bars
