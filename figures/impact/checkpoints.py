"""A folder of checkpoints as policies of a world: the suite's own transformers, or any network from embeddings to logits.

A checkpoint is a `.pt` file that holds a state dict, alone or under "state", "model", "state_dict" or "model_state_dict",
with the tokens read so far under "tokens" where they are known. `model.json`, which `costate pretrain` writes, holds the sizes
of the suite's own networks and the world that they were trained for.
"""

import importlib
import importlib.util
import json
import pickle
import re
import struct
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agents.policies.module_policy import ModulePolicy
from agents.policies.transformer import Transformer
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError

MODEL_FILE = "model.json"
UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    pickle.UnpicklingError,
    struct.error,
)
_KEYS = ("state", "model", "state_dict", "model_state_dict")


@dataclass(frozen=True)
class Source:
    """How networks are built.

    Attributes:
        build: "module:function" or "file.py:function"; None for the suite's own transformer. The function takes the world and
            returns a policy, or a module from embeddings (B, T, D) to logits (B, T, V).
        embedding: name of the parameter of that module which is its table of embeddings.
        site: the submodule at whose output the costate is read; by default the embedding.
        heads: attention heads of the suite's own transformer; by default those of `model.json`.
    """

    build: str | None = None
    embedding: str = "embedding.weight"
    site: str | None = None
    heads: int | None = None


@dataclass(frozen=True)
class Loaded:
    """One checkpoint: its file's name, tokens of pretraining (None where the file does not hold them), policy, and site."""

    name: str
    tokens: int | None
    policy: TokenPolicy
    site: str


def read_model(folder: Path) -> dict[str, Any]:
    """Contents of `model.json`; empty where there is no such file. Raises InputError for a damaged one."""
    try:
        model = json.loads((folder / MODEL_FILE).read_text())
        if not isinstance(model, dict) or not isinstance(model.get("world_options", {}), dict):
            raise ValueError("not an object")
        return model
    except FileNotFoundError:
        return {}
    except ValueError:
        raise InputError(f"{folder / MODEL_FILE} is damaged: write it again, or remove it and name --world") from None


def read_checkpoints(folder: Path, world: TokenMDP, source: Source, device: str = "cpu") -> list[Loaded]:
    """All checkpoints of a folder in float64, in the order of their tokens where all files hold them, else of their names.

    Raises:
        InputError: the folder is missing or has no checkpoint, a file holds no state dict, or a network does not fit the file
            or the world's vocabulary.
    """
    paths, model = checkpoint_files(folder), read_model(folder)
    loaded = [_load(path, world, source, model, device) for path in paths]
    if all(checkpoint.tokens is not None for checkpoint in loaded):
        loaded.sort(key=lambda checkpoint: checkpoint.tokens or 0)
    return loaded


def checkpoint_files(folder: Path) -> list[Path]:
    """The `.pt` files of a folder by name, numbers in a name by size. Raises InputError where there is no folder or no file."""
    if not folder.is_dir():
        raise InputError(f"--checkpoints {folder} is not a folder")
    paths = sorted(folder.glob("*.pt"), key=lambda path: [int(x) if x.isdecimal() else x for x in _pieces(path.stem)])
    if not paths:
        raise InputError(f"--checkpoints {folder} holds no checkpoint: it must have files that end in .pt")
    return paths


def _pieces(stem: str) -> list[str]:
    """Text and numbers in turn, text first."""
    return re.split(r"(\d+)", stem)


def _load(path: Path, world: TokenMDP, source: Source, model: dict[str, Any], device: str) -> Loaded:
    state, tokens = _read_state(path)
    if source.build is None:
        policy, site = _own(path, state, world, model, source.heads), source.site or "layer1"
        if site not in policy.sites:
            raise InputError(f"--site {site} does not exist; there are {', '.join(policy.sites)}")
    else:
        policy, site = _built(path, state, world, source)
    return Loaded(path.stem, tokens, policy.to(device), site)


def _read_state(path: Path) -> tuple[dict[str, Tensor], int | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickles that torch did not write
            content = torch.load(path, weights_only=True, map_location="cpu")
    except UNREADABLE as error:
        raise InputError(f"checkpoint {path} cannot be read: {_first_line(error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"checkpoint {path} holds no state dict but a {type(content).__name__}")
    tokens = content.get("tokens")
    state = next((content[key] for key in _KEYS if isinstance(content.get(key), dict)), content)
    if not state or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
        raise InputError(
            f"checkpoint {path} holds no state dict: names with tensors, alone or under {', '.join(_KEYS)}"
        )
    broken = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if broken:
        raise InputError(f"checkpoint {path} holds NaN or infinity in {broken[0]}: it cannot be judged")
    return state, int(tokens) if isinstance(tokens, int | float) and float(tokens).is_integer() else None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _own(
    path: Path, state: Mapping[str, Tensor], world: TokenMDP, model: dict[str, Any], heads: int | None
) -> Transformer:
    """The suite's transformer. Its sizes are those of the tensors, except for the heads, which no tensor shows."""
    heads = model.get("heads") if heads is None else heads
    if not isinstance(heads, int):
        raise InputError("--heads is missing: a state dict does not hold them (or name your own network with --model)")
    layers = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    if not layers or any(name not in state or state[name].ndim != 2 for name in ("embedding.weight", "position")):
        raise InputError(f"checkpoint {path} is not one of this suite's transformers: name your network with --model")
    (rows, width), length = state["embedding.weight"].shape, len(state["position"])
    _check_vocabulary(path, rows, world)
    needed = world.prompts.shape[1] + world.horizon - 1  # the last token is an output only
    if length < needed:
        raise InputError(f"checkpoint {path} reads {length} tokens at most: the world's answers need {needed}")
    network = Transformer(rows, None, width, layers, heads, length, tied="head.bias" not in state)
    _fill(path, network, state)
    return network


def _built(path: Path, state: Mapping[str, Tensor], world: TokenMDP, source: Source) -> tuple[Any, str]:
    """A user's network, wrapped as a policy where it is not one."""
    network = _builder(source.build or "")(world)
    if not isinstance(network, nn.Module):
        raise InputError(f"--model {source.build} must give a module or a policy; got {type(network).__name__}")
    _fill(path, network.eval(), state)
    if isinstance(network, TokenPolicy):
        with torch.no_grad():
            logits, _ = network.extend(network.embed(world.prompts[:1]), None, {})
        _check_vocabulary(path, logits.shape[-1], world)
        return network, source.site or "embedding"
    table = dict(network.named_parameters()).get(source.embedding)
    if table is None or table.ndim != 2:
        raise InputError(f"--embedding {source.embedding} is no table of the network; it has {_tables(network)}")
    _check_vocabulary(path, len(table), world)
    sites = {"layer1": source.site} if source.site else {}
    return ModulePolicy(network, table, sites), "layer1" if source.site else "embedding"


def _tables(network: nn.Module) -> str:
    return ", ".join(name for name, p in network.named_parameters() if p.ndim == 2) or "none"


def _check_vocabulary(path: Path, rows: int, world: TokenMDP) -> None:
    if rows != world.V:
        raise InputError(
            f"checkpoint {path} does not fit the world's vocabulary: it embeds {rows} tokens, the world has {world.V}"
        )


def _fill(path: Path, network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the checkpoint's numbers into the network, in double precision."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        detail = " ".join(str(error).split("\n\t")[1:])[:160] or _first_line(error)
        raise InputError(f"checkpoint {path} does not fit the network: {' '.join(detail.split())}") from None
    network.double()


def _builder(name: str) -> Callable[[TokenMDP], Any]:
    """The function that MODULE:FUNCTION or FILE.py:FUNCTION names."""
    place, _, function = name.rpartition(":")
    if not function or not (place.endswith(".py") or all(place.split("."))):
        raise InputError(f"--model {name}: give MODULE:FUNCTION or FILE.py:FUNCTION")
    sys.path.append(str(Path.cwd()))  # the path of an installed command does not hold the current folder
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except (ImportError, OSError, SyntaxError) as error:
        raise InputError(f"--model {name}: {_first_line(error)}") from None
    finally:
        sys.path.pop()
    build: Callable[[TokenMDP], Any] | None = getattr(module, function, None)
    if not callable(build):
        raise InputError(f"--model {name}: there is no function {function!r} in {place}")
    return build


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"model file {path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module there; no import statement can use this name
    spec.loader.exec_module(module)
    return module
