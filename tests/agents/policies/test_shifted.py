"""The shifted policy is the policy with a probe at the prompt's end: in contexts, pieces, trees, sampling and training."""

import copy

import pytest
import torch

from agents.policies.nucleus import Nucleus
from agents.policies.prefix_table import PrefixTable
from agents.policies.shifted import Shifted
from agents.recipes.learners import build_learner
from agents.sampling.tokens import sample_tokens
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.policy import ContextPolicy
from envs.token_tasks import sum_and_stop
from figures.measures.oracles import TokenOracle
from tests.agents.cases import draws
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within
from tests.theory.token_cases import several_prompts, transformer, with_readout
from theory.tokens.prefix_tree import grow
from theory.tokens.shifted_prompt import ShiftedPrompt
from theory.tokens.tree_gradients import tree_gradients

close = torch.testing.assert_close
WORLD, STOP = several_prompts(3), sum_and_stop(2, 3)
DELTA = 0.7 * draws(8, seed=4)


def shifted(world, site="embedding", seed=1):
    return Shifted(transformer(world, seed=seed), site, DELTA, world.prompts.shape[1])


@pytest.mark.parametrize("site", ["embedding", "layer1", "layer2"])
def test_it_is_the_policy_with_a_probe_at_the_prompts_last_position(site):
    cut, contexts = shifted(WORLD, site), torch.tensor([[0, 1, 2, 0], [2, 2, 1, 1]])
    x = cut.embed(contexts)
    probe = torch.zeros_like(x)
    probe[:, 1] = DELTA
    whole = cut(x)
    close(whole, cut.policy(x, {site: probe}))
    assert float((whole[:, 1] - cut.policy(x)[:, 1]).detach().abs().max()) > 1e-3
    close(whole[:, 0], cut.policy(x)[:, 0])
    for pieces in ([1, 1, 1, 1], [2, 1, 1], [4]):  # a prompt in pieces, whole, and with tokens after it
        cache, start = None, 0
        for count in pieces:
            logits, cache = cut.extend(x[:, start : start + count], cache)
            start += count
            close(logits, whole[:, start - 1])
    own = 0.3 * draws(*x.shape, seed=9)
    close(cut(x, {site: own}), cut.policy(x, {site: own + probe}))
    assert isinstance(cut, ContextPolicy)
    assert (cut.sites, cut.length, cut.width, cut.layers) == (cut.policy.sites, 8, 8, 2)


@pytest.mark.parametrize("site", ["embedding", "layer1"])
def test_the_tree_is_that_of_the_exact_road_and_chunks_do_not_move_the_shift(site):
    cut = shifted(WORLD, site)
    tree = grow(WORLD, ShiftedPrompt(cut.policy, site, DELTA[None]))
    close(grow(WORLD, cut).J, tree.J)
    assert float((grow(WORLD, cut.policy).J - tree.J).detach().abs()) > 1e-4
    whole, pieces = tree_gradients(WORLD, cut, sites=site), tree_gradients(WORLD, cut, sites=site, chunk=1)
    close(pieces.flat, whole.flat)
    close(pieces.costates[site][0], whole.costates[site][0])
    paid = with_readout(WORLD)
    close(grow(paid, cut).J, grow(paid, ShiftedPrompt(cut.policy, site, DELTA[None])).J)


def test_the_sampler_draws_from_the_shifted_law():
    cut = shifted(WORLD)
    sample = sample_tokens(cut, WORLD.prompts[:1], 2, torch.Generator().manual_seed(0), copies=20_000)
    levels = grow(WORLD, cut).levels
    pi = levels[0].pi[0].detach()
    drawn = torch.nn.functional.one_hot(sample.tokens, 3).double()
    assert_mean_within(drawn[:, 0], pi)
    assert_mean_within(drawn[:, 1], pi @ levels[1].pi[:3].detach())
    assert float((pi - grow(WORLD, cut.policy).levels[0].pi[0].detach()).abs().max()) > 0.05


@pytest.mark.parametrize("recipe", ["grpo", "value_gradient"])
def test_it_trains_and_the_shift_stays(recipe):
    cut = shifted(STOP)
    setting = TrainingSettings(steps=4, prompts=4, group=8, rate=0.05, every=1)
    run = Trainer(TokenTask(STOP), build_learner(recipe), [cut], [0], setting, TokenOracle(STOP))
    records = list(run.run())
    close(records[0].J[0], grow(STOP, shifted(STOP)).J.detach())
    assert recipe != "value_gradient" or float(records[-1].J[0]) > float(records[0].J[0])
    assert [name for name, _ in cut.named_parameters()] == [f"policy.{n}" for n, _ in cut.policy.named_parameters()]


def test_copies_and_other_policies_inside():
    cut = shifted(STOP)
    other = copy.deepcopy(cut)
    close(grow(STOP, other).J, grow(STOP, cut).J)
    again = shifted(STOP, seed=3)
    again.load_state_dict(cut.state_dict())
    close(grow(STOP, again).J, grow(STOP, cut).J)
    assert not hasattr(Shifted(Nucleus(transformer(STOP), 0.9), "embedding", DELTA), "no_such_thing")
    assert grow(STOP, Shifted(Nucleus(transformer(STOP), 0.9), "embedding", DELTA)).J.isfinite()


def test_what_is_refused():
    policy = transformer(STOP)
    with refused("site"):
        Shifted(policy, "layer9", DELTA)
    with refused("site"):
        Shifted(PrefixTable(STOP), "embedding", [0.0, 0.0])
    for bad in (DELTA[:3], DELTA[None], DELTA * float("nan")):
        with refused("delta"):
            Shifted(policy, "embedding", bad)
    with refused("prompt_length"):
        Shifted(policy, "embedding", DELTA, 0)
