"""A small transformer along its pretraining, for those who want checkpoints without a folder of files."""

from typing import Any

from agents.policies.transformer import Transformer
from agents.training.noise import noise_of
from agents.training.pretraining import log_grid
from agents.training.pretraining import pretrain as checkpoints_of
from envs.arguments import short, whole
from envs.corpus import Corpus
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.tokens.dynamic_programming import best_words


def pretrain(
    world: TokenMDP,
    updates: int = 256,
    checkpoints: int = 7,
    *,
    quality: float = 1.0,
    noise: float = 0.0,
    coverage: float = 1.0,
    seed: int = 0,
    batch: int = 64,
    rate: float = 0.005,
    **sizes: Any,
) -> dict[int, Transformer]:
    """Pretrain a small transformer on prompts of a world and their best answers, right or guessed.

    Args:
        world: a token world without chance.
        updates: of the network, with `batch` documents each.
        checkpoints: how many after the first draw, even in the logarithm of the updates.
        quality: chance that an answer of the corpus is right; else it is guessed.
        noise: chance that a token of an answer is replaced by any token.
        coverage: share of the prompts that the corpus shows.
        seed: of the network and of the documents.
        batch: documents of an update.
        rate: step size of Adam.
        sizes: `width`, `layers`, `heads` and `dtype` of `Transformer`.

    Returns:
        Number of tokens read so far -> the policy at that time; the first has read none.

    Raises:
        InputError: the world is no token world or has no best answers, or a number is refused.
    """
    if not isinstance(world, TokenMDP):
        raise InputError(f"world must be a TokenMDP for pretraining; got {short(world)}")
    updates, corpus = whole("updates", updates, 1), Corpus(world, best_words(world), quality, noise, coverage)
    network = Transformer(world.V, length=corpus.length, seed=seed, **{"width": 16, **sizes})
    grid = log_grid(min(4, updates), updates, whole("checkpoints", checkpoints, 1))
    path = checkpoints_of([network], corpus, grid, [noise_of("documents", seed)], batch, rate)
    return {point.tokens: point.networks[0] for point in path}
