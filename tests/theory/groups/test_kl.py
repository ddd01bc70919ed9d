"""Exact divergences and their gradients against sums over enumerated completions, and differences of these."""

import copy

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from agents.recipes.surrogates import KL_ESTIMATORS
from envs.token_tasks import garnet, sum_and_stop
from tests.theory.groups.enumeration import policy_of
from theory.groups.kl import exact_kl, kl_at_prefixes
from theory.tokens.completions import completions, prefixes_alive
from theory.tokens.prefix_tree import grow

WORLDS = {
    "stop": sum_and_stop(modulus=2, horizon=4),
    "stop, two prompts": sum_and_stop(modulus=3, horizon=3),
    "garnet": garnet(V=2, horizon=3, seed=1, gamma=0.9),
}


def moved(policy, step):
    """A copy of the policy whose parameters are shifted."""
    other = copy.deepcopy(policy)
    vector_to_parameters(parameters_to_vector(policy.parameters()).detach() + step, other.parameters())
    return other


@pytest.mark.parametrize("name", WORLDS)
def test_divergences_at_prefixes_add_up_to_that_of_whole_completions(name):
    world = WORLDS[name]
    with torch.no_grad():
        pi, ref = (grow(world, policy_of(world, seed)) for seed in (0, 1))
    at, to = completions(pi), completions(ref)
    whole = lambda a, b: float(world.weights @ (a.p * ((a.log_probs - b.log_probs) * a.mask).sum(-1)).sum(-1))  # noqa: E731
    assert float(kl_at_prefixes(pi, ref, pi, forward=False)) == pytest.approx(whole(at, to))
    assert float(kl_at_prefixes(pi, ref, ref, forward=True)) == pytest.approx(whole(to, at))


def test_prefixes_are_alive_until_their_end_token():
    world = WORLDS["stop"]
    alive, end = prefixes_alive(grow(world, policy_of(world))), world.end
    assert [len(level) for level in alive] == [3**k for k in range(4)]
    for node, is_alive in enumerate(alive[2].tolist()):
        assert is_alive == (end not in divmod(node, 3))


def over_completions(world, policy, reference, visits=None):
    """Sums over completions by enumeration, with the probabilities of `visits` where prefixes are held fixed."""
    mine, other = (completions(grow(world, p)) for p in (policy, reference))
    p = world.weights[:, None] * (mine.p if visits is None else completions(grow(world, visits)).p)
    log_ratio, mask = (mine.log_probs - other.log_probs).flatten(0, 1), mine.mask.flatten(0, 1)
    return {name: float(p.flatten() @ (kind(log_ratio) * mask).sum(-1)) for name, kind in KL_ESTIMATORS.items()}


@pytest.mark.parametrize("name", ["stop", "stop, two prompts"])
def test_exact_gradients_are_the_slopes_of_enumerated_sums(name):
    world, step = WORLDS[name], 1e-4
    reference = policy_of(world, 0)
    size = sum(p.numel() for p in reference.parameters())
    rng = torch.Generator().manual_seed(0)
    away, direction = torch.randn(2, size, generator=rng, dtype=torch.float64)
    policy = moved(reference, 0.1 * away)
    exact = exact_kl(world, policy, reference, KL_ESTIMATORS)
    ends = [moved(policy, sign * step * direction) for sign in (1, -1)]

    def slopes(**fixed):
        up, down = (over_completions(world, end, reference, **fixed) for end in ends)
        return {estimator: (up[estimator] - down[estimator]) / (2 * step) for estimator in KL_ESTIMATORS}

    along = lambda gradient: float(gradient @ direction)  # noqa: E731
    moving, still = slopes(), slopes(visits=policy)
    for estimator in KL_ESTIMATORS:
        assert along(exact.total[estimator]) == pytest.approx(moving[estimator], rel=1e-4)
        assert along(exact.fixed[estimator] - exact.total[estimator]) != pytest.approx(0, abs=1e-3)
    assert exact.values["KL"] == pytest.approx(over_completions(world, policy, reference)["k1"])
    torch.testing.assert_close(exact.total["k1"], exact.total["KL"])
    assert abs(still["k1"]) < 1e-5 * abs(still["k2"]), "the mean score is 0 where prefixes are held fixed"
    assert along(exact.fixed["KL"]) == pytest.approx(still["k2"], rel=1e-4)
    assert along(exact.fixed["forward"]) == pytest.approx(still["k3"], rel=1e-4)
    assert still["k2"] != pytest.approx(along(exact.total["KL"]), rel=1e-2)
