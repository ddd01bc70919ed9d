"""figures/README.md explains every option of every command; benchmarks/README.md has every benchmark."""

import argparse
import importlib
import re
from pathlib import Path

import pytest

from figures.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "figures" / "README.md").read_text()
SHARED = {"--preset", "--seed", "--jobs", "--device"}  # explained with `check`


def section(command):
    """The part of the page on a command; plot and report share one."""
    heading = re.search(rf"^### costate [^\n]*\b{command}\b[^\n]*\n(.*?)(?=^##)", PAGE, re.M | re.S)
    assert heading, command
    return heading[1]


def options(command):
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(COMMANDS[command][0]).add_options(parser)
    return {name for action in parser._actions for name in action.option_strings}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_explains_the_options_of_a_command_and_no_others(command):
    told = set(re.findall(r"`(--[\w-]+)", re.sub(r"^```.*?^```$", "", section(command), flags=re.M | re.S)))
    there = options(command)
    assert there - told == set()
    assert told - there <= (options("plot") | options("report") if command in ("plot", "report") else {"--out"})
    assert set(re.findall(r"`(--[\w-]+)", section("check"))) >= SHARED


def test_defaults_that_the_page_gives_are_those_of_the_commands():
    """Numbers after "default:" in the rows of one option each."""
    checked = 0
    for command in COMMANDS:
        parser = argparse.ArgumentParser(add_help=False)
        importlib.import_module(COMMANDS[command][0]).add_options(parser)
        defaults = {name: action.default for action in parser._actions for name in action.option_strings}
        for row in re.findall(r"^\| (`--.*) \|$", section(command), re.M):
            names, (given,) = (
                re.findall(r"`(--[\w-]+)", row.split(" | ")[0]),
                re.findall(r"\(default: ([\d., ]+)\)", row) or [""],
            )
            numbers = [float(x) for x in given.split(", ") if x]
            for name, number in zip(names, numbers, strict=False):
                assert float(defaults[name]) == number, (command, name)
                checked += 1
    assert checked > 30


def test_the_folders_of_the_page_are_those_there_are():
    rows = re.findall(r"^\| `(\w+)/` \|", PAGE, re.M)
    folders = {path.name for path in (ROOT / "figures").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert set(rows) == folders


def test_the_page_of_the_benchmarks_has_every_benchmark():
    page = (ROOT / "benchmarks" / "README.md").read_text()
    there = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"__init__", "claim_costs", "timing"}
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == there
    dated = page.split("| benchmark |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(dated) > 15
    assert all(re.search(r"\| \d{4}-\d\d-\d\d \|$", row) for row in dated)


def test_a_command_of_the_page_of_the_benchmarks_names_a_benchmark():
    page = (ROOT / "benchmarks" / "README.md").read_text()
    named = re.findall(r"^python -m benchmarks\.(\w+)$", page, re.M)
    assert named
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in named)
