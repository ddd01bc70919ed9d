"""The learner of relaxed tokens: its mean by quadrature, its bias, copies, stopping and going on, and what it refuses."""

import math

import numpy as np
import pytest
import torch

from agents.policies.linear import LinearPolicy
from agents.policies.nucleus import Nucleus
from agents.policies.transformer import Transformer
from agents.recipes.learners import LEARNERS, Penalty, build_learner
from agents.training.command_task import CommandTask
from agents.training.copies import Copies
from agents.training.relaxed_step import relaxed_gradients
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.linear_quadratic import scalar
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from envs.token_tasks import garnet, sum_and_stop
from figures.measures.oracles import TokenOracle
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by


def transformer(world, seed=0, **options):
    return Transformer(world.V, None, 8, 1, 1, world.longest, seed=seed, dtype=torch.float64, **options)


def flat(tensors):
    return torch.cat([x.flatten() for x in tensors])


def relaxed_return(world, policy, tau, nodes=160):
    """J_tau of two binary tokens after one prompt, by the trapezoid rule over both logistic differences of the noise."""
    end = 30.0
    grid = torch.linspace(-end, end, nodes, dtype=torch.float64)
    weights = torch.sigmoid(grid) * torch.sigmoid(-grid) * 2 * end / (nodes - 1)
    first = torch.log_softmax(policy(policy.embed(world.prompts[:1]), {})[0, -1], -1)
    y = torch.sigmoid((first[0] - first[1] + grid) / tau)
    y = torch.stack([y, 1 - y], 1)
    x = torch.cat([policy.embed(world.prompts[:1]).expand(nodes, -1, -1), policy.embed(y)[:, None]], 1)
    second = policy(x, {})[:, -1]
    w = torch.sigmoid((second[:, :1] - second[:, 1:] + grid) / tau)
    w = torch.stack([w, 1 - w], -1)
    rewards = torch.einsum("na,nmb,ab->nm", y, w, TABLE)
    return weights @ rewards @ weights


TABLE = torch.tensor([[1.0, -0.5], [0.3, 0.8]], dtype=torch.float64)


def gradients(world, policy, tau, draws=100, rows=64):
    task, actor = TokenTask(world), Copies.of([policy])
    setting, noise = TrainingSettings(prompts=1, group=rows), [torch.Generator().manual_seed(0)]
    each = [
        relaxed_gradients(task, build_learner("gumbel", tau=tau).pathwise, actor, setting, noise) for _ in range(draws)
    ]
    return torch.stack([flat(slopes) for slopes, _ in each]), torch.cat([returns for _, returns in each])


@pytest.mark.parametrize("tau", [0.4, 1.5])
def test_the_mean_of_the_step_is_the_gradient_of_the_relaxed_return(tau):
    world = TokenMDP.from_rewards(TABLE)
    policy = transformer(world)
    J = relaxed_return(world, policy, tau)
    truth = flat(torch.autograd.grad(J, list(policy.parameters()), allow_unused=True, materialize_grads=True))
    own, returns = gradients(world, policy, tau)
    assert_mean_within(own, truth)
    assert_mean_within(returns, J.detach())
    _, sampled = TokenOracle(world).gradient(Copies.of([policy]))
    assert differs_by(own, flat(sampled))  # biased against the return of sampled tokens
    gap = [float((flat(torch.autograd.grad(relaxed_return(world, policy, t, 1200), list(policy.parameters()), allow_unused=True,
           materialize_grads=True)) - flat(sampled)).norm()) for t in (0.4, 0.2)]  # fmt: skip
    assert gap[1] < 0.75 * gap[0]


def trainer(world, seeds=(0,), more=None, policies=None, penalty=None, **options):
    setting = TrainingSettings(**{"steps": 20, "prompts": 4, "group": 8, "rate": 0.02, "every": 10} | (more or {}))
    policies = policies or [transformer(world, seed) for seed in seeds]
    learner = build_learner("gumbel", kl_loss=penalty, **options)
    return Trainer(TokenTask(world), learner, policies, list(seeds), setting, TokenOracle(world))


@pytest.mark.parametrize("world", [sum_and_stop(3, 3), garnet(V=3, horizon=3)], ids=["end token", "chance"])
def test_it_climbs_the_return_of_sampled_tokens(world):
    records = list(trainer(world, (0, 1), tau=0.5).run())
    assert bool((records[-1].J > records[0].J + 0.1).all())
    assert bool((records[0].cosine > 0.3).all())
    assert all(r.sampled.isfinite().all() and r.clipped.isnan().all() for r in records[:-1])


def test_several_copies_are_each_as_if_alone_and_a_stopped_run_goes_on():
    world, more = sum_and_stop(3, 3), {"steps": 4}
    both = trainer(world, (3, 4), more)
    list(both.run())
    for seed, policy in zip((3, 4), both.policies, strict=True):
        alone = trainer(world, (seed,), more)
        alone.step()
        state, after = alone.state(), trainer(world, (seed,), more)
        after.restore(state)
        list(after.run())
        for p, q in zip(after.policies[0].parameters(), policy.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("tau", [0.0, -0.5, math.nan, math.inf])
def test_temperatures_are_refused(tau):
    with refused("tau"):
        build_learner("gumbel", tau=tau)
    assert build_learner("gumbel", tau=1).pathwise.tau == 1


@pytest.mark.parametrize(
    ("options", "more", "argument"),
    [
        ({"penalty": Penalty("k3", 0.1)}, {}, "KL terms"),
        ({"drop_truncated": True}, {}, "options"),
        ({"use_rewards": False}, {}, "off_policy_delta"),
        ({"off_policy_delta": 0.1}, {}, "off_policy_delta"),
        ({}, {"epochs": 2}, "epochs"),
        ({}, {"sampler": "float32"}, "sampler"),
    ],
)
def test_refusals(options, more, argument):
    with refused(argument):
        trainer(sum_and_stop(3, 3), more=more, **options)


def test_worlds_and_policies_without_a_relaxation_are_refused():
    with refused("learner"):
        trainer(make_world("TokenOracle"))
    world = sum_and_stop(3, 3)
    with refused("top-p"):
        trainer(world, policies=[Nucleus(transformer(world), 0.9)])
    lq = scalar(horizon=2)
    with refused("learner"):
        Trainer(CommandTask(lq), build_learner("gumbel"), [LinearPolicy([[0.0]])], [0], TrainingSettings())


def test_its_page_gives_mean_and_bias():
    text = LEARNERS["gumbel"].__doc__
    assert "Mean: grad J_tau" in text
    assert "bias" in text
    assert np.isclose(math.pi**2 / 6, 1.645, atol=1e-3)
    assert "zeta(2) = 1.645" in text
