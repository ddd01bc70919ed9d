"""What policies have in common that stand around another one: its sites, sizes and embeddings."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from envs.policy import TokenPolicy

# what a policy may have beside the methods of its protocol; one around it has it too, and no more
_OPTIONAL = ("V", "length", "width", "layers", "numbers_per_position", "temperature", "hidden")


class WrappedPolicy(nn.Module):
    """A policy that changes what another one gives. Parameters, sites and sizes are those of pi.

    Attributes:
        policy: pi.

    Args:
        policy: pi, any policy over tokens.
    """

    def __init__(self, policy: TokenPolicy):
        super().__init__()
        self.policy: Any = policy

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites of pi."""
        sites: tuple[str, ...] = self.policy.sites
        return sites

    def __getattr__(self, name: str) -> Any:
        """Sizes, and a hidden readout, where pi has them."""
        return getattr(self.policy, name) if name in _OPTIONAL else super().__getattr__(name)

    def embed(self, u: Float[Tensor, "*batch V"] | Int[Tensor, "*batch"]) -> Float[Tensor, "*batch D"]:
        """Embeddings of pi.

        Args:
            u: tokens, or rows of probabilities.

        Returns:
            One embedding for each.
        """
        embedded: Tensor = self.policy.embed(u)
        return embedded
