"""`costate explore`: one page with sliders, whose numbers are computed in the page."""

import argparse
from pathlib import Path

from envs.world import InputError
from figures.commands.defaults import DEFAULT_OUT
from figures.explorer.page import write_explorer
from figures.harness.records import check_writable

STOPPED = "nothing was written; the same command begins anew"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where the page goes, and whose pretraining run it shows."""
    text = "the page (default: explorer.html)"
    parser.add_argument("--out", type=Path, default=Path("explorer.html"), metavar="FILE", help=text)
    text = "results of `costate check`, for the panel on checkpoints (default: runs)"
    parser.add_argument("--runs", type=Path, metavar="DIR", help=text)


def run(options: argparse.Namespace) -> int:
    """Write the page and print where it is."""
    if options.out.is_dir():
        raise InputError(f"--out {options.out} is a folder: name a file, {options.out / 'explorer.html'} for instance")
    if options.runs is not None and not options.runs.is_dir():
        raise InputError(
            f"--runs {options.runs} is no folder: name one that `costate check` wrote, or leave --runs out"
        )
    check_writable(options.out.parent, ())
    print(write_explorer(options.out, options.runs or DEFAULT_OUT))
    return 0
