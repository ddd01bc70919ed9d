"""A table over prefixes: which row belongs to which prefix, and that it is a policy everywhere."""

import itertools

import pytest
import torch

from agents.policies.prefix_table import PrefixTable
from agents.recipes.learners import grpo
from agents.sampling.completions import sample_completions
from agents.sampling.tokens import sample_tokens
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.policy import ContextPolicy
from envs.token_mdp import TokenMDP
from envs.token_tasks import garnet, sum_and_stop
from envs.world import InputError
from figures.measures.oracles import TokenOracle
from tests.theory.speech_cases import talking
from tests.theory.token_cases import several_prompts
from theory.differences import central_gradient
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_gradients import tree_gradients

close = torch.testing.assert_close
WORLDS = {"two prompts": several_prompts(3), "stop": sum_and_stop(2, 3), "speech": talking()}


def by_hand(world, table):
    """Expected return: the rows are looked up in a dictionary of prefixes, in the order that the docstring gives."""
    prefixes, prompts = [], sorted({tuple(p) for p in world.prompts.tolist()})
    level = [(p, ()) for p in prompts]
    for _ in range(world.horizon):
        prefixes += level
        level = [(p, (*said, a)) for p, said in level for a in range(world.V)]
    row = {prefix: table[i] for i, prefix in enumerate(prefixes)}
    total = 0.0
    for i, prompt in enumerate(world.prompts.tolist()):
        for word in itertools.product(range(world.V), repeat=world.horizon):
            belief, chance, paid = world.start_belief(i), world.weights[i], 0.0
            for k, a in enumerate(word):
                own = torch.softmax(row[tuple(prompt), word[:k]], -1)[a]
                u = torch.nn.functional.one_hot(torch.tensor(a), world.V).double()
                if world.speech is not None and bool(world.environments_turn(belief)):
                    own, heard = (x[0, 0] for x in world.heard(belief[None], torch.tensor([[a]])))
                    belief = heard
                chance = chance * own
                paid = paid + world.gamma**k * world.reward(k, belief, u)
                belief = world.step(belief, u)
            total = total + chance * paid
    return total


@pytest.mark.parametrize("name", WORLDS)
def test_every_prefix_has_the_row_that_the_docstring_says(name):
    world = WORLDS[name]
    policy = PrefixTable(world, seed=3)
    table = policy.logits.detach()
    close(grow(world, policy).J.detach(), by_hand(world, table))
    assert not torch.allclose(grow(world, policy).J, by_hand(world, table.flip(0)), rtol=1e-3)
    slopes = central_gradient(lambda x: by_hand(world, x.reshape(table.shape)), table.flatten())
    close(tree_gradients(world, policy).flat, slopes, rtol=1e-6, atol=1e-8)


def test_whole_contexts_have_the_logits_of_one_token_after_another():
    world = several_prompts(3)
    policy = PrefixTable(world, seed=1)
    contexts = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 1], [0, 1, 0, 2]])
    x = policy.embed(contexts)
    together = policy(x)
    assert isinstance(policy, ContextPolicy)
    logits, cache = policy.extend(x[:, :2])
    for k in (2, 3):
        close(together[:, k - 1], logits)
        logits, cache = policy.extend(x[:, k : k + 1], cache)
    close(together[:, 3], logits)
    close(policy.extend(x)[0], logits)
    assert len({tuple(row.tolist()) for row in logits}) == 3
    close(together[:, 0], torch.zeros_like(together[:, 0]))


def test_equal_prompts_share_their_rows():
    g = garnet(V=3, states=4, horizon=2, gamma=0.8, seed=3)
    world = TokenMDP(g.P, g.r, [[0], [0], [1]], [1, 3, 0], 2, 0.8)
    policy = PrefixTable(world, seed=0)
    assert policy.logits.shape == (2 * (1 + 3), 3)
    close(grow(world, policy).J.detach(), by_hand(world, policy.logits.detach()))


def test_sampled_tokens_have_the_probabilities_of_the_tree():
    world, rng = several_prompts(2), torch.Generator().manual_seed(0)
    policy = PrefixTable(world, seed=2)
    rows = sample_tokens(policy, world.prompts, 2, rng, copies=4000)
    p = grow(world, policy).levels[1]
    law = (p.reach[:, None] * p.share / world.weights.repeat_interleave(3)[:, None]).reshape(2, -1).detach()
    code = (rows.tokens * torch.tensor([3, 1])).sum(1)
    for prompt in (0, 1):
        seen = torch.bincount(code[rows.prompt == prompt], minlength=9) / 4000
        error = (law[prompt] * (1 - law[prompt]) / 4000).sqrt()
        assert float(((seen - law[prompt]).abs() / error).max()) < 4
    assert float(((seen - law[0]).abs() / error).max()) > 10
    drawn, first = (
        sample_completions(world, policy, torch.tensor([0, 1]), 3, rng),
        policy.extend(policy.embed(world.prompts))[0],
    )
    log_pi = torch.log_softmax(first, -1).detach()
    close(drawn.log_probs[:, 0], log_pi[drawn.prompt].gather(1, drawn.contexts[:, 2:3])[:, 0])


def test_it_trains_with_exact_answers_beside_it():
    world = sum_and_stop(2, 3)
    policies = [PrefixTable(world, seed=s) for s in (0, 1)]
    before = [p.logits.detach().clone() for p in policies]
    settings = TrainingSettings(steps=30, prompts=4, group=8, rate=0.1, every=29)
    trainer = Trainer(TokenTask(world), grpo(), policies, (0, 1), settings, TokenOracle(world))
    records = list(trainer.run())
    J = torch.stack([grow(world, p).J for p in policies]).detach()
    close(records[0].J, J)
    assert float(records[0].cosine.min()) > 0
    assert bool((records[-1].J > J + 0.05).all())
    assert all(torch.equal(p.logits, old) for p, old in zip(policies, before, strict=True))


MISTAKES = {
    "relaxed token": (lambda w, p: grow(w, p, 0.5), "^x must be one-hot rows.*alpha must be 1$"),
    "site": (lambda w, p: grow(w, p, 1.0, "layer1"), "^sites must be empty"),
    "unknown prompt": (
        lambda w, p: p.extend(p.embed(torch.tensor([[1, 1]]))),
        "^x must begin with one of the world's prompts",
    ),
    "part of a prompt": (
        lambda w, p: p.extend(p.embed(torch.tensor([[0]]))),
        "^x must begin with a prompt of 2 tokens; got 1",
    ),
    "too long": (
        lambda w, p: p.extend(p.embed(torch.tensor([[0, 1, 0, 0, 0]]))),
        "longer than the table's longest context, 4",
    ),
    "rows": (
        lambda w, p: PrefixTable(w, torch.zeros(5, 3)),
        "^logits must have 26 rows, .* of 3 numbers; got 5",
    ),
    "columns": (lambda w, p: PrefixTable(w, torch.zeros(26, 4)), "^logits must be a table of 3 numbers"),
    "text": (lambda w, p: PrefixTable(w, "zeros"), "^logits must be a table of 3 numbers"),
    "NaN": (lambda w, p: PrefixTable(w, torch.full((26, 3), torch.nan)), "^logits must be numbers"),
    "nothing possible": (lambda w, p: PrefixTable(w, torch.full((26, 3), -torch.inf)), "one token possible"),
    "spread": (lambda w, p: PrefixTable(w, spread=-1.0), "^spread must be a finite number >= 0"),
    "size": (lambda w, p: PrefixTable(garnet(V=40, horizon=12)), "^a table of .* prefixes that need .* GiB, at most"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_refusals(mistake):
    world = several_prompts(3)
    call, text = MISTAKES[mistake]
    with pytest.raises(InputError, match=text):
        call(world, PrefixTable(world))


def test_a_forbidden_token_is_never_drawn_and_has_no_slope():
    world = sum_and_stop(2, 2)
    logits = PrefixTable(world, seed=0).logits.detach().clone()
    logits[:, 0] = -torch.inf
    policy = PrefixTable(world, logits)
    rows = sample_tokens(policy, world.prompts, 2, torch.Generator().manual_seed(0), copies=200)
    assert not bool((rows.tokens == 0).any())
    answers = tree_gradients(world, policy)
    assert bool(answers.flat.isfinite().all())
    assert float(answers.parameters[0][:, 0].abs().max()) == 0.0


def test_a_seed_makes_the_table_and_spread_its_size():
    world = several_prompts(2)
    draw = lambda **k: PrefixTable(world, **k).logits.detach()  # noqa: E731
    assert torch.equal(draw(seed=1), draw(seed=1))
    assert not torch.equal(draw(seed=1), draw(seed=2))
    assert torch.equal(draw(seed=1, spread=3.0), 3 * draw(seed=1))
    assert torch.equal(draw(spread=0.0), torch.zeros_like(draw()))
