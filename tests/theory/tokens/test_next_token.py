"""Where next-token rewards end, against grids on the simplex and flows; the likelihood of a corpus, against loops."""

import itertools
import math

import numpy as np
import pytest
import torch

from agents.policies.prefix_table import PrefixTable
from agents.recipes.learners import dr_grpo, grpo, maxrl, reinforce, rloo
from envs.corpus import Corpus, next_token_world, prediction_world
from envs.token_tasks import arithmetic
from tests.envs.refusals import refused
from tests.theory.token_cases import transformer
from theory.groups.binary_rewards import arcsine, grpo_kappa, grpo_objective, mean_factor, mean_objective
from theory.groups.expected_update import expected_update
from theory.tokens.dynamic_programming import best_words
from theory.tokens.next_token import arcsine_optimum, jensen_bound, log_likelihood, mean_optimum
from theory.tokens.prefix_tree import grow

LAWS = [(0.4, 0.35, 0.25), (0.6, 0.3, 0.1), (0.34, 0.33, 0.33), (0.45, 0.33, 0.22), (0.41, 0.34, 0.25), (0.9, 0.1, 0.0)]


def simplex(count=400):
    """All laws of three tokens on a grid."""
    points = [(i, j, count - i - j) for i in range(count + 1) for j in range(count + 1 - i)]
    return torch.tensor(points, dtype=torch.float64) / count


def refined(q, objective, start, width):
    """The best law near a point of the grid: a grid of its own, each finer than the last."""
    best = start
    for _ in range(12):
        shifts = torch.linspace(-width, width, 21, dtype=torch.float64)
        near = torch.cartesian_prod(best[0] + shifts, best[1] + shifts)
        near = torch.cat([near, 1 - near.sum(1, keepdim=True)], 1)
        near = near[((near >= 0) & (near <= 1)).all(1)]
        best = near[(q * objective(near)).sum(1).argmax()]
        width /= 4
    return best


@pytest.mark.parametrize("q", LAWS)
def test_the_arcsine_optimum_is_the_best_law_of_a_grid(q):
    q, grid = torch.tensor(q, dtype=torch.float64), simplex()
    start = grid[(q * arcsine(grid)).sum(1).argmax()]
    found = arcsine_optimum(q)
    assert float((found - refined(q, arcsine, start, 0.01)).abs().max()) < 1e-4
    gain = float((q * arcsine(found)).sum()) - float((q * arcsine(grid)).sum(1).max())
    assert gain > -1e-12
    alone = float(q[0] ** 2) >= float((q[1:] ** 2).sum())
    assert (found.tolist() == [1.0, 0.0, 0.0]) == alone
    if not alone:
        nu = q / (found * (1 - found)).sqrt()
        assert float((nu - nu[0]).abs().max()) < 1e-9


def test_the_worked_examples_and_two_tokens():
    assert arcsine_optimum([0.4, 0.35, 0.25]).tolist() == pytest.approx([0.7333, 0.1833, 0.0833], abs=5e-5)
    assert mean_optimum([0.5, 0.3, 0.2], 3).tolist() == pytest.approx([0.875, 0.125, 0.0], abs=1e-12)
    for p in (0.5001, 0.7, 1.0):
        assert arcsine_optimum([p, 1 - p]).tolist() == [1.0, 0.0], "two tokens: always one alone"
    flat = torch.full((1, 5), 0.2, dtype=torch.float64)
    assert float((arcsine_optimum(flat) - flat).abs().max()) < 1e-9
    assert arcsine_optimum(torch.tensor([0.4, 0.35, 0.25])).dtype == torch.float64
    both = torch.tensor([[0.4, 0.35, 0.25], [0.6, 0.3, 0.1]], dtype=torch.float64)
    assert torch.equal(arcsine_optimum(both)[1], arcsine_optimum(both[1]))


@pytest.mark.parametrize("seed", range(20))
def test_the_criterion_at_random_laws(seed):
    """At the mode's corner the objective gains where the criterion says no: by the best direction, `pi_a prop q_a^2`."""
    rng = np.random.default_rng(seed)
    q = torch.tensor(np.sort(rng.dirichlet(np.ones(rng.integers(2, 7))))[::-1].copy())
    share, s = q.clone().square(), 1e-8
    share[0] = 0
    near = s * share / share.sum()
    near[0] = 1 - s
    corner = torch.nn.functional.one_hot(torch.tensor(0), len(q)).double()
    gains = float((q * (arcsine(near) - arcsine(corner))).sum()) > 0
    assert gains == (float(q[0] ** 2) < float((q[1:] ** 2).sum()))
    assert gains == (float(arcsine_optimum(q)[0]) < 1)
    better = (q * arcsine(torch.tensor(rng.dirichlet(np.ones(len(q)), 2000)))).sum(1).max()
    assert float((q * arcsine(arcsine_optimum(q))).sum()) >= float(better)


@pytest.mark.parametrize("G", [2, 3, 5, 20, 300])
@pytest.mark.parametrize("q", LAWS)
def test_the_optimum_of_the_mean_is_the_best_law_of_a_grid(q, G):
    q, grid = torch.tensor(q, dtype=torch.float64), simplex()
    objective = lambda pi: mean_objective(pi, G)  # noqa: E731
    start = grid[(q * objective(grid)).sum(1).argmax()]
    found = mean_optimum(q, G)
    assert float(found.sum()) == pytest.approx(1, abs=1e-14)
    assert float((found - refined(q, objective, start, 0.01)).abs().max()) < 1e-4
    marginal = q * mean_factor(found, G)
    nu = float(marginal[0])
    for p, m, share in zip(found.tolist(), marginal.tolist(), q.tolist(), strict=True):
        assert G == 2 or (p > 0) == (share * (G - 1) > nu * (1 + 1e-12))
        assert m == pytest.approx(nu, rel=1e-9) if p > 0 else m <= nu


def test_large_groups_divided_by_the_mean_end_at_the_corpus():
    q = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    gaps = [float((mean_optimum(q, G) - q).abs().max()) for G in (4, 16, 64, 1024)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.1
    assert gaps[-1] < 1e-12


@pytest.mark.parametrize("G", [2, 3, 8, 64])
def test_at_finite_size_the_mode_is_a_local_maximum_of_grpo(G):
    """`c_G` is bounded: near enough to the corner, every way out falls, though the arcsine would leave it."""
    q = torch.tensor([0.4, 0.35, 0.25], dtype=torch.float64)
    assert float(arcsine_optimum(q)[0]) < 0.8
    corner = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    for share in np.linspace(0, 1, 11):
        s = 1e-6 / G
        near = torch.tensor([1 - s, s * share, s * (1 - share)], dtype=torch.float64)
        assert float((q * (grpo_objective(near, G) - grpo_objective(corner, G))).sum()) < 0
        assert float((q * (arcsine(near) - arcsine(corner))).sum()) > 0 or not 0.2 < share < 0.9


RECIPES = {
    "REINFORCE": (reinforce(), 1, torch.ones_like),
    "RLOO": (rloo(), 3, torch.ones_like),
    "Dr. GRPO": (dr_grpo(), 3, lambda P: torch.full_like(P, 2 / 3)),
    "GRPO": (grpo(length="row sum"), 4, lambda P: grpo_kappa(P, 4)),
    "MaxRL": (maxrl(), 4, lambda P: mean_factor(P, 4)),
}


def chances_by_loops(world, policy, thoughts):
    """P of every pair by a loop over thoughts, each context read by itself; with its gradient."""
    chances = []
    for prompt, x in zip(world.prompts.tolist(), world.starts.tolist(), strict=True):
        total = 0.0
        for said in itertools.product(range(world.V), repeat=thoughts):
            p = 1.0
            for k, token in enumerate((*said, x)):
                context = torch.tensor([[*prompt, *said[:k]]])
                p = p * torch.softmax(policy(policy.embed(context))[0, -1], -1)[token]
            total = total + p
        chances.append(total)
    return torch.stack(chances)


def flat_slope(scalar, policy):
    parts = torch.autograd.grad(
        scalar, list(policy.parameters()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([x.flatten() for x in parts])


@pytest.fixture(scope="module", params=[0, 1])
def case(request):
    source = arithmetic(3, 2)
    corpus = Corpus(source, best_words(source), 0.6, 0.1)
    world = next_token_world(corpus, 2, request.param)
    policy = transformer(world, seed=2)
    return world, policy, chances_by_loops(world, policy, request.param), request.param


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_moves_along_its_factor_times_the_slope_of_each_chance(name, case):
    world, policy, P, _ = case
    learner, G, kappa = RECIPES[name]
    update = expected_update(world, policy, learner, G).mean.flat
    field = lambda factor: flat_slope((world.weights * factor(P.detach()) * P).sum(), policy)  # noqa: E731
    torch.testing.assert_close(update, field(kappa), rtol=1e-9, atol=1e-12)
    other = field(lambda P: 1 / P)
    assert float((update - other).norm() / other.norm()) > 0.01, "the control: the likelihood's factor"


def test_the_likelihood_and_its_bound_are_those_of_loops(case):
    world, policy, P, thoughts = case
    found = log_likelihood(grow(world, policy))
    truth = (world.weights * P.log()).sum()
    assert float(found.detach()) == pytest.approx(float(truth.detach()), rel=1e-12)
    slope = flat_slope(found, policy)
    torch.testing.assert_close(slope, flat_slope(truth, policy), rtol=1e-9, atol=1e-12)
    bound = jensen_bound(grow(world, policy))
    if thoughts == 0:
        assert float(bound.detach()) == pytest.approx(float(found.detach()), rel=1e-12)
        return
    total = 0.0
    for w, prompt, x in zip(world.weights, world.prompts, world.starts.tolist(), strict=True):
        first = torch.log_softmax(policy(policy.embed(prompt[None]))[0, -1], -1)
        for c in range(world.V):
            after = torch.log_softmax(policy(policy.embed(torch.tensor([[*prompt.tolist(), c]])))[0, -1], -1)
            reward = after[x]  # REINFORCE with this reward, which is differentiated as well
            total = total + w * (first[c].exp().detach() * (reward.detach() * first[c] + reward))
    torch.testing.assert_close(flat_slope(bound, policy), flat_slope(total, policy), rtol=1e-9, atol=1e-12)
    assert float(bound.detach()) < float(found.detach()) - 1e-3
    assert float((flat_slope(bound, policy) - slope).norm()) > 0.01 * float(slope.norm())


def test_a_thought_that_is_never_said_adds_nothing():
    world = prediction_world(2, torch.tensor([[0, 0], [0, 1]]), torch.tensor([0.75, 0.25]).double(), thoughts=1)
    table = PrefixTable(world, [torch.tensor([[0.0, -math.inf]]), torch.tensor([[0.0, 0.0], [0.0, -math.inf]])])
    tree = grow(world, table)
    assert float(log_likelihood(tree).detach()) == pytest.approx(math.log(0.5))
    assert float(jensen_bound(tree).detach()) == pytest.approx(math.log(0.5))


@pytest.mark.parametrize("call", [arcsine_optimum, lambda q: mean_optimum(q, 4)])
def test_what_is_no_law_is_refused(call):
    for q in ([0.5, 0.4], [1.2, -0.2], [math.nan, 1.0]):
        with refused("q"):
            call(q)
    with refused("group"):
        mean_optimum([0.5, 0.5], 1)
