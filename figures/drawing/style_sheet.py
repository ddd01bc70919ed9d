"""A user's Matplotlib style sheet: read and checked before anything is drawn."""

import logging
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

from matplotlib import RcParams, rc_params_from_file
from matplotlib import style as matplotlib_style

from envs.arguments import short
from envs.world import InputError, one_line

_NOT_STYLE: tuple[str, ...] = (
    "backend",
    "interactive",
    "toolbar",
    "webagg.",
    "timezone",
    "tk.",
    "date.epoch",
    "docstring.",
    "figure.max_open",
)
_NOT_STYLE += ("figure.raise_window", "savefig.directory")


def read_style(style: str | Path | Mapping[str, Any] | None) -> dict[str, Any]:
    """The parameters of a style sheet.

    Args:
        style: a file, the name of a style that Matplotlib knows, or parameter -> value.

    Returns:
        Parameter -> value; what is no matter of style (the backend, for instance) is left out.

    Raises:
        InputError: the file is missing or a line of it is wrong.
    """
    if style is None:
        return {}
    with _complaints_as_errors(style):
        if isinstance(style, Mapping):
            sheet = RcParams(style)
        elif str(style) in matplotlib_style.library:
            sheet = matplotlib_style.library[str(style)]
        else:
            sheet = rc_params_from_file(style, fail_on_error=True, use_default_template=False)
    kept: dict[str, Any] = {key: value for key, value in sheet.items() if not key.startswith(_NOT_STYLE)}
    if kept.get("text.usetex") and shutil.which("latex") is None:
        raise InputError(f"style {short(str(style))}: text.usetex needs LaTeX, which is not installed: leave it out")
    return kept


@contextmanager
def _complaints_as_errors(style: Any) -> Iterator[None]:
    """Errors, and what Matplotlib only logs, as an `InputError` of one line."""
    handler, logger = BufferingHandler(sys.maxsize), logging.getLogger("matplotlib")
    spread, logger.propagate = logger.propagate, False
    refused: list[str] = []
    logger.addHandler(handler)
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"style {short(str(style))} is no file, and no style that Matplotlib knows") from None
    except (OSError, ValueError, KeyError) as error:
        refused.append(str(error))
    finally:
        logger.removeHandler(handler)
        logger.propagate = spread
    heard = [*(record.getMessage() for record in handler.buffer), *refused]
    if heard:
        raise InputError(f"style {short(str(style))}: {one_line(heard[0].strip(), 200)}")
