"""Central differences: the second road to every gradient."""

import copy
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from envs.policy import AnyTokenPolicy


def central_gradient(
    f: Callable[[Tensor], Tensor], x: Float[Tensor, "*batch n"], step: float = 1e-4
) -> Float[Tensor, "*batch n"]:
    """`(f(x + h e_i) - f(x - h e_i)) / 2h` for every component i; f maps (*batch, n) to (*batch).

    Error `h^2 |f'''| / 6 + eps |f| / h`; a quadratic f has no truncation error at any h.

    Args:
        f: the function; it is called twice for each component.
        x: the points; the last axis holds the components.
        step: h, in units of x.

    Returns:
        The gradient at each point.
    """
    columns = []
    for i in range(x.shape[-1]):
        shift = torch.zeros_like(x)
        shift[..., i] = step
        columns.append((f(x + shift) - f(x - shift)) / (2 * step))
    return torch.stack(columns, -1)


def directional_slope(
    policy: AnyTokenPolicy,
    direction: Float[Tensor, "parameters"],
    f: Callable[[AnyTokenPolicy], Tensor],
    step: float = 1e-4,
) -> Tensor:
    """Derivative of `f(policy)` along a direction of its parameters, central differences at h and 2h: error of order h^4.

    `(8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h`. The policy given is left as it is; f may give several numbers.

    Args:
        policy: where the slope is taken.
        direction: in the space of all parameters, in the order of `parameters_to_vector`; its length counts.
        f: a function of the policy, without autograd.
        step: h, in units of the direction.

    Returns:
        The slope, in the shape of what f gives.
    """
    at, shifted = parameters_to_vector(policy.parameters()).detach(), copy.deepcopy(policy)
    total = torch.zeros((), device=at.device)
    for multiple, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
        vector_to_parameters(at + multiple * step * direction, shifted.parameters())
        with torch.no_grad():
            total = total + weight * f(shifted)
    return total / (12 * step)


def flat_parameters(slopes: Iterable[Tensor]) -> Float[Tensor, "parameters"]:
    """Slopes in a policy's parameters as one constant vector, in the order of `parameters_to_vector`.

    Args:
        slopes: one tensor for each parameter.

    Returns:
        One vector, detached from autograd's graph.
    """
    return parameters_to_vector([slope.contiguous() for slope in slopes]).detach()
