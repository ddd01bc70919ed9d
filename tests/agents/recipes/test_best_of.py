"""Advantages for the best of k: by loops over all subsets of a group, and by the formulas of their papers."""

import itertools
import math

import pytest
import torch

from agents.recipes.advantages import mean_baseline, standardised
from agents.recipes.best_of import BASELINES, best_of, best_of_standardised
from agents.recipes.learner import Target
from agents.recipes.learners import LEARNERS, Penalty, build_learner
from tests.agents.cases import draws
from tests.envs.refusals import refused
from tests.typecheck import unchecked

GROUP = torch.tensor([0, 1, 0, 1, 1, 0, 1, 0, 1])  # groups of four and of five rows
MASK = torch.arange(3) < torch.tensor([3, 1, 2, 3, 2, 1, 3, 2, 1])[:, None]
FIRST = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
REWARDS = {
    "dense": draws(9, 3, seed=4) * MASK,
    "ties": torch.tensor([0.5, 1, 0.5, 0, 1, 0, 1, 0.5, 0.3]).double()[:, None] * FIRST,
    "binary": torch.tensor([0.0, 1, 1, 0, 1, 0, 0, 0, 0]).double()[:, None] * FIRST,
    "all alike": torch.where(
        MASK.sum(1, keepdim=True) > 1, torch.tensor([[0.1, 0.2, 0.0]], dtype=torch.float64), 0.3 * FIRST
    ),
}


def best(rows, R):
    return max(float(R[i]) for i in rows)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def groups():
    return [(g == GROUP).nonzero()[:, 0].tolist() for g in range(2)]


def marginal(R, rows, i, k, baseline):
    """`k (t_i - b_i)` by loops over subsets."""
    others = [j for j in rows if j != i]
    own = mean(best((i, *some), R) for some in itertools.combinations(others, k - 1))
    size = {"none": 0, "loo": k, "loo-1": k - 1}[baseline]
    base = mean(best(some, R) for some in itertools.combinations(others, size)) if size else 0.0
    return k * (own - base)


def standard(R, rows, i, k):
    """The mean over all subsets that hold row i of the subset's standardised reward."""
    subsets = list(itertools.combinations(rows, k))
    rewards = [best(some, R) for some in subsets]
    centre = mean(rewards)
    spread = math.sqrt(mean((x - centre) ** 2 for x in rewards))
    if spread < 1e-12:
        return 0.0
    return mean((x - centre) / spread for x, some in zip(rewards, subsets, strict=True) if i in some)


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_advantages_are_those_of_loops_over_all_subsets(name, k):
    rewards = REWARDS[name]
    R, made = rewards.sum(1), {"standardised": best_of_standardised(k)(rewards, MASK, GROUP)}
    kinds = [b for b in BASELINES if not (b == "loo-1" and k == 1) and not (b == "loo" and k == 4)]
    made |= {b: best_of(k, b)(rewards, MASK, GROUP) for b in kinds}
    for rows in groups():
        for i in rows:
            for kind, A in made.items():
                by_loop = standard(R, rows, i, k) if kind == "standardised" else marginal(R, rows, i, k, kind)
                assert A[i].tolist() == pytest.approx([by_loop * m for m in MASK[i].tolist()], rel=1e-11, abs=1e-13)
    if name == "all alike":  # returns that differ by the rounding of their sums are equal, and no std magnifies that
        assert len(R.unique()) == 2
        assert not bool(made["standardised"].any())


@pytest.mark.parametrize("k", [1, 2, 3])
def test_binary_advantages_are_the_formulas_of_the_papers(k):
    n = 6
    for c in range(n + 1):
        rewards = (torch.arange(n) < c).double()[:, None]
        rows = (rewards, torch.ones(n, 1, dtype=torch.bool), torch.zeros(n, dtype=torch.int64))
        wrong = k * (1 - math.comb(n - 1 - c, k - 1) / math.comb(n - 1, k - 1)) if c < n else 0.0
        by_formula = [float(k) if i < c else wrong for i in range(n)]
        assert best_of(k, "none")(*rows)[:, 0].tolist() == pytest.approx(by_formula, abs=1e-13)
        M = 1 - math.comb(n - c, k) / math.comb(n, k)
        S = math.sqrt(M * (1 - M))
        fail = 1 - M - (math.comb(n - c - 1, k - 1) / math.comb(n - 1, k - 1) if c < n else 0)
        shaped = [0.0 if S == 0 else (1 - M if i < c else fail) / S for i in range(n)]
        assert best_of_standardised(k)(*rows)[:, 0].tolist() == pytest.approx(shaped, rel=1e-12, abs=1e-13)


def test_at_k_1_they_are_grpo_and_the_baselines_of_one_row():
    rewards = REWARDS["dense"]
    rows = (rewards, MASK, GROUP)
    torch.testing.assert_close(best_of_standardised(1)(*rows), standardised()(*rows))
    torch.testing.assert_close(best_of(1, "none")(*rows), rewards.sum(1, keepdim=True) * MASK)
    sizes = torch.tensor([4.0, 5.0]).double()[GROUP][:, None]
    torch.testing.assert_close(best_of(1, "loo")(*rows), mean_baseline(*rows) * sizes / (sizes - 1))
    lonely = best_of(1, "none")(rewards[:1], MASK[:1], torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(lonely, rewards[:1].sum(1, keepdim=True) * MASK[:1])


def test_large_groups_and_large_rewards_keep_their_digits():
    """300 rows, binomials beyond any float; a common 1e9 in all rewards changes nothing but rounding."""
    n, k = 300, 150
    rewards = torch.zeros(n, 1, dtype=torch.float64)
    rewards[0] = 1.0
    rows = (torch.ones(n, 1, dtype=torch.bool), torch.zeros(n, dtype=torch.int64))
    A = best_of(k)(rewards, *rows)[:, 0]
    assert A[0] == k
    assert not bool(A[1:].any())
    large = torch.tensor([[1e9], [1e9], [1e9 + 1], [1e9]], dtype=torch.float64)
    near = best_of(2)(large, rows[0][:4], rows[1][:4])[:, 0]
    assert near.tolist() == [0.0, 0.0, 2.0, 0.0]


@unchecked()
def test_what_no_subset_has_is_refused():
    rewards = REWARDS["dense"]
    for k, baseline in ((5, "none"), (5, "loo-1"), (4, "loo")):
        with refused("group 0"):
            best_of(k, baseline)(rewards, MASK, GROUP)
    with refused("group 0"):
        best_of_standardised(5)(rewards, MASK, GROUP)
    for k, baseline in ((0, "none"), (1, "loo-1"), (1.5, "loo"), (True, "none")):
        with refused("k"):
            best_of(k, baseline)
    with refused("k"):
        best_of_standardised(0)
    with refused("baseline"):
        best_of(2, "mean")
    with refused("length"):
        build_learner("pass_k_training", length="tokens")
    assert [build_learner("pkpo", k=3, baseline=b).least for b in BASELINES] == [3, 4, 3]


def test_a_recipe_names_what_it_climbs():
    expected = {name: Target() for name in LEARNERS} | {"pkpo": Target(2), "pass_k_training": Target(2)}
    assert {name: build_learner(name).target for name in LEARNERS} == expected
    assert build_learner("pkpo", k=5).target == build_learner("pass_k_training", k=5).target == Target(5)
    k1, k3 = Penalty("k1", 0.3), Penalty("k3", 0.3)
    assert build_learner("rloo", kl_reward=k1).target == Target(1, 0.3)
    assert build_learner("rloo", kl_reward=k3).target == build_learner("rloo", kl_loss=k1).target == Target()
    assert build_learner("value_gradient", kl_reward=k1).target == Target()
    assert build_learner("pkpo", kl_reward=k1).target is None
