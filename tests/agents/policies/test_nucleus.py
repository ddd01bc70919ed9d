"""Top-p as a policy: its sets by brute force, its law, the tree, the sampler, and training within the sets that are kept."""

import copy
import itertools

import pytest
import torch

from agents.policies.nucleus import Nucleus, nucleus
from agents.policies.prefix_table import PrefixTable
from agents.recipes.learners import build_learner
from agents.sampling.tokens import sample_tokens
from agents.training.copies import Copies
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.policy import ContextPolicy
from envs.token_tasks import garnet, sum_and_stop
from figures.measures.oracles import TokenOracle
from tests.agents.cases import draws
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within
from tests.theory.token_cases import transformer
from theory.differences import central_gradient
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_gradients import tree_gradients

close = torch.testing.assert_close
STOP, GARNET = sum_and_stop(3, 3, gamma=0.9), garnet(V=3, horizon=3, seed=1)
SETTING = TrainingSettings(steps=3, prompts=4, group=4, epochs=3, minibatches=2, rate=0.2, every=1)


def smallest_set(p, top_p):
    """Of all sets of tokens with the least number of tokens that has the mass, the one of the largest mass."""
    for size in range(1, len(p) + 1):
        sets = [s for s in itertools.combinations(range(len(p)), size) if sum(p[a] for a in s) >= top_p]
        if sets:
            return set(max(sets, key=lambda s: sum(p[a] for a in s)))
    raise AssertionError("no set has the mass")


@pytest.mark.parametrize("top_p", [0.01, 0.4, 0.7, 0.95, 1.0])
def test_the_sets_are_the_smallest_with_the_mass(top_p):
    logits = 2 * draws(40, 5)
    kept = nucleus(logits, top_p)
    for row, own in zip(torch.softmax(logits, -1).tolist(), kept, strict=True):
        assert set(own.nonzero()[:, 0].tolist()) == smallest_set([x / sum(row) for x in row], top_p - 1e-12)
    assert top_p in (0.01, 1.0) or len(set(kept.sum(1).tolist())) > 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_mass_that_is_met_up_to_rounding_is_met(dtype):
    assert nucleus(torch.zeros(4, dtype=dtype), 0.5).tolist() == [True, True, False, False]
    assert nucleus(torch.zeros(3, dtype=dtype), 2 / 3).tolist() == [True, True, False]
    assert int(nucleus(torch.zeros(4, dtype=dtype), 0.51).sum()) == 3
    assert nucleus(torch.tensor([0.0, 9.0], dtype=dtype), 1e-9).tolist() == [False, True]


def test_the_law_is_the_policys_given_that_a_kept_token_is_said():
    policy = transformer(STOP, temperature=0.5, seed=1)
    cut, contexts = Nucleus(policy, 0.7), torch.tensor([[0, 1, 2], [0, 3, 3], [0, 2, 0]])
    x = policy.embed(contexts)
    pi = torch.softmax(policy(x), -1)
    kept = nucleus(policy(x), 0.7)
    close(torch.softmax(cut(x), -1), pi * kept / (pi * kept).sum(-1, keepdim=True))
    assert not bool(kept.all())
    logits, cache = cut.extend(x[:, :1])
    for k in (1, 2):
        close(logits, cut(x)[:, k - 1])
        logits, cache = cut.extend(x[:, k : k + 1], cache)
    close(logits, cut(x)[:, -1])
    assert isinstance(cut, ContextPolicy)
    assert (cut.sites, cut.length, cut.width) == (policy.sites, policy.length, policy.width)
    assert not hasattr(Nucleus(PrefixTable(GARNET), 0.5), "width")
    close(Nucleus(policy, 1.0)(x), policy(x))


def test_the_trees_gradient_is_that_of_finite_differences():
    table = PrefixTable(GARNET, seed=2)
    start = table.logits.detach().flatten()

    def J(x):
        return grow(GARNET, Nucleus(PrefixTable(GARNET, x.reshape(-1, GARNET.V)), 0.8)).J.detach()

    exact = tree_gradients(GARNET, Nucleus(table, 0.8)).flat
    close(exact, central_gradient(J, start), rtol=1e-6, atol=1e-9)
    full = tree_gradients(GARNET, table).flat
    assert float((exact - full).norm()) > 0.1 * float(full.norm())


def test_the_sampler_draws_from_the_truncated_law():
    cut = Nucleus(PrefixTable(GARNET, seed=2), 0.8)
    sample = sample_tokens(cut, GARNET.prompts, 1, torch.Generator().manual_seed(0), copies=20_000)
    pi = torch.softmax(cut.extend(cut.embed(GARNET.prompts))[0], -1)[0].detach()
    drawn = torch.nn.functional.one_hot(sample.tokens[:, 0], GARNET.V).double()
    assert 0 in pi
    assert_mean_within(drawn, pi)
    close(sample.log_probs[:, 0], pi.log()[sample.tokens[:, 0]])


@pytest.mark.parametrize("count", [1, 3])
def test_later_passes_keep_the_sets_that_rows_were_drawn_from(count):
    task, networks = TokenTask(STOP), [Nucleus(transformer(STOP, temperature=0.5, seed=s), 0.7) for s in range(count)]
    rows = task.draw(Copies.of(networks), 4, 4, [torch.Generator().manual_seed(s) for s in range(count)])
    contexts, kept = rows.seen
    moved = [copy.deepcopy(network) for network in networks]
    with torch.no_grad():
        for network in moved:
            network.policy.head.weight *= -0.5  # other tokens are the likeliest now
    said, entropy = task.log_probs_of_all(Copies.of(moved), 4, *rows.seen)
    assert bool(said.isfinite().all() & entropy.isfinite().all())
    for i, network in enumerate(moved):
        before = contexts[i, :, :-1]
        pi = torch.softmax(network.policy(network.embed(before)), -1)[:, -STOP.horizon :]
        old = torch.softmax(networks[i].policy(networks[i].embed(before)), -1)[:, -STOP.horizon :]
        assert torch.equal(kept[i], nucleus(old.log(), 0.7).scatter(-1, contexts[i, :, -3:, None], True))
        law = (pi * kept[i]) / (pi * kept[i]).sum(-1, keepdim=True)
        close(said[i].exp()[rows.mask[i]], law.gather(-1, contexts[i, :, -3:, None])[..., 0][rows.mask[i]])
        close(task.log_probs(network, contexts[i], kept[i])[0], said[i])
        own = network(network.embed(before))[:, -STOP.horizon :].gather(-1, contexts[i, :, -3:, None])[..., 0]
        assert bool(own[rows.mask[i]].isneginf().any()), "the control: its own sets lack tokens that were drawn"


@pytest.mark.parametrize("recipe", ["grpo", "dapo", "value_gradient"])
def test_training_under_top_p_stays_finite_and_copies_train_as_if_alone(recipe):
    made = [Nucleus(transformer(STOP, temperature=0.5, seed=s), 0.7) for s in (1, 2)]

    def trained(policies, seeds):
        run = Trainer(TokenTask(STOP), build_learner(recipe), policies, seeds, SETTING, TokenOracle(STOP))
        records = list(run.run())
        assert all(float(r.ratio_error.max()) < 1e-12 for r in records[:-1]) or recipe == "value_gradient"
        return torch.stack([r.J for r in records])

    together = trained(made, [1, 2])
    assert bool(together.isfinite().all())
    assert float((together[-1] - together[0]).abs().min()) > 0
    close(together[:, 0], trained(made[:1], [1])[:, 0], rtol=1e-7, atol=1e-9)
    close(together[0, 0], grow(STOP, made[0]).J.detach())


def test_what_is_refused():
    policy = PrefixTable(GARNET)
    for bad in (0.0, -0.1, 1.01, float("nan"), True):
        with refused("top_p"):
            Nucleus(policy, bad)
        with refused("top_p"):
            nucleus(torch.zeros(3), bad)
    with refused("networks"):
        Copies([Nucleus(policy, 0.5), Nucleus(policy, 0.6)])
