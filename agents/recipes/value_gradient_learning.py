"""VGL(lambda) as a way to differentiate sampled paths: with a learned critic that is a vector field."""

from dataclasses import dataclass

from envs.arguments import short
from envs.world import InputError

WEIGHTS = ("identity", "commands")  # what Omega may be


@dataclass(frozen=True)
class ValueGradientLearning:
    """How a learner differentiates sampled paths in place of log-probabilities: with a learned field G~ of value gradients.

    Attributes:
        lam: lambda of the targets, in [0, 1]; 0 is dual heuristic programming, 1 takes the sampled costates.
        Omega: weight of the critic's error, "identity", or "commands" for `B B'`, which sees the part that commands can move.

    Raises:
        InputError: lam lies outside [0, 1], or Omega is unknown.
    """

    lam: float = 0.7
    Omega: str = "identity"

    def __post_init__(self) -> None:
        """Check lambda and the name."""
        if not 0 <= self.lam <= 1:
            raise InputError(f"lam must lie in [0, 1]; got {short(self.lam)}")
        if self.Omega not in WEIGHTS:
            raise InputError(f"Omega must be one of {', '.join(WEIGHTS)}; got {short(self.Omega)}")
