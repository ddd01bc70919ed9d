"""Clouds of particles: directions by loops and autograd, Adam against torch's, limits of the kernel, the reach of Adam."""

import math

import pytest
import torch

from agents.sampling.particle_flow import adam_reach, flow_direction, particle_flow
from tests.agents.cases import draws
from tests.envs.refusals import refused

close = torch.testing.assert_close
R = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64)


def gradient(a):
    return -2 * a @ R + torch.sin(a)


def by_loops(gradients, a, alpha, bandwidth):
    """The definition, with the kernel's slope by autograd."""
    phi = torch.zeros_like(a)
    for i in range(len(a)):
        for j in range(len(a)):
            at = a[j].clone().requires_grad_()
            kernel = torch.exp(-(at - a[i]).square().sum() / (2 * bandwidth**2))
            (slope,) = torch.autograd.grad(kernel, at)
            phi[i] += (kernel.detach() * gradients[j] / alpha + slope) / len(a)
    return phi


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_the_direction_is_that_of_its_definition(alpha):
    a = draws(6, 2)
    pairs = torch.stack([(x - y).square().sum() for x in a for y in a])
    median = float(pairs.quantile(0.5))
    own = math.sqrt(median / (2 * math.log(7)))
    close(flow_direction(gradient(a), a, alpha), by_loops(gradient(a), a, alpha, own))
    close(flow_direction(gradient(a), a, alpha, 0.8), by_loops(gradient(a), a, alpha, 0.8))
    assert not torch.allclose(
        flow_direction(gradient(a), a, alpha, 0.8), by_loops(gradient(a), a, alpha, 0.7), rtol=1e-2
    )


def test_the_limits_of_the_kernel():
    """Fact 4: bandwidth 0 is every particle alone, an infinite one moves the cloud as a whole."""
    a = draws(7, 2)
    close(flow_direction(gradient(a), a, 0.5, 0.0), gradient(a) / 0.5 / 7)
    close(flow_direction(gradient(a), a, 0.5, 1e-3), gradient(a) / 0.5 / 7)
    close(flow_direction(gradient(a), a, 0.5, math.inf), (gradient(a).mean(0) / 0.5).expand(7, 2))
    end = particle_flow(gradient, a, 0.1, 4, bandwidth=math.inf)[-1]
    close(torch.cov(end.mT), torch.cov(a.mT))
    assert not torch.allclose(torch.cov(particle_flow(gradient, a, 0.1, 4)[-1].mT), torch.cov(a.mT), rtol=1e-2)


@pytest.mark.parametrize("count", [2, 9])
def test_repulsion_alone_spreads_and_leaves_the_mean(count):
    a = draws(count, 3, seed=count)
    end = particle_flow(torch.zeros_like, a, 0.05, 20)[-1]
    close(end.mean(0), a.mean(0), rtol=0, atol=1e-13)
    assert float(end.var(0).sum()) > float(a.var(0).sum())


@pytest.mark.parametrize("steps", [1, 3, 12])
def test_adam_is_torchs(steps):
    a = draws(5, 2)
    moved = a.clone().requires_grad_()
    optimiser = torch.optim.Adam([moved], lr=0.1, maximize=True)
    for _ in range(steps):
        moved.grad = flow_direction(gradient(moved.detach()), moved.detach(), 0.7)
        optimiser.step()
    close(particle_flow(gradient, a, 0.1, steps, 0.7, optimiser="adam")[-1], moved.detach(), rtol=1e-12, atol=1e-12)


def test_alpha_has_no_effect_on_one_particle_with_adam():
    """Fact 5: the move is that of the signs, up to Adam's eps."""
    start = draws(1, 2)
    ends = [particle_flow(gradient, start, 0.1, 3, alpha, optimiser="adam")[-1] for alpha in (1e-3, 1.0, 10.0)]
    for end in ends[1:]:
        close(end, ends[0], rtol=0, atol=1e-6)
    first = particle_flow(gradient, start, 0.1, 1, 5.0, optimiser="adam")[-1] - start
    close(first, 0.1 * gradient(start).sign(), rtol=1e-6, atol=1e-7)
    plain = [particle_flow(gradient, start, 0.1, 3, alpha)[-1] for alpha in (1.0, 10.0)]
    assert float((plain[0] - plain[1]).norm()) > 0.1 * float((plain[0] - start).norm())


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_no_gradients_move_adam_further_than_its_reach(steps):
    """The bound of a step is attained by gradients in the ratio of the two weights; random ones stay below."""
    weights = [[(1 - b) * b ** (steps - 1 - i) / (1 - b**steps) for i in range(steps)] for b in (0.9, 0.999)]
    worst = [w / u for w, u in zip(*weights, strict=True)]
    queue = iter(worst)
    path = particle_flow(
        lambda a: torch.full_like(a, 1e3 * next(queue)), torch.zeros(1, 1).double(), 1.0, steps, optimiser="adam"
    )
    last = adam_reach(1.0, steps) - (adam_reach(1.0, steps - 1) if steps > 1 else 0.0)
    assert float((path[-1] - path[-2]).abs()) == pytest.approx(last, rel=1e-9)
    for seed in range(20):
        noise = iter(draws(steps, 4, 2, seed=seed))
        end = particle_flow(
            lambda a, noise=noise: next(noise), torch.zeros(4, 2).double(), 1.0, steps, optimiser="adam"
        )
        assert float((end[-1]).abs().max()) <= adam_reach(1.0, steps) + 1e-9
    assert adam_reach(0.5, 1) == pytest.approx(0.5)
    assert adam_reach(1.0, 2) == pytest.approx(2.0014, abs=1e-4)


def test_a_cut_keeps_particles_inside():
    path = particle_flow(lambda a: torch.ones_like(a), [[0.0], [0.9]], 1.0, 5, bandwidth=math.inf, clip=1.0)
    assert float(path.max()) == 1.0
    assert path.shape == (6, 2, 1)


@pytest.mark.usefixtures("unchecked")
def test_what_is_refused():
    a = draws(3, 2)
    for name, call in {
        "rate": lambda: particle_flow(gradient, a, 0.0, 1),
        "steps": lambda: particle_flow(gradient, a, 0.1, 0),
        "alpha": lambda: particle_flow(gradient, a, 0.1, 1, -1.0),
        "bandwidth": lambda: particle_flow(gradient, a, 0.1, 1, bandwidth=-1.0),
        "optimiser": lambda: particle_flow(gradient, a, 0.1, 1, optimiser="sgd"),
        "clip": lambda: particle_flow(gradient, a, 0.1, 1, clip=0.0),
        "particles": lambda: particle_flow(gradient, a[0], 0.1, 1),
        "gradient": lambda: particle_flow(lambda x: x[:1], a, 0.1, 1),
    }.items():
        with refused(name):
            call()
