"""Hidden readouts, prefixes as roots, and the chunked backward pass: each against a road that does not share it."""

import dataclasses
import gc
import weakref

import pytest
import torch

from envs.token_tasks import garnet
from envs.world import InputError
from tests.oracles import assert_mean_within, differs_by
from tests.theory.token_cases import (
    Recomputing,
    Recurrent,
    differences,
    enumerate_rollouts,
    several_prompts,
    transformer,
    value_differences,
    with_readout,
    worlds,
)
from theory.tokens.costates import expected_costates, sampled_costates
from theory.tokens.error_split import error_split
from theory.tokens.forward_mode import forward_value_gradient
from theory.tokens.prefix_tree import grow, prefix_roots, token_roots
from theory.tokens.tree_gradients import (
    _answer_bytes,
    node_gradients,
    path_surrogate,
    score_surrogate,
    total_surrogate,
    tree_gradients,
)
from theory.tokens.tree_size import bytes_per_node, node_count

close = torch.testing.assert_close
WORLDS = worlds()
READOUT = {"garnet": with_readout(WORLDS["garnet"]), "several_prompts": with_readout(several_prompts())}
SITES = ("embedding", "layer1", "layer2")


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", READOUT)
def test_a_hidden_readout_is_that_of_brute_force_with_whole_contexts(name, alpha):
    world = READOUT[name]
    policy = transformer(world, seed=2)
    tree = grow(world, policy, alpha, SITES)
    brute = enumerate_rollouts(world, policy, alpha)
    for k in range(world.horizon):
        close(tree.Q[k], brute.Q(k)[0])
        for site in SITES:
            gradient = node_gradients(tree, total_surrogate(tree), site)[k]
            close(gradient, value_differences(world, policy, alpha, site, k), rtol=1e-6, atol=1e-9)
    plain = grow(dataclasses.replace(world, readout=None), policy, alpha)
    assert float((plain.J - tree.J).abs()) > 1e-4, "the control: the readout is paid"


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_the_attention_costate_of_a_readout_is_the_slope_at_fixed_tokens(alpha):
    world = READOUT["several_prompts"]
    policy = transformer(world, seed=2)
    path = lambda moved, still: moved.by_node(still.chance(0) * moved.returns(0), 0)  # noqa: E731
    costates = expected_costates(world, policy, "attention", "layer1", alpha)[0]
    close(costates, differences(path, world, policy, alpha, "layer1"), rtol=1e-6, atol=1e-9)
    assert float(costates.norm()) > 1e-2, "through the readout it is not 0, even at alpha = 1"
    averaged = lambda moved, still: moved.by_node(still.chance(0) * moved.returns(0, averaged=True), 0)  # noqa: E731
    costates = expected_costates(world, policy, "attention_expected", "layer1", alpha)[0]
    close(costates, differences(averaged, world, policy, alpha, "layer1"), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_the_split_closes_with_a_readout_and_at_prefixes(alpha, whole):
    world = READOUT["several_prompts"]
    policy = transformer(world, seed=4)
    roots = prefix_roots(grow(world, policy, alpha), policy, 1).detached()
    for given in (None, roots):
        split = error_split(world, policy, alpha, "layer1", whole, roots=given)
        forward = forward_value_gradient(world, policy, alpha, "layer1", whole, given)
        close(split.value_gradient, forward, rtol=1e-9, atol=1e-12)
        assert float(split.residual.max()) < 1e-12
        assert bool((split.tiers.diff(dim=0) >= -1e-12).all())
    assert float(split.error.max()) < 1e-12 if alpha == 0 else float(split.error.min()) > 1e-4


def test_a_readout_needs_a_policy_with_hidden_states_of_its_width():
    world = READOUT["garnet"]
    with pytest.raises(InputError, match="needs a policy with `hidden"):
        grow(world, Recomputing(Recurrent(3)))
    with pytest.raises(InputError, match="readout must have the policy's width, 8; got 5"):
        grow(dataclasses.replace(world, readout=torch.ones(5)), transformer(world))
    for bad in ([[1.0]], [float("nan")], "x"):
        with pytest.raises(InputError, match="readout"):
            dataclasses.replace(world, readout=bad)


def as_prompt(world, prompt, tokens):
    """The world whose only prompt is a prefix, by hand: deterministic tables have one state there."""
    state = int(world.belief_after(prompt, torch.tensor(tokens, dtype=torch.int64)).argmax())
    context = [*world.prompts[prompt].tolist(), *tokens]
    return dataclasses.replace(
        world,
        r=world.r[len(tokens) :],
        horizon=world.horizon - len(tokens),
        prompts=[context],
        starts=[state],
        weights=None,
        signals=None,
    )


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", ["total", "attention_expected", "straight_through"])
def test_whole_prefix_costates_are_those_of_the_prefix_as_prompt(name, site):
    world = WORLDS["parity"]
    policy = transformer(world, seed=3)
    costates = expected_costates(world, policy, name, site, whole_prefix=True)
    for tokens in ([0], [1, 0], [1, 1, 0]):
        node = int("".join(map(str, tokens)), 2)
        alone = expected_costates(as_prompt(world, 0, tokens), policy, name, site)[0]
        close(costates[len(tokens)][node], alone[0])
        assert alone.shape[1] == 1 + len(tokens)
    last = expected_costates(world, policy, name, site)
    for k in range(world.horizon):
        close(costates[k][:, -1:], last[k][:, -1:])


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_whole_prefix_value_gradients_are_central_differences_at_stochastic_tables(alpha):
    """Every node of level 1 as a prompt of constant embeddings: shifted at all its positions, whole contexts."""
    world = several_prompts()
    policy = transformer(world, seed=3)
    costates = expected_costates(world, policy, "total", "layer1", alpha, whole_prefix=True)[1]
    roots = prefix_roots(grow(world, policy, alpha), policy, 1).detached()

    @torch.no_grad()
    def value(shift):
        pi = torch.softmax(policy(roots.x, {"layer1": shift.expand_as(roots.x)})[:, -1], -1)
        u = (1 - alpha) * pi[:, None] + alpha * torch.eye(world.V, dtype=pi.dtype)
        return (pi * torch.einsum("nz,za,nca->nc", roots.belief, world.r[1], u)).sum(-1)

    for position, unit in ((0, 3), (2, 6)):
        shift = torch.zeros_like(roots.x[:1])
        shift[0, position, unit] = 1e-5
        slope = (value(shift) - value(-shift)) / 2e-5
        close(costates[:, position, unit], slope, rtol=1e-6, atol=1e-9)
        assert float(slope.abs().max()) > 1e-4


def test_sampled_costates_at_a_prefix_have_the_exact_mean(rng):
    world = WORLDS["garnet"]
    policy = transformer(world, seed=3)
    roots = token_roots(world, policy, 0, [2])
    exact = expected_costates(world, policy, "score", "layer1", whole_prefix=True)[1]
    samples = sampled_costates(world, policy, "score", "layer1", 20_000, rng, roots=roots)[0]
    assert samples.shape == (20_000, 2, 8)
    assert_mean_within(samples, exact[2])
    assert differs_by(samples, exact[1])
    with pytest.raises(InputError, match="token 3 is outside"):
        token_roots(world, policy, 0, [3])


@pytest.mark.parametrize("name", ["straight_through", "reinmax"])
def test_straight_through_rules_go_from_soft_to_hard_with_alpha(name):
    world = WORLDS["garnet"]
    policy = transformer(world, seed=3)
    at = lambda alpha: expected_costates(world, policy, name, "layer1", alpha)[0]  # noqa: E731
    close(at(0.0), expected_costates(world, policy, "soft", "layer1")[0])
    assert float((at(0.5) - at(1.0)).norm()) > 1e-3
    assert float((at(0.5) - at(0.0)).norm()) > 1e-3


def chunked_and_whole(world, policy, alpha, surrogate=total_surrogate):
    """A budget that holds two thirds of the tree, and one that holds it all."""
    levels = node_count(world) + len(world.prompts) * world.V**world.horizon * (world.readout is not None)
    each = bytes_per_node(world, policy)
    return (
        tree_gradients(world, policy, alpha, SITES, surrogate, budget) for budget in (levels * each * 2 // 3, 2**33)
    )


@pytest.mark.parametrize("surrogate", [total_surrogate, score_surrogate, path_surrogate])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", ["garnet", "dense_copy", "parity", "readout"])
def test_chunks_give_what_the_whole_tree_gives(name, alpha, surrogate):
    world = (WORLDS | {"readout": READOUT["garnet"]})[name]
    policy = transformer(world, seed=2)
    chunked, whole = chunked_and_whole(world, policy, alpha, surrogate)
    tree = grow(world, policy, alpha, SITES)
    close(whole.J, tree.J.detach())
    close(chunked.J, whole.J)
    for k in range(world.horizon):
        close(chunked.V[k], tree.V[k])
        for site in SITES:
            close(whole.costates[site][k], node_gradients(tree, surrogate(tree), site)[k])
            close(chunked.costates[site][k], whole.costates[site][k])
    for ours, other in zip(chunked.parameters, whole.parameters, strict=True):
        close(ours, other)
    if surrogate is total_surrogate:
        assert all(float(p.norm()) > 0 for p in whole.parameters)


@pytest.mark.parametrize("chunk", [1, 2**15, 2**17])
def test_any_chunk_gives_the_same_and_leaves_the_budget_alone(chunk):
    """A chunk too small for any piece falls back to the budget."""
    world = garnet(V=3, horizon=5, gamma=0.9, seed=1)
    policy = transformer(world, seed=2)
    whole, pieces = (tree_gradients(world, policy, 0.6, SITES, chunk=size) for size in (2**40, chunk))
    for site in SITES:
        for ours, other in zip(pieces.costates[site], whole.costates[site], strict=True):
            close(ours, other)
    for ours, other in zip(pieces.parameters, whole.parameters, strict=True):
        close(ours, other)


def test_large_answers_do_not_make_large_chunks():
    world = garnet(V=6, horizon=5)
    policy = transformer(world)
    meter = Meter()
    with torch.autograd.graph.saved_tensors_hooks(meter.pack, lambda held: held.box[0]):
        tree_gradients(world, policy, 1.0, SITES, chunk=40 * bytes_per_node(world, policy))
    assert _answer_bytes(world, policy, SITES) > 40 * bytes_per_node(world, policy)
    assert meter.peak < 100 * bytes_per_node(world, policy)


def test_chunks_are_really_taken(monkeypatch):
    """The control of the test above: with less memory the tree is grown several times."""
    import theory.tokens.tree_gradients as module

    sizes = []
    real = module.grow
    monkeypatch.setattr(module, "grow", lambda *a, **k: sizes.append(0) or real(*a, **k))
    world = WORLDS["garnet"]
    list(chunked_and_whole(world, transformer(world, seed=2), 1.0))
    assert len(sizes) >= 1 + 3 + 1


def test_a_network_that_is_not_ours_can_be_chunked():
    world = WORLDS["garnet"]
    policy = Recomputing(Recurrent(3))
    whole = tree_gradients(world, policy, 0.6, ("embedding",))
    chunked = tree_gradients(world, policy, 0.6, ("embedding",), budget=9 * bytes_per_node(world, policy))
    both = ((*answer.parameters, *answer.costates["embedding"]) for answer in (chunked, whole))
    for ours, other in zip(*both, strict=True):
        close(ours, other)


def test_a_budget_too_small_for_any_chunk_is_refused():
    world = garnet(V=4, horizon=6)
    with pytest.raises(InputError, match=r"makes 1365 prefixes.*would fit"):
        tree_gradients(world, transformer(world), budget=1000)


class Meter:
    """Bytes that autograd's graphs hold at a time, and their peak."""

    def __init__(self):
        self.live = self.peak = 0

    def pack(self, tensor):
        box, size = [tensor.detach()], tensor.untyped_storage().nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        holder = Held(box)
        weakref.finalize(holder, self._free, size)
        return holder

    def _free(self, size):
        self.live -= size


class Held:
    def __init__(self, box):
        self.box = box


def peak(budget, world, policy):
    meter = Meter()
    with torch.autograd.graph.saved_tensors_hooks(meter.pack, lambda held: held.box[0]):
        tree_gradients(world, policy, 1.0, SITES, budget=budget)
    gc.collect()
    assert meter.live == 0
    return meter.peak


def test_chunks_hold_a_fraction_of_the_graph_at_a_time():
    world = garnet(V=4, horizon=5)
    policy = transformer(world)
    need = node_count(world) * bytes_per_node(world, policy)
    whole = peak(2**33, world, policy)
    assert peak(need // 2, world, policy) < 0.6 * whole
    assert peak(need // 4, world, policy) < 0.3 * whole
    assert peak(2 * need, world, policy) == whole, "the control: with the memory for it, nothing is cut"


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_a_cut_below_several_levels_gives_the_same(alpha, monkeypatch):
    import theory.tokens.tree_gradients as module

    cuts = []
    real = module.prefix_roots
    monkeypatch.setattr(module, "prefix_roots", lambda tree, policy, k: cuts.append(k) or real(tree, policy, k))
    world = WORLDS["parity"]
    policy = transformer(world, seed=2)
    whole = tree_gradients(world, policy, alpha, SITES)
    chunked = tree_gradients(world, policy, alpha, SITES, budget=7 * bytes_per_node(world, policy))
    assert cuts == [2]
    for site in SITES:
        for k in range(world.horizon):
            close(chunked.costates[site][k], whole.costates[site][k])
    for ours, other in zip(chunked.parameters, whole.parameters, strict=True):
        close(ours, other)


def test_what_cannot_be_sampled_or_rooted_is_refused(rng):
    world = WORLDS["garnet"]
    policy = transformer(world)
    for samples in (0, -1):
        with pytest.raises(InputError, match=r"copies .samples. must be a whole number >= 1"):
            sampled_costates(world, policy, "score", "layer1", samples, rng)
    for prompt in (-1, 1):
        with pytest.raises(InputError, match=f"prompt {prompt} does not exist: the world's are 0 ... 0"):
            token_roots(world, policy, prompt, [0])
