"""Questions about source text that the architecture tests ask: imports, draws of random numbers, length, docstrings."""

import ast

# numpy: what makes a generator; torch: what draws from the global one unless a generator is given
MAKES_GENERATOR = {"default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64", "Philox"}
DRAWS = set(["rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson", "binomial"])
DRAWS |= {f"{name}_like" for name in ("rand", "randn", "randint")}
DRAWS |= {f"{name}_" for name in ("normal", "log_normal", "uniform", "bernoulli", "random", "exponential", "cauchy")}
DRAWS |= {f"{name}_{law}_" for name in ("xavier", "kaiming") for law in ("uniform", "normal")}
GLOBAL_STATE = {"manual_seed", "manual_seed_all", "set_rng_state", "fork_rng", "dropout", "Dropout", "rvs", "rsample"}
GENERATOR_ARGUMENTS = {"generator", "random_state"}


def dotted(node):
    """`np.random.rand` as text; empty for what is no plain chain of names."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported(tree, package):
    """Top-level names that a module imports, lazily or not; a relative import stays in its own package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield package if node.level else node.module.split(".")[0]
        elif isinstance(node, ast.Call) and dotted(node.func).endswith(("import_module", "__import__")):
            yield from (arg.value.split(".")[0] for arg in node.args[:1] if isinstance(arg, ast.Constant))


def global_randomness(source):
    """Every use of a global generator in a source text."""
    tree, found = ast.parse(source), []
    found += [f"import {name}" for name in imported(tree, "") if name in {"random", "secrets"}]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in {"numpy.random", "torch.random"}:
            found += [alias.name for alias in node.names if alias.name not in MAKES_GENERATOR]
        if isinstance(node, ast.Attribute) and dotted(node.value) in {"np.random", "numpy.random", "torch.random"}:
            found += [dotted(node)] if node.attr not in MAKES_GENERATOR else []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            found += [ast.unparse(node)] if draws_globally(node) else []
    return found


def draws_globally(call):
    """A draw without a generator; a generator's own methods (`rng.normal()`) and seeding one (`g.manual_seed`) are fine."""
    name, owner = call.func.attr, dotted(call.func.value)
    given = {keyword.arg for keyword in call.keywords} & GENERATOR_ARGUMENTS
    if name in GLOBAL_STATE:
        return not given and not (name == "manual_seed" and not owner.startswith("torch"))
    own = owner.split(".")[-1].strip("_") in {"rng", "np_random", "generator"}
    return name in DRAWS and not given and not own


def functions(source):
    return [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def lines_without_docstring(function):
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    return function.end_lineno - function.lineno + 1 - (first.end_lineno - first.lineno + 1 if documented else 0)


def undocumented(source):
    """Public functions, classes and methods without a docstring; dunder methods are told by their class."""

    def visit(body, prefix):
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None:
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from visit(node.body, f"{prefix}{node.name}.")

    return list(visit(ast.parse(source).body, ""))
