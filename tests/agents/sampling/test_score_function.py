"""The score-function gradient and its baselines: sample by sample, in the mean, and where it must be wrong."""

import pytest
import torch

from agents.policies.linear import LinearPolicy
from agents.sampling.pathwise import pathwise_gradient
from agents.sampling.rollout import rollout
from agents.sampling.score_function import best_constant_baseline, command_scores, score_function_gradient
from envs.lq_variants import quantised_action, state_scaled_noise
from envs.noise import FAMILIES, log_density
from envs.world import InputError
from tests.agents import cases
from tests.agents.cases import K_SMALL, MANY, MEANS, POLICIES, T, draws, same, sample, small, world
from tests.oracles import assert_mean_within, differs_by
from theory.continuous.lq_gradients import one_step_variances, policy_gradient
from theory.continuous.lyapunov import linear_value

SMOOTH = [name for name, family in FAMILIES.items() if family.differentiable]


@pytest.mark.parametrize("changes", [{}, {"horizon": None}, {"noise": "gumbel"}])
@pytest.mark.parametrize("name", POLICIES)
def test_each_sample_equals_plain_autograd_of_log_density_times_reward_to_go(name, changes, rng):
    lq, policy, b = world(**changes), POLICIES[name](), draws(3, T, seed=4)
    noise, path = sample(lq, policy, 3, rng, steps=T)
    mine = score_function_gradient(lq, policy, path, b)
    for i in range(3):
        states, _, actions, rewards = cases.plain_path(lq, policy, noise, i)
        surrogate = 0.0
        for t in range(T):
            past = torch.stack(states[: t + 1] if policy.window is None else states[: t + 1][-policy.window :]).detach()
            density = log_density(lq, actions[t].detach() - policy(past[None], t)[0])
            weight = cases.return_from(rewards, lq.gamma, t).detach() - b[i, t]
            surrogate = surrogate + lq.gamma**t * density * weight
        same({k: g[i] for k, g in mine.items()}, cases.autograd_of(surrogate, policy))


def test_the_score_of_gaussian_noise_is_linear(rng):
    lq = world()
    noise, path = sample(lq, POLICIES["linear"](), 5, rng)
    expected = noise.xi @ torch.linalg.inv(torch.as_tensor(lq.S_x))
    torch.testing.assert_close(command_scores(lq, path), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", ["finite", "time-varying", "endless", *SMOOTH])
def test_the_mean_is_the_exact_policy_gradient_for_every_smooth_noise(case, rng):
    lq, K, steps = MEANS[case]
    policy, truth, value = LinearPolicy(K), policy_gradient(lq, K), linear_value(lq, K)
    _, path = sample(lq, policy, MANY, rng, steps)
    levels = torch.stack([value.value(path.states[:, t].detach(), t) for t in range(steps)], 1)
    gradient = score_function_gradient(lq, policy, path, levels)["K"]
    assert gradient.shape == (MANY, *K.shape)
    assert_mean_within(gradient, truth)
    assert differs_by(gradient, 1.5 * truth)


def test_with_uniform_noise_the_score_function_is_wrong_and_the_pathwise_gradient_right(rng):
    """Negative control (A3): inside its support the uniform density is flat, so every score is zero."""
    lq, K, _ = MEANS["uniform"]
    policy, truth = LinearPolicy(K), policy_gradient(lq, K)
    _, path = sample(lq, policy, MANY, rng)
    score, pathwise = score_function_gradient(lq, policy, path)["K"], pathwise_gradient(policy, path)["K"]
    assert not score.any()
    assert_mean_within(pathwise, truth)
    assert differs_by(pathwise, 0.0, errors=50)  # the truth, and so the score function's error, is far from zero


BASELINES = {
    "none": lambda path: 0.0,
    "number": lambda path: -2.0,
    "tensor number": lambda path: torch.tensor(-2.0).double(),
    "one per step": lambda path: torch.tensor([-2.5, -1.5, -0.8]).double(),
    "of the state": lambda path: -path.states[:, :-1, 0].detach().square() - 0.5,
}


def score_of(baseline, path, lq=None):
    return score_function_gradient(lq or small(), LinearPolicy(K_SMALL), path, baseline)["K"]


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_that_ignores_the_action_keeps_the_mean(name, rng):
    _, path = sample(small(), LinearPolicy(K_SMALL), 2 * MANY, rng)
    gradient = score_of(BASELINES[name](path), path)
    assert_mean_within(gradient, policy_gradient(small(), K_SMALL))
    assert name == "none" or gradient.std() < 0.9 * score_of(0.0, path).std()


def test_a_baseline_that_looks_at_the_action_is_biased(rng):
    _, path = sample(small(), LinearPolicy(K_SMALL), 2 * MANY, rng)
    looking = -0.2 * path.actions[..., 0].detach().square()  # -a'Ra: what the action costs at once
    assert differs_by(score_of(looking, path), policy_gradient(small(), K_SMALL))


def test_a_tensor_baseline_of_one_number_per_step_equals_the_full_one(rng):
    _, path = sample(small(), LinearPolicy(K_SMALL), 5, rng)
    b = draws(3)
    for given, full in ((b, b.expand(5, 3)), (0.5, torch.full((5, 3), 0.5).double())):
        assert torch.equal(score_of(given, path), score_of(full, path))


@pytest.mark.parametrize("shape", [(4,), (2,), (5,), (5, 1), (1, 3), (3, 5), (5, 4)])
def test_a_baseline_of_another_shape_is_refused_not_broadcast(shape, rng):
    _, path = sample(small(), LinearPolicy(K_SMALL), 5, rng)
    with pytest.raises(InputError, match=r"^baseline must be a number, \(3,\) or \(5, 3\); got shape [^\n]+$"):
        score_of(torch.zeros(shape).double(), path)


def test_no_gradient_flows_through_the_weights_so_a_quiet_rollout_serves_as_well(rng):
    lq, policy = world(), POLICIES["network"]()
    noise, path = sample(lq, policy, 5, rng)
    with torch.no_grad():
        quiet = rollout(lq, policy, noise)
    same(score_function_gradient(lq, policy, quiet, 0.3), score_function_gradient(lq, policy, path, 0.3))


@pytest.mark.parametrize("variant", [quantised_action, state_scaled_noise])
def test_a_world_whose_noise_is_not_additive_is_refused(variant, rng):
    _, path = sample(variant(horizon=3), LinearPolicy(K_SMALL), 5, rng)
    with pytest.raises(InputError, match=r"^world must execute a = u \+ xi [^\n]+$"):
        score_of(0.0, path, variant(horizon=3))


def test_noise_without_a_density_is_refused(rng):
    lq = world(S_x=[[0.1, 0.0], [0.0, 0.0]])
    policy = POLICIES["linear"]()
    with pytest.raises(InputError, match=r"^S_x must be positive definite[^\n]+$"):
        score_function_gradient(lq, policy, sample(lq, policy, 4, rng)[1])


MU, SIGMA, R = 0.6, 0.5, 1.3  # the one-step world: R_0 = -R (mu + sigma eps)^2


def one_step(batch, rng):
    lq, policy = cases.one_step(R, SIGMA), LinearPolicy([[MU]])
    return lq, policy, sample(lq, policy, batch, rng)[1]


def test_the_best_constant_baseline_of_one_step_is_its_closed_form(rng):
    pilots = torch.stack([best_constant_baseline(*one_step(MANY, rng)) for _ in range(40)])
    assert pilots.shape == (40, 1)
    assert_mean_within(pilots, -R * (MU**2 + 3 * SIGMA**2))
    assert differs_by(pilots, -R * (MU**2 + SIGMA**2))  # E Q, which is not the best one


def test_variances_of_one_step_are_the_closed_forms_and_the_best_baseline_has_the_least(rng):
    lq, policy, path = one_step(10 * MANY, rng)
    exact = one_step_variances(R, torch.tensor(MU), torch.tensor(SIGMA))
    best = best_constant_baseline(*one_step(10 * MANY, rng))
    spread = []
    for b, variance in (
        (0.0, exact.score),
        (-R * (MU**2 + SIGMA**2), exact.score_value_baseline),
        (best, exact.score_best_baseline),
        (best - 0.3, None),
        (best + 0.3, None),
    ):
        gradient = score_function_gradient(lq, policy, path, b)["K"][:, 0, 0]
        square = (gradient + 2 * R * MU).square()  # around the true gradient -2 R mu
        spread.append(float(square.mean()))
        if variance is not None:
            assert_mean_within(square, variance)
            assert differs_by(square, 1.2 * variance)
    assert min(spread) == spread[2]
    assert_mean_within((pathwise_gradient(policy, path)["K"][:, 0, 0] + 2 * R * MU).square(), exact.pathwise)


def test_the_best_constant_baseline_weighs_each_step_by_its_own_squared_score(rng):
    lq, policy = world(), POLICIES["attention"]()
    noise, path = sample(lq, policy, 30, rng)
    expected = []
    for t in range(T):
        weights = []
        for i in range(30):
            states, _, actions, _ = cases.plain_path(lq, policy, noise, i)
            past = torch.stack(states[: t + 1][-3:]).detach()
            slope = cases.autograd_of(log_density(lq, actions[t].detach() - policy(past[None], t)[0]), policy)
            weights.append(sum(g.square().sum() for g in slope.values()))
        weights = torch.stack(weights)
        expected.append((weights * path.rewards_to_go()[:, t].detach()).sum() / weights.sum())
    torch.testing.assert_close(best_constant_baseline(lq, policy, path), torch.stack(expected), rtol=1e-9, atol=0)
