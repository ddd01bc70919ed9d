"""Tables, visitation and gradients against enumeration, differences and long horizons."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.policies.tabular import TabularPolicy
from envs.token_mdp import TokenMDP
from envs.token_tasks import arithmetic, distractor, garnet
from envs.world import InputError
from tests.oracles import numerical_gradient
from tests.theory.cases import tensor
from tests.theory.token_cases import several_prompts
from theory.tokens.dynamic_programming import bellman_costates, endless_tables, logit_gradient, tables

close = torch.testing.assert_close
WORLDS = {
    "garnet": garnet(V=3, states=3, horizon=3, gamma=0.9, seed=1),
    "several_prompts": several_prompts(),
    "arithmetic": arithmetic(3, 2),
    "distractor": distractor(3, 3, gamma=0.7),
}


def probabilities(world, changing=True, seed=0):
    rng = np.random.default_rng(seed)
    return tensor(rng.dirichlet(np.ones(world.V), (world.horizon, world.S) if changing else world.S))


def walk(world, pi, z, k):
    """(chance, [(state, token), ...]) of every possible path, growing step by step: no value table anywhere."""
    if k == world.horizon:
        yield 1.0, []
        return
    for a, after in itertools.product(range(world.V), range(world.S)):
        chance = float(pi[k, z, a] * world.P[z, a, after])
        if chance > 0:
            for rest, steps in walk(world, pi, after, k + 1):
                yield chance * rest, [(z, a), *steps]


def discounted(world, steps, k=0):
    return sum(world.gamma**j * float(world.r[k + j, z, a]) for j, (z, a) in enumerate(steps))


@pytest.mark.parametrize("name", WORLDS)
def test_tables_are_sums_over_all_paths(name):
    world = WORLDS[name]
    pi = probabilities(world)
    table = tables(world, pi)
    V, Q = torch.zeros_like(table.V), torch.zeros_like(table.Q)
    for k, z in itertools.product(range(world.horizon), range(world.S)):
        for chance, steps in walk(world, pi, z, k):
            V[k, z] += chance * discounted(world, steps, k)
            Q[k, z, steps[0][1]] += chance / pi[k, z, steps[0][1]] * discounted(world, steps, k)
    close(table.V, V)
    close(table.Q, Q)
    close(table.advantage, Q - V[:-1, :, None])
    assert float((pi * table.advantage).sum(-1).abs().max()) < 1e-14


@pytest.mark.parametrize("name", WORLDS)
def test_visitation_counts_the_paths_and_sums_to_one(name):
    world = WORLDS[name]
    pi = probabilities(world)
    table, visits, J = tables(world, pi), torch.zeros(world.horizon, world.S, dtype=torch.float64), 0.0
    for prompt, start in enumerate(world.starts.tolist()):
        for chance, steps in walk(world, pi, start, 0):
            J += float(world.weights[prompt]) * chance * discounted(world, steps)
            for k, (z, _) in enumerate(steps):
                visits[k, z] += world.weights[prompt] * chance
    close(table.visits, visits)
    close(table.visits.sum(1), torch.ones(world.horizon, dtype=torch.float64))
    assert float(table.J) == pytest.approx(J, rel=1e-12)


def test_the_best_policy_has_the_return_that_the_builder_promises():
    world = WORLDS["garnet"]
    pi = probabilities(world)
    for _ in range(world.horizon):
        pi = torch.nn.functional.one_hot(tables(world, pi).Q.argmax(-1), world.V).double()
    assert float(tables(world, pi).J) == pytest.approx(world.optimal_return, rel=1e-12)
    assert float(tables(world, probabilities(world)).J) < world.optimal_return


@pytest.mark.parametrize("name", WORLDS)
def test_costates_are_the_slope_in_the_belief_and_the_value_table(name):
    world = WORLDS[name]
    pi = probabilities(world)
    costates = bellman_costates(world, pi)
    close(costates, tables(world, pi).V)
    for k in range(world.horizon):

        def tail(belief, k=k):
            """Return from step k on, by carrying the belief forward."""
            total = 0.0
            for j in range(k, world.horizon):
                joint = belief[:, None] * pi[j].numpy()
                total += world.gamma ** (j - k) * float((joint * world.r[j].numpy()).sum())
                belief = np.einsum("za,zay->y", joint, world.P.numpy())
            return total

        close(costates[k], tensor(numerical_gradient(tail, np.full(world.S, 1 / world.S))), rtol=1e-8, atol=1e-9)


def test_a_recursion_with_transposed_transitions_is_not_the_bellman_equation():
    """The control: mass carried forward instead of costates carried back."""
    world = WORLDS["garnet"]
    pi = probabilities(world)
    wrong = torch.zeros(world.S, dtype=torch.float64)
    for k in reversed(range(world.horizon)):
        P_pi = torch.einsum("za,zay->zy", pi[k], world.P)
        wrong = (pi[k] * world.r[k]).sum(-1) + world.gamma * P_pi.mT @ wrong
    assert float((wrong - bellman_costates(world, pi)[0]).abs().max()) > 0.05


@pytest.mark.parametrize("name", WORLDS)
def test_logit_gradient_is_the_central_difference_of_the_return(name):
    world = WORLDS[name]
    logits = np.random.default_rng(2).standard_normal((world.horizon, world.S, world.V))
    J = lambda z: tables(world, torch.softmax(tensor(z), -1)).J  # noqa: E731
    gradient = logit_gradient(world, torch.softmax(tensor(logits), -1))
    close(gradient, tensor(numerical_gradient(J, logits)), rtol=1e-7, atol=1e-10)
    close(gradient.sum(-1), torch.zeros(world.horizon, world.S, dtype=torch.float64), atol=1e-14, rtol=0)


def test_logit_gradient_of_one_table_for_all_steps_is_the_sum_and_that_of_autograd():
    world = WORLDS["garnet"]
    policy = TabularPolicy(np.random.default_rng(2).standard_normal((world.S, world.V)), temperature=0.5)
    (slope,) = torch.autograd.grad(tables(world, policy.probabilities()).J, policy.logits)
    close(logit_gradient(world, policy.probabilities()).sum(0) / 0.5, slope)
    J = lambda z: tables(world, TabularPolicy(z, 0.5).probabilities()).J.detach()  # noqa: E731
    close(slope, tensor(numerical_gradient(J, policy.logits.detach().numpy())), rtol=1e-7, atol=1e-10)


def test_endless_tables_are_the_limit_of_long_horizons_and_solve_their_equation():
    short = garnet(V=3, states=4, horizon=1, gamma=0.8, seed=3)
    long = TokenMDP(short.P, short.r[0], [[0], [1]], [0, 2], 200, 0.8, weights=[0.3, 0.7])
    pi = probabilities(long, changing=False)
    V, Q, visits = endless_tables(long, pi)
    finite = tables(long, pi)
    close(V, finite.V[0], rtol=1e-12, atol=1e-12)
    close(Q, finite.Q[0], rtol=1e-12, atol=1e-12)
    close(visits, 0.8 ** torch.arange(200, dtype=torch.float64) @ finite.visits, rtol=1e-12, atol=1e-12)
    assert float(visits.sum()) == pytest.approx(1 / (1 - 0.8))
    close((pi * Q).sum(-1), V)
    assert float(visits @ (pi * long.r[0]).sum(-1)) == pytest.approx(float(finite.J))
    ten = tables(TokenMDP(short.P, short.r[0], [[0]], [0], 10, 0.8), pi).V[0]
    assert float((V - ten).abs().max()) > 0.01, "the control: ten steps are not endless"


def test_refusals():
    world = WORLDS["garnet"]
    pi = probabilities(world, changing=False)
    with pytest.raises(InputError, match=r"gamma must be < 1.*1\.0"):
        endless_tables(WORLDS["arithmetic"], probabilities(WORLDS["arithmetic"], changing=False))
    with pytest.raises(InputError, match=r"shape \(3, 3\) or \(3, 3, 3\); got \(3, 2\)"):
        tables(world, pi[:, :2])
    paid_by_hidden_state = replace(world, readout=[1.0])
    for f in (tables, bellman_costates, logit_gradient, endless_tables):
        with pytest.raises(InputError, match="readout"):
            f(paid_by_hidden_state, pi)
        with pytest.raises(InputError, match="sum to one"):
            f(world, 2 * pi)
        with pytest.raises(InputError, match="shape"):
            f(world, probabilities(arithmetic(3, 1), changing=False))
