"""Public docstrings of envs/, theory/ and agents/ name every argument, field, answer and error; API pages are made of them."""

import ast
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docstring_checks import incomplete, sections

ROOT = Path(__file__).parent.parent
LIBRARY = ("costate", "envs", "theory", "agents")
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for name in LIBRARY
    for path in sorted((ROOT / name).rglob("*.py"))
}


def test_every_public_docstring_is_complete():
    missing = {path: incomplete(source) for path, source in SOURCES.items()}
    assert {path: names for path, names in missing.items() if names} == {}


def public_functions(module):
    """The public functions of a module, and the methods of its public classes, found by importing it."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing):
            yield f"{module.__name__}.{name}", thing
        elif inspect.isclass(thing):
            own = {k: getattr(v, "__func__", v) for k, v in vars(thing).items() if not k.startswith("_")}
            yield from ((f"{module.__name__}.{name}.{k}", v) for k, v in own.items() if inspect.isfunction(v))


def test_the_parameters_of_the_imported_functions_are_named_too():
    """A second road, without the syntax trees: what `inspect` says of the functions as they are imported."""
    seen, unnamed = 0, []
    for package in LIBRARY:
        found = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        for module in [importlib.import_module(info.name) for info in found]:
            for name, function in public_functions(module):
                lines, seen = inspect.getdoc(function).splitlines(), seen + 1
                for parameter in set(inspect.signature(function).parameters) - {"self", "cls"}:
                    unnamed += (
                        [] if any(line.startswith(f"    {parameter}: ") for line in lines) else [(name, parameter)]
                    )
    assert unnamed == []
    assert seen > 400


PLUMBING = {
    "differences",
    "exact_ascent",
    "live_prefixes",
    "prefix_frames",
    "tree_size",
}  # they compute, and state nothing of their own


def sections_of(page):
    """`{section: its titles}` of the theory page, the section's own among them."""
    found, number = {}, None
    for level, title in re.findall(r"^(#{2,3}) (.+)$", page, re.M):
        if level == "##":
            number, _, title = title.partition(". ")
        found.setdefault(number, set()).add(title)
    return found


def test_every_module_of_theory_names_its_place_on_the_theory_page():
    page, places = sections_of((ROOT / "theory" / "README.md").read_text()), {}
    for path in (path for path in SOURCES if path.startswith("theory/") and not path.endswith("__init__.py")):
        places[path] = re.findall(
            r'^Theory page, section (\d): "(.+)"\.$', ast.get_docstring(ast.parse(SOURCES[path])), re.M
        )
    assert {path for path, named in places.items() if not named} == {
        path for path in places if Path(path).stem in PLUMBING
    }
    lost = [
        (path, place) for path, named in places.items() for place in named if place[1] not in page.get(place[0], ())
    ]
    assert lost == []


def test_a_section_that_is_not_there_would_be_seen():
    page = sections_of("# The page\n## 1. One\n### Of one\n## 2. Two\n")
    assert page == {"1": {"One", "Of one"}, "2": {"Two"}}


COMPLETE = '''
def f(x: int, *rest: int, scale: float = 1.0, **options: int) -> int:
    """Sum.

    Args:
        x: a number.
        rest: more of them.
        scale: a factor,
            on two lines.
        options: not used.

    Returns:
        The sum.

    Raises:
        InputError: x is negative.
    """
    if x < 0:
        raise InputError("x must be >= 0")
    return x
'''
RECORD = '''
@dataclass(frozen=True)
class Point:
    """A point.

    Attributes:
        x: first number.
    """

    x: int
    _cache: int = 0

    def moved(self) -> "Point":
        """Another point.

        Returns:
            The point.
        """
        return self._checked()

    def _checked(self) -> "Point":
        return self
'''
NETWORK = '''
class Net(nn.Module):
    """A network.

    Args:
        width: of it.
    """

    def __init__(self, width: int):
        super().__init__()
'''


@pytest.mark.parametrize(
    ("source", "old", "new", "missing"),
    [
        (COMPLETE, "        scale: a factor,\n            on two lines.\n", "", {"f": ["Args: scale"]}),
        (COMPLETE, "        rest: more of them.\n", "", {"f": ["Args: rest"]}),
        (COMPLETE, "        options: not used.\n", "", {"f": ["Args: options"]}),
        (COMPLETE, "        x: a number.", "        y: a number.", {"f": ["Args: x", "no parameter: y"]}),
        (COMPLETE, "    Returns:\n        The sum.\n", "", {"f": ["Returns"]}),
        (COMPLETE, "    Raises:\n        InputError: x is negative.\n", "", {"f": ["Raises"]}),
        (RECORD, "        x: first number.\n", "", {"Point": ["Attributes: x"]}),
        (RECORD, "        return self\n", '        raise InputError("no")\n', {"Point.moved": ["Raises"]}),
        (RECORD, "return self._checked()", "return whole('x', self.x, 0)", {"Point.moved": ["Raises"]}),
        (NETWORK, "        width: of it.\n", "", {"Net": ["Args: width"]}),
    ],
)
def test_what_a_docstring_leaves_out_would_be_seen(source, old, new, missing):
    assert incomplete(source) == {}
    assert source.count(old) >= 1
    assert incomplete(source.replace(old, new)) == missing


def test_private_functions_properties_and_functions_that_return_nothing_need_no_sections():
    sources = (
        "def _f(x: int) -> int:\n    return x\n",
        'class A:\n    """A."""\n\n    @property\n    def x(self) -> int:\n        """X."""\n        return 1\n',
        'def f() -> None:\n    """Do it."""\n',
        'def f() -> None:\n    """Do it."""\n\n    def g(x: int) -> int:\n        raise InputError("no")\n',
    )
    assert [incomplete(source) for source in sources] == [{}] * len(sources)


def test_an_entry_needs_a_text_and_its_place_in_a_section():
    text = "One.\n\nArgs:\n    a: text\n    b:\n        more: not an entry\n\nElse.\n    c: text"
    assert sections(text) == {"Args": ["a"]}


def pdoc_command(out):
    """The command of CONTRIBUTING.md, with this interpreter and another folder; a module that is not there is left out."""
    (line,) = [
        line
        for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines()
        if line.startswith("EAGER_IMPORT=1 .venv/bin/pdoc ")
    ]
    words = line.partition("   ")[0].split()[2:]
    modules = [word for word in words[words.index("-o") + 2 :] if find_spec(word)]
    return [sys.executable, "-W", "error::UserWarning", "-m", "pdoc", *words[: words.index("-o")], "-o", out, *modules]


@pytest.mark.skipif(find_spec("pdoc") is None, reason="pdoc comes with the extra `dev`")
def test_one_command_makes_the_api_pages_without_a_warning(tmp_path):
    eager = {**os.environ, "EAGER_IMPORT": "1"}  # pdoc sees what a module holds, not what it would import
    done = subprocess.run(pdoc_command(tmp_path), cwd=ROOT, env=eager, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-2000:]
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    sources = [path for name in (*LIBRARY, "figures") for path in (ROOT / name).rglob("*.py")]
    # the names of costate are on one page; notebooks are no modules
    sources = [path for path in sources if path.parent.name not in ("costate", "notebooks")]
    public = [path.relative_to(ROOT).as_posix() for path in sources if path.stem != "__main__"]
    assert {path.removesuffix("/__init__.py").removesuffix(".py") + ".html" for path in public} <= pages
    assert 'id="exact"' in (tmp_path / "costate.html").read_text()
    page = (tmp_path / "theory" / "continuous" / "riccati.html").read_text()
    assert "<strong>world:</strong>" in page, (
        "arguments are no list: pdoc was not told that docstrings are in Google style"
    )
