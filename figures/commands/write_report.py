"""`costate report`: write report.html again, or the findings as Markdown, from the records alone."""

import argparse
from pathlib import Path

from envs.world import InputError
from figures.commands.check import add_explorer, is_drawn
from figures.commands.defaults import DEFAULT_OUT
from figures.harness.records import check_writable
from figures.harness.verdicts import read_verdicts
from figures.report.findings import write_findings
from figures.report.report import write_report

_IN_OUT = Path()  # --markdown without a file


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where the results are, and which page is written."""
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="results (default: runs)")
    text = "write the findings as Markdown instead (default: FINDINGS.md in the folder of results)"
    parser.add_argument("--markdown", type=Path, nargs="?", const=_IN_OUT, metavar="FILE", help=text)


def run(options: argparse.Namespace) -> int:
    """Write the page and print where it is."""
    verdicts = read_verdicts(options.out)
    if options.markdown is not None:
        path = options.out / "FINDINGS.md" if options.markdown == _IN_OUT else options.markdown
        if path.is_dir():
            raise InputError(f"--markdown {path} is a folder: name a file")
        check_writable(path.parent, ())
        print(write_findings(verdicts, options.out, path))
        return 0
    check_writable(options.out)
    add_explorer(options.out)
    print(write_report([verdict for verdict in verdicts if is_drawn(verdict, options.out)], options.out))
    return 0
