"""VGL(lambda) as a way to differentiate sampled paths: with a learned critic that is a vector field."""

from dataclasses import dataclass

from envs.arguments import short, whole
from envs.world import InputError

WEIGHTS = ("identity", "commands")  # what Omega may be
CRITICS = ("linear", "network")
WIDTH = 32  # of a network's hidden layers, unless another is given


@dataclass(frozen=True)
class ValueGradientLearning:
    """How a learner differentiates sampled paths in place of log-probabilities: with a learned field G~ of value gradients.

    Attributes:
        lam: lambda of the targets, in [0, 1]; 0 is dual heuristic programming, 1 takes the sampled costates.
        Omega: weight of the critic's error, "identity", or "commands" for `B B'`, which sees the part that commands can move.
        critic: what G~ is, "linear" (one matrix and offset for each time) or "network" (of state and time).
        width: components of each hidden layer of a network; `WIDTH` where the field is linear, which has none.

    Raises:
        InputError: lam lies outside [0, 1], Omega or critic is unknown, width is no whole number >= 1, or a width is given for
            a linear critic.
    """

    lam: float = 0.7
    Omega: str = "identity"
    critic: str = "linear"
    width: int = WIDTH

    def __post_init__(self) -> None:
        """Check lambda, the names and the width."""
        if not 0 <= self.lam <= 1:
            raise InputError(f"lam must lie in [0, 1]; got {short(self.lam)}")
        for name, known in (("Omega", WEIGHTS), ("critic", CRITICS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}; got {short(getattr(self, name))}")
        whole("width", self.width, 1)
        if self.critic == "linear" and self.width != WIDTH:
            raise InputError("width must be left out with a linear critic, which has no layers: take critic=network")
