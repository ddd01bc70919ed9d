"""Hessians against differences of exact gradients, of returns by brute force, and formulas for tables and logits."""

from math import inf

import pytest
import torch
from torch import nn
from torch.func import hessian
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from agents.policies.prefix_table import PrefixTable
from envs.token_tasks import garnet, sum_and_stop
from envs.world import InputError
from tests.theory.speech_cases import talking
from tests.theory.token_cases import several_prompts, transformer, with_readout
from theory.tokens.prefix_tree import grow, one_token
from theory.tokens.second_order import differentiable_return, parameter_hessian, prefix_hessians
from theory.tokens.tree_gradients import score_surrogate, total_surrogate, tree_gradients

close = torch.testing.assert_close
WORLDS = {
    "several prompts": several_prompts(3),
    "stop": sum_and_stop(2, 3),
    "speech": talking(),
    "one choice": garnet(V=3, horizon=1, seed=3),
}


class Shifted(nn.Module):
    """A policy whose state at a site is shifted at one node of one level, the last position of its context."""

    def __init__(self, policy, site, level, node):
        super().__init__()
        self.policy, self.site, self.place, self.shift, self.calls = policy, site, (level, node), None, 0
        self.embed, self.sites = policy.embed, policy.sites

    def extend(self, x, cache=None, probes=None):
        self.calls = 0 if cache is None else self.calls + 1
        if self.calls == self.place[0] and probes:
            row = torch.zeros_like(probes[self.site])
            row[self.place[1], -1] = self.shift
            probes = {**probes, self.site: probes[self.site] + row}
        return self.policy.extend(x, cache, probes)


def by_differences(f, n, step=1e-4):
    """Rows `(f(h e_i) - f(-h e_i)) / 2h`."""
    return torch.stack([(f(step * e) - f(-step * e)) / (2 * step) for e in torch.eye(n).double()])


@pytest.mark.parametrize("name", WORLDS)
def test_the_hessian_of_a_table_is_the_slope_of_its_exact_gradient(name):
    world = WORLDS[name]
    policy = PrefixTable(world, seed=1)
    at = policy.logits.detach().flatten()
    table = lambda shift: PrefixTable(world, (at + shift).reshape(-1, world.V))  # noqa: E731
    expected = by_differences(lambda shift: tree_gradients(world, table(shift)).flat, len(at))
    H = parameter_hessian(world, policy)
    close(H, expected, rtol=1e-6, atol=1e-9)
    close(H, H.T)
    assert float((parameter_hessian(world, policy, score_surrogate) - expected).norm()) > 0.5 * float(expected.norm())


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_a_network_with_a_readout_at_any_alpha_in_all_of_its_parameters(alpha):
    world = with_readout(several_prompts(2), width=4)
    policy = type(transformer(world))(world.V, width=4, layers=1, heads=2, length=6, seed=0)
    at = parameters_to_vector(policy.parameters()).detach()
    H = parameter_hessian(world, policy, mix=alpha)
    assert H.shape == (len(at), len(at))
    direction, gradients = torch.sin(torch.arange(len(at)).double()), []
    for shift in (1e-5, -1e-5):
        vector_to_parameters(at + shift * direction, policy.parameters())
        gradients.append(tree_gradients(world, policy, alpha).flat)
    expected = (gradients[0] - gradients[1]) / 2e-5
    assert float((H @ direction - expected).norm()) < 1e-6 * float(expected.norm())
    assert float((H - H.T).norm()) < 1e-12 * float(H.norm())


@pytest.mark.parametrize("name", ["several prompts", "stop", "speech"])
@pytest.mark.parametrize("place", [(0, 0), (1, 1), (2, 3)])
def test_second_order_costates_are_slopes_of_costates(name, place):
    world = WORLDS[name]
    level, node = place
    policy = transformer(world, seed=2)
    shifted = Shifted(policy, "layer1", level, node)

    def costate(shift):
        shifted.shift = shift
        return tree_gradients(world, shifted, sites="layer1").costates["layer1"][level][node, -1]

    expected = by_differences(costate, 8)
    found = prefix_hessians(world, policy, "layer1")[level][node]
    close(found, expected, rtol=1e-5, atol=1e-8)
    wrong = prefix_hessians(world, policy, "layer1", total_surrogate)[level][node]
    if float(expected.norm()) > 1e-6:
        assert float((wrong - expected).norm()) > 0.05 * float(expected.norm())


def test_the_surrogate_of_a_table_keeps_the_curvature_of_the_softmax_alone():
    """`-sum_nodes gamma^k reach E[Q - b] J(pi)`: minus J(p) E R in one step, and 0 with the value baseline."""
    world = WORLDS["several prompts"]
    policy = PrefixTable(world, seed=0)
    tree = grow(world, policy)
    blocks = []
    for k, (level, V) in enumerate(zip(tree.levels, tree.V, strict=True)):
        pi = level.pi.detach()
        J = torch.diag_embed(pi) - pi[:, :, None] * pi[:, None]
        blocks += list(-(world.gamma**k * level.reach * V)[:, None, None] * J)
    close(parameter_hessian(world, policy, lambda t: score_surrogate(t, baseline=False)), torch.block_diag(*blocks))
    assert float(parameter_hessian(world, policy, score_surrogate).abs().max()) < 1e-16
    assert float(parameter_hessian(world, policy).abs().max()) > 1e-2


def test_the_surrogate_of_a_network_keeps_the_curvature_of_its_logits():
    """With the value baseline `sum_a pi_a A_a Hess z_a`, the logits by torch.func and whole contexts."""
    world = WORLDS["one choice"]
    policy = transformer(world, seed=1)
    tree = grow(world, policy)
    pi, A = tree.levels[0].pi[0].detach(), (tree.Q[0] - tree.V[0][:, None])[0]
    x = policy.embed(world.prompts[:1])

    def logits(shift):
        probe = torch.zeros_like(x).index_put((torch.tensor(0), torch.tensor(x.shape[1] - 1)), shift)
        return policy(x, {"layer1": probe})[0, -1]

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        curvature = hessian(logits)(torch.zeros(8).double())
    expected = torch.einsum("a,aij->ij", pi * A, curvature)
    close(prefix_hessians(world, policy, "layer1", score_surrogate)[0][0], expected)
    assert float(expected.detach().norm()) > 1e-4


def test_a_forbidden_token_and_a_prefix_that_cannot_be_reached():
    world = WORLDS["stop"]
    logits = PrefixTable(world, seed=0).logits.detach().clone()
    logits[0, 1] = -inf
    H = parameter_hessian(world, PrefixTable(world, logits))
    logits[0, 1] = -60.0
    close(H, parameter_hessian(world, PrefixTable(world, logits)), rtol=0, atol=1e-12)

    class Forbidding(nn.Module):
        def __init__(self, policy):
            super().__init__()
            self.policy, self.embed, self.sites = policy, policy.embed, policy.sites

        def extend(self, x, cache=None, probes=None):
            z, cache_after = self.policy.extend(x, cache, probes)
            first = torch.tensor([0.0, -800.0, 0.0]).to(z)
            return (z + first if cache is None else z), cache_after

    levels = prefix_hessians(world, Forbidding(transformer(world)), "layer1")
    assert [bool(x.isnan().all()) for x in levels[1]] == [False, True, False]


def test_return_is_that_of_the_tree_and_drawn_trees_are_refused():
    world = WORLDS["several prompts"]
    tree = grow(world, transformer(world))
    close(differentiable_return(tree).detach(), tree.J)
    drawn = grow(world, transformer(world), choose=one_token(torch.Generator().manual_seed(0)))
    with pytest.raises(InputError, match=r"^tree must follow every token"):
        differentiable_return(drawn)
    with pytest.raises(InputError, match=r"^policy has \d+ parameters, whose Hessian takes about 0.0262 GiB"):
        parameter_hessian(world, transformer(world), budget=2**24)
    zero = parameter_hessian(world, PrefixTable(world), lambda t: torch.ones(()).double())
    assert not zero.any()
