"""Questions about source text: draws without a generator, length of functions and files; and import-linter, run in a folder."""

import ast
import subprocess
import sys

DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson", "binomial"}
DRAWS |= {f"{name}_like" for name in ("rand", "randn", "randint")}
DRAWS |= {f"{name}_" for name in ("normal", "log_normal", "uniform", "bernoulli", "random", "exponential", "cauchy")}
DRAWS |= {f"{name}_{law}_" for name in ("xavier", "kaiming") for law in ("uniform", "normal")}
DRAWS |= {"dropout", "Dropout", "rvs", "rsample"}  # without an argument for the generator, or seldom given one
GENERATORS = ("rng", "np_random", "generator")  # numpy's own generators draw as methods of these names


def draws_without_generator(tree):
    """Every call that draws random numbers and is given no generator. (ruff bans the modules with a global one.)"""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    return [ast.unparse(call) for call in calls if call.func.attr in DRAWS and not _has_generator(call)]


def _has_generator(call):
    owner = ast.unparse(call.func.value).split(".")[-1].strip("_")
    return owner in GENERATORS or bool({keyword.arg for keyword in call.keywords} & {"generator", "random_state"})


def functions(source):
    return [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def lines_without_docstring(function):
    return function.end_lineno - function.lineno + 1 - _docstring_lines(function)


def file_lines_without_docstrings(source):
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return len(source.splitlines()) - sum(_docstring_lines(n) for n in ast.walk(tree) if isinstance(n, documented))


def _docstring_lines(node):
    if ast.get_docstring(node) is None:
        return 0
    return node.body[0].end_lineno - node.body[0].lineno + 1


def lint_imports(folder):
    """import-linter in a folder that holds the project: the finished process."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    return subprocess.run([*command, "--no-cache"], cwd=folder, capture_output=True, text=True)
