"""A folder of checkpoints as policies of a world: the suite's own transformers, or anybody's map from embeddings to logits.

A checkpoint is a `.pt` file that holds a state dict, alone or under "state", "model", "state_dict" or "model_state_dict",
with the tokens read so far under "tokens" where known. `model.json`, which `costate pretrain` writes, says what the suite's own
networks are and which world they were trained for.
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
_UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, LookupError, AttributeError, TypeError,
               pickle.UnpicklingError, struct.error)  # fmt: skip
_KEYS = ("state", "model", "state_dict", "model_state_dict")


@dataclass(frozen=True)
class Source:
    """How networks are built: `build` is "module:function" or "file.py:function", None for the suite's own transformer.

    The function takes the world and gives a policy, or a module from embeddings (B, T, D) to logits (B, T, V) whose table of
    embeddings is its parameter `embedding`; `site` is the submodule whose output is the place of the costate.
    """

    build: str | None = None
    embedding: str = "embedding.weight"
    site: str | None = None
    heads: int | None = None


@dataclass(frozen=True)
class Loaded:
    """One checkpoint; `tokens` of pretraining, None where it does not say."""

    name: str
    tokens: int | None
    policy: TokenPolicy
    site: str


def read_model(folder: Path) -> dict[str, Any]:
    """What `model.json` says; empty where there is none."""
    try:
        found = json.loads((folder / MODEL_FILE).read_text())
        if not isinstance(found, dict) or not isinstance(found.get("world_options", {}), dict):
            raise ValueError("not an object")
        return found
    except FileNotFoundError:
        return {}
    except ValueError:
        raise InputError(f"{folder / MODEL_FILE} is damaged: write it again, or remove it and name --world") from None


def read_checkpoints(folder: Path, world: TokenMDP, source: Source, device: str = "cpu") -> list[Loaded]:
    """All checkpoints of a folder, by tokens where all say so, else by name (numbers in it by size); in float64.

    Raises InputError for a folder that is missing or has no checkpoint, a file that holds no state dict, and networks that do
    not fit the file or the world's vocabulary.
    """
    paths, model = checkpoint_files(folder), read_model(folder)
    found = [_load(path, world, source, model, device) for path in paths]
    if all(one.tokens is not None for one in found):
        found.sort(key=lambda one: one.tokens or 0)
    return found


def checkpoint_files(folder: Path) -> list[Path]:
    """The `.pt` files of a folder by name, numbers in it by size; InputError where there is no folder or no file."""
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
            warnings.simplefilter("ignore", UserWarning)  # of pickles that torch did not write: read, or refused below
            found = torch.load(path, weights_only=True, map_location="cpu")
    except _UNREADABLE as error:
        raise InputError(f"checkpoint {path} cannot be read: {_first_line(error)}") from None
    if not isinstance(found, dict):
        raise InputError(f"checkpoint {path} holds no state dict but a {type(found).__name__}")
    tokens = found.get("tokens")
    for key in _KEYS:
        if isinstance(found.get(key), dict):
            found = found[key]
            break
    if not found or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()):
        raise InputError(
            f"checkpoint {path} holds no state dict: names with tensors, alone or under {', '.join(_KEYS)}"
        )
    broken = [name for name, value in found.items() if not bool(value.isfinite().all())]
    if broken:
        raise InputError(f"checkpoint {path} holds NaN or infinity in {broken[0]}: it cannot be judged")
    return found, int(tokens) if isinstance(tokens, int | float) and float(tokens).is_integer() else None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _own(
    path: Path, state: Mapping[str, Tensor], world: TokenMDP, model: dict[str, Any], heads: int | None
) -> Transformer:
    """The suite's transformer, its sizes read off the tensors; heads cannot be."""
    heads = model.get("heads") if heads is None else heads
    if not isinstance(heads, int):
        raise InputError("--heads is missing: a state dict does not tell them (or name your own network with --model)")
    layers = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    if not layers or any(name not in state or state[name].ndim != 2 for name in ("embedding.weight", "position")):
        raise InputError(f"checkpoint {path} is not one of this suite's transformers: name your network with --model")
    (rows, width), length = state["embedding.weight"].shape, len(state["position"])
    _check_vocabulary(path, rows, world)
    needed = world.prompts.shape[1] + world.horizon - 1  # the last token is said, not read
    if length < needed:
        raise InputError(f"checkpoint {path} reads {length} tokens at most: the world's answers need {needed}")
    network = Transformer(rows, None, width, layers, heads, length, tied="head.bias" not in state)
    return _filled(path, network, state)


def _built(path: Path, state: Mapping[str, Tensor], world: TokenMDP, source: Source) -> tuple[Any, str]:
    """A user's network, wrapped as a policy where it is not one."""
    network = _builder(source.build or "")(world)
    if not isinstance(network, nn.Module):
        raise InputError(f"--model {source.build} must give a module or a policy; got {type(network).__name__}")
    if hasattr(network, "embed") and hasattr(network, "extend"):
        policy, start = _filled(path, network.eval(), state), world.prompts[:1]
        with torch.no_grad():
            _check_vocabulary(path, policy.extend(policy.embed(start), None, {})[0].shape[-1], world)
        return policy, source.site or "embedding"
    table = dict(_filled(path, network, state).named_parameters()).get(source.embedding)
    if table is None or table.ndim != 2:
        raise InputError(f"--embedding {source.embedding} is no table of the network; it has {_tables(network)}")
    _check_vocabulary(path, len(table), world)
    sites = {"layer1": source.site} if source.site else {}
    return ModulePolicy(network.eval(), table, sites), "layer1" if source.site else "embedding"


def _tables(network: nn.Module) -> str:
    return ", ".join(name for name, p in network.named_parameters() if p.ndim == 2) or "none"


def _check_vocabulary(path: Path, rows: int, world: TokenMDP) -> None:
    if rows != world.V:
        raise InputError(
            f"checkpoint {path} does not fit the world's vocabulary: it embeds {rows} tokens, the world speaks {world.V}"
        )


def _filled(path: Path, network: Any, state: Mapping[str, Tensor]) -> Any:
    """The network with the checkpoint's numbers, in double precision."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        detail = " ".join(str(error).split("\n\t")[1:])[:160] or _first_line(error)
        raise InputError(f"checkpoint {path} does not fit the network: {' '.join(detail.split())}") from None
    return network.double()


def _builder(name: str) -> Callable[[TokenMDP], Any]:
    """The function that MODULE:FUNCTION or FILE.py:FUNCTION names."""
    place, _, function = name.rpartition(":")
    if not function or not (place.endswith(".py") or all(place.split("."))):
        raise InputError(f"--model {name}: give MODULE:FUNCTION or FILE.py:FUNCTION")
    sys.path.append(str(Path.cwd()))  # an installed command does not look here by itself
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except (ImportError, OSError, SyntaxError) as error:
        raise InputError(f"--model {name}: {_first_line(error)}") from None
    finally:
        sys.path.pop()
    found = getattr(module, function, None)
    if not callable(found):
        raise InputError(f"--model {name}: there is no function {function!r} in {place}")
    build: Callable[[TokenMDP], Any] = found
    return build


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"model file {path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there; no import can have this name
    spec.loader.exec_module(module)
    return module
