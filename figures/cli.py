"""The command `costate`: parse, call, exit code. 0: all as documented; 1: some claim not; 2: bad usage; 130: stopped."""

import argparse
import importlib
import sys
from types import ModuleType
from typing import Any

from figures.commands.one_line_parser import OneLineParser
from figures.commands.streams import lost, tolerant_streams
from figures.harness.interrupts import handled_by, ignore_from_now_on, interrupt, leave

# name -> module with `add_options(parser)` and `run(options) -> exit code`, loaded when the command is called; one line of help
COMMANDS = {
    "list": ("figures.commands.list_claims", "the claims with cost and verdict, the worlds and the learners"),
    "check": ("figures.commands.check", "measure the claims, judge them, draw them, write the report"),
    "sweep": ("figures.commands.sweep", "one claim as an ablation: choose and change its settings; figures and CSV"),
    "train": ("figures.commands.train", "train one learner in one world, exact answers along the way"),
    "pretrain": ("figures.commands.pretrain", "pretrain a network on a corpus, checkpoints on a log grid"),
    "impact": ("figures.commands.impact", "from which of your checkpoints would RL gain most?"),
    "plot": ("figures.commands.plot", "draw the figures again, from the records alone"),
    "audit": ("figures.commands.audit", "is my loss, or a library's, the gradient that I think it is?"),
    "explore": ("figures.commands.explore", "write the explorer: one page with sliders, for a class"),
    "report": ("figures.commands.write_report", "write report.html, or FINDINGS.md, again from the records alone"),
    "lessons": ("figures.commands.lessons", "nine lessons for a class, executed: pages, notebooks, slides"),
    "completion": ("figures.commands.completion", "print what completes commands and names in your shell"),
}
_STOPPED = "finished points are kept, the same command goes on from here"


class _Version(argparse.Action):
    """`--version`: of the package, and the commit of a checkout."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from figures.harness.code import version

        print(f"costate {version()}")
        parser.exit(0)


def whole_parser(loaded: list[str]) -> tuple[OneLineParser, dict[str, OneLineParser], dict[str, ModuleType]]:
    """The parser, those of the commands, and the modules of the commands that are `loaded`; only these have options."""
    parser = OneLineParser(
        prog="costate", description="Checks the value-gradient hypothesis where exact answers are known."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(COMMANDS) + "}")
    parsers, modules = {}, {}
    for name, (module, text) in COMMANDS.items():
        parsers[name] = commands.add_parser(name, help=text)
        if name in loaded:
            modules[name] = importlib.import_module(module)
            modules[name].add_options(parsers[name])
    return parser, parsers, modules


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, ModuleType]:
    """The options, and the module of the command; only this command's module is imported."""
    name, *rest = arguments or [""]
    parser, parsers, modules = whole_parser([name])
    if name in parsers:
        parsers[name].refuse_unknown_options(rest)
    else:
        parser.refuse_unknown_options([name])
    options = parser.parse_args(arguments)
    options.every_command = lambda: whole_parser(list(COMMANDS))[:2]  # for the shell completion
    return options, modules[options.command]


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit."""
    with tolerant_streams() as (stdout, _), handled_by(leave):
        code = _run(sys.argv[1:] if arguments is None else arguments)
        stdout.flush()
        reason = lost(stdout)
        if reason:
            print(f"costate: stdout cannot be written: {reason}; everything else was done", file=sys.stderr)
            code = code or 2
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """The exit code of a command."""
    options, module = _parse(arguments)
    with handled_by(interrupt):
        try:
            code: int = module.run(options)
            return code
        except (ValueError, OSError) as error:
            return _refused(error, options)
        except KeyboardInterrupt:
            ignore_from_now_on()
            stopped = getattr(module, "STOPPED", _STOPPED)
            print(f"{chr(10) * sys.stderr.isatty()}costate: stopped; {stopped}", file=sys.stderr)
            return 130


def _refused(error: ValueError | OSError, options: argparse.Namespace) -> int:
    """Say in one line what is wrong with the input or a file; an error of the code itself passes on."""
    from envs.world import InputError, one_line  # here, so that `costate list` and `--help` answer at once

    if isinstance(error, InputError):
        print(f"costate: {error}", file=sys.stderr)
    elif isinstance(error, OSError):
        where = one_line(str(error.filename or getattr(options, "out", None) or "a file"), 300)
        print(f"costate: {where}: {error.strerror or error}; nothing finished was lost", file=sys.stderr)
    else:
        raise error
    return 2
