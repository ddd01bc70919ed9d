"""Costate Lab from Python: exact value gradients, costates and mean updates of your own policies, worlds and recipes.

`import costate` loads nothing heavy: a name is imported when it is first used (all at once with `EAGER_IMPORT=1` in the
environment). The names and where they live stand in `__init__.pyi`.

```python
import costate

world = costate.world("TokenParity", V=2, horizon=4)
policy = costate.Transformer(world.V, length=5)
costate.exact(world, policy, sites="layer1").frame()  # the value and the value gradient at every prefix
```
"""

import ast
import difflib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_PACKAGES = ("envs", "agents", "theory", "figures")


def _homes() -> dict[str, tuple[str, str]]:
    """Name -> (module, name there), from the imports of the stub file."""
    tree = ast.parse((_HERE / "__init__.pyi").read_text(encoding="utf-8"))
    lines = [line for line in tree.body if isinstance(line, ast.ImportFrom)]
    return {alias.asname or alias.name: (str(line.module), alias.name) for line in lines for alias in line.names}


def _refuse_shadows() -> None:
    """Raise ImportError, in one line, where one of our packages' names means a folder of the user's."""
    for name in _PACKAGES:
        place = _place_of(name)
        if place is not None and place != _HERE.parent / name:
            raise ImportError(
                f"costate: the folder {place} hides Costate Lab's own package {name!r}: rename it, or start Python in another "
                "folder (or with -P, or with PYTHONSAFEPATH=1, which leave the current folder out of the import path)"
            )


def _place_of(name: str) -> Path | None:
    """The folder (or file) that `import NAME` means, loaded already or not; None where there is none."""
    loaded = sys.modules.get(name)
    spec = importlib.util.find_spec(name) if loaded is None else loaded.__spec__
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve() if spec.origin else None


_refuse_shadows()
_HOMES = _homes()
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        return version("costate-lab")
    if name not in _HOMES:
        near = difflib.get_close_matches(name, __all__, n=3) or __all__
        raise AttributeError(f"module 'costate' has no name {name!r}; there are {', '.join(near)}")
    module, there = _HOMES[name]
    value = getattr(importlib.import_module(module), there)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What can be used."""
    return __all__


if os.environ.get("EAGER_IMPORT"):  # for tools that look at what a module holds; the variable is that of lazy-loader
    for _name in _HOMES:
        __getattr__(_name)
    __version__ = __getattr__("__version__")
