"""stdout and stderr that cannot stop the work: a reader who leaves, a closed stream or a full disk loses text and no more."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Tolerant:
    """A text stream whose failures are kept in `failure` and not raised; after the first, what is written is dropped.

    Args:
        stream: what is written to; everything else that it has is passed on.
    """

    def __init__(self, stream: Any):
        self.stream = stream
        self.failure: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write a text; characters that the stream's encoding lacks are written as escapes."""
        try:
            self.stream.write(text)
        except UnicodeEncodeError as error:
            self.stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        """Pass on what is kept back."""
        try:
            self.stream.flush()
        except (OSError, ValueError) as error:
            self._drop(error)

    def _drop(self, error: Exception) -> None:
        """Remember the first failure and let the stream end nowhere, for Python flushes it once more when it exits."""
        self.failure = self.failure or error
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


@contextmanager
def tolerant_streams() -> Iterator[tuple[Tolerant, Tolerant]]:
    """While a command runs, stdout and stderr are `Tolerant`; where one is closed from the start, it ends nowhere."""
    before = sys.stdout, sys.stderr
    _occupy()
    with open(os.devnull, "w") as nowhere:
        streams = Tolerant(before[0] or nowhere), Tolerant(before[1] or nowhere)
        sys.stdout, sys.stderr = streams
        try:
            yield streams
        finally:
            for stream in streams:
                stream.flush()
            sys.stdout, sys.stderr = before


def _occupy() -> None:
    """Open the descriptors 0 to 2 that are closed, so that no file of results gets their number and what others write to it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def lost(stdout: Tolerant) -> str:
    """Why results on stdout were lost, "" where they were not, or where their reader left before the end."""
    error = stdout.failure
    if error is None or isinstance(error, BrokenPipeError) or getattr(error, "errno", None) == errno.EPIPE:
        return ""
    return getattr(error, "strerror", None) or str(error)
