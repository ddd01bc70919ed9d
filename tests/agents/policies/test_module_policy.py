"""A user's own network as a policy: caches, probes at its submodules, exact answers, refusals."""

import math

import pytest
import torch
from torch import nn

from agents.policies.module_policy import ModulePolicy
from envs.token_tasks import garnet
from envs.world import InputError
from tests.agents.cases import draws
from tests.theory.token_cases import Recomputing, Recurrent, value_differences, with_readout
from theory.tokens.costates import expected_costates
from theory.tokens.error_split import error_split
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_gradients import node_gradients, total_surrogate
from theory.tokens.tree_size import bytes_per_node, node_count

WORLD = garnet(V=3, states=4, horizon=3, gamma=0.9, seed=1)
close = torch.testing.assert_close


class Foreign(nn.Module):
    """torch's own encoder layers with a causal mask, a tied head; nothing of this suite."""

    def __init__(self, V=3, D=8):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            D, 2, 16, dropout=0.0, batch_first=True, norm_first=True, dtype=torch.float64
        )
        self.first, self.second = (
            layer,
            nn.TransformerEncoderLayer(D, 2, 16, 0.0, batch_first=True, dtype=torch.float64),
        )
        self.E = nn.Parameter(torch.empty(V, D, dtype=torch.float64))
        self.head = nn.Linear(D, V, bias=False, dtype=torch.float64)
        for i, p in enumerate(self.parameters()):
            p.data = draws(*p.shape, seed=i) / math.sqrt(p.shape[-1])
        self.head.weight = self.E

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=torch.float64)
        x = x + 0.3 * torch.sin(torch.arange(x.shape[1], dtype=x.dtype))[:, None]
        return self.head(self.second(self.first(x, src_mask=mask), src_mask=mask))


SITES = {"first": "first", "second": "second"}


@pytest.fixture
def policy(uses_global_rng):  # torch's own layers draw their first weights from the global generator
    network = Foreign()
    return ModulePolicy(network, network.E, SITES, head="head", temperature=0.7, offset=0.4)


def test_every_prefix_and_site_of_a_foreign_transformer_is_a_central_difference(policy):
    for alpha in (0.3, 1.0):
        tree = grow(WORLD, policy, alpha, policy.sites)
        for site in policy.sites:
            for k, gradient in enumerate(node_gradients(tree, total_surrogate(tree), site)):
                close(gradient, value_differences(WORLD, policy, alpha, site, k), rtol=1e-6, atol=1e-9)
                assert float(gradient.norm()) > 1e-6


def test_its_hidden_readout_too(policy):
    world = with_readout(WORLD)
    for site in policy.sites:
        costates = expected_costates(world, policy, "total", site)[0]
        close(costates, value_differences(world, policy, 1.0, site), rtol=1e-6, atol=1e-9)
    plain = expected_costates(WORLD, policy, "total", "first")[0]
    assert float((plain - expected_costates(world, policy, "total", "first")[0]).norm()) > 1e-3


def test_the_split_closes_with_probes_at_a_submodule(policy):
    split = error_split(WORLD, policy, 0.6, "first", whole_prompt=True)
    assert float(split.residual.max()) < 1e-12
    assert float(split.error.min()) > 1e-3


def test_extending_equals_whole_contexts_with_all_probes(policy):
    x = policy.embed(torch.tensor([[0, 2, 1], [1, 1, 0]]))
    probes = {site: 0.3 * draws(2, 3, 8, seed=i) for i, site in enumerate(policy.sites)}
    whole = policy(x, probes)
    _, cache = policy.extend(x[:, :2], None, {"first": probes["first"][:, :2]})
    late = policy.extend(x[:, 2:], cache, {site: probe[:, 2:] for site, probe in probes.items()})[0]
    probes["embedding"][:, :2] = probes["second"][:, :2] = 0
    close(late, policy(x, probes)[:, -1])
    assert float((late - whole[:, -1]).detach().abs().max()) > 1e-3


def test_knobs_tables_and_hooks(policy):
    x = policy.embed(torch.tensor([[0, 2]]))
    close(policy(x), (policy.network(x) + torch.tensor([0.4, 0.0, 0.0])) / 0.7)
    close(policy.embed(torch.eye(3, dtype=torch.float64)), policy.network.E)
    assert len(list(policy.parameters())) == len(list(policy.network.parameters()))
    assert not policy.network.first._forward_hooks
    plain = Recurrent(3)
    ours, bare = ModulePolicy(plain, plain.E), Recomputing(plain)
    close(ours(ours.embed(torch.tensor([[0, 2]]))), bare(bare.embed(torch.tensor([[0, 2]]))))
    assert ModulePolicy(plain, plain.E.detach()).to(torch.float32).table.dtype == torch.float32


class Wrong(Recurrent):
    def forward(self, x):
        return super().forward(x)[:, -1]


def test_what_does_not_fit_is_refused_by_name(policy):
    plain, x = Recurrent(3), policy.embed(torch.tensor([[0, 2]]))
    with pytest.raises(
        InputError, match=r"network must map embeddings \(2, 3, 5\) to logits \(2, 3, 3\); got \(2, 3\)"
    ):
        grow(WORLD, ModulePolicy(Wrong(3), plain.E))
    with pytest.raises(InputError, match=r"logits \(2, 3, 2\); got \(2, 3, 3\)"):
        ModulePolicy(plain, plain.E[:2])(plain.E[:1][None])
    with pytest.raises(InputError, match=r"site 'layer9' does not exist; there are embedding, first, second"):
        policy(x, {"layer9": x})
    with pytest.raises(InputError, match=r"'thrid' does not exist in the network; there are first, first.dropout"):
        ModulePolicy(policy.network, policy.network.E, {"third": "thrid"})
    with pytest.raises(InputError, match="head must name"):
        ModulePolicy(plain, plain.E).hidden(x)
    with pytest.raises(InputError, match=r"embedding must be a tensor of shape \(V, D\)"):
        ModulePolicy(plain, plain.E[0])
    with pytest.raises(InputError, match="temperature"):
        ModulePolicy(plain, plain.E, temperature=0)


class Odd(Recurrent):
    """Submodules that never run, run twice, or give another shape."""

    def __init__(self):
        super().__init__(3)
        self.never, self.twice = nn.Identity(), nn.Identity()
        self.flat, self.drop = nn.Flatten(1), nn.Dropout(0.5)

    def forward(self, x):
        self.flat(x)
        return super().forward(self.drop(self.twice(self.twice(x))))


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("never", r"submodule 'never' of mid ran 0 times, not once"),
        ("twice", r"submodule 'twice' of mid ran 2 times, not once"),
        ("flat", r"site 'mid' must give \(batch, time, width\) = \(1, 1, 5\); its submodule gave \(1, 5\)"),
    ],
)
def test_a_site_that_cannot_be_read_is_refused_not_answered_with_0(path, told):
    network = Odd().eval()
    with pytest.raises(InputError, match=told):
        grow(WORLD, ModulePolicy(network, network.E, {"mid": path}), 1.0, ("mid",))
    with pytest.raises(InputError, match=r"submodule 'never' of head ran 0 times"):
        grow(WORLD, ModulePolicy(network, network.E, head="never"))


def test_dropout_in_training_mode_and_a_site_called_embedding_are_refused():
    network = Odd()
    with pytest.raises(InputError, match=r"call network.eval\(\) first"):
        grow(WORLD, ModulePolicy(network, network.E))
    with pytest.raises(InputError, match="always there"):
        ModulePolicy(network, network.E, {"embedding": "twice"})


def test_the_bytes_foreseen_cover_those_of_whole_contexts(policy):
    world = garnet(V=4, horizon=5)
    network = Foreign(4)
    deep = ModulePolicy(network, network.E, SITES)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.__setitem__(t.untyped_storage().data_ptr(), t.untyped_storage()) or t, lambda t: t
    ):
        total_surrogate(grow(world, deep, 1.0, deep.sites))
    used = sum(storage.nbytes() for storage in kept.values())
    assert used < node_count(world) * bytes_per_node(world, deep) < 4 * used
