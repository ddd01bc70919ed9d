"""A user's network is a function from a context to logits, or it is refused in one line that names its file."""

import pytest
import torch
from torch import nn

from agents.policies.network_checks import check_network
from envs.skills import skills
from envs.world import InputError
from figures.impact.checkpoints import Source, read_checkpoints

WORLD = skills(2, 2, "copy,add")
FILE = '''
import sys

import torch
from torch import nn


class Plain(nn.Module):
    """A sum over the past, and one layer."""

    def __init__(self, V):
        super().__init__()
        self.embedding = nn.Embedding(V, 6)
        self.out = nn.Linear(6, V)
        self.calls = 0

    def change(self, x):
        return x

    def logits(self, x):
        return self.out(self.change(x).cumsum(1).tanh())

    def forward(self, x):
        return self.logits(x)


def network(world, **methods):
    return type("Changed", (Plain,), methods)(world.V)


def plain(world):
    print("built by the user")
    return Plain(world.V)


def draws(world):
    return network(world, change=lambda self, x: x + torch.randn(x.shape, dtype=x.dtype))


def draws_in_vain(world):
    return network(world, change=lambda self, x: (torch.rand(1), x)[1])


def drops(world):
    return network(world, change=lambda self, x: torch.dropout(x, 0.5, True))


def writes(world):
    return network(world, change=lambda self, x: x.mul_(2.0))


def counts(world):
    def change(self, x):
        self.calls += 1
        return x * self.calls

    return network(world, change=change)


def mixes(world):
    return network(world, change=lambda self, x: x - x.mean(0, keepdim=True))


def mixes_a_little(world):
    return network(world, change=lambda self, x: x + 1e-3 * x.mean(0, keepdim=True))


def mixes_prompts(world):
    return network(world, change=lambda self, x: torch.cat([x.flip(0)[:, :1], x[:, 1:]], 1))


def reads_ahead(world):
    return network(world, change=lambda self, x: x - x.mean(1, keepdim=True))


def raises(world):
    return network(world, change=lambda self, x: x[:, 99])


def stops(world):
    return network(world, change=lambda self, x: sys.exit(0))


def one_position(world):
    return network(world, logits=lambda self, x: self.out(x[:, -1]))


def two_outputs(world):
    return network(world, logits=lambda self, x: (self.out(x), x))


def a_list(world):
    return network(world, logits=lambda self, x: self.out(x).tolist())


def overflows(world):
    return network(world, logits=lambda self, x: self.out(x) * float("inf"))


def not_numbers(world):
    return network(world, logits=lambda self, x: self.out(x) * float("nan"))


def single(world):
    return network(world, change=lambda self, x: x.float())


def undrawn(world):
    built = network(world, change=lambda self, x: x + self.shift)
    built.shift = torch.randn(6, dtype=torch.float64)
    return built


def not_saved(world):
    built = plain(world)
    built.register_buffer("shift", torch.zeros(3))
    return built


def nothing(world):
    return None


def two_arguments(world, other):
    return plain(world)


def none_at_all():
    return 3


def interrupted(world):
    raise KeyboardInterrupt
'''
FAULTS = {
    "draws": "it draws random numbers or keeps a state",
    "drops": "it draws random numbers or keeps a state",
    "draws_in_vain": "torch's global generator",
    "writes": "writes on its input",
    "counts": "it draws random numbers or keeps a state",
    "mixes": "mixes the rows of a batch",
    "mixes_a_little": "mixes the rows of a batch",
    "mixes_prompts": "mixes the rows of a batch",
    "reads_ahead": "reads ahead",
    "raises": "raises IndexError in line",
    "stops": "calls sys.exit(0)",
    "one_position": "network must map embeddings",
    "two_outputs": "got tuple",
    "a_list": "got list",
    "overflows": "NaN or infinite",
    "not_numbers": "NaN or infinite",
    "single": "raises RuntimeError in line",
    "undrawn": "random numbers that are not in the checkpoint",
    "nothing": "must give a module or a policy; got NoneType",
    "two_arguments": "must take one argument, the world",
    "none_at_all": "must take one argument, the world",
}


@pytest.fixture
def own(tmp_path, uses_global_rng):
    """The user's file, and a folder with one checkpoint of its network."""
    (tmp_path / "my.py").write_text(FILE)
    state = {"embedding.weight": (4, 6), "out.weight": (4, 6), "out.bias": (4,)}
    rng = torch.Generator().manual_seed(1)
    state = {name: torch.randn(shape, generator=rng, dtype=torch.float64) for name, shape in state.items()}
    (tmp_path / "run").mkdir()
    torch.save(state, tmp_path / "run" / "a.pt")
    return tmp_path


def read(own, name):
    return read_checkpoints(own / "run", WORLD, Source(f"{own / 'my.py'}:{name}"))


def test_a_plain_network_is_taken_and_its_prints_go_to_stderr(own, capsys):
    (loaded,) = read(own, "plain")
    heard = capsys.readouterr()
    assert heard.out == ""
    assert set(heard.err.splitlines()) == {"built by the user"}
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    state = torch.load(own / "run" / "a.pt", weights_only=True)
    wanted = x.cumsum(1).tanh() @ state["out.weight"].T + state["out.bias"]
    assert torch.allclose(loaded.policy(x), wanted)


@pytest.mark.parametrize("name", FAULTS)
def test_a_network_that_is_no_function_is_refused_by_its_file(own, name):
    with pytest.raises(InputError, match=FAULTS[name].replace("(", r"\(").replace(")", r"\)")) as caught:
        read(own, name)
    said = str(caught.value)
    assert said.startswith(f"--model {own / 'my.py'}:{name}")
    assert said.isprintable()
    assert len(said) < 500


def test_a_checkpoint_without_the_networks_buffer_is_refused_by_the_files_name(own):
    with pytest.raises(InputError, match="shift") as caught:
        read(own, "not_saved")
    assert str(caught.value).startswith(f"checkpoint {own / 'run' / 'a.pt'} does not fit the network")


def test_control_c_in_the_users_file_is_control_c(own):
    with pytest.raises(KeyboardInterrupt):
        read(own, "interrupted")


def test_a_policy_that_gives_the_last_logits_alone_is_checked_too_and_may_forbid_a_token():
    """The check itself draws nothing, or this test, which does not ask for the global generator, would fail."""

    class Policy(nn.Module):
        def embed(self, tokens):
            return tokens[..., None].double()

        def extend(self, x, cache, probes):
            return x[:, -1] * self.sizes, cache

    policy = Policy()
    policy.sizes = torch.tensor([1.0, 2.0, -torch.inf, 0.0])
    check_network(policy, torch.arange(1, 7).reshape(2, 3))
    policy.sizes = -policy.sizes
    with pytest.raises(InputError, match="NaN or infinite"):
        check_network(policy, torch.arange(1, 7).reshape(2, 3))
