"""Estimators of two draws that look right and are biased, and what goes wrong on one bit: controls of the catalogue."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from theory.groups.estimators import Estimator, Table, unordered_set
from theory.groups.one_bit import noise_given_bit

WEIGHTS_P, INDEPENDENT = "weights p, unnormalised", "as if independent"


def weights_p(p: Float[Tensor, "L"], f: Float[Tensor, "L"], s: Float[Tensor, "L parameters"]) -> Table:
    """`p_a f_a s_a + p_b f_b s_b` of a pair drawn without replacement: importance weights p, not divided by anything."""
    chances, _ = unordered_set(p, f, s)
    return chances, _sums(p[:, None] * f[:, None] * s)


def as_independent(p: Float[Tensor, "L"], f: Float[Tensor, "L"], s: Float[Tensor, "L parameters"]) -> Table:
    """`(f_a s_a + f_b s_b) / 2` of a pair drawn without replacement: REINFORCE that does not know how it was drawn."""
    chances, _ = unordered_set(p, f, s)
    return chances, _sums(f[:, None] * s) / 2


def _sums(terms: Float[Tensor, "L parameters"]) -> Float[Tensor, "pairs parameters"]:
    """The sum over each pair a < b."""
    a, b = torch.triu_indices(len(terms), len(terms), 1, device=terms.device)
    return terms[a] + terms[b]


WRONG: dict[str, Estimator] = {WEIGHTS_P: weights_p, INDEPENDENT: as_independent}

# two relaxed rewards that agree with f at both bits, as functions of the relaxed bit y, with their slopes
RELAXED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "affine": (lambda y: y, torch.ones_like),
    "squared": (lambda y: y**2, lambda y: 2 * y),
}


def pathwise_mean(ell: float, f0: float, f1: float, tau: float, relaxed: str) -> float:
    """Mean of the Gumbel-softmax's pathwise slope of one bit, `E d/d ell c(sigmoid(z / tau))`."""
    slope, total = RELAXED[relaxed][1], 0.0
    for given in noise_given_bit(ell):
        y = torch.sigmoid(given.z / tau)
        own = (f1 - f0) * slope(y) * y * torch.sigmoid(-given.z / tau) / tau
        total += float(given.chance * given.mean(own))
    return total


def rebar_of_one_draw(ell: float, f0: float, f1: float, tau: float, eta: float = 1.0) -> float:
    """Mean of `(f(b) - eta c(z)) (b - p) + eta dc(z)`: REBAR with c(z) in the place of c(z~), whose own slope falls away.

    In the first term alone c(z) would do no harm, as (z, b) and (z~, b) have one law; it is the slope of c(z~) that is missed.
    """
    total, p = 0.0, float(noise_given_bit(ell)[1].chance)
    for given in noise_given_bit(ell):
        f, c = (f1 if given.bit else f0), f0 + (f1 - f0) * torch.sigmoid(given.z / tau)
        total += float(given.chance * given.mean(f - eta * c)) * (given.bit - p)
    return total + eta * pathwise_mean(ell, f0, f1, tau, "affine")
