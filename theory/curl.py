"""Is an update the gradient of anything? A field of one-forms is a gradient if and only if its Jacobian is symmetric.

Theory page, section 6: "Curl".
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import takes_numbers
from envs.world import InputError


@takes_numbers("at")
def curl(field: Callable[[Tensor], Tensor], at: Float[Tensor, "n"], step: float = 1e-5) -> float:
    """`|A - A'| / |A|` of the field's Jacobian A, by central differences: 0 for a gradient, at most 2.

    The answer is the same whether or not the field is multiplied by a number, but not in other coordinates: only 0 stays 0.
    It is 0 where the Jacobian is 0, as for a constant field.

    Source: P. Dayan and S. Singh, "Improving Policies without Measuring Merits" (1996).

    Args:
        field: an update as a function of the parameters, (n) to (n).
        at: where the Jacobian is taken.
        step: of the central differences, in units of the parameters; the error is of order `step^2`.

    Returns:
        The curl.

    Raises:
        InputError: step is not > 0, or the field gives another shape or numbers that are not finite.
    """
    if not 0 < step < float("inf"):
        raise InputError(f"step must be a finite number > 0; got {step!r}")
    A = jacobian(field, at, step)
    size = float(A.norm())
    return float((A - A.T).norm()) / size if size > 0 else 0.0


def jacobian(field: Callable[[Tensor], Tensor], at: Float[Tensor, "n"], step: float = 1e-5) -> Float[Tensor, "n n"]:
    """`A[i, j] = d field_i / d at_j` by central differences.

    Args:
        field: a function (n) to (n).
        at: where the slopes are taken.
        step: of the differences, in units of `at`.

    Returns:
        The Jacobian.

    Raises:
        InputError: the field gives another shape, or numbers that are not finite.
    """

    def checked(x: Tensor) -> Tensor:
        value = torch.as_tensor(field(x)).detach()
        if value.shape != at.shape or not bool(value.isfinite().all()):
            raise InputError(
                f"field must give {len(at)} finite numbers, as many as at has; got shape {tuple(value.shape)}"
            )
        return value

    columns = [(checked(at + shift) - checked(at - shift)) / (2 * step) for shift in step * torch.eye(len(at)).to(at)]
    return torch.stack(columns, 1)
