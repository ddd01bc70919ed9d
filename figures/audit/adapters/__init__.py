"""Losses of this suite and of installed libraries, by name: `LIBRARY:NAME`, one file for each library.

An adapter module has `PACKAGE` (what pip installs; empty for this suite), `TRIED` (the version it was seen working with),
`names()` (the losses), `OPTIONS` (by name the values that `--vary` calls; those of one loss may be fewer) and
`build(name, **options)`, which gives a `figures.audit.contract.Subject`.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, Protocol, cast

from envs.world import InputError, unknown
from figures.audit.contract import Subject

_FILES = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name.endswith("_loss"))
LIBRARIES = tuple(sorted((name.removesuffix("_loss") for name in _FILES), key=lambda name: (name != "suite", name)))


class Adapter(Protocol):
    """What a module of this folder has.

    Attributes:
        PACKAGE: what pip installs.
        TRIED: the version that it was seen working with.
        OPTIONS: by name the values that `--vary` calls.
        names: gives the losses.
        build: gives the loss of this name with these options.
    """

    PACKAGE: str
    TRIED: str
    OPTIONS: Mapping[str, Sequence[Any]]
    names: Callable[[], list[str]]
    build: Callable[..., Subject]


def adapter(library: str) -> Adapter:
    """The adapter of a library; the library itself is not imported.

    Args:
        library: its name.

    Returns:
        The module.

    Raises:
        InputError: there is no adapter for it.
    """
    if library not in LIBRARIES:
        raise unknown("library", library, LIBRARIES)
    return cast(Adapter, importlib.import_module(f"figures.audit.adapters.{library}_loss"))


def installed(library: str) -> str:
    """The version of a library that is installed here; empty where there is none.

    Args:
        library: its name.

    Returns:
        The version.
    """
    package = adapter(library).PACKAGE
    try:
        return metadata.version(package or "costate-lab")
    except metadata.PackageNotFoundError:
        return ""


def build(spec: str, options: Mapping[str, Any]) -> Subject:
    """The loss that LIBRARY:NAME means.

    Args:
        spec: library and name.
        options: of the loss.

    Returns:
        The loss.

    Raises:
        InputError: the library is unknown, not installed, or of a version whose entry point is gone; the name or an option is
            unknown.
    """
    library, _, name = spec.partition(":")
    module = adapter(library)
    if not installed(library):
        raise InputError(f"{library} is not installed: pip install {module.PACKAGE}=={module.TRIED}")
    try:
        return module.build(name, **options)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{library} {installed(library)} lacks an entry point ({error}): pip install {module.PACKAGE}=={module.TRIED}"
        ) from None
