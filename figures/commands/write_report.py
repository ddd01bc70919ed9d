"""`costate report`: write report.html again, from the records alone."""

import argparse
from pathlib import Path

from figures.commands.check import is_drawn
from figures.commands.options import DEFAULT_OUT
from figures.harness.records import check_writable
from figures.harness.verdicts import read_verdicts
from figures.report.report import write_report


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where the results are."""
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="results (default: runs)")


def run(options: argparse.Namespace) -> int:
    """Write the page and print where it is."""
    verdicts = read_verdicts(options.out)
    check_writable(options.out)
    print(write_report([verdict for verdict in verdicts if is_drawn(verdict, options.out)], options.out))
    return 0
