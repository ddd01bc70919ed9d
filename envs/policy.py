"""What the exact answers and the learners rely on in a policy: protocols, so that any network with these methods is one."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn


@runtime_checkable
class Policy(Protocol):
    """A differentiable map from the history to the command `u_t = mu(history, t)`, in a world with additive noise.

    `history` holds the last `window` states, oldest first (all of them where `window` is None), fewer at the start.
    Any `torch.nn.Module` with this call is a policy; its parameters are what the estimators differentiate.
    """

    @property
    def window(self) -> int | None:
        """How many states the policy reads; None for all."""
        ...

    def __call__(self, history: Float[Tensor, "batch seen n"], t: int) -> Float[Tensor, "batch m"]:
        """The command for the last state of the history.

        Args:
            history: states, oldest first.
            t: the time of the last of them.

        Returns:
            One command for each row.
        """
        ...


@runtime_checkable
class TokenPolicy(Protocol):
    """A policy over V tokens that reads embeddings, so that relaxed tokens and shifted hidden states can be fed in.

    A *site* is a place in the network where a zero tensor (a *probe*) may be added to read a derivative; "embedding" is before
    the network. A policy may also have `hidden(x, cache, probes) -> (last hidden state, cache)`, for worlds that pay a hidden
    readout, `length`, its longest context, `width` and `layers` or `numbers_per_position`, from which memory is forecast.
    """

    @property
    def sites(self) -> tuple[str, ...]:
        """Places where a probe may be added."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What gradients are taken in; device and dtype are those of the first.

        Returns:
            An iterator over all parameters.
        """
        ...

    def embed(self, u: Float[Tensor, "*batch V"] | Int[Tensor, "*batch"]) -> Float[Tensor, "*batch D"]:
        """Embeddings of tokens, or of relaxed tokens (probabilities over the vocabulary).

        Args:
            u: tokens, or rows of probabilities.

        Returns:
            One embedding for each.
        """
        ...

    def extend(
        self, x: Float[Tensor, "B T D"], cache: Any = None, probes: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "B V"], Any]:
        """Logits after the last of the new positions, and the cache with them in it; the old cache stays valid.

        A cache of b rows serves B >= b rows, consecutive ones each.

        Args:
            x: embeddings of T new positions.
            cache: what an earlier call returned; None at the beginning.
            probes: by site a tensor (B, T, width) that is added there.

        Returns:
            The logits, and the new cache.
        """
        ...


AnyTokenPolicy = TypeVar("AnyTokenPolicy", bound=TokenPolicy)  # the same kind of policy in, the same kind out


@runtime_checkable
class ContextPolicy(TokenPolicy, Protocol):
    """A `TokenPolicy` that also reads whole contexts in one call, as training does."""

    def __call__(
        self, embeddings: Float[Tensor, "B T D"], probes: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "B T V"]:
        """Logits at every position.

        Args:
            embeddings: of all positions.
            probes: by site a tensor (B, T, width) that is added there.

        Returns:
            Logits of the token after each position.
        """
        ...
