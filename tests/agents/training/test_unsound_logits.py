"""NaN and +infinity for logits are named in one line, for several networks in one call too; -infinity forbids a token."""

import math

import pytest
import torch

from agents.policies.transformer import Transformer
from agents.recipes.learners import build_learner
from agents.sampling.completions import context_log_probs
from agents.training.copies import Copies
from agents.training.pretraining import log_grid, pretrain
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.corpus import Corpus
from envs.skills import skills
from envs.token_tasks import parity, sum_and_stop
from envs.world import InputError
from figures.measures.oracles import TokenOracle
from theory.tokens.dynamic_programming import best_words

close = torch.testing.assert_close
STOP, PARITY = sum_and_stop(2, 2), parity(V=2, horizon=3)
WORLDS = pytest.mark.parametrize("world", [STOP, PARITY], ids=["end token", "parity"])
COUNT = pytest.mark.parametrize("count", [1, 3])
RECIPES = ("grpo", "reinforce", "ppo", "value_gradient")


def networks(world, number, count=3):
    """Networks of which the last has a number for the bias of its first token."""
    made = [Transformer(world.V, width=8, layers=1, heads=2, length=6, seed=seed) for seed in range(count)]
    with torch.no_grad():
        made[-1].head.bias[0] = number
    return made


def trainer(world, recipe, made, oracle=True):
    options = {"critic": "exact"} if recipe == "ppo" else {}
    setting = TrainingSettings(2, 4, 4, every=1, rate=0.05, optimiser="sgd")
    known = TokenOracle(world) if oracle or recipe in ("ppo", "value_gradient") else None
    return Trainer(TokenTask(world), build_learner(recipe, **options), made, list(range(len(made))), setting, known)


@WORLDS
@COUNT
@pytest.mark.parametrize("oracle", [True, False], ids=["exact answers", "none"])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_training_refuses_them_with_the_first_update(world, count, oracle, recipe, number):
    training = trainer(world, recipe, networks(world, number, count), oracle)
    with pytest.raises(InputError, match="NaN or infinite"):
        training.step()
    assert training.taken == 0


def test_the_network_that_gives_them_is_counted():
    with pytest.raises(InputError, match=r"^network 2 of 3, counted from 0, gives NaN"):
        TokenOracle(STOP).answers(Copies(networks(STOP, math.nan)))


@COUNT
@pytest.mark.parametrize("batched", [True, False])
def test_every_call_of_several_networks_is_checked_and_infinity_is_no_nan(count, batched):
    copies = Copies(networks(STOP, 0.0, count))
    copies.batched = batched
    given = torch.ones(count, 2)

    def weigh(number):
        return lambda network, x: (x * network.head.bias[1].detach() * 0, x * number)

    for number in (1.0, -math.inf):
        assert torch.equal(copies.run(weigh(number), given)[1], given * number)
    with pytest.raises(InputError, match=f"network 0 of {count}"):
        copies.run(weigh(math.nan), given)
    given[-1, 1] = math.nan  # a single number, in the last copy alone
    with pytest.raises(InputError, match=f"network {count - 1} of {count}"):
        copies.run(weigh(1.0), given)


@WORLDS
@COUNT
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_forbidden_token_is_one_of_a_very_small_chance(world, count, recipe):
    """A logit of -infinity gives the numbers of a logit of -1e4, whose probability is 0 in floating point too."""
    forbidden, small = (trainer(world, recipe, networks(world, number, count)) for number in (-math.inf, -1e4))
    for one, other in zip(forbidden.run(), small.run(), strict=True):
        close(one.J, other.J, rtol=1e-9, atol=1e-12)
        close(one.entropy, other.entropy, rtol=1e-9, atol=1e-12)
        close(one.cosine, other.cosine, rtol=1e-6, atol=1e-9, equal_nan=True)
        assert bool(one.J.isfinite().all() and one.entropy.isfinite().all())
    for one, other in zip(forbidden.policies, small.policies, strict=True):
        for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
            kept = p.isfinite() if name == "head.bias" else torch.ones_like(p, dtype=torch.bool)
            close(p[kept], q[kept], rtol=1e-9, atol=1e-12)


def test_both_roads_to_the_exact_gradient_bear_a_forbidden_token():
    """The whole tree and the live prefixes."""
    oracle, copies = TokenOracle(STOP), Copies(networks(STOP, -math.inf))
    assert oracle._live is not None
    for one, other in zip(oracle.gradient(copies)[1], oracle.answers(copies)[2], strict=True):
        assert bool(one.isfinite().all())
        close(one, other, rtol=1e-9, atol=1e-12)


def test_the_entropy_of_a_forbidden_token_is_0_and_so_is_its_slope():
    (network,) = networks(STOP, -math.inf, 1)
    contexts = torch.tensor([[1, 2, 1, 1]])
    log_probs, entropy = context_log_probs(network, contexts, 2)
    logits = network(network.embed(contexts[:, :-1]))[:, -2:, 1:]
    log_pi = torch.log_softmax(logits, -1)
    close(entropy, -(log_pi.exp() * log_pi).sum(-1))
    slopes = torch.autograd.grad(entropy.sum() + log_probs.sum(), list(network.parameters()))
    assert all(bool(slope.isfinite().all()) for slope in slopes)


def test_pretraining_that_leaves_the_numbers_says_so():
    world = skills(2, 1, "copy")
    corpus, made = Corpus(world, best_words(world)), networks(world, 0.0, 2)
    noise = [torch.Generator().manual_seed(seed) for seed in range(2)]
    path = pretrain(made, corpus, log_grid(1, 4, 3), noise, batch=4, rate=1e300)
    with pytest.raises(InputError, match="gives NaN"):
        list(path)
