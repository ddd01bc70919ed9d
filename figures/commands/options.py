"""Options that several commands share, and how their values are read."""

import argparse
import json
import math
import os
import textwrap
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from envs.arguments import short
from envs.world import InputError, one_line
from figures.harness.claim import PRESETS

_MOST_JOBS = 1024  # processes; no system bears many more


def whole_number(least: int, text: str, most: int = 2**63 - 1) -> int:
    """A whole number from least to most, in plain digits, for argparse."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}; got {short(text)}")
    return int(text)


def number(least: float, most: float, text: str) -> float:
    """A number from least to most, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"must be a number from {least:g} to {most:g}; got {short(text)}")
    return value


def refuse_constant(name: str) -> NoReturn:
    """For JSON readers: NaN and infinities are no numbers here."""
    raise InputError(f"{name} is not a finite number")


def add_seed(parser: argparse.ArgumentParser, help: str) -> None:
    """--seed."""
    parser.add_argument("--seed", type=partial(whole_number, 0), default=0, metavar="S", help=f"{help} (default: 0)")


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device."""
    devices = ("auto", "cpu", "cuda")
    parser.add_argument("--device", choices=devices, default="auto", help="default: CUDA where there is one")


def add_run_options(parser: argparse.ArgumentParser, preset: str, out: Path) -> None:
    """What decides the points of claims, and where and how they are run."""
    parser.add_argument("--preset", choices=PRESETS, default=preset, help=f"settings (default: {preset})")
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help=f"results (default: {out})")
    add_device(parser)
    jobs = partial(whole_number, 1, most=_MOST_JOBS)
    parser.add_argument("--jobs", type=jobs, default=None, metavar="N", help="processes (default: one per core)")
    add_seed(parser, "seed of all noise")


def names_of(**kinds: Iterable[str]) -> str:
    """For the end of a help text: the names of each kind, in lines of 80 columns."""
    lists = (f"{kind}: {', '.join(names)}" for kind, names in kinds.items())
    return "\n\n".join(textwrap.fill(text, 78, subsequent_indent="  ") for text in lists)


def device_of(name: str) -> str:
    """The device to run on; refuses CUDA where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has no CUDA device that torch can use; take --device cpu or auto")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def default_jobs(device: str) -> int:
    """One process per core, or one for a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if device == "cpu" else 1


def pairs(option: str, given: list[str]) -> tuple[tuple[str, Any], ...]:
    """KEY=VALUE with the value read as JSON where it is some, else as text; of a key that comes twice the last counts."""
    values = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"{option} {one_line(text, 80)}: give KEY=VALUE")
        try:
            values[key] = json.loads(
                value.lower() if value in ("True", "False") else value, parse_constant=refuse_constant
            )
        except InputError as error:
            raise InputError(f"{option} {short(text)}: {error}") from None
        except (ValueError, RecursionError):
            values[key] = value
        if isinstance(values[key], float) and not math.isfinite(values[key]):
            raise InputError(f"{option} {short(text)}: must be a finite number")
    return tuple(sorted(values.items()))
