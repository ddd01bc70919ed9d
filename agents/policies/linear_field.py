"""A critic of the value gradient that is a linear vector field, and need not be the gradient of any value."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from envs.arguments import check_semidefinite, whole
from envs.world import InputError


class LinearField(nn.Module):
    """`G_t(s) = X_t s + c_t` for t = 0 ... T, zero at the start; X and c are the parameters.

    Args:
        n: number of states.
        times: T + 1.

    Raises:
        InputError: a size is no whole number >= 1.
    """

    def __init__(self, n: int, times: int):
        super().__init__()
        whole("n", n, 1)
        whole("times", times, 1)
        self.X = nn.Parameter(torch.zeros(times, n, n, dtype=torch.float64))
        self.c = nn.Parameter(torch.zeros(times, n, dtype=torch.float64))

    def forward(self, states: Float[Tensor, "batch n"], t: int) -> Float[Tensor, "batch n"]:
        """The field at one time.

        Args:
            states: where it is asked for.
            t: the time, 0 ... T.

        Returns:
            G_t of every state.
        """
        return states @ self.X[t].mT + self.c[t]

    def along(self, states: Float[Tensor, "batch times n"]) -> Float[Tensor, "batch times n"]:
        """The field along paths.

        Args:
            states: of the paths, times 0 ... T.

        Returns:
            G_t(s_t) at every time.
        """
        return (self.X @ states[..., None])[..., 0] + self.c

    @property
    def curl(self) -> Float[Tensor, "times"]:
        """`|X_t - X_t'| / |X_t|`: 0 where the field is the gradient of a value; 0 where X_t is 0."""
        X = self.X.detach()
        size = X.norm(dim=(1, 2))
        return torch.where(size > 0, (X - X.mT).norm(dim=(1, 2)) / size.clamp(min=1e-300), 0.0)


def field_loss(
    gradients: Float[Tensor, "batch times n"],
    targets: Float[Tensor, "batch times n"],
    Omega: Float[Tensor, "*weight_time n n"] | None = None,
) -> Float[Tensor, ""]:
    """`1/2 sum_t e'Omega_t e`, `e = target - G`, mean over paths: minus its slope is the update of value-gradient learning.

    Args:
        gradients: G along the paths, which carry the slope.
        targets: what they are fitted to, constants (`agents.sampling.value_gradient_targets.path_targets`).
        Omega: weight, positive semidefinite, one matrix or one for each time; None for the identity.

    Returns:
        The loss.

    Raises:
        InputError: Omega is not positive semidefinite, or does not fit.
    """
    error = targets.detach() - gradients
    if Omega is None:
        return 0.5 * error.square().sum((1, 2)).mean()
    times, n = error.shape[1:]
    if tuple(Omega.shape) not in ((n, n), (times, n, n)):
        raise InputError(f"Omega must have shape {(n, n)} or {(times, n, n)}; got {tuple(Omega.shape)}")
    check_semidefinite("Omega", Omega)
    weighted = (Omega.to(error) @ error[..., None])[..., 0]
    return 0.5 * (error * weighted).sum((1, 2)).mean()
