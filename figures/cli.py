"""The command `costate`: parse, call, exit code. 0: all as documented; 1: some claim not; 2: bad usage."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from figures.commands import impact as impact_command
from figures.commands import pretrain as pretrain_command
from figures.commands import train as train_command

DEFAULT_OUT = Path("runs")


class _OneLineParser(argparse.ArgumentParser):
    """Errors in one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and how to get help."""
        self.exit(2, f"costate: {message} (see `{self.prog} --help`)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="costate", description="Checks the value-gradient hypothesis where exact answers are known."
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{list,check,sweep,train,pretrain,impact,plot,report}"
    )
    commands.add_parser("list", help="the claims, what is documented of each, and the assumptions")
    check = commands.add_parser("check", help="measure the claims, judge them, draw them, write the report")
    check.add_argument("claims", nargs="*", metavar="CLAIM", help="claims to check (default: all)")
    _add_run_options(check, "quick", DEFAULT_OUT)
    check.add_argument("--world", type=Path, metavar="FILE", help="also check your own linear-quadratic system (JSON)")
    sweep = commands.add_parser(
        "sweep", help="one claim as an ablation: choose and change its settings; figures and CSV"
    )
    sweep.add_argument("claim", metavar="CLAIM", help="the claim, error_map for instance")
    sweep.add_argument("--only", action="append", default=[], metavar="FIELD=VALUE", help="keep settings that have it")
    sweep.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field of all settings"
    )
    _add_run_options(sweep, "full", DEFAULT_OUT / "sweep")
    rooms: tuple[Any, ...] = (train_command, pretrain_command, impact_command)
    for room in rooms:
        room.add_parser(commands, partial(_at_least, 0))
    plot = commands.add_parser("plot", help="draw the figures again, from the records alone")
    plot.add_argument("claims", nargs="*", metavar="CLAIM", help="claims (default: all that were checked)")
    report = commands.add_parser("report", help="write report.html again, from the records alone")
    for command in (plot, report):
        command.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="results (default: runs)")
    return parser


def _add_run_options(command: argparse.ArgumentParser, preset: str, out: Path) -> None:
    command.add_argument("--preset", choices=("quick", "full"), default=preset, help=f"settings (default: {preset})")
    command.add_argument("--out", type=Path, default=out, metavar="DIR", help=f"results (default: {out})")
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: CUDA where there is one"
    )
    command.add_argument(
        "--jobs", type=partial(_at_least, 1), default=None, metavar="N", help="processes (default: one per core)"
    )
    command.add_argument(
        "--seed", type=partial(_at_least, 0), default=0, metavar="S", help="seed of all noise (default: 0)"
    )


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number >= {least}; got {text!r}")
    return int(text)


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit."""
    options = _parser().parse_args(arguments)
    from envs.world import InputError

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = _COMMANDS[options.command](options)
    except InputError as error:
        print(f"costate: {error}", file=sys.stderr)
        code = 2
    except OSError as error:
        print(f"costate: {error.filename or 'a file'}: {error.strerror}; nothing finished was lost", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("\ncostate: stopped; finished points are kept, the same command goes on from here", file=sys.stderr)
        code = 130
    sys.stdout.flush()
    sys.exit(code)


def _interrupt(*_: Any) -> NoReturn:
    """SIGTERM stops like Ctrl-C: what is finished is kept, and no worker is left behind."""
    raise KeyboardInterrupt


def _list(options: argparse.Namespace) -> int:
    from figures.harness.claim import ASSUMPTIONS, load_claims

    for claim in load_claims([]):
        print(f"{claim.name:<25} {claim.expected_outcome:<6} {' '.join(claim.assumptions):<15} {claim.statement}")
    print("\nassumptions")
    for key, text in ASSUMPTIONS.items():
        print(f"  {key}  {text}")
    return 0


def _device(name: str) -> str:
    """The device to run on; refuses CUDA where there is none."""
    import torch

    from envs.world import InputError

    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has no CUDA device that torch can use; take --device cpu or auto")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def _check(options: argparse.Namespace) -> int:
    """Plan, say how long, run what is missing, judge, draw, report."""
    from figures.harness.claim import load_claims

    began, claims = time.perf_counter(), load_claims(options.claims)
    jobs, points = _run(claims, options, _own_system(options.world), list)
    entries = _judge_and_show(claims, points, options)
    _draw_and_report(entries, options.out, jobs)
    print(f"\nfigures, verdicts.json and report.html are in {options.out} ({time.perf_counter() - began:.0f} s)")
    return 0 if all(entry["as_documented"] for entry in entries) else 1


def _sweep(options: argparse.Namespace) -> int:
    """One claim on chosen or changed settings: verdict, figures, report, and all rows as CSV."""
    from figures.harness.claim import load_claims
    from figures.harness.selection import select
    from figures.harness.verdicts import write_rows
    from figures.report.report import draw_each

    began, claims = time.perf_counter(), load_claims([options.claim])
    jobs, points = _run(claims, options, None, lambda settings: select(settings, options.only, options.set))
    (entry,) = _judge_and_show(claims, points, options, partial=True)
    _draw_and_report([entry], options.out, jobs)
    more, table = draw_each(entry, options.out), write_rows(entry, options.out)
    print(f"\n{1 + more} figures, {table.name}, verdicts.json and report.html are in {options.out} "
          f"({time.perf_counter() - began:.0f} s)")  # fmt: skip
    return 0


def _run(claims: list[Any], options: argparse.Namespace, own: str | None, choose: Any) -> tuple[int, list[Any]]:
    """Plan, say how long, run what is missing: the number of jobs and the points."""
    from figures.harness import runner as sweep
    from figures.harness.records import check_writable

    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    device = _device(options.device)
    jobs = options.jobs or (len(cores) if device == "cpu" else 1)
    check_writable(options.out)
    points = sweep.plan(claims, options.preset, options.seed, device, own, choose)
    todo = sweep.missing(points, options.out)
    print(sweep.forecast(claims, points, todo, options.preset, jobs), file=sys.stderr, flush=True)
    sweep.run_missing(points, todo, options.out, jobs)
    return jobs, points


def _own_system(path: Path | None) -> str | None:
    if path is None:
        return None
    from figures.measures.linear_systems import read_system

    return read_system(path)


def _judge_and_show(
    claims: list[Any], points: list[Any], options: argparse.Namespace, partial: bool = False
) -> list[dict[str, Any]]:
    from figures.harness.verdicts import judge_claim, table, write_verdicts

    entries = []
    for claim in claims:
        own = [point for point in points if point.claim == claim.runs]
        entries.append(judge_claim(claim, own, options.out, options.preset, partial)[1])
    for entry in entries:  # an old picture must not stand beside a new verdict, whenever this is stopped
        for kind in ("png", "svg"):
            (options.out / "figures" / f"{entry['claim']}.{kind}").unlink(missing_ok=True)
    write_verdicts(options.out, entries)
    print(table(entries), flush=True)
    return entries


def _draw_and_report(fresh: list[dict[str, Any]], out: Path, jobs: int) -> None:
    from figures.harness.verdicts import read_verdicts
    from figures.report.report import draw_all, write_report

    drawn = {entry["claim"] for entry in fresh}
    draw_all(fresh, out, jobs)
    write_report([entry for entry in read_verdicts(out) if entry["claim"] in drawn or _drawn(entry, out)], out)


def _drawn(entry: dict[str, Any], out: Path) -> bool:
    """Whether an older claim has its picture, drawn now if need be; one whose records are gone is named and left out."""
    from envs.world import InputError
    from figures.report.report import draw_claim

    try:
        if not (out / "figures" / f"{entry['claim']}.svg").exists():
            draw_claim(entry, out)
    except InputError as error:
        print(f"costate: {error}: left out of the report", file=sys.stderr)
        return False
    return True


def _chosen(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Stored verdicts of the named claims, or of all that were checked."""
    from envs.world import InputError
    from figures.harness.claim import load_claim
    from figures.harness.verdicts import read_verdicts

    for name in options.claims:
        load_claim(name)
    entries = [e for e in read_verdicts(options.out) if not options.claims or e["claim"] in options.claims]
    absent = set(options.claims) - {entry["claim"] for entry in entries}
    if absent:
        raise InputError(
            f"claim {sorted(absent)[0]!r} was not checked in {options.out}: run `costate check` for it first"
        )
    return entries


def _plot(options: argparse.Namespace) -> int:
    from figures.harness.records import check_writable
    from figures.report.report import draw_all

    entries = _chosen(options)
    check_writable(options.out)
    draw_all(entries, options.out, jobs=1)
    print(f"{len(entries)} figures (PNG and SVG) are in {options.out / 'figures'}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from figures.harness.records import check_writable
    from figures.harness.verdicts import read_verdicts
    from figures.report.report import write_report

    entries = read_verdicts(options.out)
    check_writable(options.out)
    print(write_report([entry for entry in entries if _drawn(entry, options.out)], options.out))
    return 0


def _in(room: Any, options: argparse.Namespace) -> int:
    """A command with a file of its own."""
    code: int = room.run(options, _device(options.device))
    return code


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "check": _check,
    "sweep": _sweep,
    "train": partial(_in, train_command),
    "pretrain": partial(_in, pretrain_command),
    "impact": partial(_in, impact_command),
    "plot": _plot,
    "report": _report,
}
