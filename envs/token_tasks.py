"""Named token tasks: small builders of `TokenMDP`, each with its optimal expected return known."""

import itertools
from collections.abc import Sequence

import numpy as np

from envs.arguments import check_bytes, check_finite, check_seed, whole
from envs.token_mdp import TokenMDP
from envs.world import InputError


def check_tables(V: int, states: int, horizon: int, /, **sizes: int) -> None:
    """Refuse a world whose tables of S states would be too large, naming the sizes that were asked for.

    Args:
        V: size of the vocabulary.
        states: number of abstract states.
        horizon: number of tokens.
        sizes: the options that were asked for, by name; the error names them.

    Raises:
        InputError: the tables would need more than `envs.arguments.MOST_BYTES`.
    """
    asked = sizes or {"V": V, "states": states, "horizon": horizon}
    named = " and ".join(f"{name}={size}" for name, size in asked.items())
    check_bytes(
        8 * states * V * (states + horizon), f"{named} make tables of {states:.4g} states and {V} tokens", "take less"
    )


def sequence_task(
    V: int, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], sparse: bool = True, gamma: float = 1.0
) -> TokenMDP:
    """Every prompt has one right answer of H tokens.

    Sparse: 1 at the last step if all H tokens were right; states (prompt, tokens right so far) and "wrong"; optimal return
    `gamma^{H-1}`. Dense: 1/H for every right token; one state per prompt; optimal return `(1/H) sum_k gamma^k`.

    Args:
        V: size of the vocabulary.
        prompts: token sequences of one length.
        answers: the right answer of each prompt, all of one length H.
        sparse: whether only a wholly right answer is paid.
        gamma: discount per token.

    Returns:
        The world.

    Raises:
        InputError: there is not one answer for each prompt, lengths differ, a token is outside of the vocabulary, or
            the tables would be too large.
    """
    if len(prompts) != len(answers) or len({len(answer) for answer in answers}) != 1 or not len(answers[0]):
        raise InputError("answers must be one per prompt, all of one length >= 1")
    tokens = [token for row in (*prompts, *answers) for token in row]
    if min(tokens) < 0 or max(tokens) >= V:
        raise InputError(f"V={V} does not fit: the task speaks tokens {min(tokens)} ... {max(tokens)} of 0 ... V - 1")
    count, H = len(answers), len(answers[0])
    check_tables(V, count * H + 1 if sparse else count, H)
    build = _all_or_nothing if sparse else _token_by_token
    return build(V, prompts, np.asarray(answers), gamma)


def _all_or_nothing(V: int, prompts: Sequence[Sequence[int]], answers: np.ndarray, gamma: float) -> TokenMDP:
    count, H = answers.shape
    wrong = count * H
    P, r = np.zeros((wrong + 1, V, wrong + 1)), np.zeros((H, wrong + 1, V))
    P[:, :, wrong] = 1
    for i, k in np.ndindex(count, H):
        z, token = i * H + k, answers[i, k]
        if k + 1 < H:
            P[z, token, [wrong, z + 1]] = 0, 1
        else:
            r[H - 1, z, token] = 1
    starts, best = [i * H for i in range(count)], gamma ** (H - 1)
    return TokenMDP(P, r, prompts, starts, H, gamma, optimal_return=best, signals={"accuracy": r})


def _token_by_token(V: int, prompts: Sequence[Sequence[int]], answers: np.ndarray, gamma: float) -> TokenMDP:
    count, H = answers.shape
    P = np.repeat(np.eye(count)[:, None], V, axis=1)
    r = np.zeros((H, count, V))
    for i, k in np.ndindex(count, H):
        r[k, i, answers[i, k]] = 1 / H
    best = sum(gamma**k for k in range(H)) / H
    return TokenMDP(P, r, prompts, range(count), H, gamma, optimal_return=best)


def combination_lock(V: int = 4, horizon: int = 4, gamma: float = 1.0, seed: int = 0) -> TokenMDP:
    """One secret word of `horizon` tokens opens the lock: sparse reward, credit over the whole length.

    Args:
        V: size of the vocabulary.
        horizon: length of the secret word.
        gamma: discount per token.
        seed: chooses the word.

    Returns:
        The world, with one prompt.

    Raises:
        InputError: an option is out of its range.
    """
    _at_least(1, V=V, horizon=horizon)
    check_tables(V, horizon + 1, horizon, V=V, horizon=horizon)
    word = np.random.default_rng(check_seed(seed)).integers(V, size=horizon)
    return sequence_task(V, [[0]], [word.tolist()], True, gamma)


def copy(V: int = 3, length: int = 3, sparse: bool = True, gamma: float = 1.0) -> TokenMDP:
    """Say the prompt again; every word of `length` tokens is a prompt.

    Args:
        V: size of the vocabulary.
        length: of prompts and answers.
        sparse: whether only a wholly right answer is paid.
        gamma: discount per token.

    Returns:
        The world, with V^length prompts.

    Raises:
        InputError: an option is out of its range.
    """
    words = _words(V, length, sparse)
    return sequence_task(V, words, words, sparse, gamma)


def reverse(V: int = 3, length: int = 3, sparse: bool = True, gamma: float = 1.0) -> TokenMDP:
    """Say the prompt backwards; every word of `length` tokens is a prompt.

    Args:
        V: size of the vocabulary.
        length: of prompts and answers.
        sparse: whether only a wholly right answer is paid.
        gamma: discount per token.

    Returns:
        The world, with V^length prompts.

    Raises:
        InputError: an option is out of its range.
    """
    words = _words(V, length, sparse)
    return sequence_task(V, words, [word[::-1] for word in words], sparse, gamma)


def arithmetic(modulus: int = 4, horizon: int = 2, sparse: bool = True, gamma: float = 1.0) -> TokenMDP:
    """Prompt (a, b); answer `a + b, a + 2 b, ...` modulo the size of the vocabulary: the prompt decides everything.

    Args:
        modulus: size of the vocabulary.
        horizon: length of the answers.
        sparse: whether only a wholly right answer is paid.
        gamma: discount per token.

    Returns:
        The world, with modulus^2 prompts.

    Raises:
        InputError: an option is out of its range.
    """
    _at_least(1, modulus=modulus, horizon=horizon)
    check_tables(modulus, modulus**2 * (horizon if sparse else 1) + 1, horizon, modulus=modulus, horizon=horizon)
    pairs = list(itertools.product(range(modulus), repeat=2))
    answers = [tuple((a + (k + 1) * b) % modulus for k in range(horizon)) for a, b in pairs]
    return sequence_task(modulus, pairs, answers, sparse, gamma)


def _words(V: int, length: int, sparse: bool) -> list[tuple[int, ...]]:
    _at_least(1, V=V, length=length)
    check_tables(V, V**length * (length if sparse else 1) + 1, length, V=V, length=length)
    return list(itertools.product(range(V), repeat=length))


def _at_least(least: int, **sizes: int) -> None:
    """Refuse a size below what the task needs."""
    for name, size in sizes.items():
        whole(name, size, least)


def parity(V: int = 2, horizon: int = 4, gamma: float = 1.0) -> TokenMDP:
    """The last token must be the parity (0 or 1) of the sum of all tokens before it; two states; optimal `gamma^{H-1}`.

    Args:
        V: size of the vocabulary, at least 2.
        horizon: number of tokens.
        gamma: discount per token.

    Returns:
        The world, with one prompt.

    Raises:
        InputError: an option is out of its range.
    """
    _at_least(2, V=V)
    _at_least(1, horizon=horizon)
    check_tables(V, 2, horizon, V=V, horizon=horizon)
    P, r = np.zeros((2, V, 2)), np.zeros((horizon, 2, V))
    for z, a in np.ndindex(2, V):
        P[z, a, (z + a) % 2] = 1
    r[horizon - 1, [0, 1], [0, 1]] = 1
    best = gamma ** (horizon - 1)
    return TokenMDP(P, r, [[0]], [0], horizon, gamma, optimal_return=best, signals={"accuracy": r})


def sum_and_stop(modulus: int = 2, horizon: int = 4, gamma: float = 1.0, bonus: float = 0.0) -> TokenMDP:
    """Say numbers until their sum is the prompt's, modulo `modulus`, then stop: answers of many lengths.

    Tokens 0 ... modulus - 1 are numbers, token `modulus` is the end token. Prompts are the wanted sums 1 ... modulus - 1,
    and 0 where modulus is 1. The end token pays 1 if the sum is right; without it within `horizon` tokens (truncated)
    nothing is paid. States: what is missing of the sum, and "over". Optimal return gamma (one number, then stop), and 1
    for the prompt 0. Every number is paid `bonus` besides, a reward for length; the signal "accuracy" does not see it.

    Args:
        modulus: how many numbers there are.
        horizon: most tokens of an answer, at least 2.
        gamma: discount per token.
        bonus: paid for every number.

    Returns:
        The world, with an end token.

    Raises:
        InputError: an option is out of its range.
    """
    check_finite("bonus", bonus)
    _at_least(1, modulus=modulus)
    _at_least(2, horizon=horizon)
    over, V = modulus, modulus + 1
    check_tables(V, V, horizon, modulus=modulus, horizon=horizon)
    P, r = np.zeros((V, V, V)), np.zeros((V, V))
    P[:, modulus, over] = P[over, :, over] = 1
    for missing, number in np.ndindex(modulus, modulus):
        P[missing, number, (missing - number) % modulus] = 1
    r[0, modulus] = 1
    accuracy = r.copy()
    r[:over, :modulus] = bonus
    prompts = list(range(min(1, modulus - 1), modulus))
    paid = [bonus * sum(gamma**k for k in range(n)) for n in range(horizon + 1)]  # for n numbers
    best = max(paid[-1], *(gamma**n + paid[n] for n in range(min(1, modulus - 1), horizon)))
    asked, signals = [[p] for p in prompts], {"accuracy": accuracy}
    return TokenMDP(P, r, asked, prompts, horizon, gamma, optimal_return=best, end=modulus, signals=signals)


def distractor(V: int = 4, horizon: int = 5, gamma: float = 1.0) -> TokenMDP:
    """The reward, 1 at the end, depends on the first token only (it must be token 1); all later tokens are idle talk.

    States: undecided, good, bad. Optimal return `gamma^{H-1}`.

    Args:
        V: size of the vocabulary, at least 2.
        horizon: number of tokens.
        gamma: discount per token.

    Returns:
        The world, with one prompt.

    Raises:
        InputError: an option is out of its range.
    """
    _at_least(2, V=V)
    _at_least(1, horizon=horizon)
    check_tables(V, 3, horizon, V=V, horizon=horizon)
    P, r = np.zeros((3, V, 3)), np.zeros((horizon, 3, V))
    P[0, :, 2] = P[1, :, 1] = P[2, :, 2] = 1
    P[0, 1, [1, 2]] = 1, 0
    if horizon == 1:
        r[0, 0, 1] = 1
    else:
        r[horizon - 1, 1, :] = 1
    best = gamma ** (horizon - 1)
    return TokenMDP(P, r, [[0]], [0], horizon, gamma, optimal_return=best, signals={"accuracy": r})


def garnet(
    V: int = 4, states: int = 5, horizon: int = 4, branching: int = 2, gamma: float = 1.0, seed: int = 0
) -> TokenMDP:
    """A seeded random world: every (state, token) leads to `branching` states with random probabilities, dense rewards.

    Optimal return by backward induction over the tables.

    Args:
        V: size of the vocabulary.
        states: number of abstract states.
        horizon: number of tokens.
        branching: states that a token may lead to.
        gamma: discount per token.
        seed: of all random tables.

    Returns:
        The world, with one prompt.

    Raises:
        InputError: an option is out of its range.
    """
    _at_least(1, V=V, states=states, horizon=horizon)
    if not 1 <= branching <= states:
        raise InputError(f"branching must be between 1 and states={states}; got {branching}")
    check_tables(V, states, horizon)
    rng = np.random.default_rng(check_seed(seed))
    P = np.zeros((states, V, states))
    for z, a in np.ndindex(states, V):
        share = rng.dirichlet(np.ones(branching))
        P[z, a, rng.choice(states, branching, replace=False)] = share / share.sum()  # exactly 1 where there is one
    r = rng.uniform(0, 1, (horizon, states, V))
    best = np.zeros(states)
    for k in reversed(range(horizon)):
        best = (r[k] + gamma * P @ best).max(-1)
    return TokenMDP(P, r, [[0]], [0], horizon, gamma, optimal_return=float(best[0]))
