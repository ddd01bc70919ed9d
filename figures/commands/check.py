"""`costate check`: plan, say how long it takes, run what is missing, judge, draw, report."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from envs.world import InputError
from figures.commands.defaults import DEFAULT_OUT
from figures.commands.options import add_run_options, default_jobs, device_of
from figures.commands.own_world import own_world, takers
from figures.drawing.frame import USUAL
from figures.explorer.page import write_explorer
from figures.harness.claim import Claim, OwnKind, Preset
from figures.harness.costs import remember_drawing
from figures.harness.folder import refuse_mixture
from figures.harness.forecast import Forecast
from figures.harness.judge import Verdict
from figures.harness.records import Point, check_writable
from figures.harness.registry import load_claims
from figures.harness.runner import missing, plan, run_missing
from figures.harness.verdicts import judge_claim, read_verdicts, table, write_rows, write_verdicts
from figures.report.pictures import draw_claim
from figures.report.report import draw_all, write_report


def add_options(parser: argparse.ArgumentParser) -> None:
    """The claims, and what is common to check and sweep."""
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="claims to check (default: all)")
    add_run_options(parser, "quick", DEFAULT_OUT)
    text = "also check your own world: a JSON file of a system or a token world, or FILE.py:FUNCTION"
    parser.add_argument("--world", metavar="FILE", help=text)


def run(options: argparse.Namespace) -> int:
    """Exit code 0 where every claim came out as documented, else 1; the tiny preset asks no verdict."""
    began, claims = time.perf_counter(), load_claims(options.claims)
    own = None if options.world is None else own_world(options.world)
    if own is not None:
        print(f"costate: your own world is taken by {', '.join(takers(claims, own))}", file=sys.stderr)
    jobs, points = measure(claims, options, own, list)
    verdicts = judge_and_show(claims, points, options)
    draw_and_report(verdicts, options.out, jobs)
    print(f"\nfigures, rows, verdicts.json and report.html are in {options.out} ({time.perf_counter() - began:.0f} s)")
    return exit_code(verdicts, options.preset)


def exit_code(verdicts: list[Verdict], preset: Preset) -> int:
    """1 where a verdict contradicts what is documented, else 0; the tiny preset asks no verdict, and says so."""
    if preset == "tiny":
        print("preset tiny: samples are too few for a verdict; the outcomes above say nothing")
        return 0
    return 1 if any(verdict.unexpected for verdict in verdicts) else 0


def measure(
    claims: list[Claim],
    options: argparse.Namespace,
    own: tuple[OwnKind, str] | None,
    choose: Callable[[list[Any]], list[Any]],
) -> tuple[int, list[Point]]:
    """Plan, say how long, run what is missing: the number of jobs and the points."""
    device = device_of(options.device)
    jobs = options.jobs or default_jobs(device)
    points = plan(claims, options.preset, options.seed, device, own, choose)  # refuses before a folder is made
    refuse_mixture(options.out, [claim.name for claim in claims], options.preset, options.seed, device)
    check_writable(options.out)
    todo = missing(points, options.out)
    kept = f" ({len(points) - len(todo)} kept from before)" if len(todo) < len(points) else ""
    length = Forecast.from_records(todo, options.out, [claim.name for claim in claims]).describe(jobs)
    print(f"costate: {len(claims)} claims, {len(points)} points{kept}: {length}", file=sys.stderr, flush=True)
    run_missing(points, todo, options.out, jobs)
    return jobs, points


def judge_and_show(
    claims: list[Claim], points: list[Point], options: argparse.Namespace, partial: bool = False
) -> list[Verdict]:
    """Judge every claim, write verdicts.json and all rows as CSV, print the table; nothing is drawn before that."""
    verdicts = []
    for claim in claims:
        own = [point for point in points if point.claim == claim.recorded_as]
        verdicts.append(judge_claim(claim, own, options.out, options.preset, partial))
    for verdict in verdicts:  # an old picture must not stand beside a new verdict, whenever this is stopped
        for kind in USUAL:
            (options.out / "figures" / f"{verdict.claim}.{kind}").unlink(missing_ok=True)
    write_verdicts(options.out, verdicts)
    for verdict in verdicts:
        write_rows(verdict, options.out)
    print(table(verdicts), flush=True)
    return verdicts


def draw_and_report(fresh: list[Verdict], out: Path, jobs: int) -> None:
    """Figures of the fresh verdicts, and the report of all verdicts in the folder."""
    drawn = {verdict.claim for verdict in fresh}
    known = draw_all(fresh, out, jobs)
    shown = [verdict for verdict in read_verdicts(out) if verdict.claim in drawn or is_drawn(verdict, out)]
    began = time.perf_counter()
    add_explorer(out)
    write_report(shown, out, known)
    remember_drawing(out, {"report": time.perf_counter() - began})


def add_explorer(out: Path) -> None:
    """The explorer beside the report, which links to it; a run whose records are damaged gets none, and a line says so."""
    try:
        write_explorer(out / "explorer.html", out)
    except InputError as error:
        print(f"costate: {error}: explorer.html is not written", file=sys.stderr)


def is_drawn(verdict: Verdict, out: Path) -> bool:
    """Whether an older claim has its picture, drawn now if need be; one whose records are gone is named and left out."""
    try:
        if not (out / "figures" / f"{verdict.claim}.svg").exists():
            draw_claim(verdict, out)
    except InputError as error:
        print(f"costate: {error}: left out of the report", file=sys.stderr)
        return False
    return True
