"""A user's own files: which may be opened, and functions in Python files of theirs, where every fault becomes one line."""

import functools
import importlib
import importlib.util
import inspect
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from envs.world import InputError, one_line, unknown

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def check_file(path: Path, what: str) -> None:
    """Refuse a path that is no regular file; nothing is opened, so that a pipe cannot hang.

    Args:
        path: a file that the user named, or one in a folder of theirs.
        what: what the file is; the error begins with it.

    Raises:
        InputError: a folder, a pipe, a device or a dangling link is there, or nothing.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        dangling = isinstance(error, FileNotFoundError) and path.is_symlink()
        raise InputError(
            f"{what} {_name(path)} cannot be read: {'a link to nothing' if dangling else reason}"
        ) from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{what} {_name(path)} is {_KINDS.get(stat.S_IFMT(mode), 'a device')}, not a file")


def load_user_function(spec: str, what: str = "--model", takes: str = "one argument, the world") -> Callable[..., Any]:
    """The function that MODULE:FUNCTION or FILE.py:FUNCTION names, guarded where it is called as well.

    The file is run once, by this call. It can import modules that lie beside it or in the current folder, also while the
    function runs. What the user's code prints goes to stderr.

    Args:
        spec: `my.py:build` or `package.module:build`.
        what: the option that named it; every error begins with `what spec`.
        takes: what the function will be called with, in words.

    Returns:
        A function that does the same, or raises InputError where the user's does not take the arguments, raises anything, or
        calls `sys.exit`.

    Raises:
        InputError: there is no such file, module or function, or the file cannot be run.
    """
    place, _, name = spec.rpartition(":")
    if not name or not (place.endswith(".py") or all(place.split("."))):
        raise InputError(f"{what} {_name(spec)} names no function: give MODULE:FUNCTION or FILE.py:FUNCTION")
    if place.endswith(".py"):
        check_file(Path(place), what)
    with users_code(spec, what):
        module = _run_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        function = getattr(module, name, None)
    if not callable(function):
        raise _no_function(f"{what} {_name(spec)}:", name, function, vars(module))

    @functools.wraps(function, updated=())
    def guarded(*arguments: Any, **keywords: Any) -> Any:
        with users_code(spec, what):
            _check_call(function, arguments, keywords, takes)
            return function(*arguments, **keywords)

    return guarded


def _no_function(where: str, name: str, found: Any, there: dict[str, Any]) -> InputError:
    """The error for a name that is no function, with the near functions of the module."""
    if found is not None:
        return InputError(f"{where} {_name(name)} is of type {type(found).__name__}, not a function")
    known = [other for other, x in there.items() if inspect.isfunction(x) and not other.startswith("_")]
    if not known:
        return InputError(f"{where} {_name(name)} is not there, and no other function is")
    return unknown(f"{where} function", name, known)


@contextmanager
def users_code(spec: str, what: str, measuring: bool = False) -> Iterator[None]:
    """While a user's code runs: whatever it raises becomes one line, and what it prints goes to stderr. Ctrl-C passes.

    Args:
        spec: the function that the user named.
        what: the option that named it; every error begins with `what spec`.
        measuring: the suite's own code runs as well, and its refusals pass as they are.

    Yields:
        Nothing.

    Raises:
        InputError: the code raised something, or called `sys.exit`.
    """
    file = Path(spec.rpartition(":")[0])
    try:
        with redirect_stdout(sys.stderr), _importable(Path.cwd(), file.resolve().parent):
            yield
    except KeyboardInterrupt:
        raise
    except InputError as error:
        if measuring:
            raise
        raise InputError(f"{what} {_name(spec)}: {error}") from None
    except SystemExit as error:
        raise InputError(f"{what} {_name(spec)} calls sys.exit({error.code!r}): it must return instead") from None
    except BaseException as error:
        kind, said = type(error).__name__, one_line(str(error), 200)
        raise InputError(f"{what} {_name(spec)} raises {kind}{_line_of(error, file)}: {said}") from error


@contextmanager
def _importable(*folders: Path) -> Iterator[None]:
    """Folders at the end of the import path; the path of an installed command does not hold the current folder."""
    added = [str(folder) for folder in folders if str(folder) not in sys.path]
    sys.path += added
    try:
        yield
    finally:
        for folder in added:
            if folder in sys.path:
                sys.path.remove(folder)


def _run_file(path: Path) -> Any:
    """The module that a file makes, under a name that no import statement can use."""
    name = f"user file {path.resolve()}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ImportError("it is not a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses look up their module there
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _check_call(function: Callable[..., Any], arguments: Any, keywords: dict[str, Any], takes: str) -> None:
    try:
        inspect.signature(function).bind(*arguments, **keywords)
    except ValueError:  # a function of C shows no signature
        return
    except TypeError as error:
        raise InputError(f"the function must take {takes} ({error})") from None


def _line_of(error: BaseException, file: Path) -> str:
    """The last line of the user's own file on the way to an error."""
    frames, own = traceback.extract_tb(error.__traceback__), file.resolve()
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == own]
    return f" in line {lines[-1]}" if lines else ""


def _name(given: Any) -> str:
    """A path or the name of a function, as the user wrote it, where it is short and printable."""
    return one_line(str(given), 200)
