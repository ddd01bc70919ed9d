"""What is known of policies with soft thoughts in training: against quadrature, sampled rows and differences."""

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from agents.recipes.soft_thoughts import SoftThoughts
from agents.sampling.soft_thoughts import soft_completions
from agents.training.copies import Copies
from envs.linear_quadratic import scalar
from envs.token_mdp import TokenMDP
from envs.token_tasks import garnet, parity
from figures.measures.soft_oracle import SoftOracle, soft_task_and_oracle
from tests.agents.cases import draws
from tests.agents.training.test_soft_task import network
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within
from theory.tokens.soft_thoughts import soft_success

WORLDS = {
    "exact": (parity(V=2, horizon=3, gamma=0.9), SoftThoughts(2, 0.4)),
    "three tokens": (garnet(V=3, horizon=2, seed=1, gamma=0.9), SoftThoughts(1, 0.4)),
    "three thoughts": (garnet(V=2, horizon=2, seed=1), SoftThoughts(3, 0.4)),
    "the code's form": (garnet(V=7, horizon=1, seed=1), SoftThoughts(2, 0.4, official=True)),
}


@pytest.mark.parametrize("name", WORLDS)
def test_the_return_is_the_mean_over_sampled_rows_and_the_gradient_its_slope(name):
    world, soft = WORLDS[name]
    policy, oracle = network(world, seed=2, N=soft.thoughts), SoftOracle(world, soft, 2**30, 20_000)
    assert oracle.exact == (name == "exact") == (not oracle.note)
    J, H, gradients = oracle.answers(Copies.of([policy]))
    rows = soft_completions(world, policy, torch.tensor([0]), 20_000, soft, torch.Generator().manual_seed(3))
    spread = float(rows.rewards.sum(1).std()) / 20_000**0.5
    assert float(rows.rewards.sum(1).mean()) == pytest.approx(float(J), abs=6 * spread)
    if oracle.exact:
        assert_mean_within(rows.rewards.sum(1)[:, None], J)
    assert 0 < float(H) < 2
    if name == "the code's form":
        return  # a token that joins the set or leaves it is a step
    small = SoftOracle(world, soft, 2**30)
    J, _, gradients = small.answers(Copies.of([policy]))
    at, slope = parameters_to_vector(policy.parameters()).detach(), torch.cat([g.flatten() for g in gradients])
    way, values = draws(len(at)), []
    for sign in (1, -1):
        vector_to_parameters(at + sign * 1e-5 * way, policy.parameters())
        values.append(float(small.answers(Copies.of([policy]))[0]))
    assert float(slope @ way) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-3, abs=1e-6)


def test_one_answer_of_two_is_the_quadrature_of_the_theory_for_several_copies():
    world, policies = TokenMDP.from_rewards([0.0, 1.0]), [network(TokenMDP.from_rewards([0.0, 1.0]), s) for s in (0, 1)]
    J, _, gradients = SoftOracle(world, SoftThoughts(2, 0.5), 2**30).answers(Copies.of(policies))
    for i, policy in enumerate(policies):
        exact = soft_success(policy, [0], 0.5)
        assert float(J[i]) == pytest.approx(float(exact.P), abs=1e-6)
        own = torch.cat([g[i].flatten() for g in gradients])
        torch.testing.assert_close(own, exact.pathwise, rtol=1e-3, atol=1e-4)


def test_too_large_a_world_is_said_and_one_without_tokens_refused():
    world, soft = parity(V=2, horizon=3), SoftThoughts()
    task, oracle, reason = soft_task_and_oracle(world, soft, network(world), budget=1000)
    assert oracle is None
    assert "horizon=3" in reason
    assert task.steps == 5
    assert soft_task_and_oracle(world, soft, network(world))[2] == ""
    with refused("learner"):
        soft_task_and_oracle(scalar(horizon=3), soft, network(world))
    with refused("critic"):
        SoftOracle(world, soft, 1).values(Copies.of([network(world)]), None)
    assert SoftOracle(world, soft, 1).target_gradient(None, None, None) is None
