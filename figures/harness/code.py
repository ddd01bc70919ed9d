"""Which code a record is valid for: a digest of syntax trees, so that prose voids no result and no file is forgotten."""

import ast
import hashlib
import importlib.metadata
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
# Every module of these folders can change numbers. A claim's own file is added to them, and the study's folder.
_FOLDERS = ("envs", "theory", "agents", "figures/harness", "figures/measures")
_LIBRARIES = ("torch", "numpy", "scipy", "gymnasium", "pandas", "matplotlib")


def digest(text: str) -> str:
    """A short, stable name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def syntax(source: str) -> str:
    """A source text without comments, docstrings and layout: equal texts compute the same."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [statement for statement in node.body if not _is_text(statement)] or [ast.Pass()]
    return ast.dump(tree)


def _is_text(statement: ast.stmt) -> bool:
    """A string that stands alone: a docstring, or the note under a field."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


@cache
def code_digest(module: str) -> str:
    """Digest of all code that can change what `module` measures, and of the libraries' versions.

    Args:
        module: dotted name of the module that measures, `figures.claims.tokens.error_map` for instance. For a module outside
            of figures/claims its whole folder counts.
    """
    own = ROOT / (module.replace(".", "/") + ".py")
    folders = [ROOT / folder for folder in _FOLDERS]
    paths = {path for folder in folders for path in folder.rglob("*.py")}
    paths |= {own} if "claims" in module.split(".") else set(own.parent.rglob("*.py"))
    parts = [f"{path.relative_to(ROOT).as_posix()}: {_syntax_of(path)}" for path in sorted(paths)]
    return digest("\n".join([*parts, repr(sorted(versions().items()))]))


@cache
def _syntax_of(path: Path) -> str:
    return digest(syntax(path.read_text()))


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that make the numbers."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _LIBRARIES}}


def writer(module: str) -> dict[str, str]:
    """The program that writes a file now: digest of the code that `module` runs, and the versions."""
    return {"code": code_digest(module), **versions()}


def other_parts(written_by: Any, module: str) -> list[str]:
    """Which parts of `writer(module)` differ from those that a file names as its own; all where it names none."""
    known = written_by if isinstance(written_by, dict) else {}
    return sorted(name for name, value in writer(module).items() if known.get(name) != value)


@cache
def revision() -> str:
    """The commit of the checkout, with "+changes" where it was edited; the package version outside a checkout."""
    return _commit() or "version " + importlib.metadata.version("costate-lab")


def version() -> str:
    """The version of the package, and the commit in brackets where this is a checkout."""
    number, commit = importlib.metadata.version("costate-lab"), _commit()
    return f"{number} ({commit})" if commit else number


def _commit() -> str:
    """The commit of this repository, "" where there is none: a package that lies in another's repository has none."""
    try:
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != ROOT:
            return ""
        return _git("rev-parse", "--short=12", "HEAD") + ("+changes" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
