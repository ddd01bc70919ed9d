"""Next-token training from scratch on a corpus, many seeds at once: the trajectory from which RL may start anywhere."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agents.training.copies import Copies
from agents.training.next_token_reward import NextTokenReward
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
        loss: mean since the last checkpoint of the loss in nats for each token, or, where next tokens are rewarded, of the
            share of sampled tokens that were wrong; NaN at the first.
        networks: copies of their own.
        progress: what the next update depends on besides the networks: states of the optimiser and of the noise.
    """

    updates: int
    tokens: int
    loss: Float[Tensor, "S"]
    networks: list[Any]
    progress: dict[str, Any] = field(default_factory=dict)


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
    reward: NextTokenReward | None = None,
    progress: dict[str, Any] | None = None,
) -> Iterator[Checkpoint]:
    """Adam on the next-token loss of fresh documents, or on a reward of next tokens, with checkpoints at the numbers of `grid`.

    Each network reads documents of its own generator, so a seed gives the same run alone and beside others (to
    rounding). The networks given are left as they are.

    Args:
        networks: of one kind, at the start of training.
        corpus: what is read.
        grid: numbers of updates, rising.
        noise: one generator for each network.
        batch: documents of each update.
        rate: step size of Adam.
        reward: of sampled next tokens, in the place of the loss; None for the likelihood.
        progress: that of the checkpoint from which the run goes on, with its networks given and its number of updates first
            in the grid; the states of the generators given are set to its own. None for a new run.

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
    if reward is not None:
        reward.check(len(networks), batch, corpus)
    learning = Copies([_copy(network) for network in networks])
    optimiser = torch.optim.Adam(learning.parameters, lr=rate)
    if progress is not None:
        optimiser.load_state_dict(progress["optimiser"])
        for rng, state in zip(noise, progress["noise"], strict=True):
            rng.set_state(state)
    return _trajectory(learning, optimiser, corpus, grid, noise, batch, reward)


def _trajectory(
    learning: Copies,
    optimiser: torch.optim.Optimizer,
    corpus: Corpus,
    grid: Sequence[int],
    noise: list[torch.Generator],
    batch: int,
    reward: NextTokenReward | None,
) -> Iterator[Checkpoint]:
    losses: list[Tensor] = []
    for done in range(grid[0] if optimiser.state else 0, grid[-1] + 1):
        if done in grid:
            states = {"optimiser": optimiser.state_dict(), "noise": [rng.get_state() for rng in noise]}
            yield _checkpoint(learning, done, done * batch * corpus.length, losses, copy.deepcopy(states))
            losses = []
        if done < grid[-1]:
            documents = torch.stack([corpus.draw(batch, rng) for rng in noise]).to(learning.like.device)
            if reward is None:
                loss = told = learning.run(next_token_loss, documents)
            else:
                loss, told = reward.losses(learning, documents, noise)
            for p, g in zip(learning.parameters, torch.autograd.grad(loss.sum(), learning.parameters), strict=True):
                p.grad = g
            optimiser.step()
            losses.append(told.detach())


def _copy(network: Any) -> Any:
    return Copies([network]).frozen().network.requires_grad_()


def _checkpoint(
    learning: Copies, updates: int, tokens: int, losses: list[Tensor], progress: dict[str, Any]
) -> Checkpoint:
    frozen = learning.frozen()
    loss = torch.stack(losses).double().mean(0).cpu() if losses else torch.full((learning.count,), torch.nan)
    networks = [frozen.network_of(i).requires_grad_() for i in range(learning.count)]
    return Checkpoint(updates, tokens, loss, networks, progress)
