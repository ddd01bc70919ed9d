"""Token worlds in which the environment speaks: the laws of its tokens, and whose turn it is."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from envs.tables import number_table, probabilities
from envs.world import InputError


def spoken_laws(given: Any, shape: tuple[int, ...]) -> Float[Tensor, "S V"]:
    """The environment's laws as a table (S, V): rows of probabilities, or of zeros where the policy speaks.

    Args:
        given: the table that the user gave.
        shape: (S, V).

    Returns:
        The laws.

    Raises:
        InputError: the table has another shape or holds no probabilities.
    """
    table = number_table("speech", given)
    if tuple(table.shape) != tuple(shape):
        raise InputError(
            f"speech must have shape {tuple(shape)}, a law of tokens for each state; got {tuple(table.shape)}"
        )
    silent = (table == 0).all(-1, keepdim=True)
    kind = given.dtype if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given)).dtype
    even = torch.full_like(table, 1 / table.shape[1])
    filled = torch.where(silent, even, table).to(kind if kind.is_floating_point else table.dtype)
    return torch.where(silent, 0.0, probabilities("speech", filled))


def check_turns(
    P: Float[Tensor, "S V S"], speech: Float[Tensor, "S V"], starts: Int[Tensor, "prompts"], horizon: int
) -> None:
    """Refuse a world in which the same tokens may lead to states of either kind, where the environment speaks and where not.

    Pairs of states that one prompt and the same tokens may lead to are followed for `horizon` steps.

    Args:
        P: chances of the next states.
        speech: the environment's laws.
        starts: the prompts' first states.
        horizon: number of steps.

    Raises:
        InputError: the tokens leave open whose turn it is.
    """
    speaking = speech.sum(-1) > 0
    said = torch.where(speaking[:, None], speech > 0, True)  # (S, V): tokens that may be said in a state
    leads = ((P > 0) & said[..., None]).movedim(1, 0).to(P)  # (V, S, S)
    pairs = torch.zeros(len(P), len(P), dtype=torch.bool, device=P.device)
    pairs[starts, starts] = True
    for _ in range(horizon):
        _check_pairs(pairs, speaking)
        reached = (leads.mT @ pairs.to(P) @ leads > 0).any(0)
        if bool((reached <= pairs).all()):
            return
        pairs = pairs | reached


def _check_pairs(pairs: Bool[Tensor, "S S"], speaking: Bool[Tensor, "S"]) -> None:
    mixed = (pairs & (speaking[:, None] != speaking)).nonzero()
    if len(mixed):
        first, second = mixed[0].tolist()
        raise InputError(
            f"speech must leave no doubt whose turn it is: the same tokens may lead to states {first} and {second}, and the "
            "environment speaks in one of them only"
        )
