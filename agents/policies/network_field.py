"""A critic of the value gradient that is a small network: a vector field, which need not be the gradient of any value."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from envs.arguments import check_bytes, whole


class NetworkField(nn.Module):
    """`G(s, t) = W_3 tanh(W_2 tanh(W_1 (s, t/T) + b_1) + b_2) + b_3` in float64, for t = 0 ... T; W and b are the parameters.

    W_1 and W_2 are normal with variance one over the number of inputs, the rest is 0. So the field is zero at the start, as a
    `agents.policies.linear_field.LinearField` is.

    Args:
        n: number of states.
        times: T + 1.
        width: components of each hidden layer.
        seed: of W_1 and W_2.

    Raises:
        InputError: a size is no whole number >= 1, or the network needs more memory than is allowed.
    """

    def __init__(self, n: int, times: int, width: int, seed: int):
        super().__init__()
        self.n, self.times, self.width = whole("n", n, 1), whole("times", times, 1), whole("width", width, 1)
        check_bytes(
            8 * self.width * (self.width + 2 * self.n + 3), f"width={width} makes layers", "take a smaller width"
        )
        rng = torch.Generator().manual_seed(whole("seed", seed, 0))
        self.W_1, self.W_2 = (_normal(width, inputs, rng) for inputs in (n + 1, width))
        self.W_3 = nn.Parameter(torch.zeros(n, width, dtype=torch.float64))
        self.b_1, self.b_2, self.b_3 = (nn.Parameter(torch.zeros(k, dtype=torch.float64)) for k in (width, width, n))

    def forward(self, states: Float[Tensor, "batch n"], t: int) -> Float[Tensor, "batch n"]:
        """The field at one time.

        Args:
            states: where it is asked for.
            t: the time, 0 ... T.

        Returns:
            G(s, t) of every state.
        """
        return self._field(states, self._clock(states)[t])

    def along(self, states: Float[Tensor, "batch times n"]) -> Float[Tensor, "batch times n"]:
        """The field along paths.

        Args:
            states: of the paths, times 0 ... T.

        Returns:
            G(s_t, t) at every time.
        """
        return self._field(states, self._clock(states))

    def jacobian(self, states: Float[Tensor, "batch times n"]) -> Float[Tensor, "batch times n n"]:
        """Derivatives of the field in the state along paths, by one backward pass for each component.

        Args:
            states: of the paths, times 0 ... T.

        Returns:
            `d G_i / d s_j` at every time, constants; rows are components of G.
        """
        s = states.detach().requires_grad_()
        with torch.enable_grad():
            G = self.along(
                s
            )  # each state has an effect on its own G only, so that sums over the states keep them apart
            slopes = [torch.autograd.grad(G[..., i].sum(), s, retain_graph=True)[0] for i in range(self.n)]
        return torch.stack(slopes, -2)

    def _clock(self, like: Tensor) -> Float[Tensor, "times"]:
        """t/T for t = 0 ... T."""
        return torch.linspace(0, 1, self.times, dtype=like.dtype, device=like.device)

    def _field(self, states: Tensor, time: Tensor) -> Tensor:
        inputs = torch.cat([states, time.expand(states.shape[:-1])[..., None]], -1)
        hidden = torch.tanh(torch.tanh(inputs @ self.W_1.mT + self.b_1) @ self.W_2.mT + self.b_2)
        field: Tensor = hidden @ self.W_3.mT + self.b_3
        return field


def _normal(outputs: int, inputs: int, rng: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(outputs, inputs, generator=rng, dtype=torch.float64) / math.sqrt(inputs))
