"""The state-reading split against differences, whole prefix trees, its definitions and all orders of the values."""

import copy
import itertools
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from agents.policies.transformer import Transformer
from envs.token_mdp import TokenMDP
from envs.token_tasks import garnet
from envs.world import InputError
from tests.oracles import numerical_gradient
from tests.theory.cases import tensor
from tests.theory.token_cases import several_prompts
from theory.tokens.dynamic_programming import tables
from theory.tokens.error_split import error_split
from theory.tokens.forward_mode import forward_value_gradient
from theory.tokens.state_reading import split_of_slopes, state_reading_slopes, state_reading_split

close = torch.testing.assert_close


def readers(world, scale=1.0, width=6, seed=0):
    """Logits of a small network that reads the step and the abstract state; delta is added at its prompt."""
    draw = np.random.default_rng(seed).standard_normal
    W, b = tensor(draw((world.horizon, world.S, width, width))), tensor(draw((world.horizon, world.S, width)))
    out = tensor(draw((width, world.V)))
    return (lambda delta, k: scale * torch.tanh(W[k] @ delta + b[k]) @ out), width


@pytest.mark.parametrize("prompt", [0, 1])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_state_reading_split_is_the_slope_of_the_return(scale, prompt):
    world = several_prompts(horizon=3)
    logits, width = readers(world, scale)

    def J(delta):
        pi = torch.stack([torch.softmax(logits(torch.as_tensor(delta), k), -1) for k in range(world.horizon)])
        return tables(world, pi).V[0, world.starts[prompt]]

    split = state_reading_split(world, logits, width, prompt)
    close(split.J, J(np.zeros(width)))
    close(split.value_gradient, tensor(numerical_gradient(J, np.zeros(width))), rtol=1e-7, atol=1e-10)
    close(split.value_gradient, torch.func.grad(J)(torch.zeros(width, dtype=torch.float64)))
    other = state_reading_split(world, logits, width, 1 - prompt)
    assert float((other.value_gradient - split.value_gradient).norm()) > 1e-3 * float(split.value_gradient.norm())
    assert bool((split.tiers.diff() >= -1e-15).all())
    close(split.tiers[0], split.value_gradient.norm())
    assert split.naive > split.tiers[1]


def test_tiers_entropy_and_naive_product_by_their_definitions():
    """A world of one step, where every term can be written down."""
    world = garnet(V=5, states=3, horizon=1, seed=4)
    logits, width = readers(world)
    zero, z = torch.zeros(width, dtype=torch.float64), int(world.starts[0])
    w = torch.autograd.functional.jacobian(lambda d: logits(d, 0)[z], zero)
    p, Q = torch.softmax(logits(zero, 0)[z], -1), world.r[0, z]
    split, G, H = state_reading_split(world, logits, width), 1 - p.square().sum(), -(p * p.log()).sum()
    D_osc = (w[:, None] - w).norm(dim=-1).max() * (Q.max() - Q.min())
    bound = min(H / (2 * np.log(2)), 1 - torch.exp(-H))
    jacobian = torch.diag(p) - torch.outer(p, p)
    one = (w.mT @ jacobian @ Q).norm()
    close(split.tiers, torch.stack([one, one, D_osc * min(0.25, G / 2), D_osc * min(0.25, bound / 2)]))
    close(torch.stack([split.entropy, split.gini]), torch.stack([H, G]))
    norm, centred = torch.linalg.matrix_norm(jacobian, 2), w - p @ w
    close(split.naive, torch.linalg.matrix_norm(w, 2) * norm * Q.norm())
    value_sd = (p * (Q - p @ Q).square()).sum().sqrt()
    close(split.spread, value_sd * torch.linalg.eigvalsh(centred.mT @ torch.diag(p) @ centred)[-1].sqrt())
    close(torch.stack([split.reach, split.spectral]), torch.stack([D_osc, D_osc * norm]))
    D = (w[:, None] - w).norm(dim=-1).max()
    close(torch.stack([split.jacobian_norm, split.diameter, split.oscillation]), torch.stack([norm, D, D_osc / D]))


@pytest.mark.parametrize("shape", ["uniform", "zipf"])
def test_a_large_vocabulary_takes_seconds_and_the_naive_product_is_useless_where_one_token_leads(shape):
    world = garnet(V=2048, states=4, horizon=3, seed=1)
    draw = np.random.default_rng(1).standard_normal
    W, base = tensor(draw((2048, 6))), -torch.arange(1, 2049, dtype=torch.float64).log() * (shape == "zipf")
    began = time.process_time()
    split = state_reading_split(world, lambda delta, k: (base + W @ delta).expand(4, -1), 6)
    assert time.process_time() - began < 5
    assert bool((split.tiers.diff() >= -1e-12).all())
    close(split.tiers[0], split.value_gradient.norm())
    assert split.naive > split.tiers[1]
    if shape == "zipf":
        assert split.naive > 10 * split.tiers[2]
    else:  # the other half of the truth: for even probabilities ||J|| = 1/V saves the product
        assert split.naive < split.tiers[2]


def with_rewards(world, r):
    return TokenMDP(world.P, r, world.prompts, world.starts, world.horizon, world.gamma)


def test_values_dealt_to_the_tokens_at_random_have_the_size_that_is_told():
    """All 120 orders of the rewards of one step: the mean square of ||Cov|| is `dealt` squared, exactly."""
    world = garnet(V=5, states=2, horizon=1, seed=4)
    logits, width = readers(world, 2.0)
    slopes = state_reading_slopes(world, logits, width)
    orders = list(itertools.permutations(range(5)))
    splits = [split_of_slopes(with_rewards(world, world.r[..., list(order)]), slopes) for order in orders]
    close(torch.stack([split.error.square() for split in splits]).mean(), splits[0].dealt.square())
    close(splits[7].dealt, splits[0].dealt)
    assert float(splits[7].error) != pytest.approx(float(splits[0].error), rel=0.1)


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("V", [2, 3, 8, 40])
def test_every_bound_is_kept_and_in_order_and_two_clusters_attain_all_but_the_naive_one(V, scale):
    world = garnet(V=V, states=4, horizon=3, gamma=0.9, seed=V)
    logits, width = readers(world, scale)
    split = state_reading_split(world, logits, width)
    chain = torch.stack([*split.tiers[:2], split.spread, *split.tiers[2:]])  # two tokens attain some of them: rounding
    assert bool((chain.diff() >= -1e-12 * chain[1:]).all())
    assert float(split.tiers[2]) <= float(split.reach) / 4 * (1 + 1e-12)
    assert float(split.tiers[1]) <= float(split.naive)
    side = (torch.arange(V) % 2).double()
    even = with_rewards(world, side.expand(4, V))
    g = tensor(np.random.default_rng(1).standard_normal(width))
    split = state_reading_split(even, lambda delta, k: (side * (g @ delta)).expand(4, V), width)
    if V % 2 == 0:
        close(split.tiers, split.reach.expand(4) / 4)
        close(split.spread, split.reach / 4)
        close(split.spectral, split.reach / V)


class StateReader(nn.Module):
    """A policy for the prefix tree that reads the prompt and the state's token only; one token leads to one state.

    A "fed" token is its one-hot row. The state's token stands at T + k because the network that reads step k has its
    position embeddings T and T + k exchanged: another road than the sum of embeddings in `state_logits`.
    """

    def __init__(self, network, world):
        super().__init__()
        self.network, self.world, self.T = network, world, world.prompts.shape[1]
        self.readers = [self.shifted(k) for k in range(world.horizon)]
        self.width, self.layers, self.sites = network.width, network.layers, network.sites

    def shifted(self, k):
        reader = copy.deepcopy(self.network)
        with torch.no_grad():
            reader.position[[self.T, self.T + k]] = self.network.position[[self.T + k, self.T]]
        return reader

    def embed(self, u):
        return u if u.is_floating_point() else self.network.embed(u)

    def extend(self, x, cache=None, probes=None):
        if cache is None:
            prompt, probes, state, k = x, probes or {}, self.world.starts, 0
        else:
            prompt, probes, state, k = cache
            many = len(x) // len(state)
            prompt = prompt.repeat_interleave(many, 0)
            probes = {site: probe.repeat_interleave(many, 0) for site, probe in probes.items()}
            state, k = self.world.P.argmax(-1)[state.repeat_interleave(many), x[:, 0].argmax(-1)], k + 1
        context = torch.cat([prompt, self.network.embed(state)[:, None]], 1)
        padded = {site: nn.functional.pad(probe, (0, 0, 0, 1)) for site, probe in probes.items()}
        return self.readers[k](context, padded)[:, -1], (prompt, probes, state, k)


def network_logits(network, world, prompt, site="layer1"):
    """The same policy for the dynamic programme: position embeddings by their difference."""
    T = world.prompts.shape[1]

    def logits(delta, k):
        state = network.embed(torch.arange(world.S)) + network.position[T + k] - network.position[T]
        x = torch.cat([network.embed(world.prompts[prompt]).expand(world.S, -1, -1), state[:, None]], 1)
        return network.extend(x, None, {site: nn.functional.pad(delta[None], (0, 0, T - 1, 1)).expand_as(x)})[0]

    return logits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("site", ["embedding", "layer1"])
def test_the_whole_prefix_tree_of_a_state_reading_transformer_has_the_same_split(site, tied):
    g = garnet(V=4, states=4, horizon=4, branching=1, gamma=0.8, seed=3)
    world = TokenMDP(g.P, g.r, [[0, 1], [2, 2]], [1, 3], 4, 0.8, weights=[0.3, 0.7])
    network = Transformer(4, width=8, heads=2, length=6, temperature=4.0 if tied else 0.3, tied=tied, seed=1)
    reader = StateReader(network, world)
    tree = error_split(world, reader, 1.0, site)
    slopes = forward_value_gradient(world, reader, 1.0, site)
    for prompt in (0, 1):
        split = state_reading_split(world, network_logits(network, world, prompt, site), 8, prompt)
        close(split.value_gradient, tree.value_gradient[prompt])
        close(split.value_gradient, slopes[prompt])
        close(split.tiers, tree.tiers[:, prompt])
        close(split.entropy, tree.entropy[prompt])
        close(split.gini, tree.gini[prompt])
        assert float(split.error) > 1e-4
    last = state_reading_split(world, network_logits(network, world, 0, "layer2"), 8)
    assert float(last.error) == 0, "after the last layer nothing can reach the state's token"


def test_slopes_serve_other_rewards_and_start_states():
    world = several_prompts(horizon=3)
    logits, width = readers(world)
    slopes = state_reading_slopes(world, logits, width)
    other = with_rewards(world, world.r.flip(-1))
    for prompt in (0, 1):
        reused, fresh = split_of_slopes(other, slopes, prompt), state_reading_split(other, logits, width, prompt)
        for name, value in vars(fresh).items():
            close(getattr(reused, name), value)
        assert float(reused.error) != pytest.approx(float(split_of_slopes(world, slopes, prompt).error), rel=1e-3)
        assert float(reused.gini) == float(split_of_slopes(world, slopes, prompt).gini)


def test_wrong_logits_and_work_too_large_are_refused():
    world = garnet(V=3, states=4, horizon=2, seed=1)
    for wrong in (lambda delta, k: delta.sum() + torch.zeros(3), lambda delta, k: torch.zeros(4, 2)):
        with pytest.raises(InputError, match=r"logits must have shape \(4, 3\), one row per state; got"):
            state_reading_split(world, wrong, 2)

    def never(delta, k):
        raise AssertionError("work too large must be refused before anything is built")

    with pytest.raises(
        InputError, match=r"V=3 with S=4, horizon=2 and width=2000000 needs about 1\.43 GiB of 1 allowed"
    ):
        state_reading_split(world, never, 2_000_000, budget=2**30)


MEASURED = """
import resource, sys, torch
from envs.token_mdp import TokenMDP
from theory.tokens.state_reading import _check_size, state_reading_split
from agents.policies.transformer import Transformer
def split(V, S=4, H=3, width=16):
    policy = Transformer(V, width=width, heads=2, length=2, seed=0)
    world = TokenMDP(torch.eye(S).expand(V, S, S).transpose(0, 1), torch.zeros(H, S, V), [[0]], [0], H, 0.9)
    x = torch.cat([policy.embed(torch.zeros(S, 1, dtype=torch.int64)), policy.embed(torch.arange(S))[:, None]], 1)
    def logits(delta, k):
        shift = torch.nn.functional.pad(delta[None], (0, 0, 0, 1)).expand_as(x)
        return policy.extend(x, None, {"layer1": shift})[0]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    state_reading_split(world, logits, width)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak - before) * (1 if sys.platform == "darwin" else 1024)
torch.set_num_threads(1)
split(100)
print(split(2**16))
"""


def test_the_bytes_foreseen_cover_those_that_are_used_but_not_three_times_over():
    small = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"
    command = [sys.executable, "-c", small, MEASURED]  # a process inherits the peak of its parent: take a small one
    used = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    world = TokenMDP(torch.eye(4).expand(2, 4, 4).transpose(0, 1), torch.zeros(4, 2), [[0]], [0], 3, 0.9)

    def asked(budget):
        state_reading_split(
            world, lambda delta, k: delta.sum() + torch.zeros(4, 2, dtype=torch.float64), 16, budget=budget
        )

    asked(3 * used // 2**15)  # the foreseen bytes are linear in V
    with pytest.raises(InputError, match="needs about"):
        asked(used // 2**15)
