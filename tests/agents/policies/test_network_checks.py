"""What a network may do while it is fed: no writing, no drawing, nothing left behind; forbidden tokens are sound."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from agents.policies.module_policy import ModulePolicy
from envs.token_tasks import garnet
from envs.world import InputError
from tests.agents.policies.test_foreign_networks import OfIds
from tests.theory.token_cases import Recurrent, value_differences
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_gradients import tree_gradients

WORLD = garnet(V=3, states=4, horizon=3, gamma=0.9, seed=1)
close = torch.testing.assert_close


class Writing(Recurrent):
    def forward(self, x):
        return super().forward(x.mul_(0.5) * 2)


class Wasting(Recurrent):
    def forward(self, x):
        torch.rand(1)
        return super().forward(x)


class Unsound(Recurrent):
    """One logit is not finite."""

    entry = torch.nan

    def forward(self, x):
        logits = super().forward(x)
        return torch.cat([logits[..., :2], torch.full_like(logits[..., 2:], self.entry)], -1)


class Endless(Unsound):
    entry = torch.inf


class Forbidding(Unsound):
    entry = -torch.inf


class Counting(Recurrent):
    """Keeps a state."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) + self.calls


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Writing, "writes on its input"),
        (Wasting, "draws from torch's global generator"),
        (Unsound, "NaN or infinite"),
        (Endless, "NaN or infinite"),
        (Counting, "draws random numbers or keeps a state"),
    ],
)
def test_a_network_that_does_more_than_compute_is_refused(kind, told, uses_global_rng):
    network = kind(3)
    with pytest.raises(InputError, match=told) as error:
        ModulePolicy(network, network.E)
    assert "\n" not in str(error.value)
    ModulePolicy(network, network.E, check=False)


def test_a_token_may_be_forbidden():
    network = Forbidding(3)
    policy = ModulePolicy(network, network.E)
    tree = grow(WORLD, policy)
    assert all(float(level.pi[:, 2].detach().max()) == 0 for level in tree.levels)
    assert bool(tree.J.isfinite())


class Scaled(nn.Embedding):
    def forward(self, ids):
        return 1.01 * super().forward(ids)


def test_an_embedding_layer_that_changes_its_rows_is_refused(uses_global_rng):
    network = OfIds()
    network.embed = Scaled(3, 6, _weight=network.embed.weight.detach())
    with pytest.raises(InputError, match=r"other logits for token ids than for their embeddings .* scales the table"):
        ModulePolicy(network, "embed")


def test_a_network_of_ids_is_left_as_it_was(uses_global_rng):
    network, ids = OfIds(), torch.tensor([[0, 2, 1], [1, 1, 0]])
    before = network(ids)
    policy = ModulePolicy(network, "embed", {"first": "inner"}, "head")
    tree_gradients(WORLD, policy, sites=("first", "embedding"))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    close(network(ids), before, rtol=0, atol=0)


class Caching(nn.Module):
    """As the models of Hugging Face are called: by `inputs_embeds`, with a cache unless it is declined."""

    def __init__(self):
        super().__init__()
        self.inner, self.declined = Recurrent(3), []
        self.table = nn.Embedding(3, self.inner.E.shape[1], _weight=self.inner.E.detach())

    def get_input_embeddings(self):
        return self.table

    def forward(self, input_ids=None, inputs_embeds=None, use_cache=True):
        self.declined += [not use_cache] if input_ids is None else []
        return SimpleNamespace(logits=self.inner(self.table(input_ids) if inputs_embeds is None else inputs_embeds))


def test_no_cache_of_keys_and_values_is_kept():
    network = Caching()
    policy = ModulePolicy(network)
    close(grow(WORLD, policy).J, grow(WORLD, ModulePolicy(network.inner, network.inner.E)).J)
    assert network.declined
    assert all(network.declined)


class Pair(nn.Module):
    def forward(self, x):
        return torch.tanh(x), x**2


class WithPair(Recurrent):
    """A submodule gives two tensors, and the second is used too."""

    def __init__(self):
        super().__init__(3)
        self.pair = Pair()

    def forward(self, x):
        first, second = self.pair(x)
        return super().forward(first + 0.1 * second)


def test_a_probe_is_added_to_the_first_of_several_outputs_and_the_others_stay():
    network = WithPair()
    policy = ModulePolicy(network, network.E, {"mid": "pair"})
    found = tree_gradients(WORLD, policy, sites="mid").costates["mid"][0]
    close(found, value_differences(WORLD, policy, 1.0, "mid", 0), rtol=1e-6, atol=1e-9)
    assert float(found.norm()) > 1e-6
