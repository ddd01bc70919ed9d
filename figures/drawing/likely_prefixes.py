"""The part of a prefix tree that a picture shows: the likeliest completions of one prompt, and the prefixes on their way."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.arguments import short, whole
from envs.world import InputError
from theory.tokens.prefix_tree import Tree

Prefix = tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One prefix.

    Attributes:
        tokens: those of the prefix, without the prompt's.
        value: its V, or where it is finished the return of the whole completion.
        finished: whether nothing is said after it.
        own: whether the policy speaks next.
        share: chance of its last token, given the tokens before it; 1 for the prompt.
        Q: value after its last token, as the prefix before it sees it; 0 for the prompt.
        probability: of the prefix, given the prompt.
        cut: whether tokens that may follow are not shown.
    """

    tokens: Prefix
    value: float
    finished: bool
    own: bool
    share: float
    Q: float
    probability: float
    cut: bool


@dataclass(frozen=True)
class LikelyPrefixes:
    """What is shown of a tree.

    Attributes:
        nodes: the prefixes by their tokens, each before what follows it.
        ends: those at the right, whole completions or what `depth` leaves of them, in the order of their tokens.
        of: how many of these the tree has; impossible ones do not count.
        probability: of the ends that are shown, together.
        whole: whether the ends are whole completions.
    """

    nodes: dict[Prefix, Node]
    ends: list[Prefix]
    of: int
    probability: float
    whole: bool


class _OfPrompt:
    """Numbers of one prompt's levels, one row for each prefix; chances of prefixes, returns and ends, edge by edge."""

    def __init__(self, tree: Tree, prompt: int, depth: int):
        self.V, self.horizon, self.end = tree.world.V, len(tree.levels), tree.world.end
        prompts = len(tree.levels[0].reach)

        def own_rows(level: Any) -> np.ndarray:
            rows: np.ndarray = level.detach().cpu().numpy()
            own: np.ndarray = rows.reshape(prompts, -1, *rows.shape[1:])[prompt]
            return own

        self.shares, self.Q = ([own_rows(x) for x in xs] for xs in ([one.share for one in tree.levels], tree.Q))
        self.values, self.own = ([own_rows(x) for x in xs] for xs in (tree.V, [one.own for one in tree.levels]))
        self.chances, self.returns, self.ends = [], [], []
        chance, total = np.ones(1), np.zeros(1)
        for k, level in enumerate(tree.levels[:depth]):
            along = (chance[:, None] * self.shares[k]).ravel()
            total = (total[:, None] + tree.world.gamma**k * own_rows(level.rewards)).ravel()
            last = np.arange(len(along)) % self.V == (-1 if self.end is None else self.end)
            last |= k + 1 == depth
            self.chances.append(along)
            self.returns.append(total)
            self.ends += [(k, place) for place in np.flatnonzero(last & (along > 0)).tolist()]
            chance = np.where(last, 0.0, along)

    def tokens(self, k: int, place: int) -> Prefix:
        """The tokens of an edge of level k."""
        return tuple(place // self.V ** (k - i) % self.V for i in range(k + 1))

    def node(self, tokens: Prefix, shown: dict[Prefix, set[int]]) -> Node:
        """A prefix; `shown` are the tokens that follow each in the picture."""
        place, before, k = 0, 0, len(tokens)
        for token in tokens:
            before, place = place, place * self.V + token
        share, Q = (
            float(x[k - 1][before, tokens[-1]]) if tokens else y for x, y in ((self.shares, 1.0), (self.Q, 0.0))
        )
        chance = float(self.chances[k - 1][place]) if tokens else 1.0
        if k == self.horizon or (tokens and tokens[-1] == self.end):
            return Node(tokens, float(self.returns[k - 1][place]), True, True, share, Q, chance, False)
        possible = set(np.flatnonzero(self.shares[k][place]).tolist())
        cut = tokens in shown and bool(possible - shown[tokens])
        return Node(tokens, float(self.values[k][place]), False, bool(self.own[k][place]), share, Q, chance, cut)


def likely_prefixes(tree: Tree, prompt: int, depth: int | None, most: int) -> LikelyPrefixes:
    """The `most` likeliest completions of a prompt, as far as their first `depth` tokens, and all prefixes on the way.

    Args:
        tree: grown from prompts with every token followed.
        prompt: index of the prompt.
        depth: how many tokens are shown; None for all.
        most: how many ends are kept.

    Raises:
        InputError: the tree is none or does not follow every token, or the prompt does not exist.
    """
    _check_tree(tree, prompt)
    H = len(tree.levels)
    depth = H if depth is None else min(H, whole("depth", depth, 1))
    known = _OfPrompt(tree, prompt, depth)
    chances = np.array([known.chances[k][place] for k, place in known.ends])
    kept = np.argsort(-chances, kind="stable")[:most].tolist()
    ends = sorted(known.tokens(*known.ends[i]) for i in kept)
    shown: dict[Prefix, set[int]] = {}
    for path in ends:
        for length, token in enumerate(path):
            shown.setdefault(path[:length], set()).add(token)
    prefixes = sorted({path[:length] for path in ends for length in range(len(path) + 1)})
    nodes = {tokens: known.node(tokens, shown) for tokens in prefixes}
    return LikelyPrefixes(nodes, ends, len(chances), float(chances[kept].sum()), depth == H)


def _check_tree(tree: Any, prompt: Any) -> None:
    if not isinstance(tree, Tree):
        raise InputError(f"tree must be that of costate.prefix_tree(world, policy); got {short(tree)}")
    edges = tree.levels[0].share.shape[1]
    if edges != tree.world.V:
        raise InputError(
            f"tree must follow every token; this one follows {edges} of {tree.world.V}: grow it without choose"
        )
    prompts = len(tree.levels[0].reach)
    if whole("prompt", prompt, 0) >= prompts:
        raise InputError(f"prompt {prompt} does not exist: the tree's are 0 ... {prompts - 1}")
