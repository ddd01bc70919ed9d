"""Wrong models of a linear-quadratic world: errors of the value gradient through them, exact by size, and sampled costates."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.linear import LinearPolicy
from agents.sampling.rollout import rollout
from agents.sampling.stochastic_value_gradients import replay
from envs.linear_quadratic import LinearQuadratic
from envs.noise import Noise
from figures.harness.rows import Row, equals, report
from figures.harness.statistics import Estimate
from figures.measures.rollouts import residual_moments, sampled
from theory.continuous.costates import autograd_costates
from theory.continuous.endless import cut_endless
from theory.continuous.lyapunov import linear_value
from theory.continuous.model_gradients import model_costate

SHARE, TWICE = "share of the imagined error", "imagined error = 2 sym(real error), first order"
_SIZES = (0.1, 0.03, 0.01, 0.003, 0.001)
_ORDER = 0.1  # orders are whole numbers


def wrong_model(world: LinearQuadratic, K: Tensor, size: float, rng: torch.Generator) -> LinearQuadratic:
    """The world with random other A and B, `|D| = size |Phi|` for the change D of the closed loop Phi (Frobenius norms)."""
    own = world.to()
    A, B = (torch.randn(x.shape, generator=rng, dtype=torch.float64) for x in (own.A, own.B))
    scale = size * float((own.A - own.B @ K).norm() / (A - B @ K).norm())
    return own.replace(A=own.A + scale * A, B=own.B + scale * B)


def shrunk(world: LinearQuadratic, model: LinearQuadratic, factor: float) -> LinearQuadratic:
    """A model whose error is `factor` times that of another."""
    own, other = world.to(), model.to()
    return own.replace(A=own.A + factor * (other.A - own.A), B=own.B + factor * (other.B - own.B))


@dataclass(frozen=True)
class ModelErrors:
    """Errors `P^ - P` at time 0 of costates through a wrong model, as Frobenius norms.

    Attributes:
        imagined: of paths that the model imagines.
        symmetric: symmetric part of that of real paths.
        curl: antisymmetric part of it.
        remainder: `imagined error - 2 symmetric part`, which is of second order.
    """

    imagined: float
    symmetric: float
    curl: float
    remainder: float


def model_errors(world: LinearQuadratic, K: Tensor, model: LinearQuadratic) -> ModelErrors:
    """All four for one model."""
    P = linear_value(world, K).at(0)[0]
    real, imagined = (first(model_costate(world, K, model, way)) - P for way in (True, False))
    symmetric = (real + real.mT) / 2
    norms = (imagined, symmetric, real - symmetric, imagined - 2 * symmetric)
    return ModelErrors(*(float(x.norm()) for x in norms))


def error_rows(world: LinearQuadratic, K: Tensor, model: LinearQuadratic, labels: Row) -> list[Row]:
    """Both parts of the real error over the imagined one, by the size of the model's error; the order of the remainder."""
    rows, last = list[Row](), _SIZES[-1]
    errors = {size: model_errors(world, K, shrunk(world, model, size)) for size in (*_SIZES, last / 10)}
    for size in _SIZES:
        own = errors[size]
        parts = {"symmetric": own.symmetric, "curl": own.curl} if world.n > 1 else {"symmetric": own.symmetric}
        for what, part in parts.items():
            rows += report(SHARE, part / own.imagined, 0.5, labels={**labels, "what": what, "size": size})
    order = math.log10(errors[last].remainder / errors[last / 10].remainder)
    return rows + equals(TWICE, order, 2.0, tolerance=_ORDER, labels=labels)


def first(P: Float[Tensor, "*times n n"]) -> Float[Tensor, "n n"]:
    """P at time 0; the same at every time of an endless world."""
    return P[0] if P.ndim == 3 else P


def model_residuals(
    endless: LinearQuadratic,
    K: Tensor,
    model: LinearQuadratic,
    slopes: list[tuple[bool, Tensor]],
    samples: int,
    rng: torch.Generator,
    device: str,
) -> list[Estimate]:
    """Costates at time 0 through a model, less `slope s_0`: products with 1 and with the states, (n, 1 + n) for each slope.

    Args:
        endless: the world; an endless one is cut where it and the model have settled.
        K: the policy's gain.
        model: a wrong model of it.
        slopes: whether the paths are real (else imagined), and the matrix that is subtracted.
        samples: number of paths.
        rng: of the noise.
        device: where the paths are computed.
    """
    steps = max(cut_endless(x, K).horizon or 1 for x in (endless, model))
    world, other = (x if x.horizon else x.replace(horizon=steps) for x in (endless, model))
    policy = LinearPolicy(K).to(device)

    def residuals(noise: Noise) -> Tensor:
        start, path = noise.s_0, rollout(world, policy, noise)
        paths = {True: replay(other, policy, path), False: rollout(other, policy, noise)}
        costates = {way: autograd_costates(x.returns, x.state_probe, world.gamma)[:, 0] for way, x in paths.items()}
        rms = start.square().mean(0).sqrt().clamp(min=1e-300)
        parts = [residual_moments(costates[way] - start @ slope.to(device).mT, start, rms) for way, slope in slopes]
        return torch.stack(parts, 1)

    found = sampled(world, steps, samples, rng, device, residuals)
    return [found[i] for i in range(len(slopes))]
