"""Teachers of a training run: checkpoint files of `costate pretrain` or `costate train`, read as policies of the world."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.policies.nucleus import Nucleus
from agents.policies.transformer import Transformer
from agents.training.teachers import Teachers
from envs.token_mdp import TokenMDP
from envs.user_files import check_file
from envs.world import InputError, World, one_line
from figures.impact.checkpoint_files import UNREADABLE, first_line, read_contents, read_model
from figures.impact.checkpoints import own_transformer

Named = tuple[str, float, str]  # file, weight, mark of its contents
_SETTINGS = "settings.json"  # beside a checkpoint of `costate train`


def named_teachers(given: Sequence[str]) -> tuple[Named, ...]:
    """The files and weights of `FILE` or `FILE:WEIGHT`; weights are given for all files, or for none, which are then alike.

    Raises:
        InputError: some weights are missing, or a file is not there.
    """
    parts = [_weighted(text) for text in given]
    if len({weight is None for _, weight in parts}) > 1:
        raise InputError("--teacher must have a weight at every file, FILE:WEIGHT, or at none")
    named = list[Named]()
    for path, weight in parts:
        check_file(Path(path), "--teacher")
        mark = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]
        named.append((path, 1 / len(parts) if weight is None else weight, mark))
    return tuple(named)


def _weighted(text: str) -> tuple[str, float | None]:
    path, colon, weight = text.rpartition(":")
    try:
        return (path, float(weight)) if colon else (text, None)
    except ValueError:  # a colon of the path's own
        return text, None


def read_teachers(named: Sequence[Named], world: TokenMDP | World, top_p: float, like: torch.Tensor) -> Teachers | None:
    """The teachers on the device and in the precision of a tensor; None where there are none.

    Under top-p they are read within the sets that rows are drawn from, as the policy is.

    Raises:
        InputError: the world has no tokens, the weights do not sum to one, or a file cannot be read or does not fit.
    """
    if not named:
        return None
    if not isinstance(world, TokenMDP):
        raise InputError("--teacher must be left out in a world without tokens")
    policies = [_read(Path(path), world).to(like).requires_grad_(False) for path, _, _ in named]
    given = [Nucleus(policy, top_p) for policy in policies] if top_p < 1 else policies
    return Teachers(given, [weight for _, weight, _ in named])


def _read(path: Path, world: TokenMDP) -> Transformer:
    """One teacher, of either command."""
    if (path.parent / _SETTINGS).exists():
        state, heads = _trained(path)
        return own_transformer(path, state, world, {"heads": heads}, None)
    model = read_model(path.parent)
    if "heads" not in model:
        raise InputError(
            f"--teacher {path} must be a checkpoint of costate pretrain or costate train, in the folder that it was written to"
        )
    return own_transformer(path, read_contents(path).state, world, model, None)


def _trained(path: Path) -> tuple[dict[str, Tensor], int]:
    """The state of the one policy that a checkpoint of `costate train` holds, and its number of heads."""
    settings = path.parent / _SETTINGS
    try:
        run: dict[str, Any] = json.loads(settings.read_text(encoding="utf-8"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            numbers: list[Tensor] = torch.load(path, weights_only=True, map_location="cpu")["state"]["actor"]
        sizes = run["width"], run["layers"], run["heads"]
        if run["seeds"] != 1:
            raise InputError(f"--teacher {path} holds {run['seeds']} policies: train the teacher with --seeds 1")
        names = [name for name, _ in Transformer(2, None, *sizes, length=1).named_parameters()]
        state = dict(zip(names, numbers, strict=True))
        whole = Transformer(len(state["embedding.weight"]), None, *sizes, length=len(state["position"]))
    except InputError as error:
        raise InputError(one_line(str(error))) from None
    except UNREADABLE as error:
        raise InputError(f"--teacher {path} cannot be read: {first_line(error)}") from None
    return whole.state_dict() | state, int(run["heads"])
