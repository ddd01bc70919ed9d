"""What people bring: lists, numpy, torch in any precision, numpy's own scalars; and one line where it is none of these."""

import numpy as np
import pytest
import torch

from agents.training.copies import Copies
from envs.arguments import as_numbers, check_seed, short, takes_numbers, whole
from envs.linear_quadratic import double_integrator, random_system, scalar
from envs.token_mdp import TokenMDP
from envs.token_tasks import combination_lock, copy, garnet
from tests.envs.refusals import refused
from tests.theory.token_cases import transformer
from tests.typecheck import unchecked
from theory.continuous.lyapunov import linear_value
from theory.groups.binary_rewards import grpo_kappa, grpo_objective
from theory.impact import best_of, kl_headroom
from theory.tokens.dynamic_programming import tables
from theory.tokens.prefix_tree import grow
from theory.tokens.softmax_bounds import entropy, gini, jacobian_norm

LAW = [0.7, 0.2, 0.1]
FORMS = [LAW, tuple(LAW), np.array(LAW), torch.tensor(LAW, dtype=torch.float64), np.array(LAW, dtype=np.longdouble)]


@pytest.mark.parametrize("form", range(len(FORMS)))
@unchecked()
def test_every_form_of_the_same_numbers_has_the_same_answer(form):
    p = FORMS[form]
    for f in (entropy, gini, jacobian_norm):
        assert float(f(p)) == float(f(torch.tensor(LAW, dtype=torch.float64)))
    R = [1.0, 0.0, 2.0]
    assert float(best_of(p, R, np.int64(3))) == float(best_of(p, np.array(R), 3))
    assert kl_headroom(p, R, np.float64(0.1)) == pytest.approx(kl_headroom(np.array(LAW), R, 0.1))


@unchecked()
def test_plain_numbers_and_lists_where_tensors_are_expected():
    exact = float(grpo_kappa(torch.tensor(0.3, dtype=torch.float64), 4))
    for P in (0.3, np.float64(0.3), [0.3], np.array([0.3])):
        assert float(grpo_kappa(P, np.int64(4))) == exact
    assert float(grpo_objective(1, 4)) > 0, "whole numbers are numbers"
    value = linear_value(scalar(horizon=5), [[0.3]])
    assert float(value.value([1.5])) == float(value.value(torch.tensor([1.5], dtype=torch.float64)))
    assert value.gradient([[1.5], [2.0]]).shape == (2, 1)
    world = garnet(V=2, states=3, horizon=2)
    pi = np.full((3, 2), 0.5)
    assert float(tables(world, pi).J) == float(tables(world, torch.as_tensor(pi)).J)


@unchecked()
@pytest.mark.parametrize(
    "bad", ["text", None, {"a": 1}, [[1.0], [1.0, 2.0]], np.array(["x"]), np.array([1 + 2j]), [True]]
)
def test_what_is_no_array_of_real_numbers_is_refused_in_one_line(bad):
    for f, name in ((entropy, "p"), (lambda x: grpo_kappa(x, 4), "P")):
        with refused(name):
            f(bad)


def test_a_very_long_value_is_echoed_in_eighty_characters():
    assert len(short("x" * 5000)) == 80
    assert "\n" not in short(np.zeros((50, 50)))
    with refused("p"), unchecked():
        entropy("x" * 5000)


def test_tensors_are_taken_as_they_are_and_their_device_and_precision_kept():
    x = torch.tensor([0.5, 0.5], dtype=torch.float32)
    assert as_numbers("x", x) is x
    assert as_numbers("x", torch.tensor([1, 2])).dtype == torch.float64

    @takes_numbers("b")
    def f(a, b, c=None):
        return a, b, c

    a, b, c = f([1], b=[2.0])
    assert (a, c) == ([1], None)
    assert torch.equal(b, torch.tensor([2.0], dtype=torch.float64))


@unchecked()
def test_counts_take_numpys_whole_numbers_and_nothing_else():
    assert whole("k", np.int32(3), 1) == 3
    for wrong in (0, 2.0, "3", True, None, np.float64(3), np.bool_(True)):
        with refused("k"):
            whole("k", wrong, 1)
    assert check_seed(np.uint8(7)) == 7


@unchecked()
@pytest.mark.parametrize("build", [random_system, combination_lock, garnet])
def test_a_seed_that_is_none_is_refused_since_every_copy_would_be_another_world(build):
    for wrong in (None, -1, 0.5, True):
        with refused("seed"):
            build(seed=wrong)


@unchecked()
@pytest.mark.parametrize("build", [scalar, double_integrator, random_system])
@pytest.mark.parametrize("spread", [-0.3, np.nan, np.inf, "0.3", None, True])
def test_a_standard_deviation_is_a_finite_number_from_0_on(build, spread):
    with refused("action_noise"):
        build(action_noise=spread)
    assert float(build(action_noise=np.float32(0.5)).S_x[0, 0]) > 0


@unchecked()
def test_gamma_may_be_numpys():
    assert scalar(gamma=np.float32(0.5)).gamma == 0.5
    for wrong in (True, "1", np.float32(1.5), np.nan):
        with refused("gamma"):
            scalar(gamma=wrong)


def test_a_time_outside_the_horizon_has_no_value():
    value = linear_value(scalar(horizon=5), torch.tensor([[0.3]], dtype=torch.float64))
    value.at(5)
    for wrong in (-1, 6):
        with refused("t"):
            value.at(wrong)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_tables_from_a_softmax_of_any_precision_are_probabilities(kind):
    logits = torch.randn(5, 3, 5, generator=torch.Generator().manual_seed(0))
    P = torch.softmax(logits, -1).to(kind)
    world = TokenMDP(
        P, torch.zeros(5, 3), [[0], [1], [2]], [0, 1, 2], 2, weights=torch.softmax(logits[0, 0, :3], -1).to(kind)
    )
    assert world.P.dtype == torch.float64
    assert float((world.P.sum(-1) - 1).abs().max()) < 1e-15
    assert float((world.P - P.double()).abs().max()) <= 8 * torch.finfo(kind).eps
    off = P.clone()
    off[3, 1, 0] += 0.2
    with refused("P[3, 1]"):
        TokenMDP(off, torch.zeros(5, 3), [[0]], [0], 2)
    with refused("P[2, 1]"):  # in double precision the same gap is an error of the user's
        TokenMDP(torch.softmax(logits, -1).double() * (1 + 1e-6), torch.zeros(5, 3), [[0]], [0], 2)
    assert copy(2, 2).P.sum() > 0


class Recurrent(torch.nn.Module):
    """A network that torch has no batched form of."""

    def __init__(self, seed):
        super().__init__()
        self.core, self.head = torch.nn.GRU(3, 4, batch_first=True).double(), torch.nn.Linear(4, 2).double()
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=rng, dtype=p.dtype))

    def forward(self, x):
        return self.head(self.core(x)[0])


@pytest.mark.usefixtures("uses_global_rng")
def test_networks_without_a_batched_form_are_run_one_after_the_other():
    networks = [Recurrent(seed) for seed in (0, 1, 2)]
    x = torch.randn(3, 5, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    copies = Copies.of(networks)
    both = copies.run(lambda network, rows: (network(rows), rows.sum()), x)
    assert not copies.batched
    for i, network in enumerate(networks):
        torch.testing.assert_close(both[0][i], network(x[i]))
        assert float(both[1][i]) == pytest.approx(float(x[i].sum()))
    slopes = torch.autograd.grad(both[0].sum(), copies.parameters)
    alone = torch.autograd.grad(networks[1](x[1]).sum(), list(networks[1].parameters()))
    for mine, its in zip(slopes, alone, strict=True):
        torch.testing.assert_close(mine[1], its)

    def broken(network, rows):
        raise RuntimeError("a fault of the function's own")

    with pytest.raises(RuntimeError, match="of the function's own"):
        Copies.of([torch.nn.Linear(3, 2).double() for _ in range(2)]).run(broken, x[:2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_network_whose_logits_are_no_numbers_is_refused_and_minus_infinity_is_a_number(bad):
    world = garnet(V=3, states=3, horizon=2)
    network = transformer(world)
    with torch.no_grad():
        network.head.bias[1] = bad
    with refused("policy"):
        grow(world, network)
    with torch.no_grad():
        network.head.bias[1] = -np.inf
    tree = grow(world, network)
    assert float(tree.levels[1].reach[1]) == 0
    assert bool(tree.J.isfinite())


def test_a_gain_beyond_the_range_of_numbers_is_refused():
    for horizon in (5, None):
        with refused("K"):
            linear_value(scalar(horizon=horizon), torch.tensor([[1e300]], dtype=torch.float64))
