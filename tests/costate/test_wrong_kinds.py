"""What a first-time user hands in by mistake gets one line that names the argument and the remedy."""

import numpy as np
import pytest
import torch
from torch import nn

import costate
from envs.world import InputError

WORLD = costate.world("TokenLock", horizon=3)
POLICY = costate.Transformer(WORLD.V, length=WORLD.longest, seed=1)
SYSTEM = costate.world("LQDoubleIntegrator")


class ByPosition(nn.Module):
    """Attention that takes the batch for the sequence, and reads causally along it."""

    def __init__(self, own=False):
        super().__init__()
        self.table, self.head = nn.Embedding(WORLD.V, 8), nn.Linear(8, WORLD.V)
        self.mix = nn.MultiheadAttention(8, 2, batch_first=own)

    def forward(self, tokens):
        x = self.table(tokens)
        n = x.shape[1] if self.mix.batch_first else x.shape[0]
        ahead = torch.ones(n, n, dtype=torch.bool).triu(1)
        return self.head(self.mix(x, x, x, attn_mask=ahead, need_weights=False)[0])


MISTAKES = {
    "a class, no network": (
        lambda: costate.ModulePolicy(ByPosition),
        r"^network must be a torch\.nn\.Module, built",
    ),
    "sites as a list": (
        lambda: costate.ModulePolicy(ByPosition(True), "table", sites=["mix"]),
        "^sites must be a dictionary from a name of yours",
    ),
    "a network without batch_first": (
        lambda: costate.exact(WORLD, costate.ModulePolicy(ByPosition(), "table")),
        r"^the network mixes the rows of a batch.*\(batch_first=True\)$",
    ),
    "world and policy exchanged": (
        lambda: costate.error_split(POLICY, WORLD),
        r"^policies must be over tokens \(costate\.ModulePolicy wraps your network\)",
    ),
    "a bare network": (lambda: costate.exact(WORLD, ByPosition(True)), "costate.ModulePolicy"),
    "a vocabulary that is not the world's": (
        lambda: costate.exact(WORLD, costate.Transformer(WORLD.V + 1)),
        "^policy must give logits of shape .*one for each of the world's .* tokens; .*build it for this vocabulary$",
    ),
    "sites in a world of states": (
        lambda: costate.exact(SYSTEM, sites="layer1"),
        "^sites and alpha are for token worlds",
    ),
    "alpha in a world of states": (lambda: costate.exact(SYSTEM, alpha=0.5), "^sites and alpha are for token worlds"),
    "a number as a site": (lambda: costate.exact(WORLD, POLICY, sites=1), "^a site is called by its name"),
    "a world that is no name": (
        lambda: costate.world(3),
        "^world must be a name here, 'TokenParity' for instance; got",
    ),
    "a file without a function": (lambda: costate.world("my.py"), "^world my.py needs the name of the function"),
    "a number of seeds that is none": (lambda: costate.random_policies(WORLD, seeds=1.5), "^seeds must be"),
    "policies for a system": (
        lambda: costate.random_policies(SYSTEM, seeds=2),
        "^world must be a TokenMDP for policies",
    ),
    "a temperature as text": (
        lambda: costate.Transformer(WORLD.V, temperature="1"),
        "^temperature must be a finite",
    ),
    "an alpha as text": (lambda: costate.error_split(WORLD, POLICY, alpha="1"), "^alpha must lie in"),
    "a start that is NaN": (
        lambda: costate.sampled_paths(SYSTEM, [[0.5, 0.8]], 4, start=[np.nan, 1]),
        "^start holds NaN or infinity",
    ),
    "a seed instead of a generator": (
        lambda: costate.sampled_costates(WORLD, POLICY, "score", "layer1", 4, 0),
        r"^rng must be a torch\.Generator",
    ),
    "prompts as a number": (
        lambda: costate.TokenMDP.from_rewards([[0.0, 1.0]], prompts=3),
        "^prompts must have 2 dimension",
    ),
}


@pytest.mark.usefixtures("unchecked", "uses_global_rng")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_names_the_argument_and_the_remedy(mistake):
    call, text = MISTAKES[mistake]
    with pytest.raises(InputError, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("uses_global_rng")
def test_the_neighbours_that_are_right_are_taken():
    policy = costate.ModulePolicy(ByPosition(own=True).double(), "table", sites={"mixed": "mix"})
    assert costate.exact(WORLD, policy).J > 0
    assert len(costate.random_policies(WORLD, seeds=np.int64(2))) == 2
    assert costate.TokenMDP.from_rewards([[0.0, 1.0]], prompts=np.array([[1, 0]])).prompts.tolist() == [[1, 0]]


def test_a_recipe_that_forgets_the_number_of_rows_is_told_so_and_is_right_once_it_divides():
    own = lambda rewards, mask, group: (rewards.sum(1, keepdim=True) * mask, None)  # noqa: E731
    mixed = lambda rewards, mask, group: ((rewards - rewards.mean()) * mask / len(rewards), None)  # noqa: E731
    with pytest.raises(InputError, match=r"^recipe adds up over the rows.*len\(rewards\)$"):
        costate.expected_update(WORLD, POLICY, own, 2)
    with pytest.raises(InputError, match=r"^recipe mixes the groups of a batch: give prompts"):
        costate.expected_update(WORLD, POLICY, mixed, 2)
    divided = lambda rewards, *more: tuple(w if w is None else w / len(rewards) for w in own(rewards, *more))  # noqa: E731
    ours, theirs = (
        costate.expected_update(WORLD, POLICY, r, 2).mean.parameters for r in (divided, costate.reinforce())
    )
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, theirs, strict=True))
    flat = lambda rewards, mask, group: (rewards[:, :1], None)  # noqa: E731
    with pytest.raises(InputError, match=r"^recipe must give weights of shape \(rows, T\) as mask has"):
        costate.expected_update(WORLD, POLICY, flat, 2)
