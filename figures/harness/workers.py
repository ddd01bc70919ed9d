"""Functions in processes of our own: results as they are finished, and none left behind when the caller stops."""

import os
import queue
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import as_completed
from contextlib import suppress
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from joblib.externals.loky import get_reusable_executor, process_executor
from joblib.externals.loky.backend import resource_tracker as lokys_tracker

from figures.harness.interrupts import held_back, ignore_from_now_on
from figures.harness.memory import keep_freed_memory

Item = TypeVar("Item")
Result = TypeVar("Result")
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_IDLE = 300  # seconds after which workers without work end


def in_workers(jobs: int, function: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result, None, None]:
    """Yield `function(item)` for every item, in any order: in `jobs` processes, or here where one is enough.

    An exception of the function is raised here. However the caller leaves, by Ctrl-C too, no process goes on working.
    """
    if jobs == 1 or len(items) <= 1:
        yield from map(function, items)
        return
    for tracker in (resource_tracker, lokys_tracker) if os.name == "posix" else ():
        tracker.ensure_running()  # helpers of loky's: their start would let go what `held_back` holds
    executor: Any = None
    try:
        with held_back():
            executor = _started(jobs)
            folder = os.getcwd()
            futures = [executor.submit(_work, folder, function, item) for item in items]
        for future in as_completed(futures):
            yield future.result()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            ignore_from_now_on()
        if executor is not None:
            _stop(executor)
        raise


def _started(jobs: int) -> Any:
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    return get_reusable_executor(jobs, timeout=_IDLE, env=dict.fromkeys(_THREADS, threads))


def _stop(executor: Any) -> None:
    """Kill the workers. loky's manager fails on work that still waits when it is told to, so that is taken away first."""
    waiting = getattr(executor, "_work_ids", None)
    with suppress(queue.Empty):
        while waiting is not None:
            waiting.get_nowait()
    executor.shutdown(wait=True, kill_workers=True)


def _work(folder: str, function: Callable[[Item], Result], item: Item) -> Result:
    """One call, in a process whose memory we may manage, and in the caller's folder, which may have changed since it began."""
    os.chdir(folder)
    if keep_freed_memory():
        # else loky ends a worker that has grown, and warns: what we keep is no leak
        process_executor._USE_PSUTIL = False
    return function(item)
