"""What a policy is pretrained on: documents, each a prompt and an answer, right or not, with a law known in closed form."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

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
        V, said = self.world.V, self.answers.unique()
        slip, keep = self.noise / V, 1 - self.noise
        right = keep * (words[None] == self.answers[:, None]).double() + slip
        guess = keep * torch.isin(words, said).double() / len(said) + slip
        return self.quality * right.prod(-1) + (1 - self.quality) * guess.prod(-1)
