"""A world from a table of rewards of complete answers: its transitions are a shift register, so that no tree is stored."""

from typing import Any

import torch
from torch import Tensor

from envs.arguments import check_bytes
from envs.tables import number_table
from envs.world import InputError


def completion_table(given: Any, prompts: int | None) -> Tensor:
    """The rewards as a table of shape (prompts, V, ..., V), one axis of V for each token.

    Args:
        given: a table with one axis of V entries for each token, behind an axis of prompts where there are some.
        prompts: how many prompts; None for one prompt, whose axis is left out.

    Returns:
        The table in float64.

    Raises:
        InputError: it is no such table, or the tables of the world would be too large.
    """
    table = number_table("table", given)
    table = table[None] if prompts is None and table.ndim else table
    if table.ndim < 2 or len(set(table.shape[1:])) != 1 or not table.numel():
        axes = tuple(table.shape if prompts is not None or not table.ndim else table.shape[1:])
        remedy = "for an axis of prompts before them give prompts" if prompts is None else "after the axis of prompts"
        raise InputError(f"table must have one axis of V entries for each token; got shape {axes}: {remedy}")
    if prompts is not None and len(table) != prompts:
        raise InputError(f"table must have one table for each prompt ({prompts}); got {len(table)}")
    return table


def shift_register(table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Transitions P (S, V, S), rewards r (H, S, V) and start states of the world that pays `table[prompt, answer]` at the end.

    A state is the prompt and the last H - 1 tokens as a number in base V. Before the last step these are all the tokens
    said so far behind leading zeros, so the last step, the only one that pays, knows the whole answer. S is prompts x
    V^{H-1}.

    Args:
        table: rewards of the answers, as `completion_table` gives them.

    Returns:
        P, r and the start states.

    Raises:
        InputError: the tables would be too large.
    """
    prompts, H, V = len(table), table.ndim - 1, table.shape[-1]
    words = V ** (H - 1)
    S = prompts * words
    check_bytes(8 * S * V * (S + H), f"V={V} and horizon={H} make tables of {S} states", "take less")
    states, tokens = torch.arange(S)[:, None], torch.arange(V)
    after = states - states % words + (states % words * V + tokens) % words
    P = torch.zeros(S, V, S, dtype=torch.float64).scatter_(2, after[..., None], 1.0)
    r = torch.zeros(H, S, V, dtype=torch.float64)
    r[-1] = table.reshape(S, V)
    return P, r, torch.arange(prompts) * words
