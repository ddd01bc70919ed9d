"""A folder of checkpoints as policies: the suite's transformers and users' networks give the logits they gave when saved."""

import json
import pickle

import pytest
import torch

from agents.policies.module_policy import ModulePolicy
from agents.policies.transformer import Transformer
from envs.skills import skills
from envs.world import InputError
from figures.impact.checkpoint_files import MODEL_FILE, checkpoint_files, read_model
from figures.impact.checkpoints import Source, read_checkpoints
from figures.impact.numbers import Definitions, describe_policy
from tests.envs.refusals import refused

WORLD = skills(2, 2, "copy,add")  # four tokens; three of prompt and two of answer
WORDS = torch.randint(4, (7, 5), generator=torch.Generator().manual_seed(3))
OWN = Source(heads=2)
SIZES = [(4, 1, 1, 4, False), (8, 2, 2, 5, True), (12, 3, 3, 9, False), (6, 1, 2, 6, True)]
KEYS = [None, "state", "model", "state_dict", "model_state_dict"]
USERS = '''
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from agents.policies.module_policy import ModulePolicy
from agents.policies.transformer import Transformer


@dataclass
class Config:
    width: int = 8


class Encoder(nn.Module):
    """Causal layers of torch's own; the table is not called `embedding`."""

    def __init__(self, V, width):
        super().__init__()
        self.tokens = nn.Embedding(V, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 16, dropout=0.0, batch_first=True, norm_first=i > 0) for i in range(2)
        )
        self.out = nn.Linear(width, V)

    def forward(self, x):
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        for layer in self.layers:
            x = layer(x, src_mask=mask)
        return self.out(x)


class Recurrent(nn.Module):
    def __init__(self, V):
        super().__init__()
        self.embedding = nn.Embedding(V, 6)
        self.drop = nn.Dropout(0.5)
        self.gru = nn.GRU(6, 6, batch_first=True)
        self.out = nn.Linear(6, V)

    def forward(self, x):
        return self.out(self.gru(self.drop(x))[0])


def encoder(world):
    return Encoder(world.V, Config().width)


def recurrent(world):
    return Recurrent(world.V)


def ready(world):
    network = Recurrent(world.V).eval()
    return ModulePolicy(network, network.embedding.weight, {"state": "gru"}, temperature=0.5)


def suite(world):
    return Transformer(world.V, width=8, heads=2, length=6, temperature=0.5)


def of_five_tokens(world):
    return Recurrent(5)


def ready_of_five_tokens(world):
    return Transformer(5, width=8, heads=2, length=6)


def nothing(world):
    return None


def a_class(world):
    return Transformer


table = 3
'''
EACH_USER = pytest.mark.parametrize(
    ("name", "embedding", "site"),
    [
        ("encoder", "tokens.weight", "layers.0"),
        ("encoder", "tokens.weight", None),
        ("recurrent", "embedding.weight", "gru"),
    ],
)


def transformer(width=8, layers=2, heads=2, length=6, tied=False, seed=0, V=4, **own):
    return Transformer(V, None, width, layers, heads, length, tied=tied, seed=seed, **own)


def save(folder, name, state, key=None, **extra):
    folder.mkdir(exist_ok=True)
    torch.save(state if key is None else {key: state, **extra}, folder / f"{name}.pt")
    return folder


def write_model(folder, **fields):
    folder.mkdir(exist_ok=True)
    (folder / MODEL_FILE).write_text(json.dumps(fields))


def logits(network):
    with torch.no_grad():
        return network(network.embed(WORDS))


@pytest.fixture
def users(tmp_path, uses_global_rng):
    """A file of somebody's builders (torch draws their first parameters from its global generator)."""
    path = tmp_path / "users.py"
    path.write_text(USERS)
    return path


def built(path, name):
    """A user's network by plain Python, its parameters made its own."""
    scope = {"__name__": "users_by_hand"}
    exec(compile(path.read_text().replace("@dataclass", ""), str(path), "exec", dont_inherit=True), scope)
    network = scope[name](WORLD) if name != "encoder" else scope["Encoder"](4, 8)
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=rng, dtype=torch.float64) * 0.5)
    return network


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("width", "layers", "heads", "length", "tied"), SIZES)
def test_the_suites_own_network_comes_back_whole(tmp_path, key, width, layers, heads, length, tied):
    network = transformer(width, layers, heads, 5 if length < 5 else length, tied, seed=4, offset=0.3)
    folder = save(tmp_path / "run", "one", network.state_dict(), key)
    (loaded,) = read_checkpoints(folder, WORLD, Source(heads=heads))
    assert (loaded.name, loaded.tokens, loaded.site) == ("one", None, "layer1")
    assert loaded.policy.sites == network.sites
    assert {p.dtype for p in loaded.policy.parameters()} == {torch.float64}
    assert torch.equal(logits(loaded.policy), logits(network))
    assert len(list(loaded.policy.parameters())) == len(list(network.parameters()))  # tied ones are one
    assert not torch.equal(
        logits(loaded.policy), logits(transformer(width, layers, heads, 5 if length < 5 else length, tied))
    )


def test_single_precision_becomes_double(tmp_path):
    network = transformer(dtype=torch.float32)
    (loaded,) = read_checkpoints(save(tmp_path, "one", network.state_dict()), WORLD, OWN)
    assert {x.dtype for x in loaded.policy.state_dict().values()} == {torch.float64}
    assert torch.equal(logits(loaded.policy), logits(network.double()))


def test_what_else_a_training_script_saves_is_passed_over(tmp_path):
    network, optimiser = transformer(), {"param_groups": [], "state": {}}
    folder = save(tmp_path, "one", network.state_dict(), "model", optimizer=optimiser, tokens=7.0, loss=2.5)
    (loaded,) = read_checkpoints(folder, WORLD, OWN)
    assert loaded.tokens == 7
    assert isinstance(loaded.tokens, int)
    assert torch.equal(logits(loaded.policy), logits(network))


@pytest.mark.parametrize("tokens", ["many", ["a", "b"], {}, None, torch.zeros(3)])
def test_tokens_that_are_no_number_are_none(tmp_path, tokens):
    (loaded,) = read_checkpoints(save(tmp_path, "a", transformer().state_dict(), "state", tokens=tokens), WORLD, OWN)
    assert loaded.tokens is None


def several(folder, tokens):
    for seed, (name, many) in enumerate(tokens.items()):
        save(folder, name, transformer(seed=seed).state_dict(), "state", **({} if many is None else {"tokens": many}))
    return read_checkpoints(folder, WORLD, OWN)


def test_checkpoints_are_in_the_order_of_their_tokens_where_all_say_them(tmp_path):
    tokens = {"a": 30, "b": 0, "c": 200, "d10": 9, "d9": 10}
    loaded = several(tmp_path, tokens)
    assert [one.name for one in loaded] == ["b", "d10", "d9", "a", "c"]
    assert {one.name: one.tokens for one in loaded} == tokens
    for one in loaded:  # each with its own numbers
        assert torch.equal(logits(one.policy), logits(transformer(seed=list(tokens).index(one.name))))


@pytest.mark.parametrize("tokens", [None, 5])
def test_else_by_name_and_numbers_in_it_by_size(tmp_path, tokens):
    names = ["10", "9", "step-10", "step-9", "step-9-b2", "step-9-b10", "stepp", "²"]
    loaded = several(tmp_path, dict.fromkeys(names, None) | {"step-9": tokens})
    assert [one.name for one in loaded] == ["9", "10", "step-9", "step-9-b2", "step-9-b10", "step-10", "stepp", "²"]
    assert [path.stem for path in checkpoint_files(tmp_path)] == [one.name for one in loaded]


def test_heads_are_those_of_the_file_unless_named(tmp_path):
    two, four = transformer(heads=2), transformer(heads=4)
    write_model(save(tmp_path, "one", two.state_dict()), heads=2, width=99)
    assert torch.equal(logits(read_checkpoints(tmp_path, WORLD, Source())[0].policy), logits(two))
    (loaded,) = read_checkpoints(tmp_path, WORLD, Source(heads=4))
    assert torch.equal(logits(loaded.policy), logits(four))
    assert not torch.equal(logits(two), logits(four))


def test_what_the_file_says_is_read_and_there_need_be_none(tmp_path):
    assert read_model(tmp_path) == {}
    write_model(tmp_path, heads=2, world="TokenCopy", world_options={"V": 3})
    assert read_model(tmp_path) == {"heads": 2, "world": "TokenCopy", "world_options": {"V": 3}}


@EACH_USER
def test_a_users_network_is_judged_as_it_is(tmp_path, users, name, embedding, site):
    network = built(users, name).eval()
    folder = save(tmp_path / "run", "one", network.state_dict(), "model_state_dict", tokens=3)
    (loaded,) = read_checkpoints(folder, WORLD, Source(f"{users}:{name}", embedding, site))
    assert (loaded.tokens, loaded.site) == (3, "layer1" if site else "embedding")
    assert loaded.site in loaded.policy.sites
    truth = network.double()
    with torch.no_grad():
        wanted = truth(truth.get_parameter(embedding)[WORDS])
    torch.testing.assert_close(logits(loaded.policy), wanted, rtol=1e-12, atol=1e-12)
    assert {p.dtype for p in loaded.policy.parameters()} == {torch.float64}


@EACH_USER
def test_the_costate_is_read_where_the_user_says(tmp_path, users, name, embedding, site):
    """The slope of J in a vector added to the submodule's output at the prompt, by central differences."""
    network = built(users, name).eval()
    folder = save(tmp_path / "run", "one", network.state_dict())
    (loaded,) = read_checkpoints(folder, WORLD, Source(f"{users}:{name}", embedding, site))
    costate = describe_policy(WORLD, loaded.policy, Definitions(site=loaded.site))["costate"]
    assert costate == pytest.approx(by_differences(network.double(), embedding, site), rel=1e-5)


def by_differences(network, embedding, site):
    """Mean over prompts of |dV/dh|; h is the submodule's output, or its embedding, at the prompt's last position."""
    table, added = network.get_parameter(embedding), torch.zeros(1, dtype=torch.float64)
    words = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    last = WORLD.prompts.shape[1] - 1

    def add(x):
        return torch.cat([x[:, :last], x[:, last : last + 1] + added, x[:, last + 1 :]], 1)

    if site:
        hook = lambda module, inputs, out: (add(out[0]), out[1]) if isinstance(out, tuple) else add(out)  # noqa: E731
        network.get_submodule(site).register_forward_hook(hook)

    def value(prompt, answer, h):
        nonlocal added
        added = h
        x = table[torch.cat([prompt.expand(len(words), -1), words[:, :-1]], 1)]
        log_pi = torch.log_softmax(network(x if site else add(x)), -1)[:, last:]
        p = log_pi.gather(-1, words[..., None])[..., 0].sum(-1).exp()
        return float(p[(words == answer).all(1)].sum())

    total = 0.0
    with torch.no_grad():
        for prompt in WORLD.prompts:
            a, b = prompt.tolist()[1:]
            answer = torch.tensor([a, b] if prompt[0] == 2 else [(a + b) % 2, (a + 2 * b) % 2])
            steps = 1e-5 * torch.eye(table.shape[1], dtype=torch.float64)
            slope = torch.tensor([(value(prompt, answer, h) - value(prompt, answer, -h)) / 2e-5 for h in steps])
            total += float(slope.norm()) / len(WORLD.prompts)
    return total


def test_a_module_on_the_path_is_as_good_as_a_file(tmp_path, users, monkeypatch):
    network = built(users, "recurrent").eval()
    folder = save(tmp_path / "run", "one", network.state_dict())
    (tmp_path / "parts").mkdir()
    users.rename(tmp_path / "parts" / "costate_test_users.py")
    monkeypatch.syspath_prepend(tmp_path)
    (loaded,) = read_checkpoints(folder, WORLD, Source("parts.costate_test_users:recurrent"))
    with torch.no_grad():
        torch.testing.assert_close(logits(loaded.policy), network.double()(network.embedding.weight[WORDS]))


@pytest.mark.filterwarnings("ignore:the network computes:agents.policies.module_policy.SinglePrecision")
@pytest.mark.parametrize(("name", "site"), [("ready", None), ("ready", "state"), ("suite", "layer2")])
def test_a_policy_that_is_ready_is_taken_as_it_is(tmp_path, users, name, site):
    policy = built(users, name)
    folder = save(tmp_path / "run", "one", policy.state_dict())
    (loaded,) = read_checkpoints(folder, WORLD, Source(f"{users}:{name}", site=site))
    assert type(loaded.policy).__name__ == type(policy).__name__
    assert loaded.site == (site or "embedding")
    assert loaded.policy.temperature == 0.5
    torch.testing.assert_close(logits(loaded.policy), logits(policy.double()), rtol=1e-12, atol=1e-12)
    assert describe_policy(WORLD, loaded.policy, Definitions(site=loaded.site))["costate"] > 0


def test_the_user_modules_of_two_files_of_one_name_stay_apart(tmp_path, users):
    other = tmp_path / "other" / "users.py"
    other.parent.mkdir()
    other.write_text(USERS.replace("return Recurrent(world.V)", "return Encoder(world.V, 4)", 1))
    folder = save(tmp_path / "run", "one", built(users, "recurrent").state_dict())
    for _ in range(2):
        assert isinstance(read_checkpoints(folder, WORLD, Source(f"{users}:recurrent"))[0].policy, ModulePolicy)
        with refused(f"checkpoint {folder / 'one.pt'}"):
            read_checkpoints(folder, WORLD, Source(f"{other}:recurrent", "tokens.weight"))


def test_no_folder_and_an_empty_one_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no checkpoint")
    (tmp_path / "file.pt").write_bytes(b"")
    for place in (tmp_path / "none", tmp_path / "file.pt"):
        with refused("--checkpoints"):
            checkpoint_files(place)
    (tmp_path / "file.pt").unlink()
    with refused("--checkpoints"):
        read_checkpoints(tmp_path, WORLD, OWN)


STATE = transformer().state_dict()
DAMAGED = {
    "junk": b"\x00junk" * 50,
    "text": b"hello\n",
    "empty": b"",
    "a pickled object": pickle.dumps(range(3)),
    "a zip of nothing": b"PK\x03\x04" + b"\x00" * 60,
}
UNFIT = {
    "a list": [1, 2],
    "a tensor": torch.zeros(3),
    "an empty dict": {},
    "no tensors": {"loss": 0.5, "step": 3},
    "some tensors": {**STATE, "step": 3},
    "an empty state": {"state": {}},
    "numbers for names": {0: torch.zeros(4, 2)},
    "other names": {"weight": torch.zeros(4, 2)},
    "no positions": {name: x for name, x in STATE.items() if name != "position"},
    "no blocks": {name: x for name, x in STATE.items() if "blocks" not in name},
    "a flat table": {**STATE, "embedding.weight": torch.zeros(4)},
    "a tensor too few": {name: x for name, x in STATE.items() if name != "norm.weight"},
    "a tensor too many": {**STATE, "more.weight": torch.zeros(4)},
    "another shape": {**STATE, "head.weight": torch.zeros(4, 7)},
    "another vocabulary": transformer(V=5).state_dict(),
    "too short": transformer(length=3).state_dict(),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_by_its_name(tmp_path, case):
    save(tmp_path, "a", STATE)
    (tmp_path / "b.pt").write_bytes(DAMAGED[case])
    with refused(f"checkpoint {tmp_path / 'b.pt'}"):
        read_checkpoints(tmp_path, WORLD, OWN)


def test_a_pickled_network_is_not_run(tmp_path):
    torch.save(transformer(), tmp_path / "whole.pt")
    with refused("checkpoint"):
        read_checkpoints(tmp_path, WORLD, OWN)


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_refused_by_the_name_of_the_file(tmp_path, case):
    save(tmp_path, "a", STATE)
    with refused(f"checkpoint {save(tmp_path, 'b', UNFIT[case]) / 'b.pt'}"):
        read_checkpoints(tmp_path, WORLD, OWN)


def test_the_shortest_network_that_reads_the_whole_answer_will_do(tmp_path):
    (loaded,) = read_checkpoints(save(tmp_path, "a", transformer(length=4).state_dict()), WORLD, OWN)
    assert 0 < describe_policy(WORLD, loaded.policy)["J"] < 1
    assert loaded.policy.length == WORLD.prompts.shape[1] + WORLD.horizon - 1


def test_heads_must_be_known_and_fit(tmp_path):
    save(tmp_path, "one", STATE)
    with refused("--heads"):
        read_checkpoints(tmp_path, WORLD, Source())
    for heads in ("two", True, 0, -1, 2.5, [2]):
        write_model(tmp_path, heads=heads)
        with refused(str(tmp_path / MODEL_FILE)):
            read_checkpoints(tmp_path, WORLD, Source())
    write_model(tmp_path, heads=2)
    for heads in (0, 3):
        with refused("width"):
            read_checkpoints(tmp_path, WORLD, Source(heads=heads))


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"world_options": [1]}', b"\xff\xfe\x00"])
def test_a_damaged_model_file_is_refused(tmp_path, text):
    save(tmp_path, "one", STATE)
    (tmp_path / MODEL_FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    with refused(str(tmp_path / MODEL_FILE)):
        read_checkpoints(tmp_path, WORLD, OWN)


MODELS = {
    "no colon": ("users.py", "--model"),
    "no function": ("users.py:", "--model"),
    "no place": (":encoder", "--model"),
    "no such file": ("nowhere.py:encoder", "--model"),
    "a folder": ("folder.py:encoder", "--model"),
    "not Python": ("broken.py:encoder", "--model"),
    "no such module": ("costate_no_such_module:encoder", "--model"),
    "a path for a module": ("./users:encoder", "--model"),
    "imports what is not there": ("importing.py:encoder", "--model"),
    "no such function": ("users.py:decoder", "--model"),
    "not a function": ("users.py:table", "--model"),
    "gives nothing": ("users.py:nothing", "--model"),
    "gives a class": ("users.py:a_class", "--model"),
    "another table": ("users.py:encoder", "--embedding"),
    "another network": ("users.py:recurrent", "checkpoint"),
    "another network, ready": ("users.py:suite", "checkpoint"),
}


@pytest.mark.parametrize("case", MODELS)
def test_builders_that_do_not_build_are_refused(tmp_path, users, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "broken.py").write_text("def encoder(world:\n    return 3\n")
    (tmp_path / "importing.py").write_text("import costate_no_such_module\n")
    folder = save(tmp_path / "run", "one", built(users, "encoder").state_dict())
    name, argument = MODELS[case]
    with refused(argument):
        read_checkpoints(folder, WORLD, Source(name))


@pytest.mark.parametrize("embedding", ["tokens", "tokens.bias", "out.bias", "layers.9.weight"])
def test_a_table_that_is_none_is_refused_and_those_there_are_named(tmp_path, users, embedding):
    folder = save(tmp_path / "run", "one", built(users, "encoder").state_dict())
    source = Source(f"{users}:encoder", embedding)
    with refused(f"--embedding {embedding}"):
        read_checkpoints(folder, WORLD, source)
    with pytest.raises(InputError, match=r"tokens\.weight, .*out\.weight"):
        read_checkpoints(folder, WORLD, source)


@pytest.mark.parametrize("name", ["of_five_tokens", "ready_of_five_tokens"])
def test_a_users_network_of_another_vocabulary_is_refused(tmp_path, users, name):
    folder = save(tmp_path / "run", "one", built(users, name).state_dict())
    with refused("checkpoint"):
        read_checkpoints(folder, WORLD, Source(f"{users}:{name}"))


def test_a_place_that_the_users_network_has_not_is_refused(tmp_path, users):
    folder = save(tmp_path / "run", "one", built(users, "recurrent").state_dict())
    with refused("submodule"):
        read_checkpoints(folder, WORLD, Source(f"{users}:recurrent", site="layers.7"))
