"""`costate completion bash|zsh|tcsh`: a script that completes commands, options, and names of claims, worlds and learners."""

import argparse
from pathlib import Path
from typing import Any

import shtab

from figures.harness.catalogue import learner_texts, world_texts
from figures.harness.registry import CLAIM_NAMES

_HOW = {
    "bash": 'eval "$(costate completion bash)" in ~/.bashrc',
    "zsh": "costate completion zsh > a folder of $fpath, as _costate",
    "tcsh": "costate completion tcsh > ~/.costate.tcsh, and source it in ~/.tcshrc",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The shell."""
    where = "; ".join(f"{shell}: {text}" for shell, text in _HOW.items())
    parser.add_argument("shell", choices=tuple(_HOW), metavar="SHELL", help=where)


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    parser, commands = options.every_command()
    for command in commands.values():
        _name_values(command)
    print(shtab.complete(parser, shell=options.shell))
    return 0


def _name_values(parser: argparse.ArgumentParser) -> None:
    """Give every option the names that there are, or files or folders, where the shell is to offer some."""
    known = {
        "CLAIM": CLAIM_NAMES,
        "NAME of --learner": tuple(learner_texts()),
        "NAME of --world": tuple(world_texts()),
    }
    actions: list[Any] = parser._actions  # shtab reads a further attribute of them, `complete`
    for action in actions:
        option = action.option_strings[-1] if action.option_strings else ""
        names = known.get(str(action.metavar)) or known.get(f"{action.metavar} of {option}")
        if names:
            action.choices = names
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY
        elif action.metavar == "FILE" or action.type is Path:
            action.complete = shtab.FILE
