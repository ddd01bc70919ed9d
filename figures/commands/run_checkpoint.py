"""The checkpoint of a training run: everything that the next update depends on, and the log so far."""

import dataclasses
import io
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from agents.training.settings import Record
from agents.training.trainer import Trainer
from envs.user_files import check_file
from envs.world import InputError, one_line
from figures.harness.code import other_parts, writer
from figures.harness.records import write_atomically
from figures.impact.checkpoint_files import UNREADABLE

NAME = "checkpoint.pt"
PER_SEED = tuple(f.name for f in dataclasses.fields(Record) if f.name not in ("step", "rows"))
COLUMNS = {"step", "rows", "seed", *PER_SEED}  # of the log
_LATER = {"target_cosine", "curl"}  # columns that older logs lack
_MODULE = "figures.commands.training_run"


def save_checkpoint(folder: Path, trainer: Trainer, rows: list[dict[str, Any]]) -> None:
    """Write it whole or not at all, with the code and the library versions that it comes from."""
    buffer = io.BytesIO()
    torch.save({"state": trainer.state(), "rows": rows, "written by": writer(_MODULE)}, buffer)
    write_atomically(folder / NAME, buffer.getvalue())


def resume(folder: Path, trainer: Trainer, device: str) -> list[dict[str, Any]]:
    """Put the trainer where the folder's checkpoint left it and return the log so far; [] where there is no checkpoint.

    One that other code or other library versions wrote is taken, and said so on stderr: its run is then no single program's.

    Raises:
        InputError: the checkpoint is damaged, or not one of such a run.
    """
    path = folder / NAME
    if not path.exists():
        return []
    check_file(path, "checkpoint")
    try:
        with warnings.catch_warnings():  # what torch thinks of a foreign file
            warnings.simplefilter("ignore")
            kept = torch.load(path, weights_only=True, map_location=device)
        rows: list[dict[str, Any]] = kept["rows"]
        if not rows or not all(
            isinstance(row["step"], int) and COLUMNS - _LATER <= set(row) <= COLUMNS for row in rows
        ):
            raise ValueError("its log is not that of a run")
        trainer.restore(kept["state"])
    except UNREADABLE as error:
        reason = one_line(str(error), 120) or type(error).__name__
        raise InputError(f"{path} is damaged ({reason}): delete it, and the run begins anew") from None
    other = other_parts(kept.get("written by"), _MODULE)
    if other:
        print(f"costate: {path} was written with other {', '.join(other)}; the run goes on from it", file=sys.stderr)
    return rows
