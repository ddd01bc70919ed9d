"""The progress bar of the commands that train: one line of 80 columns on stderr, with the latest exact numbers at its end."""

import sys
from typing import TextIO

from tqdm import tqdm

_COLUMNS = 80
_FORMAT = "{desc} |{bar}| {n_fmt}/{total_fmt} {remaining} left{postfix}"


def progress_bar(name: str, total: int, stream: TextIO | None = None, disable: bool = False) -> tqdm:
    """A bar that shows the count, the time left, and the text set by `set_postfix_str`. The bar itself shrinks to make room.

    A name of 16 characters before the bar and a text of 30 characters after it fit.
    """
    return tqdm(total=total, desc=name, file=stream or sys.stderr, disable=disable, ncols=_COLUMNS, bar_format=_FORMAT)
