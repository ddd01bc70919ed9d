"""What a policy is pretrained on: documents, each a prompt and an answer, right or not, with a law known in closed form.

Reinforcement pre-training takes every place of a document as a prompt of its own, paid for the true next token alone
(`next_token_world`).
"""

import itertools
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from envs.arguments import check_bytes, whole
from envs.record import short_repr
from envs.token_mdp import TokenMDP, check_tokens
from envs.world import InputError


@short_repr
@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents (prompt, answer) about a token world; `answers` holds the right word of every prompt.

    A document's prompt is one of the prompts shown, even chances; its answer is the right word with probability
    `quality`, else a guess, every token even among those that occur in answers; then every token of the answer is
    replaced, with probability `noise`, by any token of the vocabulary. For a word o and the right word a,

    `P(o | prompt) = q prod_t [(1-n) 1(o_t = a_t) + n/V] + (1-q) prod_t [(1-n) 1(o_t in A)/|A| + n/V]`.

    A skill is all prompts with one first token.

    Attributes:
        world: whose prompts and vocabulary are taken.
        answers: the right word of every prompt.
        quality: probability of the right word, q.
        noise: probability that a token is replaced, n.
        coverage: share of each skill's prompts that are shown; at least one of each is.
        seed: chooses the prompts that are shown.
        shown: True for the prompts that are shown.

    Raises:
        InputError: a share lies outside [0, 1], or the answers do not fit the world.
    """

    world: TokenMDP
    answers: Int[Tensor, "prompts H"]
    quality: float = 1.0
    noise: float = 0.0
    coverage: float = 1.0
    seed: int = 0
    shown: Bool[Tensor, "prompts"] = field(init=False)

    def __post_init__(self) -> None:
        """Check the knobs and choose the prompts."""
        for name in ("quality", "noise", "coverage"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie in [0, 1]; got {getattr(self, name)!r}")
        wanted = (len(self.world.prompts), self.world.horizon)
        if tuple(self.answers.shape) != wanted:
            raise InputError(
                f"answers must have shape {wanted}, a word for every prompt; got {tuple(self.answers.shape)}"
            )
        check_tokens(self.world, self.answers)
        object.__setattr__(self, "shown", self._choose())

    def _choose(self) -> Tensor:
        rng, skill = np.random.default_rng(self.seed), self.world.prompts[:, 0].cpu().numpy()
        shown = np.zeros(len(skill), dtype=bool)
        for name in np.unique(skill):
            members = rng.permutation(np.flatnonzero(skill == name))
            shown[members[: max(1, round(self.coverage * len(members)))]] = True
        return torch.from_numpy(shown)

    @property
    def length(self) -> int:
        """Tokens of a document."""
        return self.world.longest

    def draw(self, count: int, rng: torch.Generator) -> Int[Tensor, "count length"]:
        """Documents, on the CPU.

        Args:
            count: how many.
            rng: a generator on the CPU.

        Returns:
            Prompt and answer of each document.
        """
        rows = self.shown.nonzero()[:, 0]
        prompt = rows[torch.randint(len(rows), (count,), generator=rng)]
        right, shape = self.answers[prompt], (count, self.world.horizon)
        said = self.answers.unique()
        guess = said[torch.randint(len(said), shape, generator=rng)]
        slip = torch.randint(self.world.V, shape, generator=rng)
        chance = torch.rand(count, 1 + self.world.horizon, generator=rng, dtype=torch.float64)
        answer = torch.where(chance[:, :1] < self.quality, right, guess)
        answer = torch.where(chance[:, 1:] < self.noise, slip, answer)
        return torch.cat([self.world.prompts[prompt], answer], 1)

    def chances(self, words: Int[Tensor, "words H"]) -> Float[Tensor, "prompts words"]:
        """`P(word | prompt)`: what a reader that learns the corpus perfectly says, for prompts that are shown.

        Args:
            words: the words whose probabilities are wanted.

        Returns:
            A probability for every prompt and word.

        Raises:
            InputError: the words are not of the world's horizon.
        """
        if check_tokens(self.world, words).shape[1] != self.world.horizon:
            raise InputError(f"words must have {self.world.horizon} tokens, the world's horizon; got {words.shape[1]}")
        return self._chances(words)

    def _chances(self, words: Int[Tensor, "words k"]) -> Float[Tensor, "prompts words"]:
        """`P(the answer begins with the word | prompt)`, for words of any length up to the horizon."""
        V, said = self.world.V, self.answers.unique()
        slip, keep = self.noise / V, 1 - self.noise
        right = keep * (words[None] == self.answers[:, None, : words.shape[1]]).double() + slip
        guess = keep * torch.isin(words, said).double() / len(said) + slip
        return self.quality * right.prod(-1) + (1 - self.quality) * guess.prod(-1)

    def beginnings(self, count: int) -> tuple[Int[Tensor, "rows count"], Float[Tensor, "rows"]]:
        """All different first tokens that documents have, and how likely each is.

        Args:
            count: number of tokens, from 1 to the length of a document.

        Returns:
            Tokens, and their probabilities, which sum to 1.

        Raises:
            InputError: count is out of range, or there are too many.
        """
        world, start = self.world, self.world.prompts.shape[1]
        if whole("count", count, 1) > self.length:
            raise InputError(f"count must be at most {self.length}, the tokens of a document; got {count}")
        said, asked = max(0, count - start), world.prompts[self.shown]
        needed = 8 * len(self.shown) * world.V**said * max(count, 1)
        check_bytes(needed, f"count={count} makes beginnings of documents", "take fewer tokens or a smaller world")
        words = torch.tensor(list(itertools.product(range(world.V), repeat=said)), dtype=torch.long)
        chance = self._chances(words)[self.shown].flatten() / len(asked)
        rows = torch.cat([asked[:, :count].repeat_interleave(len(words), 0), words.repeat(len(asked), 1)], 1)
        rows, index = torch.unique(rows[chance > 0], dim=0, return_inverse=True)
        return rows, chance.new_zeros(len(rows)).index_add_(0, index, chance[chance > 0])


def next_token_world(corpus: Corpus, position: int, thoughts: int = 0) -> TokenMDP:
    """The corpus at one place as a world: every pair (context, next token) is a prompt, and naming that token pays 1.

    Args:
        corpus: whose documents are read.
        position: number of tokens of the context, from 1 to the length of a document less 1.
        thoughts: tokens that the policy says before it names the next one; they are paid nothing.

    Returns:
        The world of `prediction_world`.

    Raises:
        InputError: position or thoughts is out of range, or the tables would be too large.
    """
    if whole("position", position, 1) >= corpus.length:
        raise InputError(
            f"position must be below {corpus.length}, the tokens of a document: a token must follow; got {position}"
        )
    return prediction_world(corpus.world.V, *corpus.beginnings(position + 1), thoughts)


def prediction_world(
    V: int, rows: Int[Tensor, "pairs tokens"], weights: Float[Tensor, "pairs"], thoughts: int = 0
) -> TokenMDP:
    """Contexts and next tokens as a world: say `thoughts` tokens, then the next token; only if it is right, 1 is paid.

    Several pairs may have one context. The state is the true next token, which the policy does not see.

    Args:
        V: size of the vocabulary.
        rows: of each pair its context, and the next token in the last column.
        weights: probabilities of the pairs, which sum to 1.
        thoughts: tokens before the prediction.

    Returns:
        A world with one prompt for each pair, horizon `thoughts + 1` and rewards of 0 and 1, which are the signal "accuracy"
        too. Its optimal return is that of the likeliest next token after every context.

    Raises:
        InputError: thoughts is negative, or what `TokenMDP` refuses.
    """
    horizon = whole("thoughts", thoughts, 0) + 1
    check_bytes(8 * V * V * (V + horizon), f"V={V} makes tables", "take fewer tokens")
    stays = torch.eye(V, dtype=torch.float64)
    paid = torch.zeros(horizon, V, V, dtype=torch.float64)
    paid[-1] = stays
    _, context = torch.unique(rows[:, :-1], dim=0, return_inverse=True)
    best = weights.new_zeros(len(rows)).scatter_reduce_(0, context, weights, "amax", include_self=False)
    P, most = stays[:, None].expand(V, V, V), float(best.sum())
    pairs = (rows[:, :-1], rows[:, -1])
    return TokenMDP(P, paid, *pairs, horizon, weights=weights, optimal_return=most, signals={"accuracy": paid})
