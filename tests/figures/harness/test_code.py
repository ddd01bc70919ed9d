"""What a record is valid for: every change of the code that can change numbers, and no change of prose."""

import importlib
from pathlib import Path

import pytest

from figures.harness import code
from figures.harness.code import ROOT, code_digest, syntax
from figures.harness.registry import CLAIM_NAMES, STUDIES, module_name

FOLDERS = ("envs", "theory/tokens", "agents/policies", "figures/harness", "figures/measures", "figures/drawing")
SOURCE = '"""What it does."""\n\nX = 1  # a number\n\n\ndef f(x):\n    """Twice x."""\n    return 2 * x\n'


@pytest.mark.parametrize(
    "same",
    [
        SOURCE.replace("What it does", "Something else"),
        SOURCE.replace("  # a number", ""),
        SOURCE.replace("    return", "\n    # why\n    return"),
        SOURCE.replace('    """Twice x."""\n', ""),
        SOURCE.replace("2 * x", "(2 * x)"),
    ],
)
def test_prose_and_layout_change_nothing(same):
    assert same != SOURCE
    assert syntax(same) == syntax(SOURCE)


@pytest.mark.parametrize(
    "change", [("2 * x", "3 * x"), ("X = 1", "X = 2"), ("def f(x)", "def f(x, y=0)"), ("X = 1", 'X = "1"')]
)
def test_a_change_of_the_code_is_another_syntax(change):
    assert syntax(SOURCE.replace(*change)) != syntax(SOURCE)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A small project in the place of ours; gives a function that writes a file and takes the digest anew."""
    module = "figures.claims.part.mine"
    monkeypatch.setattr(code, "ROOT", tmp_path)

    def digest(path: str = "", text: str = "", of: str = module) -> str:
        if path:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        code.code_digest.cache_clear()
        code._syntax_of.cache_clear()
        return code_digest(of)

    files = {f"{folder}/a.py": "A = 1\n" for folder in FOLDERS}
    claims = {f"figures/claims/part/{name}.py": "def measure(): return 1\n" for name in ("mine", "other")}
    for path, text in {**claims, **files}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    yield digest
    code.code_digest.cache_clear()
    code._syntax_of.cache_clear()


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("envs/a.py", True),
        ("theory/tokens/a.py", True),
        ("agents/policies/new.py", True),  # a new helper is never forgotten
        ("theory/new/new.py", True),
        ("figures/measures/a.py", True),
        ("figures/claims/part/mine.py", True),
        ("figures/claims/part/other.py", False),
        ("figures/drawing/a.py", False),
    ],
)
def test_the_folders_that_can_change_numbers_count_and_no_others(tree, path, counts):
    before = tree()
    assert (tree(path, "B = 2\n") != before) == counts


def test_a_study_counts_with_its_whole_folder(tree):
    tree("figures/impact/runs.py", "def measure(): return 1\n")
    before = tree(of="figures.impact.runs")
    assert tree("figures/impact/numbers.py", "B = 1\n", of="figures.impact.runs") != before


def test_every_measuring_module_lies_where_its_digest_looks():
    for name in (*CLAIM_NAMES, *STUDIES):
        module = module_name(name)
        file = importlib.import_module(module).__file__
        assert Path(file) == ROOT / (module.replace(".", "/") + ".py")
