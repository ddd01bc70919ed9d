"""How the code is laid out: who may import whom, no global randomness, short functions, documented names, no traces."""

import ast
import fnmatch
import re
from pathlib import Path

import pytest

from tests.source_checks import functions, global_randomness, imported, lines_without_docstring, undocumented

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "envs": set(),
    "theory": {"envs"},
    "agents": {"envs"},
    "figures": {"envs", "theory", "agents"},
}
OURS = {*MAY_IMPORT, "tests", "benchmarks"}
MODULES = sorted(path.relative_to(ROOT) for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))
every_module = pytest.mark.parametrize("path", MODULES, ids=str)


def wrong_imports(source, package):
    return (set(imported(ast.parse(source), package)) & OURS) - MAY_IMPORT[package] - {package}


def project_files():
    """Everything that belongs to the project: what .gitignore does not name."""
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()] + [".git", "shared"]
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if path.is_file() and not any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in ignored):
            yield path


def test_all_four_packages_are_under_watch():
    assert {path.parts[0] for path in MODULES} == set(MAY_IMPORT)
    assert len(MODULES) > 20


@every_module
def test_imports_follow_the_arrows(path):
    assert wrong_imports((ROOT / path).read_text(), path.parts[0]) == set()


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("envs", "import theory.continuous.lyapunov as t"),
        ("theory", "from agents.sampling.rollout import rollout"),
        ("agents", "def f():\n    from theory import linear_value"),
        ("envs", "importlib.import_module('figures.cli')"),
        ("figures", "import tests.oracles"),
        ("agents", "from figures import style"),
    ],
)
def test_a_wrong_import_would_be_seen(package, line):
    assert wrong_imports(line, package)
    assert not wrong_imports("import envs.world\nfrom . import x\nimport torch", package)


@every_module
def test_no_module_uses_a_global_generator(path):
    assert global_randomness((ROOT / path).read_text()) == []


GLOBAL = """
import random | from random import choice | import secrets | np.random.seed(0) | numpy.random.normal(size=3)
np.random.RandomState | from numpy.random import rand | f = np.random.rand | torch.manual_seed(0) | torch.rand(3)
torch.cuda.manual_seed_all(1) | torch.randn((2, 3)) | torch.randint(3, (2,)) | x.normal_() | torch.randn_like(x)
torch.bernoulli(p) | torch.multinomial(p, 1) | x.uniform_(0, 1) | F.dropout(x) | nn.init.xavier_uniform_(w)
scipy.stats.norm.rvs(3) | dist.rsample() | torch.random.fork_rng()
"""
LOCAL = """
np.random.default_rng(0) | x: np.random.Generator | torch.Generator().manual_seed(0) | rng.standard_normal(3)
torch.rand(3, generator=rng) | torch.randn(3, generator=g, device=d) | rng.normal(0, 1) | x.normal_(generator=g)
stats.norm.rvs(3, random_state=rng) | self.np_random.normal() | torch.multinomial(p, 1, generator=g)
"""


@pytest.mark.parametrize("line", re.split(r" \| |\n", GLOBAL.strip()))
def test_a_global_draw_would_be_seen(line):
    assert global_randomness(line)


@pytest.mark.parametrize("line", re.split(r" \| |\n", LOCAL.strip()))
def test_a_draw_from_a_given_generator_is_fine(line):
    assert global_randomness(line) == []


@every_module
def test_functions_and_files_are_short(path):
    source = (ROOT / path).read_text()
    assert {f.name: lines_without_docstring(f) for f in functions(source) if lines_without_docstring(f) > 60} == {}
    assert len(source.splitlines()) <= 300


def test_length_counts_lines_but_not_the_docstring():
    (short,) = functions('def f():\n    """One\n    two."""\n    return 1\n')
    (plain,) = functions("@d\ndef f():\n    return 1\n")
    assert (lines_without_docstring(short), lines_without_docstring(plain)) == (2, 2)


@every_module
def test_every_public_name_is_documented(path):
    source = (ROOT / path).read_text()
    assert undocumented(source) == []
    assert ast.get_docstring(ast.parse(source))


def test_a_missing_docstring_would_be_seen():
    source = 'def f(): pass\ndef _g(): pass\nclass A:\n    "doc"\n    def m(self): pass\n    def __init__(self): pass'
    assert undocumented(source) == ["f", "A.m"]


def test_modules_are_named_for_what_they_do():
    assert [path for path in MODULES if path.stem in {"utils", "util", "common", "helpers", "helper", "misc"}] == []


HOSTS = r"https?://(\d+\.\d+|localhost|[\w.-]*(artifactory|nexus|mirror|proxy|internal))"
TRACES = re.compile(rf"/wor[k]/|/tmp/[v]/|/hom[e]/|/roo[t]/|pythonhoste[d]|index-ur[l]|trusted-hos[t]|{HOSTS}")


def test_no_file_tells_of_the_machine_it_was_written_on():
    texts = {str(path.relative_to(ROOT)): path.read_bytes().decode(errors="ignore") for path in project_files()}
    assert {"pyproject.toml", "tests/test_architecture.py"} <= set(texts)
    assert {name: TRACES.search(text)[0] for name, text in texts.items() if TRACES.search(text)} == {}


@pytest.mark.parametrize("text", ["/tmp/" + "v/bin", "/work" + "/main", "--index-" + "url x", "http:" + "//10.0.0.1/x"])
def test_a_trace_would_be_seen(text):
    assert TRACES.search(text)
    assert not TRACES.search("https://arxiv.org/abs/2605.21654 and framework/ and /tmp/value")
