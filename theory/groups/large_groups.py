"""GRPO with std as its groups grow: how far kappa and the objective are from their limits, to the second term.

With `sd = sqrt(P(1-P))` the limits are `c_G(P) -> 1/sd` and `F_G(P) -> 2 arcsin sqrt P`. At fixed P in (0, 1)

`1/sd - c_G(P) = (1 + (3/4 + 7 (1-2P)^2 / (16 sd^2)) / G + O(1/G^2)) / (8 G sd^3)`,
`2 arcsin sqrt P - F_G(P) = -zeta(1/2) / sqrt G + (2P - 1) / (4 G sd) + O(1/G^{3/2})`.

The objective's error falls more slowly than kappa's: it comes from P near 0, where groups have hardly a success.

Theory page, section 4: "The mean update is kappa times the value gradient".
"""

import math

from jaxtyping import Float
from torch import Tensor

from theory.groups.binary_rewards import arcsine, grpo_kappa, grpo_objective

Chances = Float[Tensor, "*batch"]
ZETA_HALF = -1.4603545088095868  # zeta(1/2): the rest that Riemann sums of 1 / sqrt x leave at 0


def kappa_gap_ratio(P: Chances, group: int) -> Chances:
    """`8 G sd^3 (1/sd - c_G(P))`: the gap of kappa over its leading term, `1 + kappa_gap_correction + O(1/G^2)`.

    Args:
        P: success probabilities in (0, 1).
        group: G, at least 2.

    Returns:
        The ratio for each entry of P; it tends to 1.
    """
    sd = (P * (1 - P)).sqrt()
    return 8 * group * sd**3 * (1 / sd - grpo_kappa(P, group))


def kappa_gap_correction(P: Chances, group: int) -> Chances:
    """`(3/4 + 7 (1-2P)^2 / (16 sd^2)) / G`: the second term of kappa's gap over the leading one.

    Args:
        P: success probabilities in (0, 1).
        group: G, at least 2.

    Returns:
        The second term for each entry of P.
    """
    sd = (P * (1 - P)).sqrt()
    return (0.75 + 7 / 16 * (1 - 2 * P) ** 2 / sd**2) / group


def objective_gap(P: Chances, group: int) -> Chances:
    """`2 arcsin sqrt P - F_G(P)`, exactly.

    Args:
        P: success probabilities.
        group: G, at least 2.

    Returns:
        The gap for each entry of P.
    """
    return arcsine(P) - grpo_objective(P, group)


def leading_objective_gap(group: int) -> float:
    """`-zeta(1/2) / sqrt G`: the leading term of `objective_gap`, the same at every P.

    Args:
        group: G.

    Returns:
        The term.
    """
    return -ZETA_HALF / math.sqrt(group)


def approximate_objective_gap(P: Chances, group: int) -> Chances:
    """`objective_gap` to order 1/G: `-zeta(1/2) / sqrt G + (2P - 1) / (4 G sd)`.

    Args:
        P: success probabilities in (0, 1).
        group: G.

    Returns:
        The two leading terms for each entry of P.
    """
    return leading_objective_gap(group) + (2 * P - 1) / (4 * group * (P * (1 - P)).sqrt())
