"""A policy with free logits for every prefix: any law over completions can be reached, so that optima are exact."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from envs.arguments import check_bytes, check_spread
from envs.token_mdp import TokenMDP
from envs.world import InputError


class PrefixTable(nn.Module):
    """`pi(a | prefix) = softmax(logits[prefix])`, one free row of V logits for every prefix of a token world.

    Row i holds prefix i: first the P different prompts, then, level by level, the children of row i at `P + i V + a`.
    It reads tokens themselves (an embedding is a one-hot row), so it has no sites, and no relaxed tokens (alpha = 1 only).

    Attributes:
        logits: the table, the only parameter.
        V: size of the vocabulary.
        length: the longest context.
        sites: none.

    Args:
        world: whose prompts, vocabulary and horizon are taken.
        logits: the table (rows, V), or one table for each level; None to draw it.
        seed: of the draw.
        spread: standard deviation of the drawn logits.

    Raises:
        InputError: the table has another shape, a row holds NaN, +infinity or no finite logit, spread is no finite number
            >= 0, or the table is too large.
    """

    sites: tuple[str, ...] = ()
    prompts: Tensor

    def __init__(self, world: TokenMDP, logits: Any = None, seed: int = 0, spread: float = 1.0):
        super().__init__()
        self.V, self.length = world.V, world.longest - 1
        self.register_buffer("prompts", torch.unique(world.prompts.cpu(), dim=0))
        rows = len(self.prompts) * sum(self.V**k for k in range(world.horizon))
        check_bytes(8 * rows * self.V, f"a table of {rows} prefixes", "take a smaller horizon or vocabulary")
        if logits is None:
            check_spread("spread", spread)
            rng = torch.Generator().manual_seed(seed)
            logits = spread * torch.randn(rows, self.V, generator=rng, dtype=torch.float64)
        self.logits = nn.Parameter(_table(logits, rows, self.V))

    def embed(self, u: Float[Tensor, "*batch V"] | Int[Tensor, "*batch"]) -> Float[Tensor, "*batch V"]:
        """One-hot rows of tokens; a row of probabilities is itself.

        Args:
            u: tokens, or one-hot rows.

        Returns:
            One-hot rows.
        """
        if u.is_floating_point():
            return u
        return nn.functional.one_hot(u, self.V).to(self.logits)

    def extend(
        self, x: Float[Tensor, "B T V"], cache: Any = None, probes: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "B V"], Any]:
        """Logits after the last new token, and the rows of the table that were reached, which serve as the cache.

        Args:
            x: one-hot rows of T new tokens; without a cache the whole context, prompt first.
            cache: row of every prefix; None at the beginning.
            probes: must be empty, as there are no sites.

        Returns:
            The logits, and the rows reached.

        Raises:
            InputError: a row of x is not one-hot, a context does not begin with a prompt or is too long, or a probe is given.
        """
        self._check(x, probes)
        tokens, known = x.argmax(-1), self.prompts.shape[1]
        if cache is None:
            row, new = self._row_of_prompt(tokens[:, :known]), tokens[:, known:]
        else:
            row, new = cache.repeat_interleave(len(x) // len(cache)), tokens
        for k in range(new.shape[1]):
            row = self._child(row, new[:, k])
        return self._logits(row), row

    def forward(
        self, embeddings: Float[Tensor, "B T V"], probes: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "B T V"]:
        """Logits at every position of whole contexts; 0 before the end of the prompt, where the table has no row.

        Args:
            embeddings: one-hot rows.
            probes: must be empty.

        Returns:
            Logits of the token after each position.

        Raises:
            InputError: as `extend`.
        """
        self._check(embeddings, probes)
        tokens, known = embeddings.argmax(-1), self.prompts.shape[1]
        row = self._row_of_prompt(tokens[:, :known])
        columns = [torch.zeros_like(embeddings[:, k]) for k in range(known - 1)] + [self._logits(row)]
        for k in range(known, tokens.shape[1]):
            row = self._child(row, tokens[:, k])
            columns.append(self._logits(row))
        return torch.stack(columns, 1)

    def _row_of_prompt(self, tokens: Int[Tensor, "B T"]) -> Int[Tensor, "B"]:
        if tokens.shape[1] != self.prompts.shape[1]:
            raise InputError(f"x must begin with a prompt of {self.prompts.shape[1]} tokens; got {tokens.shape[1]}")
        same = (tokens[:, None] == self.prompts).all(-1)
        if _is_false(same.any(-1).all()):
            raise InputError("x must begin with one of the world's prompts: the table knows no other context")
        return same.long().argmax(-1)

    def _child(self, row: Int[Tensor, "B"], token: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        return len(self.prompts) + row * self.V + token

    def _logits(self, row: Int[Tensor, "B"]) -> Float[Tensor, "B V"]:
        if _is_false((row < len(self.logits)).all()):
            raise InputError(f"x is longer than the table's longest context, {self.length} tokens")
        return self.logits[row]

    def _check(self, x: Tensor, probes: Mapping[str, Tensor] | None) -> None:
        if probes:
            raise InputError(f"sites must be empty for a PrefixTable, which has no hidden states; got {sorted(probes)}")
        if _is_false(((x == 0) | (x == 1)).all() & (x.sum(-1) == 1).all()):
            raise InputError("x must be one-hot rows: a PrefixTable reads tokens alone, so alpha must be 1")


def _is_false(condition: Tensor) -> bool:
    """Whether it is certainly false; under vmap no number can be looked at."""
    try:
        return not bool(condition)
    except RuntimeError:
        return False


def _table(logits: Any, rows: int, V: int) -> Float[Tensor, "rows V"]:
    levels = logits if isinstance(logits, list | tuple) else [logits]
    try:
        table = torch.cat([torch.as_tensor(x, dtype=torch.float64).detach().reshape(-1, V) for x in levels]).clone()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"logits must be a table of {V} numbers for each of {rows} prefixes") from None
    if len(table) != rows:
        raise InputError(f"logits must have {rows} rows, one for each prefix, of {V} numbers; got {len(table)} rows")
    if not bool((table < torch.inf).all() & table.isfinite().any(-1).all()):
        raise InputError(
            "logits must be numbers, -infinity for a token that is forbidden, and one token possible in each row"
        )
    return table
