"""The exact answers of training's oracles by other roads: all completions one by one, differences, integrals, simulation."""

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from agents.policies.linear import LinearPolicy
from agents.recipes.learner import Target
from agents.training.command_task import CommandTask
from agents.training.copies import Copies
from agents.training.token_task import TokenTask
from envs.linear_quadratic import random_system, scalar
from envs.lq_variants import step_reward
from envs.noise import FAMILIES, log_density
from envs.token_tasks import arithmetic, garnet, sum_and_stop
from figures.measures.oracles import CommandOracle, TokenOracle, best_return, task_and_oracle
from tests.agents.cases import draws, small
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by, numerical_gradient, simulate_lq
from tests.theory.cases import priced
from tests.theory.token_cases import enumerate_rollouts, several_prompts, transformer
from theory.continuous.lq_gradients import expected_return
from theory.continuous.riccati import riccati
from theory.groups.targets import kl_regularised, max_at_k, target_gradients
from theory.tokens.completions import mean_entropy
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_size import bytes_per_node, node_count

WORLDS = {
    "several prompts": several_prompts(3),
    "end token": sum_and_stop(3, 3, gamma=0.9),
    "garnet": garnet(V=3, states=4, horizon=3, gamma=0.9, seed=1),
}
EACH = pytest.mark.parametrize("name", WORLDS)
PLANE = random_system(2, 2, seed=5, horizon=3, gamma=0.8)


def policy(world):
    return transformer(world, temperature=0.4, seed=2)


def expected(world, network):
    """J: the weights times the sum over all completions of every prompt."""
    return float(world.weights @ enumerate_rollouts(world, network, 1.0).V(0)[0])


@EACH
def test_return_and_gradient_are_sums_over_all_completions_and_their_differences(name):
    world, network, h = WORLDS[name], policy(WORLDS[name]), 1e-5
    J, _, gradient = TokenOracle(world).answers(Copies([network]))
    assert pytest.approx(expected(world, network), rel=1e-10) == J
    parameters = list(network.parameters())
    assert [g.shape for g in gradient] == [p.shape for p in parameters]
    for seed in range(4):
        way, ends = [draws(*p.shape, seed=seed + i) for i, p in enumerate(parameters)], []
        for step in (h, -2 * h, h):  # there, beyond, and back
            with torch.no_grad():
                for p, d in zip(parameters, way, strict=True):
                    p += step * d
            ends.append(expected(world, network))
        slope = sum(float((g * d).sum()) for g, d in zip(gradient, way, strict=True))
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5, abs=1e-8)
        assert abs(slope) > 1e-3


@pytest.mark.parametrize("name", ["several prompts", "end token"])
def test_other_targets_have_each_copys_own_gradient_against_its_own_reference(name):
    world = WORLDS[name]
    networks, references = ([transformer(world, 0.4, seed=s) for s in seeds] for seeds in ((1, 2), (3, 4)))
    for target, climbed in (
        (Target(k=3), lambda reference: max_at_k(3)),
        (Target(beta=0.3), lambda reference: kl_regularised(reference, 0.3)),
    ):
        for chosen in (slice(0, 2), slice(1, 2)):  # together in one call, and one alone
            copies, compared = Copies(networks[chosen]), Copies(references[chosen]).frozen()
            gradient = copies.flattened(TokenOracle(world).target_gradient(copies, target, compared))
            for ours, network, reference in zip(gradient, networks[chosen], references[chosen], strict=True):
                truth = target_gradients(world, network, climbed(reference))[1].flat
                torch.testing.assert_close(ours, truth, rtol=1e-9, atol=1e-12)
                assert float((ours - grow_gradient(world, network)).norm()) > 1e-2 * float(ours.norm()), (
                    "the control: J"
                )
    command = Copies([LinearPolicy([[0.1]])])
    assert CommandOracle(scalar(3)).target_gradient(command, Target(k=2), None) is None


def grow_gradient(world, network):
    copies = Copies([network])
    return copies.flattened(TokenOracle(world).answers(copies)[2])[0]


@EACH
def test_entropy_per_step_is_a_mean_over_all_completions(name):
    world, network = WORLDS[name], policy(WORLDS[name])
    whole = enumerate_rollouts(world, network, 1.0)
    chance = whole.chance(0)[0] * world.weights.repeat_interleave(world.V**world.horizon)
    total, steps = 0.0, 0.0
    for p, tokens, logits in zip(chance.tolist(), whole.tokens.tolist(), whole.logits[0], strict=True):
        for k, token in enumerate(tokens):
            total, steps = total + p * stats.entropy(torch.softmax(logits[k], -1).numpy()), steps + p
            if token == world.end:
                break
    assert TokenOracle(world).answers(Copies([network]))[1] == pytest.approx(total / steps, rel=1e-10)
    assert (steps < world.horizon - 0.1) == (world.end is not None)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()
    assert mean_entropy(grow(world, network)) == pytest.approx(np.log(world.V))


@EACH
def test_values_are_those_of_the_prefixes_that_the_rows_went_through(name):
    world, networks = WORLDS[name], [policy(WORLDS[name]), transformer(WORLDS[name], temperature=0.4, seed=7)]
    noise = [torch.Generator().manual_seed(s) for s in (1, 2)]
    rows = TokenTask(world).draw(Copies(networks), 3, 3, noise)
    for copy, network in enumerate(networks):
        values, whole = (
            TokenOracle(world).values(Copies(networks), rows)[copy],
            enumerate_rollouts(world, network, 1.0),
        )
        assert values.shape == (9, world.horizon)
        assert not values.requires_grad
        count = world.V**world.horizon
        for i in range(9):
            prompt, completion = int(rows.prompt[copy, i]), rows.seen[0][copy, i, -world.horizon :]
            own = slice(prompt * count, (prompt + 1) * count)
            for k in range(world.horizon):
                here = (whole.tokens[own, :k] == completion[:k]).all(1)
                value = (whole.chance(k)[0, own] * whole.returns(k)[0, own])[here].sum()
                truth = world.gamma**k * float(value)
                assert float(values[i, k]) == pytest.approx(truth, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("world", [PLANE, small("laplace")], ids=["plane", "laplace"])
def test_commanded_return_and_gradient_are_closed_forms_and_simulation(world):
    network = LinearPolicy(0.3 * draws(world.m, world.n))
    J, _, (gradient,) = CommandOracle(world).answers(Copies([network]))
    K = network.K.detach().numpy()
    slope = numerical_gradient(lambda K: float(expected_return(world, torch.as_tensor(K))), K)
    torch.testing.assert_close(gradient, torch.as_tensor(slope), rtol=1e-6, atol=1e-8)
    if world is PLANE:
        returns, _ = simulate_lq(world, K, 40_000, 3, seed=1)
        assert_mean_within(returns, J)


@pytest.mark.parametrize("copies", [1, 2])
def test_an_affine_policy_in_a_world_with_every_cost_has_both_gradients_and_its_own_values(copies):
    world = priced(5)
    networks = [LinearPolicy(0.3 * draws(2, 3, seed=i), draws(2, seed=9 + i)) for i in range(copies)]
    actor = Copies.of(networks)
    J, _, gradients = CommandOracle(world).answers(actor)
    assert [g.shape for g in gradients] == [p.shape for p in actor.parameters]
    rows = CommandTask(world).draw(actor, 4_000, 1, [torch.Generator().manual_seed(4 + i) for i in range(copies)])
    values = CommandOracle(world).values(actor, rows)
    for i, network in enumerate(networks):
        K, k = network.K.detach(), network.k.detach()
        lifted = [g if copies == 1 else g[i] for g in gradients]
        in_K = numerical_gradient(lambda x, k=k: float(expected_return(world, torch.as_tensor(x), k)), K)
        in_k = numerical_gradient(lambda x, K=K: float(expected_return(world, K, torch.as_tensor(x))), k)
        for gradient, slope in zip(lifted, (in_K, in_k), strict=True):
            torch.testing.assert_close(gradient, torch.as_tensor(slope), rtol=1e-6, atol=1e-7)
        assert_mean_within(rows.rewards[i].sum(1), J[i])
        assert_mean_within(rows.rewards[i].flip(1).cumsum(1).flip(1) - values[i], 0.0)
        assert differs_by(rows.rewards[i].sum(1), expected_return(world.replace(N=None), K, k))


@pytest.mark.parametrize("noise", ["gaussian", "gumbel"])
def test_commanded_values_are_the_mean_of_what_follows(noise):
    world = small(noise)
    network = LinearPolicy([[0.8]])
    rows = CommandTask(world).draw(Copies([network]), 20_000, 1, [torch.Generator().manual_seed(4)])
    values = CommandOracle(world).values(Copies([network]), rows)[0]
    to_go = rows.rewards[0].flip(1).cumsum(1).flip(1)
    states = rows.seen[0][0, :, :, 0]
    assert values.shape == to_go.shape
    assert_mean_within(to_go - values, 0.0)
    assert_mean_within((to_go - values) * states**2, 0.0)  # and not in the mean over states alone
    assert differs_by(to_go - values / torch.tensor([1.0, 0.7, 0.49]), 0.0)


def integral(world):
    """`-sum p log p` of one action's noise on a fine grid."""
    x = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    log_p = log_density(world.to(), x[:, None])
    return -float(torch.where(log_p.isfinite(), log_p.exp() * log_p, 0.0).sum()) * 1e-4


@pytest.mark.parametrize("noise", FAMILIES)
def test_the_noises_entropy_is_its_integral(noise):
    world = small(noise)
    assert CommandOracle(world).entropy == pytest.approx(integral(world), abs=2e-4)
    assert CommandOracle(world).answers(Copies([LinearPolicy([[0.1]])]))[1] == CommandOracle(world).entropy


def test_correlated_noises_entropy_is_scipys_and_two_families_add_up():
    S_x = np.array([[0.5, 0.2], [0.2, 0.3]])
    truth = stats.multivariate_normal(np.zeros(2), S_x).entropy()
    assert CommandOracle(PLANE.replace(S_x=S_x)).entropy == pytest.approx(truth, rel=1e-10)
    wide = CommandOracle(PLANE.replace(S_x=np.diag([0.25, 1.0]), noise="laplace")).entropy
    assert wide == pytest.approx(2 * integral(small("laplace")) + np.log(2), abs=4e-4)


def best_word(world):
    """The largest return of a word for each prompt, by trying all: a deterministic world needs no more."""
    whole = enumerate_rollouts(world, transformer(world), 1.0).returns(0)[0]
    return float(world.weights @ whole.unflatten(0, (len(world.prompts), -1)).amax(1))


def test_the_best_return_is_that_of_the_best_words_and_of_the_best_gains():
    for world in (arithmetic(3, 2, gamma=0.9), sum_and_stop(2, 3, gamma=0.8)):
        assert best_return(world) == pytest.approx(best_word(world), rel=1e-12)
    assert best_return(several_prompts()) is None

    def loss(flat):
        K = torch.tensor(flat.reshape(3, 2, 2), requires_grad=True)
        J = expected_return(PLANE, K)
        return -float(J.detach()), -torch.autograd.grad(J, K)[0].flatten().numpy()

    best = optimize.minimize(loss, np.zeros(12), method="BFGS", jac=True)
    assert best_return(PLANE) == pytest.approx(-best.fun, rel=1e-6)
    assert best_return(PLANE) > -loss(best.x + 0.1)[0] + 1e-3
    assert best_return(step_reward()) is None


def test_what_has_no_closed_form_is_refused_or_left_without_an_oracle():
    odd = step_reward(horizon=3)
    with refused("world"):
        CommandOracle(odd)
    task, oracle, reason = task_and_oracle(odd, LinearPolicy([[0.0]]))
    assert isinstance(task, CommandTask)
    assert oracle is None
    assert "linear-quadratic" in reason
    world = WORLDS["garnet"]
    task, oracle, reason = task_and_oracle(world, policy(world), budget=1000)
    assert isinstance(task, TokenTask)
    assert oracle is None
    assert "prefixes" in reason
    with refused("policy"):
        task_and_oracle(world, LinearPolicy([[0.0]]))
    for one, kind, network in ((world, TokenOracle, policy(world)), (scalar(3), CommandOracle, LinearPolicy([[0.0]]))):
        _, oracle, reason = task_and_oracle(one, network)
        assert isinstance(oracle, kind)
        assert reason == ""


def test_the_budget_is_shared_by_the_copies():
    world = WORLDS["garnet"]
    need = bytes_per_node(world, policy(world)) * node_count(world)
    assert isinstance(task_and_oracle(world, policy(world), copies=3, budget=3 * need)[1], TokenOracle)
    assert task_and_oracle(world, policy(world), copies=4, budget=3 * need)[1] is None


@pytest.mark.parametrize("horizon", [4, None])
def test_the_best_return_of_a_world_with_linear_costs_is_that_of_an_affine_policy(horizon):
    world = priced(horizon)
    best, optimum = best_return(world), riccati(world)
    assert best == pytest.approx(float(expected_return(world, optimum.K, optimum.k)))
    assert best > float(expected_return(world, optimum.K)) + 0.1
