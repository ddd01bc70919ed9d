"""The command `costate`: parse, call, exit code. 0: all as documented; 1: some claim not; 2: bad usage."""

import argparse
import importlib
import signal
import sys
from types import ModuleType
from typing import Any, NoReturn

from figures.commands.streams import lost, tolerant_streams

# name -> module with `add_options(parser)` and `run(options) -> exit code`, loaded when the command is called; one line of help
COMMANDS = {
    "list": ("figures.commands.list_claims", "the claims, what is documented of each, and the assumptions"),
    "check": ("figures.commands.check", "measure the claims, judge them, draw them, write the report"),
    "sweep": ("figures.commands.sweep", "one claim as an ablation: choose and change its settings; figures and CSV"),
    "train": ("figures.commands.train", "train one learner in one world, exact answers along the way"),
    "pretrain": ("figures.commands.pretrain", "pretrain a network on a corpus, checkpoints on a log grid"),
    "impact": ("figures.commands.impact", "from which of your checkpoints would RL gain most?"),
    "plot": ("figures.commands.plot", "draw the figures again, from the records alone"),
    "report": ("figures.commands.write_report", "write report.html, or FINDINGS.md, again from the records alone"),
}


class _OneLineParser(argparse.ArgumentParser):
    """Errors in one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and how to get help."""
        from envs.world import one_line  # here, so that `costate --help` answers at once

        self.exit(2, f"costate: {one_line(message, 300)} (see `{self.prog} --help`)\n")


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, ModuleType]:
    """The options, and the module of the command; only this command's module is imported."""
    parser = _OneLineParser(
        prog="costate", description="Checks the value-gradient hypothesis where exact answers are known."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(COMMANDS) + "}")
    modules = {}
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        if name in arguments[:1]:
            modules[name] = importlib.import_module(module)
            modules[name].add_options(command)
    options = parser.parse_args(arguments)
    return options, modules[options.command]


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit."""
    with tolerant_streams() as (stdout, _):
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
    from envs.world import InputError, one_line  # here, so that `costate --help` answers at once

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code: int = module.run(options)
        return code
    except InputError as error:
        print(f"costate: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = one_line(str(error.filename or getattr(options, "out", None) or "a file"), 300)
        print(f"costate: {where}: {error.strerror or error}; nothing finished was lost", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ncostate: stopped; finished points are kept, the same command goes on from here", file=sys.stderr)
        return 130


def _interrupt(*_: Any) -> NoReturn:
    """SIGTERM stops like Ctrl-C: what is finished is kept, and no worker is left behind."""
    raise KeyboardInterrupt
