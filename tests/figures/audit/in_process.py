"""Functions of a test that import a library are called in a process of their own."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

R = TypeVar("R")


def in_a_process(function: Callable[..., R], *args: object) -> R:
    """The function's answer from a new process, whose imports leave this one alone.

    Args:
        function: of a module, not a local one.
        args: of it; they are pickled.

    Returns:
        What it returns.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()
