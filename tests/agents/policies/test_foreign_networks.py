"""Networks of token ids and of `inputs_embeds` as policies: exact answers by two roads, larger vocabularies, refusals."""

import math
import warnings
from copy import deepcopy

import pytest
import torch
from torch import nn

from agents.policies.module_policy import ModulePolicy, SinglePrecision
from agents.recipes.learners import value_gradient
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.token_tasks import garnet
from envs.world import InputError
from figures.measures.oracles import TokenOracle
from tests.agents.cases import draws
from tests.theory.token_cases import Recurrent, value_differences
from theory.differences import central_gradient
from theory.tokens.error_split import error_split
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_gradients import node_gradients, total_surrogate, tree_gradients

WORLD = garnet(V=3, states=4, horizon=3, gamma=0.9, seed=1)
close = torch.testing.assert_close


class OfIds(nn.Module):
    """A network of token ids: embedding layer, running mean, two layers."""

    def __init__(self, vocabulary=3, D=6):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, D, dtype=torch.float64)
        self.inner = nn.Linear(D, D, dtype=torch.float64)
        self.head = nn.Linear(D, vocabulary, dtype=torch.float64)
        for i, p in enumerate(self.parameters()):
            p.data = draws(*p.shape, seed=i) / math.sqrt(p.shape[-1])

    def forward(self, ids):
        x = self.embed(ids).cumsum(1) / torch.arange(1, ids.shape[1] + 1, dtype=torch.float64)[:, None]
        return self.head(torch.tanh(self.inner(x)))


def drawn(network):
    """The network with weights of a fixed draw: its own come from a global generator, which other tests have moved."""
    for i, p in enumerate(network.parameters()):
        if p.ndim > 1:
            p.data = draws(*p.shape, seed=i) / math.sqrt(p.shape[-1])
    return network


def hugging_face(kind, vocabulary=11):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 1}
    if kind == "gpt2":
        config = transformers.GPT2Config(n_positions=16, n_embd=8, n_layer=2, n_head=2, **sizes)
        return drawn(transformers.GPT2LMHeadModel(config)), {"first": "transformer.h.0"}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.LlamaConfig(hidden_size=8, intermediate_size=16, **heads, **sizes)
    return drawn(transformers.LlamaForCausalLM(config)), {"first": "model.layers.0"}


@pytest.fixture(params=["ids", "gpt2", "llama"])
def foreign(request, uses_global_rng):
    """Name, a policy that says some entries of the vocabulary, the network, these entries, and its precision."""
    if request.param == "ids":
        network, sites, tokens = OfIds(), {"first": "inner"}, [2, 0, 1]
        return "ids", ModulePolicy(network, "embed", sites, "head", tokens=tokens), network, tokens, 1e-9
    network, sites = hugging_face(request.param)
    network, tokens = network.double().eval(), [2, 5, 7]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SinglePrecision)
        policy = ModulePolicy(network, sites=sites, head="lm_head", tokens=tokens)
    return request.param, policy, network, tokens, 1e-9 if request.param == "gpt2" else 1e-4


def test_the_return_is_that_of_all_completions_by_the_networks_own_ids(foreign):
    _, policy, network, tokens, _ = foreign
    entries, total = torch.tensor(tokens), 0.0
    tree = grow(WORLD, policy)
    for word in torch.cartesian_prod(*[torch.arange(3)] * 3):
        ids = entries[torch.cat([WORLD.prompts[0], word])][None]
        given = network(ids)
        logits = getattr(given, "logits", given)[0, -4:-1, entries]
        chance = torch.softmax(logits, -1).gather(1, word[:, None]).prod()
        belief, paid = torch.eye(4, dtype=torch.float64)[WORLD.starts[0]], 0.0
        for k, a in enumerate(word):
            paid = paid + WORLD.gamma**k * belief @ WORLD.r[k, :, a]
            belief = belief @ WORLD.P[:, a]
        total = total + chance * paid
    close(total, tree.J, rtol=1e-6, atol=0)


def test_every_prefix_is_a_central_difference_and_the_split_closes(foreign):
    name, policy, _, _, precision = foreign
    if name == "llama":  # its float32 parts leave no digits to a difference: the split's two roads are compared instead
        assert float(error_split(WORLD, policy, 0.6, "first").residual.max()) < 1e-6
        return
    for alpha in (0.3, 1.0):
        tree = grow(WORLD, policy, alpha, policy.sites)
        for site in policy.sites:
            for k, gradient in enumerate(node_gradients(tree, total_surrogate(tree), site)):
                close(gradient, value_differences(WORLD, policy, alpha, site, k), rtol=1e-5, atol=precision)
                assert float(gradient.norm()) > 1e-6
    assert float(error_split(WORLD, policy, 0.6, "first").residual.max()) < 1e-12


def test_the_gradient_in_the_embedding_table_is_a_central_difference(uses_global_rng):
    network = OfIds(5)
    policy = ModulePolicy(network, "embed", tokens=[4, 0, 2])
    names = [name for name, _ in policy.named_parameters()]
    slope = tree_gradients(WORLD, policy).parameters[names.index("table")]
    table = network.embed.weight.detach().clone()

    def value(flat):
        network.embed.weight.data = flat.reshape(table.shape)
        return grow(WORLD, policy).J.detach()

    close(slope.flatten(), central_gradient(value, table.flatten()), rtol=1e-6, atol=1e-9)
    assert not slope[[1, 3]].any()
    assert bool(slope[[4, 0]].any())


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_saved_folder_gives_the_same_policy(kind, tmp_path, uses_global_rng):
    network, sites = hugging_face(kind)
    network.double().eval().save_pretrained(tmp_path)
    again = type(network).from_pretrained(tmp_path, dtype=torch.float64).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SinglePrecision)
        policies = [ModulePolicy(each, sites=sites, tokens=[1, 2, 3]) for each in (network, again)]
    one, other = (tree_gradients(WORLD, policy, sites=("first",)).costates["first"][0] for policy in policies)
    close(one, other, rtol=1e-9, atol=1e-12)


def test_single_precision_is_said_also_where_only_a_layer_computes_in_it(uses_global_rng):
    network, _ = hugging_face("llama")
    with pytest.warns(SinglePrecision, match=r"in float32: answers have 6 digits"):
        ModulePolicy(network.double().eval())
    plain = Recurrent(3)
    with pytest.warns(SinglePrecision, match="float32"):
        ModulePolicy(plain.to(torch.float32), plain.E)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ModulePolicy(hugging_face("gpt2")[0].double().eval())


class Peeking(OfIds):
    """Reads the ids beside its embedding layer."""

    def forward(self, ids):
        return super().forward(ids) + ids[..., None]


def test_what_cannot_be_fed_is_refused_in_one_line(uses_global_rng):
    network = OfIds()
    with pytest.raises(InputError, match=r"embedding 'embd' is no embedding layer of the network; there are 'embed'"):
        ModulePolicy(network, "embd")
    with pytest.raises(InputError, match=r"embedding is needed: the network takes no `inputs_embeds`"):
        ModulePolicy(network)
    with pytest.raises(InputError, match=r"embedding must be a tensor \(V, D\), the path"):
        ModulePolicy(network, 7)
    with pytest.raises(InputError, match=r"other logits for token ids .* it reads the ids elsewhere"):
        ModulePolicy(Peeking(), "embed")
    for tokens in ([0, 3], [0, 0], [0.5, 1], [[0, 1]], "ab"):
        with pytest.raises(InputError, match="tokens must be"):
            ModulePolicy(network, "embed", tokens=tokens)


class Drawing(Recurrent):
    def forward(self, x):
        return super().forward(x) + torch.rand(1, dtype=x.dtype)


class Mixing(Recurrent):
    def forward(self, x):
        return super().forward(x + x.mean(0))


class Ahead(Recurrent):
    def forward(self, x):
        return super().forward(x + x.mean(1, keepdim=True))


@pytest.mark.parametrize(
    ("kind", "told"), [(Drawing, "two answers"), (Mixing, "mixes the rows"), (Ahead, "reads ahead")]
)
def test_a_network_that_is_no_function_of_a_context_is_refused(kind, told, uses_global_rng):
    network = kind(3)
    with pytest.raises(InputError, match=told):
        ModulePolicy(network, network.E)
    ModulePolicy(network, network.E, check=False)


def test_a_network_of_the_other_kind_is_refused_with_the_remedy(uses_global_rng):
    ids, plain = OfIds(), Recurrent(3)
    with pytest.raises(
        InputError, match=r"does not run on embeddings .*: give as embedding the path of its embedding layer"
    ):
        ModulePolicy(ids, ids.embed.weight)
    plain.table = nn.Embedding(3, 5, dtype=torch.float64)
    with pytest.raises(InputError, match=r"does not run on token ids .*: give as embedding the token table"):
        ModulePolicy(plain, "table")


def test_a_copy_has_its_own_numbers(foreign):
    """Training works on copies: their embeddings must reach their own network, not that of the original."""
    _, policy, *_ = foreign
    copy = deepcopy(policy)
    with torch.no_grad():
        for p in copy.parameters():
            p.mul_(1.5)
    x = copy.embed(torch.tensor([[0, 2, 1]]))
    before = policy(policy.embed(torch.tensor([[0, 2, 1]]))).detach()
    (slope,) = torch.autograd.grad(copy(x)[..., 0].sum(), [list(copy.parameters())[-1]])
    assert bool(slope.any())
    assert float((copy(x) - before).detach().abs().max()) > 1e-3
    for p in policy.parameters():
        assert p.grad is None


def test_they_are_trained_as_any_other(foreign):
    name, policy, _, _, _ = foreign
    task, oracle, setting = TokenTask(WORLD), TokenOracle(WORLD), TrainingSettings(steps=3, rate=0.02, every=1)
    trainer = Trainer(task, value_gradient(), [policy, deepcopy(policy)], [0, 1], setting, oracle)
    records = list(trainer.run())
    assert bool((records[-1].J > records[0].J + 1e-4).all()), name
    assert float(grow(WORLD, trainer.policies[0]).J.detach()) == pytest.approx(float(records[-1].J[0]), abs=1e-6)
