"""A parser of options whose errors are one line, with the near names where one is misspelt."""

import argparse
from collections.abc import Iterable
from typing import Any, NoReturn


class OneLineParser(argparse.ArgumentParser):
    """Errors in one line, exit code 2; an unknown option or choice is answered with the near ones."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and how to get help."""
        from envs.world import one_line  # here, so that `costate --help` answers at once

        self.exit(2, f"costate: {one_line(message, 300)} (see `{self.prog} --help`)\n")

    def refuse_unknown_options(self, arguments: Iterable[str]) -> None:
        """Refuse the first word that looks like an option and is none.

        argparse would first miss the option that was meant (`--lerner` leaves --learner without a value).
        """
        known = list(self._option_string_actions)
        for word in arguments:
            name = word.partition("=")[0]
            if word == "--":
                return
            if name.startswith("-") and name.strip("-")[:1].isalpha() and not any(k.startswith(name) for k in known):
                self.error(_unknown("option", name, [k for k in known if k.startswith("--")]))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is none of the choices, with the near ones; argparse itself lists them all."""
        if action.choices is not None and value not in action.choices:
            name = action.option_strings[-1] if action.option_strings else action.dest
            raise argparse.ArgumentError(None, _unknown(name, str(value), map(str, action.choices)))


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    from envs.world import unknown  # here, so that what is right is answered at once

    return str(unknown(what, name, known))
