"""One small causal transformer: pre-norm blocks, softmax attention, token head or Gaussian head.

It reads *embeddings*, so relaxed tokens can be fed in as well as tokens. A *site* is a place in the residual stream where
a zero tensor (a *probe*) may be added to read a derivative: "embedding" (before the first block) and "layer1" ... "layerL"
(after each block).

Shapes: B rows, T positions, D width, V vocabulary. The cache of `extend` is a list of chunks (keys, values) for each layer.
Each row of a chunk of b rows serves B / b consecutive rows of the batch, so the nodes of a prefix tree share the keys and
values of their ancestors without copies.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from agents.policies.knobs import divided, entropy_knobs
from envs.arguments import check_bytes
from envs.world import InputError

Chunk = tuple[Tensor, Tensor]
Cache = list[list[Chunk]]


class Linear(nn.Linear):
    """A linear map whose parameters are drawn by the network that it belongs to."""

    def reset_parameters(self) -> None:
        """Do nothing: torch would draw from the global generator here."""


class Embedding(nn.Embedding):
    """A token table whose parameters are drawn by the network that it belongs to."""

    def reset_parameters(self) -> None:
        """Do nothing: torch would draw from the global generator here."""


class Attention(nn.Module):
    """Causal multi-head self-attention over the chunks of a cache.

    Args:
        width: D.
        heads: number of heads, a divisor of the width.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.inward, self.outward = Linear(width, 3 * width), Linear(width, width)

    def forward(self, x: Float[Tensor, "B T D"], past: list[Chunk]) -> tuple[Float[Tensor, "B T D"], list[Chunk]]:
        """Attend from x to the past and, causally, to x itself; return the output and the past with x added.

        Args:
            x: the new positions.
            past: keys and values of the positions before them, in chunks.

        Returns:
            The output, and the past with x added.

        Raises:
            InputError: x has several positions and the past is not empty.
        """
        if past and x.shape[1] > 1:
            raise InputError("extend takes one position at a time after the first call")
        q, k, v = self.inward(x).reshape(*x.shape[:-1], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if past and past[-1][0].shape[0] == k.shape[0]:
            chunks = [*past[:-1], (torch.cat([past[-1][0], k], 2), torch.cat([past[-1][1], v], 2))]
        else:
            chunks = [*past, (k, v)]
        if len(chunks) == 1:
            keys, values = chunks[0]
            out = functional.scaled_dot_product_attention(q, keys, values, is_causal=not past)
        else:
            out = _attend_to_chunks(q, chunks)
        attended: Tensor = self.outward(out.transpose(1, 2).flatten(2))
        return attended, chunks


def _attend_to_chunks(q: Tensor, chunks: list[Chunk]) -> Tensor:
    """Attention from one position of each row to chunks of fewer rows: q (B, heads, 1, d) is reshaped to each chunk's rows."""
    B, heads, _, d = q.shape
    folded = [q.reshape(len(k), B // len(k), heads, d).transpose(1, 2) for k, _ in chunks]
    scores = [(f @ k.mT).transpose(1, 2).reshape(B, heads, -1) for f, (k, _) in zip(folded, chunks, strict=True)]
    softmax = torch.softmax(divided(torch.cat(scores, -1), math.sqrt(d)), -1)
    weights = torch.split(softmax, [s.shape[-1] for s in scores], -1)
    parts = [
        (w.reshape(len(v), B // len(v), heads, -1).transpose(1, 2) @ v).transpose(1, 2).reshape(B, heads, 1, d)
        for w, (_, v) in zip(weights, chunks, strict=True)
    ]
    return torch.stack(parts).sum(0)


class Block(nn.Module):
    """`x + attention(norm x)`, then `x + mlp(norm x)`.

    Args:
        width: D.
        heads: number of heads, a divisor of the width.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(Linear(width, 4 * width), nn.GELU(), Linear(4 * width, width))

    def forward(self, x: Float[Tensor, "B T D"], past: list[Chunk]) -> tuple[Float[Tensor, "B T D"], list[Chunk]]:
        """Apply both residual branches; return the output and the past with x added.

        Args:
            x: the new positions.
            past: keys and values of the positions before them, in chunks.

        Returns:
            The output, and the past with x added.
        """
        attended, chunks = self.attention(self.norm1(x), past)
        x = x + attended
        return x + self.mlp(self.norm2(x)), chunks


class Transformer(nn.Module):
    """The policy `pi = softmax((z + offset) / temperature)` over V tokens, or a command of m numbers (Gaussian head).

    Args:
        outputs: V (token head) or m (Gaussian head).
        inputs: None for a token table of `outputs` rows, or the size of the states that a Gaussian-head policy reads.
        width: D, a multiple of `heads`.
        layers: number of blocks.
        heads: attention heads of each block.
        length: positions of the longest context.
        temperature: > 0, the first entropy knob.
        offset: the second, a number added to the logit of token 0 or a vector added to all.
        tied: whether the head uses the token table.
        seed: of the generator that draws the parameters; nothing else does.
        dtype: of the parameters.

    Raises:
        InputError: sizes do not fit or the temperature is <= 0; later, for contexts longer than `length` and for probes at a
            site that does not exist.
    """

    window = None  # as a policy of a linear-quadratic world it reads the whole history
    dense_tangents = True  # in forward mode its parameters may have tangents of zeros, which is faster

    def __init__(
        self,
        outputs: int,
        inputs: int | None = None,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        length: int = 64,
        temperature: float = 1.0,
        offset: Any = 0.0,
        tied: bool = False,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ):
        super().__init__()
        if heads < 1 or width % heads:
            raise InputError(f"width must be a multiple of heads; got width={width}, heads={heads}")
        if tied and inputs is not None:
            raise InputError("tied embeddings need the token head: leave inputs out")
        numbers = layers * 12 * width**2 + (2 * outputs + length) * width
        check_bytes(8 * numbers, f"width={width}, layers={layers} and length={length} make parameters", "take fewer")
        self.temperature, knob = entropy_knobs(temperature, offset, outputs)
        self.width, self.layers, self.length = width, layers, length
        self.register_buffer("offset", knob)
        self.embedding = Embedding(outputs, width) if inputs is None else Linear(inputs, width)
        self.position = nn.Parameter(torch.empty(length, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = Linear(width, outputs, bias=not tied)
        _draw(self, torch.Generator().manual_seed(seed))
        if tied:
            self.head.weight = self.embedding.weight
        self.to(dtype)

    @property
    def sites(self) -> tuple[str, ...]:
        """Places where a probe may be added."""
        return ("embedding", *(f"layer{i + 1}" for i in range(self.layers)))

    def embed(self, u: Float[Tensor, "*batch V"] | Int[Tensor, "*batch"]) -> Float[Tensor, "*batch D"]:
        """Embeddings of tokens, or `E'u` of relaxed tokens.

        Args:
            u: tokens, or rows of probabilities over the vocabulary.

        Returns:
            One embedding for each.
        """
        if u.is_floating_point():
            return u @ self.embedding.weight
        rows: Tensor = self.embedding(u)
        return rows

    def forward(
        self, embeddings: Float[Tensor, "B T D"], probes: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "B T V"]:
        """Logits at every position of whole contexts.

        Args:
            embeddings: of all positions.
            probes: by site a tensor (B, T, width) that is added there.

        Returns:
            Logits of the token after each position.

        Raises:
            InputError: as for the class.
        """
        return self._logits(self._run(embeddings, [[] for _ in self.blocks], 0, probes)[0])

    def extend(
        self, x: Float[Tensor, "B T D"], cache: Cache | None = None, probes: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "B V"], Cache]:
        """Logits after the last of the new positions, and the cache with these added (the old cache stays valid).

        Args:
            x: embeddings of T new positions.
            cache: what an earlier call returned; None at the beginning.
            probes: by site a tensor that is added there.

        Returns:
            The logits, and the new cache.

        Raises:
            InputError: as for the class.
        """
        h, longer = self.hidden(x, cache, probes)
        return self._logits(h), longer

    def hidden(
        self, x: Float[Tensor, "B T D"], cache: Cache | None = None, probes: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "B D"], Cache]:
        """The last hidden state, which the head reads, at the last of the new positions; and the cache as in `extend`.

        Args:
            x: embeddings of T new positions.
            cache: what an earlier call returned; None at the beginning.
            probes: by site a tensor that is added there.

        Returns:
            The hidden state, and the new cache.

        Raises:
            InputError: as for the class.
        """
        cache = cache or [[] for _ in self.blocks]
        h, longer = self._run(x, cache, sum(k.shape[2] for k, _ in cache[0]), probes)
        return h[:, -1], longer

    def _logits(self, h: Tensor) -> Tensor:
        return divided(self.head(h) + self.offset, self.temperature)

    def _run(self, x: Tensor, cache: Cache, start: int, probes: Mapping[str, Tensor] | None) -> tuple[Tensor, Cache]:
        probes = self._checked(x, start, probes)
        x = x + self.position[start : start + x.shape[1]]
        x = x + probes["embedding"] if "embedding" in probes else x
        longer: Cache = []
        for i, block in enumerate(self.blocks):
            x, chunks = block(x, cache[i])
            longer.append(chunks)
            x = x + probes[f"layer{i + 1}"] if f"layer{i + 1}" in probes else x
        return self.norm(x), longer

    def _checked(self, x: Tensor, start: int, probes: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
        if start + x.shape[1] > self.length:
            raise InputError(
                f"length={self.length} is too short for a context of {start + x.shape[1]}: build a longer one"
            )
        for site in probes or {}:
            if site not in self.sites:
                raise InputError(f"site {site!r} does not exist; there are {', '.join(self.sites)}")
        return probes or {}


class TransformerCommand(nn.Module):
    """A Gaussian-head transformer as a policy of a linear-quadratic world: `u_t` is its output after the states s_0 ... s_t.

    Args:
        network: a transformer with a Gaussian head.
    """

    window = None

    def __init__(self, network: Transformer):
        super().__init__()
        self.network = network

    def forward(self, history: Float[Tensor, "batch seen n"], t: int) -> Float[Tensor, "batch m"]:
        """Command for the last state of the history.

        Args:
            history: states so far, oldest first.
            t: the time of the last of them.

        Returns:
            One command for each row.
        """
        commands: Tensor = self.network(self.network.embedding(history))
        return commands[:, -1]


def _draw(network: "Transformer", rng: torch.Generator) -> None:
    """Draw embeddings from N(0, 1), linear maps from U(-1, 1) / sqrt(fan-in), as torch does, and positions from N(0, 0.1^2)."""
    nn.init.normal_(network.position, std=0.1, generator=rng)
    for module in network.modules():
        if isinstance(module, Embedding):
            nn.init.normal_(module.weight, generator=rng)
        elif isinstance(module, Linear):
            bound = module.in_features**-0.5
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=rng)
