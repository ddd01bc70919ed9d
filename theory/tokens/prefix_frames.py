"""Tables of what is known at every prefix of a tree in which all tokens are followed: one row for each prefix."""

import itertools
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor


def prefix_frame(values: Sequence[Tensor], branches: int | None = None) -> pd.DataFrame:
    """The prefixes of a tree, in the order of its levels.

    Args:
        values: one number for each node, level by level.
        branches: tokens that follow each node, by default what the sizes of the first two levels say.

    Returns:
        Columns `level` (tokens said so far), `prompt` (its index) and `tokens` (a tuple).
    """
    prompts = len(values[0])
    if branches is None:
        branches = len(values[1]) // prompts if len(values) > 1 else 1
    levels = [itertools.product(range(prompts), *[range(branches)] * k) for k in range(len(values))]
    rows = [(k, prompt, tuple(tokens)) for k, level in enumerate(levels) for prompt, *tokens in level]
    return pd.DataFrame(rows, columns=["level", "prompt", "tokens"])


def joined(levels: Sequence[Tensor]) -> Tensor:
    """Numbers of all nodes one after the other, on the CPU in float64.

    Args:
        levels: (N_k, ...) of every level; what differs in the other axes must have been removed.

    Returns:
        One tensor, the nodes of all levels along its first axis.
    """
    return torch.cat([level.detach().cpu().double() for level in levels])


def last_position(levels: Sequence[Tensor]) -> Tensor:
    """The costate at the last position of every prefix, (nodes, D).

    Args:
        levels: costates (N_k, positions, D) of every level.

    Returns:
        Those at the last position, all levels one after the other.
    """
    return joined([level[:, -1] for level in levels])


def numbered(name: str, rows: Tensor) -> pd.DataFrame:
    """A column for each component of vectors.

    Args:
        name: what the vectors are.
        rows: (nodes, components), on the CPU.

    Returns:
        Columns `NAME.0`, `NAME.1`, ...
    """
    return pd.DataFrame(rows.numpy()).add_prefix(f"{name}.")
