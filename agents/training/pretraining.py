"""Next-token training from scratch on a corpus, many seeds at once: the trajectory from which RL may start anywhere."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agents.training.copies import Copies
from envs.arguments import check_bytes
from envs.corpus import Corpus
from envs.policy import ContextPolicy
from envs.record import short_repr
from envs.world import InputError

_MOST_CHECKPOINTS = 10_000


@short_repr
@dataclass(frozen=True)
class Checkpoint:
    """The networks at one moment of pretraining.

    Attributes:
        updates: number of updates so far.
        tokens: number of tokens that each network has read.
        loss: mean loss since the last checkpoint, in nats for each token; NaN at the first.
        networks: copies of their own.
    """

    updates: int
    tokens: int
    loss: Float[Tensor, "S"]
    networks: list[Any]


def log_grid(first: int, last: int, count: int) -> list[int]:
    """0 and about `count` numbers of updates from `first` to `last`, even in the logarithm, each once.

    Args:
        first: the smallest number above 0.
        last: the largest.
        count: about how many.

    Returns:
        Rising whole numbers, 0 and `last` among them.

    Raises:
        InputError: first and last do not rise from 1, or count is out of range.
    """
    if not 1 <= first <= last or not 1 <= count <= _MOST_CHECKPOINTS:
        raise InputError(
            f"first and last must be rising whole numbers >= 1, count (checkpoints) from 1 to {_MOST_CHECKPOINTS}; "
            f"got {first}, {last}, {count}"
        )
    steps = [first * (last / first) ** (i / max(1, count - 1)) for i in range(count)]
    return sorted({0, *(round(step) for step in steps), last})


def next_token_loss(network: ContextPolicy, documents: Int[Tensor, "rows length"]) -> Float[Tensor, ""]:
    """`-mean log pi(x_{t+1} | x_0 ... x_t)` over all rows and all positions but the first, the prompt's own included.

    Args:
        network: a policy that reads whole contexts.
        documents: tokens, one document in each row.

    Returns:
        The loss in nats for each token.
    """
    log_pi = torch.log_softmax(network(network.embed(documents[:, :-1])), -1)
    return -log_pi.gather(-1, documents[:, 1:, None]).mean()


def pretrain(
    networks: list[Any],
    corpus: Corpus,
    grid: Sequence[int],
    noise: list[torch.Generator],
    batch: int = 64,
    rate: float = 0.005,
) -> Iterator[Checkpoint]:
    """Adam on the next-token loss of fresh documents; a checkpoint at every number of updates of `grid` (rising).

    Each network reads documents of its own generator, so a seed gives the same run alone and beside others (to
    rounding). The networks given are left as they are.

    Args:
        networks: of one kind, at the start of training.
        corpus: what is read.
        grid: numbers of updates, rising.
        noise: one generator for each network.
        batch: documents of each update.
        rate: step size of Adam.

    Returns:
        An iterator over the checkpoints; it trains as it goes.

    Raises:
        InputError: the grid does not rise, generators are not one for each network, the batch is empty or too large, or
            the rate is not > 0.
    """
    if list(grid) != sorted(set(grid)) or not grid or grid[0] < 0:
        raise InputError(f"grid must be rising whole numbers >= 0; got {tuple(grid)}")
    if len(noise) != len(networks):
        raise InputError(f"noise must be {len(networks)} generators, one a network; got {len(noise)}")
    if batch < 1 or not 0 < rate < math.inf:
        raise InputError(f"batch must be >= 1 and rate > 0; got {batch} and {rate}")
    needed = 8 * len(networks) * batch * corpus.length * corpus.world.V
    check_bytes(needed, f"batch={batch} makes documents", "take a smaller one")
    return _trajectory(Copies([_copy(network) for network in networks]), corpus, grid, noise, batch, rate)


def _trajectory(
    learning: Copies, corpus: Corpus, grid: Sequence[int], noise: list[torch.Generator], batch: int, rate: float
) -> Iterator[Checkpoint]:
    optimiser = torch.optim.Adam(learning.parameters, lr=rate)
    losses: list[Tensor] = []
    for done in range(grid[-1] + 1):
        if done in grid:
            yield _checkpoint(learning, done, done * batch * corpus.length, losses)
            losses = []
        if done < grid[-1]:
            documents = torch.stack([corpus.draw(batch, rng) for rng in noise]).to(learning.like.device)
            loss = learning.run(next_token_loss, documents)
            for p, g in zip(learning.parameters, torch.autograd.grad(loss.sum(), learning.parameters), strict=True):
                p.grad = g
            optimiser.step()
            losses.append(loss.detach())


def _copy(network: Any) -> Any:
    return Copies([network]).frozen().network.requires_grad_()


def _checkpoint(learning: Copies, updates: int, tokens: int, losses: list[Tensor]) -> Checkpoint:
    frozen = learning.frozen()
    loss = torch.stack(losses).double().mean(0).cpu() if losses else torch.full((learning.count,), torch.nan)
    return Checkpoint(updates, tokens, loss, [frozen.network_of(i).requires_grad_() for i in range(learning.count)])
