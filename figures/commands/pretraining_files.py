"""The files of a pretraining run: what it was asked for, its checkpoints with their exact numbers, and going on from them."""

import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from agents.training.pretraining import Checkpoint
from envs.arguments import short
from envs.user_files import check_file
from envs.world import InputError, one_line
from figures.harness.code import other_parts, writer
from figures.harness.records import write_atomically
from figures.impact.checkpoint_files import MODEL_FILE, UNREADABLE, WRITER, read_model

Row = dict[str, Any]


def earlier_checkpoints(out: Path) -> list[Path]:
    """The checkpoints of an earlier run, which this one replaces. Raises InputError for files that no such run wrote."""
    earlier = sorted(out.glob("update-*.pt"))
    foreign = [path for path in earlier if not path.is_file() or not (out / MODEL_FILE).is_file()]
    if foreign:
        raise InputError(
            f"--out {out} holds {foreign[0].name}, which is no checkpoint of an earlier run (without {MODEL_FILE}): "
            "it would be lost; name another folder"
        )
    return earlier


def write_model(out: Path, model: Row, earlier: list[Path]) -> None:
    """Write model.json, which `costate impact` reads, and remove the checkpoints of an earlier run."""
    for old in earlier:
        old.unlink()
    write_atomically(out / MODEL_FILE, json.dumps(model, indent=1))


def save_checkpoint(out: Path, point: Checkpoint, row: Row) -> None:
    """Write a checkpoint whole or not at all: the network, its exact numbers, and what the next update depends on."""
    buffer = io.BytesIO()
    state = {name: p.detach().cpu() for name, p in point.networks[0].state_dict().items()}
    kept = {"state": state, "updates": point.updates, "tokens": point.tokens, "written by": writer(WRITER)}
    torch.save({**kept, "row": row, "progress": point.progress}, buffer)
    write_atomically(out / f"update-{point.updates:06d}.pt", buffer.getvalue())


def resumed(out: Path, model: Row, network: Any) -> tuple[list[Row], Row]:
    """Put the network where the last checkpoint left it; the rows so far, and the progress of that checkpoint.

    Raises:
        InputError: there is no run to go on from, it was asked for something else, or a checkpoint is damaged.
    """
    known, paths = read_model(out), sorted(out.glob("update-*.pt"))
    if not known or not paths:
        raise InputError(f"--resume finds no pretraining run in --out {out}: leave it out to begin one")
    for name in sorted({*known, *model}):
        if known.get(name) != model.get(name):
            option = {"world_options": "set"}.get(name, name)
            was = short(known.get(name))
            raise InputError(
                f"--{option} {short(model.get(name))} is not that of the run in --out {out}, {was}: give the same, or leave "
                "--resume out"
            )
    kept = [_read(path) for path in paths]
    try:
        network.load_state_dict(kept[-1]["state"])
    except UNREADABLE as error:
        raise InputError(_damaged(paths[-1], error)) from None
    other = other_parts(kept[-1].get("written by"), WRITER)
    if other:
        print(
            f"costate: {paths[-1]} was written with other {', '.join(other)}; the run goes on from it", file=sys.stderr
        )
    return [each["row"] for each in kept], kept[-1]["progress"]


def _read(path: Path) -> Row:
    check_file(path, "checkpoint")
    try:
        with warnings.catch_warnings():  # what torch thinks of a foreign file
            warnings.simplefilter("ignore")
            kept: Row = torch.load(path, weights_only=True, map_location="cpu")
        if not isinstance(kept["row"]["updates"], int) or set(kept["progress"]) != {"optimiser", "noise"}:
            raise ValueError("it does not say how the run goes on")
    except UNREADABLE as error:
        raise InputError(_damaged(path, error)) from None
    return kept


def _damaged(path: Path, error: BaseException) -> str:
    reason = one_line(str(error), 120) or type(error).__name__
    return f"{path} is damaged ({reason}): delete it, and the run goes on from the one before"
