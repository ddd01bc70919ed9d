"""The README's commands, names and pictures are those of the code."""

import re
from pathlib import Path

import gymnasium

import envs  # noqa: F401
from figures.harness.claim import ASSUMPTIONS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def block(name):
    """The fenced block that follows a marker."""
    return re.search(rf"<!-- command: {name} -->\n```\n(.*?)```", README, re.S).group(1).strip().splitlines()


def test_both_commands_install_with_the_constraints_into_a_virtual_environment():
    for name in ("check", "test"):
        lines = block(name)
        assert lines[0] == "python3 -m venv .venv"
        assert lines[1].startswith(".venv/bin/pip install -c constraints.txt -e ")
    assert block("check")[2] == ".venv/bin/costate check"
    assert block("test")[2] == ".venv/bin/python -m pytest"


def test_ci_takes_its_test_command_from_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    assert "command: test" in script
    assert "README.md" in script
    assert "ruff check" in script
    assert "mypy" in script


def test_every_registered_world_is_in_the_readme_and_the_other_way_round():
    registered = {name.split("/")[1].removesuffix("-v0") for name in gymnasium.registry if name.startswith("costate/")}
    table = README[README.index("## The worlds") : README.index("## The tree")]
    named = set(re.findall(r"`([A-Z]\w+)`", table))
    assert registered == named


def test_the_assumptions_of_the_readme_are_those_of_the_claims():
    for key, text in ASSUMPTIONS.items():
        row = next(line for line in README.splitlines() if line.startswith(f"| {key} |"))
        assert text.replace("`", "") in row.replace("`", "")


def test_every_picture_of_the_readme_is_in_the_gallery_and_nothing_else_is():
    shown = set(re.findall(r"\(figures/gallery/(\w+\.png)\)", README))
    assert len(shown) == 11
    assert shown == {path.name for path in (ROOT / "figures" / "gallery").iterdir()}


def test_the_constraints_pin_torch_and_every_dependency():
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()
    project = (ROOT / "pyproject.toml").read_text()
    for name in re.findall(r'^\s+"([a-z0-9-]+)>=', project, re.M):
        assert name in pinned, name
