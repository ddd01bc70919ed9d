"""Shapes and types are checked in every call of envs/, theory/ and agents/: jaxtyping's import hook with beartype.

The hook's own decorator binds a signature and checks each argument twice, which was a quarter of the suite's time. Here an
argument is checked once, as beartype's documentation shows for the two decorators together: the sizes that the names of
axes stand for are kept from the first argument to the returned value. In every test the first calls of each function are
checked, `CALLS` of them: a loop calls it thousands of times with shapes of the same kind.
"""

import contextlib
import dataclasses
import functools
import inspect

import jaxtyping
from beartype import BeartypeConf, beartype

# Python's own rule: an int may stand for a float; and the error is jaxtyping's, a TypeError
check = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError))
CALLS = 8  # of each function in each test
_test = [0]  # number of the test that runs
_by_signature = jaxtyping.jaxtyped
_scope = jaxtyping.jaxtyped("context")


def checked(thing=None, *, typechecker=check):
    """What the hook writes above every function and class, in the place of `jaxtyping.jaxtyped`."""
    if thing is None:
        return checked
    if inspect.isclass(thing):
        if dataclasses.is_dataclass(thing) and "__init__" in vars(thing):
            thing.__init__ = checked(thing.__init__)
        return thing
    if not inspect.isfunction(thing) or inspect.isgeneratorfunction(thing):
        return _by_signature(thing, typechecker=check)  # a generator's body runs when its call is over
    return _in_one_scope(thing) if thing.__annotations__ else thing


def _in_one_scope(function):
    """The function, its arguments and what it returns checked under one assignment of sizes to the names of axes."""
    checking, seen = check(function), [-1, 0]

    @functools.wraps(function)
    def call(*args, **kwargs):
        if seen[0] != _test[0]:
            seen[:] = _test[0], 0
        if seen[1] >= CALLS or jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        seen[1] += 1
        with _scope:
            return checking(*args, **kwargs)

    return call


def next_test():
    """From here on the first calls of every function are checked again."""
    _test[0] += 1


@contextlib.contextmanager
def unchecked():
    """Calls as a user makes them: without the checks, which speak first, and take most of the time of very many small calls."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def install(packages):
    """Check the functions and dataclasses of the packages as they are imported."""
    jaxtyping.install_import_hook(packages, "tests.typecheck.check")
    jaxtyping.jaxtyped = checked
