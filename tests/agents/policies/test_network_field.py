"""A small network as a critic of value gradients: its formula, its Jacobian, its seed, and what it can be fitted to."""

import numpy as np
import pytest
import torch

from agents.policies.network_field import NetworkField
from tests.agents.cases import draws
from tests.envs.refusals import refused

close = torch.testing.assert_close


def field(n=3, times=4, width=5, seed=0, head=True):
    """A network; with a head its last layer, which begins at zero, is drawn too, and so are the offsets."""
    made = NetworkField(n, times, width, seed)
    with torch.no_grad():
        for i, name in enumerate(("W_3", "b_1", "b_2", "b_3")):
            getattr(made, name).add_(0.7 * head * draws(*getattr(made, name).shape, seed=100 + i))
    return made


def by_hand(net, s, t):
    """One state at one time, in numpy."""
    W, b = ([getattr(net, f"{name}_{i}").detach().numpy() for i in (1, 2, 3)] for name in "Wb")
    h = np.array([*s, t / max(net.times - 1, 1)])
    for i in (0, 1):
        h = np.tanh(W[i] @ h + b[i])
    return W[2] @ h + b[2]


def test_it_is_the_formula_at_one_time_and_along_paths():
    net, states = field(), draws(6, 4, 3, seed=1)
    exact = torch.tensor(np.array([[by_hand(net, s, t) for t, s in enumerate(path)] for path in states.tolist()]))
    close(net.along(states), exact)
    for t in range(4):
        close(net(states[:, t], t), exact[:, t])
    assert not torch.allclose(net(states[:, 0], 2), exact[:, 0], rtol=1e-3), "the control: time is an input"
    alone = field(times=1)
    close(alone(states[:1, 0], 0)[0], torch.tensor(by_hand(alone, states[0, 0].tolist(), 0)))


def test_the_jacobian_is_that_of_finite_differences_and_not_symmetric():
    net, states, step = field(), draws(5, 4, 3, seed=1), 1e-6
    J = net.jacobian(states)
    for i in range(5):
        for t in range(4):
            for j in range(3):
                shift = step * np.eye(3)[j]
                s = states[i, t].numpy()
                slope = (by_hand(net, s + shift, t) - by_hand(net, s - shift, t)) / (2 * step)
                close(J[i, t, :, j], torch.tensor(slope), rtol=1e-6, atol=1e-8)
    assert not torch.allclose(J, J.mT, rtol=0.1)
    assert not J.requires_grad
    with torch.no_grad():
        assert torch.equal(net.jacobian(states), J), "also where no gradient is kept"


def test_the_seed_alone_decides_where_it_starts_and_it_starts_at_zero():
    before = torch.get_rng_state()
    one, same, other = (NetworkField(2, 3, 8, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.W_1, other.W_1)
    assert not torch.equal(one.W_2, other.W_2)
    assert not one.along(draws(4, 3, 2)).any()
    assert {p.dtype for p in one.parameters()} == {torch.float64}
    wide = NetworkField(3, 2, 400, 5)
    assert float(wide.W_1.detach().var() * 4) == pytest.approx(1, abs=0.15)
    assert float(wide.W_2.detach().var() * 400) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("sizes", "argument"),
    [
        ((2, 3, 0, 0), "width"),
        ((2, 3, float("nan"), 0), "width"),
        ((2, 3, True, 0), "width"),
        ((2, 3, 10**6, 0), "width=1000000"),
        ((0, 3, 4, 0), "n"),
        ((2, 0, 4, 0), "times"),
        ((2, 3, 4, -1), "seed"),
    ],
)
def test_refusals(sizes, argument, unchecked):
    with refused(argument):
        NetworkField(*sizes)
