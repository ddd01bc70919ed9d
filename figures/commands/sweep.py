"""`costate sweep`: one claim as an ablation, on chosen or changed settings; verdict, figures, report, all rows as CSV."""

import argparse
import time

from figures.commands.check import draw_and_report, exit_code, judge_and_show, measure
from figures.commands.defaults import DEFAULT_OUT
from figures.commands.options import add_run_options
from figures.commands.own_world import own_value
from figures.harness.registry import load_claims
from figures.harness.selection import select
from figures.report.pictures import draw_each


def add_options(parser: argparse.ArgumentParser) -> None:
    """The claim, what is chosen and changed, and what is common to check and sweep."""
    parser.add_argument("claim", metavar="CLAIM", help="the claim, error_map for instance")
    for option, text in (
        ("--only", "keep settings that have it"),
        ("--set", "change a field of all settings (several of one field: in turn)"),
    ):
        parser.add_argument(option, action="append", default=[], metavar="FIELD=VALUE", help=text)
    add_run_options(parser, "full", DEFAULT_OUT / "sweep")


def run(options: argparse.Namespace) -> int:
    """Exit code 0 where the claim came out as documented or could not be judged on these settings, else 1; tiny: 0."""
    began, claims = time.perf_counter(), load_claims([options.claim])
    jobs, points = measure(
        claims, options, None, lambda settings: select(settings, options.only, options.set, own_value)
    )
    (verdict,) = judge_and_show(claims, points, options, partial=True)
    draw_and_report([verdict], options.out, jobs)
    figures, seconds = 1 + draw_each(verdict, options.out), time.perf_counter() - began
    files = f"rows/{options.claim}.csv, verdicts.json and report.html"
    print(f"\n{figures} figures, {files} are in {options.out} ({seconds:.0f} s)")
    return exit_code([verdict], options.preset)
