"""Every code block of the documents does what it shows: Python runs as written, commands parse, the marked ones run.

A Python block runs in a fresh namespace; one marked `<!-- continues -->` goes on from the block before it. A block marked
`<!-- file: NAME -->` is a file of the reader's, written into the folder in which the others run.
"""

import contextlib
import io
import re
from importlib.util import find_spec

import pytest

from figures import cli
from tests.documents import FENCE, ROOT, SMALL, Block, blocks, commands, files_of, is_shell

FOUND = (ROOT / "README.md", *ROOT.glob("*/README.md"), ROOT / "figures/audit/README.md")
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in FOUND)
PYTHON = [(page, block) for page in PAGES for block in blocks(ROOT / page) if block.language == "python"]
SHELL = [(page, block) for page in PAGES for block in blocks(ROOT / page) if is_shell(block)]
TOLD = {"", "python", "json", "math", "text"}  # languages of blocks that are understood here


def name(page, block):
    return f"{page}: {block.text.strip().splitlines()[0][:40]}"


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A function that makes the current folder one with a page's files."""

    def begin(page):
        for file, text in files_of(ROOT / page).items():
            (tmp_path / file).write_text(text)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return begin


def test_every_folder_has_its_page_and_every_block_a_known_kind():
    assert {
        "agents/README.md",
        "benchmarks/README.md",
        "envs/README.md",
        "figures/README.md",
        "theory/README.md",
    } <= set(PAGES)
    for page in PAGES:
        text = (ROOT / page).read_text()
        assert text.count("```") % 2 == 0
        for block in blocks(ROOT / page):
            assert block.language in TOLD, block
            assert block.language or is_shell(block) or "python -m" in block.text, block
    assert len(PYTHON) > 8
    assert len(SHELL) > 5


@pytest.mark.parametrize("page", sorted({page for page, _ in PYTHON}))
def test_the_python_of_a_page_runs_as_written(page, reader, uses_global_rng):
    reader(page)
    names = {}
    for _, block in (pair for pair in PYTHON if pair[0] == page):
        if "extra" in block.markers and find_spec(block.markers["extra"]) is None:
            continue
        if "continues" not in block.markers:
            names = {"__name__": "reader"}
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block.text, name(page, block), "exec"), names)


@pytest.mark.parametrize("pair", SHELL, ids=lambda pair: name(*pair))
def test_every_command_of_a_page_is_one(pair):
    for words in commands(pair[1]):
        options, module = cli._parse(words)
        assert options.command == words[0]
        assert callable(module.run)


@pytest.mark.parametrize("pair", [pair for pair in SHELL if "run" in pair[1].markers], ids=lambda pair: name(*pair))
def test_the_marked_commands_run(pair, reader, capsys):
    """At their smallest sizes, one after the other in one folder with the page's files."""
    folder = reader(pair[0])
    for words in commands(pair[1]):
        with pytest.raises(SystemExit) as stopped:
            cli.main([*words, *SMALL[words[0]].split()])
        assert stopped.value.code == 0, capsys.readouterr().err
    assert any(folder.rglob("*.png"))


def test_a_block_that_is_wrong_would_be_seen():
    wrong = Block(
        "page", {}, "", "costate check costate_mean    explained\ncostate chek costate_mean\ncostate check --sed 1\n"
    )
    assert commands(wrong) == [["check", "costate_mean"], ["chek", "costate_mean"], ["check", "--sed", "1"]]
    cli._parse(commands(wrong)[0])
    for words in commands(wrong)[1:]:
        with pytest.raises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
            cli._parse(words)
    marked = "<!-- file: a.py -->\n<!-- run -->\n```python\nundefined_name\n```\n"
    ((above, _, language, text),) = FENCE.findall(marked)
    assert "file: a.py" in above
    assert language == "python"
    with pytest.raises(NameError):
        exec(text, {})


def test_links_between_pages_lead_somewhere():
    for page in (*PAGES, "CONTRIBUTING.md"):
        text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text(), flags=re.M | re.S)
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)", text):
            path = ((ROOT / page).parent / target) if target else ROOT / page
            assert path.exists(), (page, target)
            if anchor:
                headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
                anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in anchors, (page, target, anchor)
