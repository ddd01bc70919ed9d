"""Keep freed memory in the process: arrays of some megabytes are made and freed thousands of times in a run.

By default the C library gives such blocks back to the system at once, and every new one costs page faults: a third of the time
of the impact study. This is for processes of our own (workers, the command), never for a user's.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # parameters of glibc's mallopt
_LARGEST = 2**30 - 1  # bytes; mallopt takes an int


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed blocks for later; says whether it did (elsewhere nothing is changed)."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 * 2**20))
    return all([mallopt(name, value) for name, value in options])
