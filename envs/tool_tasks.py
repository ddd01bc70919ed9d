"""Token tasks with a tool: the environment answers between the policy's own tokens."""

import numpy as np

from envs.arguments import whole
from envs.token_mdp import TokenMDP
from envs.token_tasks import check_tables
from envs.world import InputError


def ask_oracle(numbers: int = 2, asks: int = 1, noise: float = 0.0, cost: float = 0.0, gamma: float = 1.0) -> TokenMDP:
    """Guess a hidden number, drawn evenly among `numbers`; an oracle may be asked for it first, `asks` times at most.

    Tokens 0 ... numbers - 1 are guesses and answers, token `numbers` asks, token `numbers + 1` is the end token. The policy
    speaks first. If it asks, for `cost`, the oracle says the hidden number, or with probability `noise` one of the others, and
    the policy speaks again. If it says a number, the environment says the end token, which pays 1 if the number is right. The
    end token from the policy pays nothing. The horizon is `2 asks + 2`: every answer can still be used.

    States: nothing asked yet; for every number "the oracle answers" and "the policy speaks, the number is drawn"; the guess is
    right, it is wrong, over. The number is drawn when it is first asked for, or guessed.

    Args:
        numbers: how many numbers there are, >= 2.
        asks: how often the oracle can be asked within the horizon, >= 1.
        noise: probability of a wrong answer, in [0, 1].
        cost: of asking once, >= 0.
        gamma: discount of each token, the environment's included.

    Returns:
        The world. Its optimal return is that of the best policy over all that was said, by backward induction over the counts
        of the answers; without noise `max(gamma / numbers, gamma^3 - cost)`.

    Raises:
        InputError: a number is out of its range.
    """
    whole("numbers", numbers, 2)
    whole("asks", asks, 1)
    _check_shares(noise, cost)
    m, horizon = numbers, 2 * asks + 2
    S, V, ask, end = 2 * m + 4, m + 2, m, m + 1
    check_tables(V, S, horizon, numbers=numbers, asks=asks)
    first, right, wrong, over = 0, 2 * m + 1, 2 * m + 2, 2 * m + 3
    answering, waiting = np.arange(1, m + 1), np.arange(m + 1, 2 * m + 1)
    P, r, speech = np.zeros((S, V, S)), np.zeros((S, V)), np.zeros((S, V))
    P[first, :m, right], P[first, :m, wrong] = 1 / m, (m - 1) / m
    P[first, ask, answering] = 1 / m
    for i in range(m):
        P[answering[i], :end, waiting[i]] = P[waiting[i], ask, answering[i]] = 1
        P[waiting[i], :m, wrong] = 1
        P[waiting[i], i, [right, wrong]] = 1, 0
        speech[answering[i], :m] = noise / (m - 1)
        speech[answering[i], i] = 1 - noise
    P[:right, end, over] = P[[right, wrong, over], :, over] = 1
    speech[[right, wrong], end] = 1
    r[[first, *waiting], ask], r[right, end] = -cost, 1
    best = _best_return((0,) * m, asks, noise, cost, gamma)
    return TokenMDP(P, r, [[ask]], [first], horizon, gamma, optimal_return=best, end=end, speech=speech)


def _best_return(counts: tuple[int, ...], asks: int, noise: float, cost: float, gamma: float) -> float:
    """The best return from here on, when every number was answered so many times and `asks` questions are left."""
    m = len(counts)
    answers = np.full((m, m), noise / (m - 1))  # of each number, given the hidden one
    np.fill_diagonal(answers, 1 - noise)
    joint = (answers ** np.asarray(counts)).prod(1)
    hidden = joint / joint.sum()
    guess = gamma * float(hidden.max())
    if not asks:
        return guess
    later = 0.0
    for answer, chance in enumerate(hidden @ answers):
        if chance > 0:
            after = (*counts[:answer], counts[answer] + 1, *counts[answer + 1 :])
            later += float(chance) * _best_return(after, asks - 1, noise, cost, gamma)
    return max(guess, gamma**2 * later - cost)


def _check_shares(noise: float, cost: float) -> None:
    if not 0 <= noise <= 1:
        raise InputError(f"noise must lie in [0, 1], the probability of a wrong answer; got {noise!r}")
    if not 0 <= cost < float("inf"):
        raise InputError(f"cost must be a finite number >= 0; got {cost!r}")
