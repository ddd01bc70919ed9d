"""Value-gradient flow in measurements: random Gaussian problems, clouds of particles, and prompts of token worlds."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment, minimize_scalar
from torch import Tensor

from agents.policies.shifted import Shifted
from agents.sampling.particle_flow import Gradient, Optimiser, particle_flow
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from theory.continuous.gaussian_flow import Transport, tilted
from theory.continuous.gaussians import w2
from theory.prompt_flow import slope_of
from theory.tokens.prefix_tree import grow, token_roots
from theory.tokens.shifted_prompt import ShiftedPrompt
from theory.tokens.tree_gradients import total_surrogate

SYSTEMS = {  # name -> size, and whether reference and value have common axes
    "1 number": (1, True),
    "2 numbers, common axes": (2, True),
    "3 numbers": (3, False),
    "6 numbers": (6, False),
}
_SPREAD = 0.2  # least eigenvalue of a random covariance before it is scaled, so that densities exist
_LOG_BETAS = np.linspace(-12.0, 12.0, 49)


@dataclass(frozen=True)
class QuadraticProblem:
    """The value `-(a - a*)'R(a - a*)` and the reference N(m, S); the mean eigenvalue of R is 1."""

    R: Tensor
    a_star: Tensor
    m: Tensor
    S: Tensor

    def gradient(self, particles: Float[Tensor, "N n"]) -> Float[Tensor, "N n"]:
        """Of the value at every particle."""
        return -2 * (particles - self.a_star) @ self.R

    def cloud(self, count: int, rng: torch.Generator) -> Float[Tensor, "N n"]:
        """Draws of the reference."""
        noise = torch.randn(count, len(self.m), generator=rng, dtype=torch.float64)
        drawn: Tensor = self.m + noise @ torch.linalg.cholesky(self.S).mT
        return drawn

    def along(self, i: int) -> "QuadraticProblem":
        """The problem of direction i alone, in a problem whose matrices have the same eigenvectors."""
        u = torch.linalg.eigh(self.R)[1][:, i : i + 1]
        return QuadraticProblem(u.mT @ self.R @ u, u[:, 0] @ self.a_star[:, None], u.mT @ self.m, u.mT @ self.S @ u)


def random_problem(name: str, rng: torch.Generator) -> QuadraticProblem:
    """A random problem of a named kind."""
    n, common = SYSTEMS[name]

    def positive() -> Tensor:
        root = torch.randn(n, n, generator=rng, dtype=torch.float64)
        S: Tensor = root @ root.mT / n + _SPREAD * torch.eye(n, dtype=torch.float64)
        return S * n / S.trace()

    R, S = positive(), positive()
    if common:
        U = torch.linalg.eigh(R)[1]
        S = (U * torch.linalg.eigvalsh(S).flip(0)) @ U.mT
    a_star, m = torch.randn(2, n, generator=rng, dtype=torch.float64)
    return QuadraticProblem(R, a_star, m, S)


def cloud_distance(first: Float[Tensor, "N n"], second: Float[Tensor, "N n"]) -> float:
    """W2 between two clouds of as many particles: the cheapest of all assignments."""
    costs = (first[:, None] - second).square().sum(-1).numpy()
    rows, columns = linear_sum_assignment(costs)
    return float(np.sqrt(costs[rows, columns].mean()))


def moments(cloud: Float[Tensor, "N n"]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the particles themselves (divided by N)."""
    mean = cloud.mean(0)
    return mean, (cloud - mean).mT @ (cloud - mean) / len(cloud)


def nearest_tilt(problem: QuadraticProblem, law: Transport) -> float:
    """W2 from a law to the nearest KL-regularised optimum, over all beta, as a share of the distance from the reference."""

    def apart(log_beta: float) -> float:
        tilt = tilted(problem.R, problem.a_star, problem.m, problem.S, float(np.exp(log_beta)))
        return w2(law.mean, law.covariance, tilt.mean, tilt.covariance) / law.distance

    best = _LOG_BETAS[int(np.argmin([apart(x) for x in _LOG_BETAS]))]
    found = minimize_scalar(apart, bounds=(best - 0.5, best + 0.5), method="bounded", options={"xatol": 1e-10})
    return float(found.fun)


def alpha_gap(gradient: Gradient, start: Tensor, rate: float, steps: int, optimiser: Optimiser) -> float:
    """How far apart one particle ends at alpha = 1 and at alpha = 10, as a share of its move at alpha = 1."""
    ends = [
        particle_flow(gradient, start[None], rate, steps, alpha, optimiser=optimiser)[-1, 0] for alpha in (1.0, 10.0)
    ]
    return float((ends[0] - ends[1]).norm() / (ends[0] - start).norm())


def prompt_gradient(world: TokenMDP, policy: TokenPolicy, site: str) -> Gradient:
    """The value gradient of shifts at the first prompt, as particle flow takes it."""
    roots = token_roots(world, policy, 0, [])

    def gradient(particles: Tensor) -> Tensor:
        slopes = []
        for particle in particles:
            delta = particle.clone().requires_grad_()
            tree = grow(world, ShiftedPrompt(policy, site, delta[None]), roots=roots)
            slopes.append(slope_of(total_surrogate(tree), delta))
        return torch.stack(slopes)

    return gradient


def shifted_value(world: TokenMDP, policy: TokenPolicy, site: str, delta: Tensor) -> float:
    """Value at the first prompt of the shifted policy, grown as any other policy is."""
    with torch.no_grad():
        moved = Shifted(policy, site, delta, world.prompts.shape[1])
        return float(grow(world, moved).V[0][0])
