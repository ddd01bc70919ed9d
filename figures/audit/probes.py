"""Batches that a loss is tried on: every number is fixed, so that an audit gives the same answer each time."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from figures.audit.rows import Rows

V, PROMPT = 4, 2


def probe(groups: int = 2, group: int = 4, steps: int = 3, seed: int = 0, moved: float = 0.0) -> Rows:
    """Rows of many lengths, of random tokens and logits, with successes and failures in every group.

    Args:
        groups: number of groups.
        group: rows of each.
        steps: the longest completion; the others are shorter, and one row in three of the longest is cut.
        seed: of the numbers.
        moved: standard deviation of log(pi / pi_old); 0 for rows of the policy itself.

    Returns:
        The rows, group after group, in float64.
    """
    rng, rows = torch.Generator().manual_seed(seed), groups * group
    logits = torch.randn(rows, PROMPT + steps, V, generator=rng, dtype=torch.float64)
    other = logits + 0.7 * torch.randn(logits.shape, generator=rng, dtype=torch.float64)
    tokens = torch.randint(V, (rows, PROMPT + steps), generator=rng)
    lengths = 1 + (torch.arange(rows) + torch.arange(rows) // group) % steps
    mask = torch.arange(steps) < lengths[:, None]
    success = (torch.arange(rows) % group < 1 + torch.arange(rows) // group % max(1, group - 1)).double()
    rewards = torch.where(torch.arange(steps) == lengths[:, None] - 1, success[:, None], 0.0)
    log_probs, entropy = _read(logits, tokens, steps)
    drift = moved * torch.randn(rows, steps, generator=rng, dtype=torch.float64)
    ended = (lengths < steps) | (torch.arange(rows) % 3 > 0)
    index = torch.arange(rows) // group
    reference = _read(other, tokens, steps)[0]
    return Rows(log_probs, log_probs - drift, reference, entropy, rewards, mask, index, ended, logits, tokens)


def _read(logits: Tensor, tokens: Tensor, steps: int) -> tuple[Float[Tensor, "rows T"], Float[Tensor, "rows T"]]:
    log_pi = torch.log_softmax(logits[:, -steps - 1 : -1], -1)
    return log_pi.gather(-1, tokens[:, -steps:, None])[..., 0], -(log_pi.exp() * log_pi).sum(-1)


def with_returns(rows: Rows, returns: Float[Tensor, "rows"]) -> Rows:
    """The same rows with other returns, paid with the last token.

    Args:
        rows: the rows.
        returns: one number a row.

    Returns:
        The rows.
    """
    last = rows.mask & ~torch.nn.functional.pad(rows.mask[:, 1:], (0, 1))
    return replace(rows, rewards=torch.where(last, returns[:, None].to(rows.rewards), 0.0))


def of_one_length(rows: Rows) -> Rows:
    """The same rows, all of them as long as the longest.

    Args:
        rows: the rows.

    Returns:
        The rows.
    """
    full = replace(rows, mask=torch.ones_like(rows.mask))
    return with_returns(full, rows.returns)
