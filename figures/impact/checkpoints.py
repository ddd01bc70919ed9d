"""A folder of checkpoints as policies of a world: the suite's own transformers, or any network from embeddings to logits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from agents.policies.transformer import Transformer
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from figures.impact.checkpoint_files import checkpoint_files, fill, read_contents, read_model
from figures.impact.users_network import UsersNetworks, check_vocabulary


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
    """One checkpoint: its file's name, tokens of pretraining (None where the file does not hold them), policy, and site.

    `written_by` is what the file says of the program that wrote it; None where it says nothing.
    """

    name: str
    tokens: int | None
    policy: TokenPolicy
    site: str
    written_by: Any = None


def read_checkpoints(folder: Path, world: TokenMDP, source: Source, device: str = "cpu") -> list[Loaded]:
    """All checkpoints of a folder in float64, in the order of their tokens where all files hold them, else of their names.

    Raises:
        InputError: the folder is missing or has no checkpoint, a file holds no state dict, or a network does not fit the file
            or the world's vocabulary, or cannot be judged.
    """
    paths, model = checkpoint_files(folder), read_model(folder)
    users = None
    if source.build is not None:
        users = UsersNetworks(source.build, source.embedding, source.site, world)
    loaded = [_load(path, world, source, model, users, device) for path in paths]
    if all(checkpoint.tokens is not None for checkpoint in loaded):
        loaded.sort(key=lambda checkpoint: checkpoint.tokens or 0)
    return loaded


def _load(
    path: Path, world: TokenMDP, source: Source, model: dict[str, Any], users: UsersNetworks | None, device: str
) -> Loaded:
    contents = read_contents(path)
    if users is None:
        policy, site = own_transformer(path, contents.state, world, model, source.heads), source.site or "layer1"
        if site not in policy.sites:
            raise InputError(f"--site {site} does not exist; there are {', '.join(policy.sites)}")
    else:
        policy, site = users.policy(path, contents.state)
    return Loaded(path.stem, contents.tokens, policy.to(device), site, contents.written_by)


def own_transformer(
    path: Path, state: Mapping[str, Tensor], world: TokenMDP, model: dict[str, Any], heads: int | None
) -> Transformer:
    """The suite's transformer. Its sizes are those of the tensors, except for the heads, which no tensor shows."""
    heads = model.get("heads") if heads is None else heads
    if heads is None:
        raise InputError("--heads is missing: a state dict does not hold them (or name your own network with --model)")
    layers = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    if not layers or any(name not in state or state[name].ndim != 2 for name in ("embedding.weight", "position")):
        raise InputError(f"checkpoint {path} is not one of this suite's transformers: name your network with --model")
    (rows, width), length = state["embedding.weight"].shape, len(state["position"])
    if layers * width**2 > sum(x.numel() for x in state.values()):  # refused before so much is allocated
        raise InputError(f"checkpoint {path} does not fit the network: its {layers} blocks are not of width {width}")
    check_vocabulary(path, rows, world)
    needed = world.longest - 1  # the last token is an output only
    if length < needed:
        raise InputError(f"checkpoint {path} reads {length} tokens at most: the world's answers need {needed}")
    network = Transformer(rows, None, width, layers, heads, length, tied="head.bias" not in state)
    fill(path, network, state)
    return network
