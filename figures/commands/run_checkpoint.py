"""The checkpoint of a training run: everything that the next update depends on, and the log so far."""

import io
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from agents.training.trainer import Trainer
from envs.world import InputError
from figures.harness.code import code_digest, versions
from figures.harness.records import write_atomically
from figures.impact.checkpoints import UNREADABLE

NAME = "checkpoint.pt"


def save_checkpoint(folder: Path, trainer: Trainer, rows: list[dict[str, Any]]) -> None:
    """Write it whole or not at all, with the code and the library versions that it comes from."""
    buffer = io.BytesIO()
    torch.save({"state": trainer.state(), "rows": rows, "written by": _writer()}, buffer)
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
    try:
        with warnings.catch_warnings():  # what torch thinks of a foreign file
            warnings.simplefilter("ignore")
            kept = torch.load(path, weights_only=True, map_location=device)
        rows: list[dict[str, Any]] = kept["rows"]
        if not rows or not all(isinstance(row["step"], int) for row in rows):
            raise ValueError("its log holds no steps")
        trainer.restore(kept["state"])
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path} is damaged ({reason}): delete it, and the run begins anew") from None
    other = sorted(name for name, value in _writer().items() if kept.get("written by", {}).get(name) != value)
    if other:
        print(f"costate: {path} was written with other {', '.join(other)}; the run goes on from it", file=sys.stderr)
    return rows


def _writer() -> dict[str, str]:
    return {"code": code_digest("figures.commands.training_run"), **versions()}
