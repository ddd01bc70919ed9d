"""`costate plot`: draw the figures again, from the records alone."""

import argparse
from pathlib import Path

from envs.world import InputError
from figures.commands.options import DEFAULT_OUT
from figures.harness.judge import Verdict
from figures.harness.records import check_writable
from figures.harness.registry import load_claim
from figures.harness.verdicts import read_verdicts
from figures.report.report import draw_claim


def add_options(parser: argparse.ArgumentParser) -> None:
    """The claims, and where their results are."""
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="claims (default: all that were checked)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="results (default: runs)")


def run(options: argparse.Namespace) -> int:
    """Draw the named claims, or all that were checked."""
    verdicts = _chosen(options.claims, options.out)
    check_writable(options.out)
    for verdict in verdicts:
        draw_claim(verdict, options.out)
    print(f"{len(verdicts)} figures (PNG and SVG) are in {options.out / 'figures'}")
    return 0


def _chosen(names: list[str], out: Path) -> list[Verdict]:
    for name in names:
        load_claim(name)
    verdicts = [verdict for verdict in read_verdicts(out) if not names or verdict.claim in names]
    absent = sorted(set(names) - {verdict.claim for verdict in verdicts})
    if absent:
        raise InputError(f"claim {absent[0]!r} was not checked in {out}: run `costate check` for it first")
    return verdicts
