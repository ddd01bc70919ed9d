"""Checkpoint files and their `model.json`: found, read, and checked here before any number of theirs is used.

A checkpoint is a `.pt` file that holds a state dict, alone or under "state", "model", "state_dict" or "model_state_dict",
with the tokens read so far under "tokens" where they are known. `model.json`, which `costate pretrain` writes, holds the sizes
of the suite's own networks and the world that they were trained for.
"""

import json
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from envs.arguments import MOST_BYTES, short, whole
from envs.user_files import check_file
from envs.world import InputError, one_line

MODEL_FILE = "model.json"
WRITER = "figures.impact.runs"  # its code makes the checkpoints of `costate pretrain`
UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    ArithmeticError,
    MemoryError,
    AssertionError,
    ImportError,
    pickle.UnpicklingError,
    struct.error,
)
_KEYS = ("state", "model", "state_dict", "model_state_dict")
_LARGEST = torch.finfo(torch.float32).max  # no training leaves a larger weight, and products of larger ones overflow


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds: names with tensors of numbers, tokens of pretraining and the program that wrote it, if known."""

    state: dict[str, Tensor]
    tokens: int | None
    written_by: Any = None


def checkpoint_files(folder: Path) -> list[Path]:
    """The `.pt` files of a folder by name, numbers in a name by size. Raises InputError where there is no folder or no file."""
    if not folder.is_dir():
        raise InputError(f"--checkpoints {folder} is not a folder")
    paths = sorted(folder.glob("*.pt"), key=lambda path: [int(x) if x.isdecimal() else x for x in _pieces(path.stem)])
    if not paths:
        raise InputError(f"--checkpoints {folder} holds no checkpoint: it must have files that end in .pt")
    for path in paths:
        check_file(path, "checkpoint")
    return paths


def _pieces(stem: str) -> list[str]:
    """Text and numbers in turn, text first."""
    return re.split(r"(\d+)", stem)


def read_model(folder: Path) -> dict[str, Any]:
    """Contents of `model.json`; empty where there is no such file.

    Raises:
        InputError: it is damaged, or its `heads`, `world` or `world_options` are not what they must be.
    """
    path = folder / MODEL_FILE
    if not path.exists() and not path.is_symlink():
        return {}
    check_file(path, "model file")
    try:
        model = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(model, dict):
            raise ValueError("not an object")
        if model.get("heads") is not None:
            whole("heads", model["heads"], 1)
        for name, kind in (("world", str), ("world_options", dict)):
            if not isinstance(model.get(name, kind()), kind):
                raise ValueError(f"{name} must be {'a name' if kind is str else 'an object'}; got {short(model[name])}")
    except (OSError, ValueError, RecursionError) as error:
        reason = one_line(str(error), 120)
        raise InputError(f"{path} is damaged ({reason}): write it again, or remove it and name --world") from None
    return model


def read_contents(path: Path) -> Contents:
    """What one file holds, checked as far as it can be without a network.

    Raises:
        InputError: the file cannot be read, holds no state dict, or a tensor or "tokens" in it is none that can be used.
    """
    check_file(path, "checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about pickles that torch did not write, and layouts that are refused below
            content = torch.load(path, weights_only=True, map_location="cpu")
    except UNREADABLE as error:
        raise InputError(f"checkpoint {path} cannot be read: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"checkpoint {path} holds no state dict but a {type(content).__name__}")
    key = next((key for key in _KEYS if isinstance(content.get(key), dict)), None)
    state = content if key is None else content[key]
    if not state or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
        raise InputError(
            f"checkpoint {path} holds no state dict: names with tensors, alone or under {', '.join(_KEYS)}"
        )
    _check_tensors(path, state)
    tokens = None if key is None else _tokens(path, content.get("tokens"))
    return Contents(dict(state), tokens, None if key is None else content.get("written by"))


def _check_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are no plain tables of numbers, and more of them than memory is allowed for."""
    for name, value in state.items():
        form = _form(value)
        if form:
            raise InputError(f"checkpoint {path} holds in {one_line(name, 80)} {form}")
    size = sum(value.numel() * max(8, value.element_size()) for value in state.values())
    if size > MOST_BYTES:
        needed, most = size / 2**30, MOST_BYTES / 2**30
        raise InputError(
            f"checkpoint {path} needs {needed:.3g} GiB in double precision, at most {most:.3g} are allowed"
        )


def _form(value: Tensor) -> str:
    """What is wrong with the form of a tensor, "" where it is a plain table of numbers."""
    if value.is_meta:
        return "a tensor without numbers (on the device meta)"
    if value.is_quantized:
        return "a quantised tensor: save it after .dequantize()"
    if value.is_nested or value.layout is not torch.strided:
        return f"a tensor of layout {value.layout}: save it after .to_dense()"
    return ""


def _tokens(path: Path, given: Any) -> int | None:
    """Tokens of pretraining; None for what is no number at all, which another program may keep under that name."""
    if isinstance(given, Tensor) and given.numel() == 1:
        given = given.item()
    if not isinstance(given, bool | int | float):
        return None
    if isinstance(given, bool) or not (0 <= given < 2**63 and float(given).is_integer()):
        raise InputError(f"checkpoint {path} holds tokens {given!r}: they must be a whole number >= 0, or left out")
    return int(given)


def fill(path: Path, network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a checkpoint's numbers into a network, in double precision.

    Every entry must be of the kind that the network has there: real numbers in any precision, whole numbers or truth values.

    Raises:
        InputError: names, shapes or kinds differ; a number is NaN, infinite or beyond single precision (except in a buffer in
            which the network itself has it: masks hold infinities); or the network computes in complex numbers.
    """
    network.double()
    built = {name: x.detach().clone() for name, x in network.state_dict().items()}
    for name, value in state.items():
        if name in built and _kind(value) != _kind(built[name]):
            raise InputError(
                f"checkpoint {path} holds {_kind(value)} in {name}, where the network has {_kind(built[name])}"
            )
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        detail = " ".join(str(error).split("\n\t")[1:])[:160] or first_line(error)
        raise InputError(f"checkpoint {path} does not fit the network: {one_line(detail)}") from None
    for name, p in network.named_parameters():
        if not p.is_floating_point():
            raise InputError(f"checkpoint {path} is of a network with {_kind(p)} in {name}: it must have real weights")
    buffers = dict(network.named_buffers())
    for name, value in state.items():
        if value.is_floating_point() and not (name in buffers and torch.equal(built[name], value.double())):
            _check_size(path, name, value.double())


def _kind(value: Tensor) -> str:
    if value.dtype is torch.bool:
        return "truth values"
    if value.is_complex():
        return "complex numbers"
    return "real numbers" if value.is_floating_point() else "whole numbers"


def _check_size(path: Path, name: str, value: Tensor) -> None:
    if not bool(value.isfinite().all()):
        raise InputError(f"checkpoint {path} holds NaN or infinity in {name}: it cannot be judged")
    if value.numel() and float(value.abs().max()) > _LARGEST:
        raise InputError(
            f"checkpoint {path} holds {float(value.abs().max()):.3g} in {name}: no such number can be judged"
        )


def first_line(error: BaseException) -> str:
    """The beginning of an error's text, or its kind where it has none."""
    return one_line((str(error).strip().splitlines() or [type(error).__name__])[0][:120])
