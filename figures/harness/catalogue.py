"""Names and one-line texts of claims, worlds and learners, read from the source files: nothing heavy is imported.

`costate list`, `costate --help` and the shell completion answer with them at once. Only literals are read: a `CLAIM` with its
statement and parts, the table `WORLDS` with its builders, and the functions that `@recipe` decorates.
"""

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from figures.harness.code import ROOT
from figures.harness.registry import CLAIMS, STUDIES

_WORLDS, _LEARNERS = "envs/registry.py", "agents/recipes/learners.py"
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class ClaimText:
    """What a claim says of itself.

    Attributes:
        name, part, statement, assumptions, documented: as in `figures.harness.claim.Claim` and the table of claims.
        study: name of the study that it shares, "" for none.
    """

    name: str
    part: str
    statement: str
    assumptions: tuple[str, ...]
    documented: str
    study: str


@dataclass(frozen=True)
class BuilderText:
    """A world or a learner: one line of what it is, and the keywords of its builder."""

    description: str
    options: tuple[str, ...]


def claim_texts() -> list[ClaimText]:
    """All claims, in the documented order."""
    return [_claim(part, name) for part, names in CLAIMS.items() for name in names]


def _claim(part: str, name: str) -> ClaimText:
    source = (ROOT / "figures" / "claims" / part / f"{name}.py").read_text(encoding="utf-8")
    call = _assigned(
        ast.parse(source[source.index("\nCLAIM = ") :]), "CLAIM"
    )  # the rest is long, and says nothing here
    assert isinstance(call, ast.Call)
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    assumptions = ast.literal_eval(given["assumptions"]) if "assumptions" in given else ()
    imported, maker = re.findall(r"^from (\S+) import", source, re.MULTILINE), ast.unparse(call.func)
    study = next((study for study, module in STUDIES.items() if maker != "Claim" and module in imported), "")
    statement = ast.literal_eval(given["statement"])
    return ClaimText(name, part, statement, tuple(assumptions), _documented(given["parts"]), study)


def _documented(parts: ast.expr) -> str:
    """As in `Claim.documented`: "fails" where one of the claim's own parts is documented to fail."""
    made = [node for node in ast.walk(parts) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Part"]
    says = [{value.value for value in ast.walk(part) if isinstance(value, ast.Constant)} for part in made]
    return "fails" if any({"claim", "fails"} <= words for words in says) else "holds"


def assumption_texts() -> dict[str, str]:
    """The assumptions A1 ... A6."""
    texts: dict[str, str] = ast.literal_eval(_assigned(_tree("figures/harness/claim.py"), "ASSUMPTIONS"))
    return texts


def world_texts() -> dict[str, BuilderText]:
    """All registered worlds."""
    tree = _tree(_WORLDS)
    table: Any = _assigned(tree, "WORLDS")
    texts = {}
    for key, entry in zip(table.keys, table.values, strict=True):
        builder, description = entry.args[:2]
        options = _world_options(*_found(tree, builder))
        texts[str(ast.literal_eval(key))] = BuilderText(ast.literal_eval(description), options)
    return texts


def learner_texts() -> dict[str, BuilderText]:
    """All learners of `costate train`."""
    recipes = [node for node in _tree(_LEARNERS).body if isinstance(node, _Function) and _is_recipe(node)]
    return {node.name: BuilderText(_first_line(node), _arguments(node)) for node in recipes}


def _is_recipe(function: _Function) -> bool:
    return any(ast.unparse(decorator) == "recipe" for decorator in function.decorator_list)


def _first_line(function: _Function) -> str:
    return (ast.get_docstring(function) or "").split("\n")[0]


# ---- options of a world: the builder's keywords, or those of the scalar world and the fields of its variant


def _world_options(module: str, name: str) -> tuple[str, ...]:
    builder = _definition(module, name)
    if isinstance(builder, ast.ClassDef):
        return _fields(builder)
    if builder.args.kwarg is None:
        return _arguments(builder)
    system = "envs/linear_quadratic.py"
    variant = _definition(module, ast.unparse(builder.returns)) if builder.returns else None
    own = _fields(variant) if isinstance(variant, ast.ClassDef) else ()
    matrices = _fields(_definition(system, "LinearQuadratic"))
    return (*_arguments(_definition(system, "scalar")), *(name for name in own if name not in matrices))


def _found(tree: ast.Module, builder: ast.expr) -> tuple[str, str]:
    """File and name of a builder that is written `module.function`, or as a name that is imported."""
    if isinstance(builder, ast.Attribute):
        return f"envs/{ast.unparse(builder.value)}.py", builder.attr
    name = ast.unparse(builder)
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    module = next(node.module for node in imports if name in [alias.name for alias in node.names])
    return f"{str(module).replace('.', '/')}.py", name


def _definition(module: str, name: str) -> Any:
    """A function or class of a module; a class that it imports is looked up where it comes from."""
    tree = _tree(module)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
    return _definition(*_found(tree, ast.Name(name)))


def _arguments(function: _Function) -> tuple[str, ...]:
    return tuple(argument.arg for argument in (*function.args.args, *function.args.kwonlyargs))


def _fields(made: ast.ClassDef) -> tuple[str, ...]:
    """Names of a dataclass's own fields."""
    annotated = [node for node in made.body if isinstance(node, ast.AnnAssign)]
    return tuple(ast.unparse(node.target) for node in annotated if "ClassVar" not in ast.unparse(node.annotation))


def _assigned(tree: ast.Module, name: str) -> ast.expr:
    """What a module assigns to a name."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return node.value
    raise LookupError(name)


@cache
def _tree(path: str) -> ast.Module:
    return ast.parse((ROOT / Path(path)).read_text(encoding="utf-8"))
