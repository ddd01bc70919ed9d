"""The README's commands, names and pictures are those of the code; `tests/test_documents.py` runs the other pages."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
FINDINGS = (ROOT / "figures" / "FINDINGS.md").read_text()


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


def test_it_is_short():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert len(README.encode()) <= 9 * 1024
    assert max(map(len, lines)) <= 120


def numbers_of_findings(name):
    """All numbers of a claim's section of FINDINGS.md."""
    section = FINDINGS[FINDINGS.index(f"### {name}: ") :].split("\n### ")[0]
    return set(re.findall(r"\d[\d,.]*\d|\d", section))


def missing_numbers(readme):
    """Numbers of the table of sayings that the section behind their link does not have."""
    links = dict(re.findall(r"^\[(\w+)\]: figures/FINDINGS.md#(\w+?)-(?:holds|fails)$", readme, re.M))
    rows = re.findall(r"^\|[^|]*\|[^|]*\| ([^|]*) \| \[(\w+)\] \|$", readme, re.M)
    assert len(rows) == len(links) == 6
    return {
        n
        for text, link in rows
        for n in re.findall(r"\d[\d.]*\d|\d", text)
        if n not in numbers_of_findings(links[link])
    }


def test_every_number_of_its_table_stands_in_the_findings():
    """These are written from the records, never typed."""
    assert missing_numbers(README) == set()
    assert missing_numbers(README.replace("0.97", "0.98")) == {"0.98"}


def test_ci_takes_its_test_command_from_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    assert "command: test" in script
    assert "README.md" in script
    assert "ruff check" in script
    assert "mypy" in script


def test_every_picture_that_a_page_shows_is_there_and_the_gallery_holds_no_other():
    shown = {
        page: re.findall(r"!\[[^]]*\]\(([^)]+)\)", (ROOT / page).read_text())
        for page in ("README.md", "figures/FINDINGS.md", "figures/audit/README.md")
    }
    paths = {((ROOT / page).parent / picture).resolve() for page, pictures in shown.items() for picture in pictures}
    assert len(paths) >= 11
    assert all(path.is_file() for path in paths)
    assert {path for path in (ROOT / "figures" / "gallery").iterdir()} <= paths


def test_the_constraints_pin_torch_and_every_dependency():
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()
    project = (ROOT / "pyproject.toml").read_text()
    for name in re.findall(r'^\s+"([a-z0-9-]+)>=', project, re.M):
        assert name in pinned, name
