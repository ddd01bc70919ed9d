"""Ctrl-C and SIGTERM: one KeyboardInterrupt in the process that was asked, none in its workers, and silence after that."""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def handled_by(handler: Callable[..., Any]) -> Iterator[None]:
    """Let `handler` answer both signals for a while; without effect outside of the main thread, which no signal reaches."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    hook, sys.unraisablehook = sys.unraisablehook, _again(sys.unraisablehook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, old in before.items():
            signal.signal(number, old)


def interrupt(*_: Any) -> NoReturn:
    """The handler of a command at work: what is finished is kept, and no worker is left behind."""
    raise KeyboardInterrupt


def leave(*_: Any) -> NoReturn:
    """The handler while modules are imported, where an exception may end up anywhere: there is nothing to put in order yet."""
    os.write(2, b"costate: stopped before anything was begun\n")
    os._exit(130)


def ignore_from_now_on() -> None:
    """Drop further signals: the work is being stopped already. They stay dropped while the interpreter shuts down."""
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        atexit.register(lambda: [signal.signal(number, signal.SIG_IGN) for number in _SIGNALS])


def _again(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A hook that sends a KeyboardInterrupt again which was raised where Python drops exceptions (in a finaliser)."""

    def answer(dropped: Any) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(
                0.01, os.kill, (os.getpid(), signal.SIGINT)
            ).start()  # later: here it would be dropped again
        else:
            hook(dropped)

    return answer


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Keep SIGINT waiting; processes and threads that are started meanwhile never get one. Where there are no masks: nothing.

    Ctrl-C goes to all processes of the terminal: a worker that it stops would print a traceback of its own.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
