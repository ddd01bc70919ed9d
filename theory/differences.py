"""Central differences: the second road to every gradient."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def central_gradient(
    f: Callable[[Tensor], Tensor], x: Float[Tensor, "*batch n"], step: float = 1e-4
) -> Float[Tensor, "*batch n"]:
    """`(f(x + h e_i) - f(x - h e_i)) / 2h` for every component i; f maps (*batch, n) to (*batch).

    Error `h^2 |f'''| / 6 + eps |f| / h`; a quadratic f has no truncation error at any h.
    """
    columns = []
    for i in range(x.shape[-1]):
        shift = torch.zeros_like(x)
        shift[..., i] = step
        columns.append((f(x + shift) - f(x - shift)) / (2 * step))
    return torch.stack(columns, -1)
