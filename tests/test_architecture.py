"""How the code is laid out, as far as no linter says it: sizes (without docstrings), names, draws from a global generator.

The arrows between the folders are contracts of import-linter and the bans are rules of ruff, both in pyproject.toml.
"""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source_checks import (
    draws_without_generator,
    file_lines_without_docstrings,
    functions,
    lines_without_docstring,
    lint_imports,
)

ROOT = Path(__file__).parent.parent
PACKAGES = ("envs", "theory", "agents", "figures", "benchmarks")
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text() for name in PACKAGES for path in (ROOT / name).rglob("*.py")
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("house")
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "gallery"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


WRONG_ARROWS = {
    "theory/impact.py": "from agents.policies import tabular",
    "envs/world.py": "import theory.impact",
    "figures/measures/oracles.py": "def f():\n    from figures.drawing import panels",
    "figures/claims/tokens/error_map.py": "from figures.claims.tokens import error_bound",
    "agents/policies/tabular.py": "from agents.training import trainer",
}


def test_imports_follow_the_arrows_and_a_wrong_one_would_be_seen(copy):
    assert "0 broken" in lint_imports(copy).stdout
    for path, line in WRONG_ARROWS.items():
        (copy / path).write_text(f"{SOURCES[path]}\n{line}\n")
    (copy / "figures" / "attic").mkdir()
    (copy / "figures" / "attic" / "__init__.py").write_text("")  # a room that nobody placed
    done = lint_imports(copy)
    assert done.returncode == 1
    modules = [line.split("import ")[-1].split()[0] for line in WRONG_ARROWS.values()]
    assert all(module in done.stdout for module in ("agents.policies", "theory.impact", "figures.attic")), modules
    broken = {line.split(" BROKEN")[0] for line in done.stdout.splitlines() if line.endswith("BROKEN")}
    assert len(broken) == 5, done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "import random",
        "import torch\ntorch.manual_seed(0)",
        "import matplotlib.pyplot as plt",
        "import numpy as np\nnp.random.seed(0)",
        "import matplotlib\nmatplotlib.use('agg')",
        "import torch\ntorch.set_default_dtype(torch.float64)",
    ],
)
def test_what_is_banned_would_be_seen(line):
    pytest.importorskip("ruff", reason="ruff comes with the extra `dev`")
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--select",
        "TID251,NPY002",
        "--stdin-filename",
        "figures/x.py",
        "-",
    ]
    assert subprocess.run(command, cwd=ROOT, input=line + "\n", capture_output=True, text=True).returncode == 1


def test_functions_and_files_are_short():
    long = {
        f"{path}:{function.name}": lines_without_docstring(function)
        for path, source in SOURCES.items()
        for function in functions(source)
        if lines_without_docstring(function) > 60
    }
    assert long == {}
    lines = {path: file_lines_without_docstrings(source) for path, source in SOURCES.items()}
    assert {path: count for path, count in lines.items() if count > 250} == {}


def test_a_claim_is_at_most_150_lines():
    claims = {path: len(source.splitlines()) for path, source in SOURCES.items() if path.startswith("figures/claims/")}
    assert len(claims) > 31
    assert {path: lines for path, lines in claims.items() if lines > 150} == {}


def test_length_counts_lines_but_not_the_docstring():
    (short,) = functions('def f():\n    """One\n    two."""\n    return 1\n')
    (plain,) = functions("@d\ndef f():\n    return 1\n")
    assert (lines_without_docstring(short), lines_without_docstring(plain)) == (2, 2)
    file = '"""A module\nof two lines."""\n\nclass A:\n    """A."""\n\n    x = """no\n    docstring"""\n'
    assert file_lines_without_docstrings(file) == 5


def test_modules_are_named_for_what_they_do():
    nameless = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert [path for path in SOURCES if Path(path).stem in nameless] == []


def test_no_module_draws_from_a_global_generator():
    draws = {path: draws_without_generator(ast.parse(source)) for path, source in SOURCES.items()}
    assert {path: calls for path, calls in draws.items() if calls} == {}


@pytest.mark.parametrize(
    ("line", "draws"),
    [
        ("torch.randn(3)", True),
        ("x.normal_()", True),
        ("nn.init.xavier_uniform_(w)", True),
        ("stats.norm.rvs(3)", True),
        ("dist.rsample()", True),
        ("F.dropout(x)", True),
        ("torch.randn(3, generator=g)", False),
        ("x.normal_(generator=g)", False),
        ("stats.norm.rvs(3, random_state=rng)", False),
        ("rng.normal(0, 1)", False),
        ("self.np_random.normal()", False),
    ],
)
def test_a_draw_without_a_generator_would_be_seen(line, draws):
    assert bool(draws_without_generator(ast.parse(line))) == draws
