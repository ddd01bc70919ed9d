"""The prefix tree against brute force over whole contexts: values, gradients at every prefix and site, refusals."""

import re
import time
from decimal import Decimal

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from envs.token_tasks import combination_lock, garnet, parity
from envs.world import InputError
from tests.oracles import assert_mean_within, differs_by
from tests.theory.token_cases import (
    Recomputing,
    Recurrent,
    enumerate_rollouts,
    transformer,
    value_differences,
    with_readout,
    worlds,
)
from theory.tokens.prefix_tree import grow, one_token
from theory.tokens.tree_gradients import node_gradients, path_surrogate, score_surrogate
from theory.tokens.tree_size import bytes_per_node, check_size, node_count

WORLDS = worlds()
ALPHAS = (0.0, 0.3, 1.0)
close = torch.testing.assert_close


def policies(world):
    return {"transformer": transformer(world, seed=2), "recurrent": Recomputing(Recurrent(world.V))}


def total(tree):
    return path_surrogate(tree) + score_surrogate(tree)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
@pytest.mark.parametrize("name", WORLDS)
def test_values_at_every_node_are_those_of_brute_force(name, kind, alpha):
    world = WORLDS[name]
    policy = policies(world)[kind]
    tree, brute = grow(world, policy, alpha), enumerate_rollouts(world, policy, alpha)
    close(tree.J.detach(), world.weights @ brute.V(0)[0])
    assert len(tree.levels) == world.horizon
    assert sum(len(level.pi) for level in tree.levels) == node_count(world)
    for k, level in enumerate(tree.levels):
        close(tree.V[k], brute.V(k)[0])
        close(tree.Q[k], brute.Q(k)[0])
        close(level.logits.detach(), brute.logits[0, :, k].reshape(len(level.pi), -1, world.V)[:, 0])
        assert float(level.reach.sum()) == pytest.approx(1.0, abs=1e-12)
    other = enumerate_rollouts(world, policy, 1 - alpha if alpha != 0.3 else 0.6)
    assert float((tree.Q[0] - other.Q(0)[0]).abs().max()) > 1e-5, "the control: alpha counts"


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", WORLDS)
def test_value_gradients_at_every_prefix_and_site_are_central_differences(name, alpha):
    world = WORLDS[name]
    policy = transformer(world, seed=2)
    tree = grow(world, policy, alpha, policy.sites)
    for site in policy.sites:
        for k, gradient in enumerate(node_gradients(tree, total(tree), site)):
            close(gradient, value_differences(world, policy, alpha, site, k), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_network_that_is_not_ours_gives_central_differences_too(alpha):
    world = WORLDS["several_prompts"]
    policy = Recomputing(Recurrent(world.V))
    tree = grow(world, policy, alpha, ("embedding",))
    for k, gradient in enumerate(node_gradients(tree, total(tree), "embedding")):
        close(gradient, value_differences(world, policy, alpha, "embedding", k), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("alpha", "half"), [(0.0, "score"), (0.3, "score"), (0.3, "path"), (1.0, "path")])
def test_one_half_of_the_surrogate_is_the_value_gradient_only_where_it_must_be(alpha, half):
    """The control: path alone is it at alpha = 0, score alone at alpha = 1, and neither anywhere else."""
    world = WORLDS["garnet"]
    policy = transformer(world, seed=2)
    tree = grow(world, policy, alpha, ("layer1",))
    whole, path, score = (
        node_gradients(tree, surrogate(tree), "layer1")[0] for surrogate in (total, path_surrogate, score_surrogate)
    )
    wrong, right = (score, path) if half == "score" else (path, score)
    assert float((wrong - whole).norm()) > 1e-2 * float(whole.norm())
    if alpha in (0.0, 1.0):
        close(right, whole)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
@pytest.mark.parametrize("name", ["garnet", "several_prompts", "arithmetic"])
def test_parameter_gradient_is_the_slope_of_brute_force_in_random_directions(name, kind, alpha, rng):
    world = WORLDS[name]
    policy = policies(world)[kind]
    parameters = list(policy.parameters())
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(total(grow(world, policy, alpha)), parameters)])
    at = parameters_to_vector(parameters).detach()

    def J(theta):
        vector_to_parameters(theta, parameters)
        return float(world.weights @ enumerate_rollouts(world, policy, alpha).V(0)[0])

    for _ in range(3):
        direction = torch.randn(len(at), generator=rng, dtype=at.dtype)
        slope = (J(at + 1e-5 * direction) - J(at - 1e-5 * direction)) / 2e-5
        assert float(gradient @ direction) == pytest.approx(slope, rel=1e-6, abs=1e-8)
        assert abs(slope) > 1e-5


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_sampled_trees_have_the_mean_of_exact_ones(alpha, rng):
    world = WORLDS["several_prompts"]
    policy = transformer(world, seed=2)
    exact, sampled = grow(world, policy, alpha), grow(world, policy, alpha, choose=one_token(rng), copies=4000)
    for prompt, values in enumerate(sampled.V[0].unflatten(0, (2, 4000))):
        assert_mean_within(values, exact.V[0][prompt])
        assert differs_by(values, exact.V[0][prompt] + 0.1), "the control: the samples are many enough to tell"
    assert [tuple(level.u.shape) for level in sampled.levels] == [(8000, 1, 3)] * 2
    close(sampled.J.detach(), sampled.V[0].unflatten(0, (2, 4000)).mean(1) @ world.weights)


def test_the_generator_decides_the_samples():
    world = WORLDS["garnet"]
    draw = lambda seed: grow(  # noqa: E731
        world, transformer(world), choose=one_token(torch.Generator().manual_seed(seed)), copies=50
    ).V[0]
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_a_node_of_probability_zero_has_nan_and_spoils_no_other():
    world = WORLDS["garnet"]
    policy = transformer(world, offset=torch.tensor([0.0, -2000.0, 0.0]))
    tree = grow(world, policy, 1.0, ("embedding",))
    never = [False, True, False]
    gradients = node_gradients(tree, total(tree), "embedding")
    assert tree.levels[1].reach[1] == 0
    assert gradients[1].isnan().flatten(1).all(1).tolist() == never
    for k, gradient in enumerate(gradients[:2]):
        kept = ~gradient.isnan()
        close(gradient[kept], value_differences(world, policy, 1.0, "embedding", k)[kept], rtol=1e-6, atol=1e-9)
    assert all(g.isfinite().all() for g in torch.autograd.grad(total(tree), list(policy.parameters())))


class NeverCalled:
    """Only its sizes may be looked at."""

    width, layers, sites = 64, 2, ()

    def parameters(self):
        raise AssertionError("a tree too large must be refused before anything is built")

    embed = extend = parameters


@pytest.mark.parametrize("horizon", [12, 40, 700])
def test_a_tree_too_large_is_refused_at_once_with_its_size_and_what_would_fit(horizon):
    began = time.process_time()
    with pytest.raises(InputError, match=r"prefixes.*GiB of 8 allowed; horizon=\d+ would fit") as refusal:
        grow(combination_lock(V=4, horizon=horizon), NeverCalled())
    assert time.process_time() - began < 2
    assert len(str(refusal.value)) < 200
    count = str(refusal.value).split(" makes ")[1].split(" prefixes")[0]
    assert Decimal(count) == pytest.approx(Decimal((4**horizon - 1) // 3), rel=Decimal("0.01"))


def test_the_horizon_that_the_refusal_names_does_fit_and_one_more_does_not():
    budget = 10 * 2**20
    with pytest.raises(InputError, match="would fit") as refusal:
        grow(garnet(V=3, horizon=9), transformer(garnet(V=3)), budget=budget)
    fits = int(str(refusal.value).split("horizon=")[-1].split()[0])
    fitting = garnet(V=3, horizon=fits)
    grow(fitting, transformer(fitting), budget=budget)
    with pytest.raises(InputError, match=f"horizon={fits} would fit"):
        grow(garnet(V=3, horizon=fits + 1), transformer(fitting), budget=budget)
    with pytest.raises(InputError, match="no horizon would fit"):
        grow(garnet(V=3, horizon=1), transformer(fitting), budget=1000)


def test_the_bytes_foreseen_cover_those_that_autograd_keeps_but_not_three_times_over():
    world = garnet(V=4, horizon=5)
    policy = transformer(world)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.__setitem__(t.untyped_storage().data_ptr(), t.untyped_storage()) or t, lambda t: t
    ):
        total(grow(world, policy, 1.0, policy.sites))
    used = sum(storage.nbytes() for storage in kept.values())
    grow(world, policy, budget=3 * used)
    with pytest.raises(InputError, match="prefixes"):
        grow(world, policy, budget=used)


def test_a_policy_without_parameters_is_refused():
    class Bare(Recomputing):
        def parameters(self, recurse=True):
            return iter(())

    with pytest.raises(InputError, match="policy must have a parameter"):
        grow(WORLDS["garnet"], Bare(Recurrent(3)))


@pytest.mark.parametrize("alpha", [-0.1, 1.0001, float("nan")])
def test_alpha_outside_the_unit_interval_is_refused(alpha):
    with pytest.raises(InputError, match=r"alpha must lie in \[0, 1\]"):
        grow(WORLDS["garnet"], transformer(WORLDS["garnet"]), alpha)


def test_logits_of_the_wrong_shape_are_refused():
    class Wrong(Recomputing):
        def extend(self, x, cache=None, probes=None):
            return self.network(x), x

    with pytest.raises(InputError, match=r"logits of shape \(1, 3\), one for each .*; got \(1, 1, 3\)"):
        grow(WORLDS["garnet"], Wrong(Recurrent(3)))
    with pytest.raises(InputError, match=r"logits of shape \(1, 3\), one for each .*; got \(1, 4\)"):
        grow(WORLDS["garnet"], Recomputing(Recurrent(4)))


def test_sites_that_do_not_exist_or_have_no_leaves_are_refused_by_name():
    world = WORLDS["garnet"]
    with pytest.raises(InputError, match=r"layer9.*embedding, layer1, layer2"):
        grow(world, transformer(world), sites=("layer9",))
    tree = grow(world, transformer(world), sites=("layer1",))
    with pytest.raises(InputError, match=r"layer2.*\['layer1'\]"):
        node_gradients(tree, total(tree), "layer2")


@pytest.mark.parametrize(("offset", "readable"), [(-600.0, True), (-690.0, False)])
def test_peaked_policies_are_exact_down_to_the_last_digits_of_a_probability_and_nan_beyond(offset, readable):
    """Probabilities of 1e-261 divide out exactly; at 1e-300 the slope has lost its digits, and says so."""
    world = WORLDS["garnet"]
    policy = transformer(world, offset=torch.tensor([0.0, offset, 0.0]))
    tree = grow(world, policy, 1.0, ("embedding",))
    gradients = node_gradients(tree, total(tree), "embedding")[1]
    assert 0 < float(tree.levels[1].reach[1]) < 1e-250
    if readable:
        close(gradients, value_differences(world, policy, 1.0, "embedding", 1), rtol=1e-6, atol=1e-9)
    else:
        assert gradients[1].isnan().all()


@pytest.mark.parametrize("readout", [False, True])
@pytest.mark.parametrize("branching", [True, False])
def test_what_is_said_to_fit_fits_and_one_more_does_not(branching, readout):
    world = parity(2, 9)
    world = with_readout(world) if readout else world
    policy = transformer(world)
    each = bytes_per_node(world, policy)
    budget = 100 * each

    def size(amount):
        here = parity(2, amount if branching else 9)
        here = with_readout(here) if readout else here
        return check_size(here, policy, 1 if branching else amount, branching, budget)

    with pytest.raises(InputError) as told:
        check_size(world, policy, 1 if branching else 10**6, branching, budget)
    remedy = str(told.value).split("allowed")[1]
    fits = int(re.search(r"horizon=(\d+)|(\d+) samples", remedy).group(1 if branching else 2))
    size(fits)
    with pytest.raises(InputError):
        size(fits + 1)
