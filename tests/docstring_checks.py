"""What a public docstring leaves out: arguments, fields, the answer, and the errors that the body raises.

A docstring is complete in Google style when `Args:` has an entry for every parameter, `Returns:` (or `Yields:`) says what
comes back unless that is None, `Raises:` is there where the body raises an InputError (itself, by private functions of its
module, or by one that is named `check_...`), and `Attributes:` has an entry for every public field of a class. What `__init__`
takes stands under `Args:` in the docstring of its class. Properties need one sentence alone.
"""

import ast
import re

_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Note|Example|Examples):$")
_ENTRY = re.compile(r"^    (\*{0,2}\w+)(?: \([^)]*\))?: +\S")


def incomplete(source):
    """`{qualified name: what is missing}` of every public function, method and class of a module."""
    tree, found = ast.parse(source), {}
    refusing = _refusing(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and _public(node):
            found[node.name] = missing_in_function(node, refusing)
        if isinstance(node, ast.ClassDef) and _public(node):
            found[node.name] = missing_in_class(node, refusing)
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef) and _public(n)]
            found |= {f"{node.name}.{n.name}": missing_in_function(n, refusing) for n in methods}
    return {name: missing for name, missing in found.items() if missing}


def missing_in_function(function, refusing=frozenset()):
    """What the docstring of a function or method lacks; `refusing` are private functions that raise an InputError."""
    if {"setter", "overload"} & set(_decorators(function)):
        return []
    if {"property", "cached_property"} & set(_decorators(function)):
        return [] if ast.get_docstring(function) else ["docstring"]
    has = sections(ast.get_docstring(function) or "")
    missing = _missing_arguments(function, has)
    returns = function.returns is not None and ast.unparse(function.returns) not in ("None", "NoReturn")
    if returns and not {"Returns", "Yields"} & set(has):
        missing.append("Returns")
    return missing + (["Raises"] if _raises(function, refusing) and "Raises" not in has else [])


def missing_in_class(node, refusing=frozenset()):
    """What the docstring of a class lacks: entries for its public fields, or for the parameters of its `__init__`."""
    has = sections(ast.get_docstring(node) or "")
    methods = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
    missing = [f"Attributes: {name}" for name in _fields(node) if name not in has.get("Attributes", ())]
    if "__init__" in methods:
        missing += _missing_arguments(methods["__init__"], has)
    made = [methods[name] for name in ("__init__", "__post_init__") if name in methods]
    raises = any(_raises(method, refusing) for method in made)
    return missing + (["Raises"] if raises and "Raises" not in has else [])


def _missing_arguments(function, has):
    said, taken = [name.lstrip("*") for name in has.get("Args", ())], _parameters(function)
    strangers = [f"no parameter: {name}" for name in said if name not in taken]
    return [f"Args: {name}" for name in taken if name not in said] + strangers


def sections(docstring):
    """`{section: names of its entries}` of a docstring whose margin is cut off."""
    found, current = {}, None
    for line in docstring.splitlines():
        if heading := _SECTION.match(line):
            current = found.setdefault(heading[1], [])
        elif line and not line.startswith(" "):
            current = None
        elif current is not None and (entry := _ENTRY.match(line)):
            current.append(entry[1])
    return found


def _public(node):
    return not node.name.startswith("_") or node.name == "__call__"


def _decorators(node):
    names = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    return [ast.unparse(name).split(".")[-1] for name in names]


def _parameters(function):
    a = function.args
    names = [x.arg for x in a.posonlyargs + a.args if x.arg not in ("self", "cls")]
    names += [x.arg for x in (a.vararg, *a.kwonlyargs, a.kwarg) if x is not None]
    return [name for name in names if not name.startswith("_")]


def _fields(node):
    """Public fields of a dataclass or a NamedTuple."""
    record = "dataclass" in _decorators(node) or "NamedTuple" in [ast.unparse(base) for base in node.bases]
    declared = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    own = [n.target.id for n in declared if not ast.unparse(n.annotation).startswith("ClassVar")]
    return [name for name in own if not name.startswith("_")] if record else []


def _refusing(tree):
    """Names of the private functions and methods of a module that raise an InputError, themselves or by each other."""
    private = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and re.match("_[^_]", n.name)]
    names = frozenset()
    while (larger := frozenset(n.name for n in private if _raises(n, names))) != names:
        names = larger
    return names


def _raises(function, refusing):
    """Whether the body raises an InputError or calls what does, outside functions that it defines."""
    inner = [f for f in ast.walk(function) if isinstance(f, ast.FunctionDef) and f is not function]
    nested = {id(n) for f in inner for n in ast.walk(f)}
    nodes = [n for n in ast.walk(function) if id(n) not in nested]
    raised = [ast.unparse(n.exc) for n in nodes if isinstance(n, ast.Raise) and n.exc is not None]
    called = [ast.unparse(n.func).split(".")[-1] for n in nodes if isinstance(n, ast.Call)]
    return any("InputError" in error or error.startswith("unknown(") for error in raised) or any(
        name in refusing or name.startswith("check_") or name == "whole" for name in called
    )
