"""Run a lesson from end to end in a fresh process, as Jupyter would."""

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from envs.world import InputError
from figures.harness.code import ROOT
from figures.lessons.catalogue import Lesson

_MISSING = "lessons need parts of Jupyter that are not installed: pip install 'costate-lab[lessons]'"
_TIMEOUT = 600  # seconds for one cell
# pictures as PNG for the page and as PDF for slides
_FIRST = "%config InlineBackend.figure_formats = ['png', 'pdf']\n%matplotlib inline"


class Executed(NamedTuple):
    """A lesson with its outputs, and the seconds that it took, the start of Python included."""

    lesson: Lesson
    notebook: Any
    seconds: float


def read_lesson(path: Path) -> Any:
    """The notebook in a Python file with cells (`py:percent`), without outputs; InputError where jupytext is missing."""
    try:
        import jupytext
    except ImportError:
        raise InputError(_MISSING) from None
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def execute(lesson: Lesson) -> Executed:
    """Run every cell; the first error of a cell is raised as it is, with the cell's text."""
    notebook = read_lesson(lesson.path)
    try:
        import nbformat
        from nbclient import NotebookClient
        from traitlets.config import Config
    except ImportError:
        raise InputError(_MISSING) from None
    notebook.cells.insert(0, nbformat.v4.new_code_cell(_FIRST))
    before, began = dict(os.environ), time.perf_counter()
    try:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), before.get("PYTHONPATH"))))
        with (
            TemporaryDirectory() as folder
        ):  # of the kernel's sockets: no network ports, and two lessons at once share none
            sockets = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})
            NotebookClient(
                notebook, timeout=_TIMEOUT, kernel_name="python3", coalesce_streams=True, config=sockets
            ).execute()
    finally:
        os.environ.clear()
        os.environ.update(before)
    del notebook.cells[0]
    return Executed(lesson, notebook, time.perf_counter() - began)
