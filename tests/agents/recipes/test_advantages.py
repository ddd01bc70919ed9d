"""Advantages against plain loops over groups of unequal size and rows of unequal length, and what they refuse."""

import math

import numpy as np
import pytest
import torch

from agents.recipes import advantages as own
from agents.recipes.advantages import gae, group_mean, leave_one_out, mean_baseline, mean_normalised, standardised
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by

close = torch.testing.assert_close
T = 4
GROUP = np.array([2, 0, 1, 1, 2, 0, 1, 2, 2])  # sizes 2, 3, 4, mixed
LENGTHS = np.array([4, 2, 1, 3, 3, 4, 2, 1, 4])


def case(seed=0):
    """Dense rewards, as plain numpy tables."""
    rng = np.random.default_rng(seed)
    mask = np.arange(T) < LENGTHS[:, None]
    return rng.normal(size=mask.shape) * mask, mask, GROUP


def tensors(*arrays):
    return tuple(torch.as_tensor(a) for a in arrays)


def others(i, group, itself=False):
    return [j for j in range(len(group)) if group[j] == group[i] and (itself or j != i)]


def standard(population, eps):
    """(R - mean) / (std + eps), numpy's own std of each group."""

    def entry(i, t, r, group):
        R = r.sum(1)
        together = R[others(i, group, itself=True)]
        return (R[i] - np.mean(together)) / (np.std(together, ddof=0 if population else 1) + eps)

    return entry


def mean_of(rows, value):
    return np.mean([value(j) for j in rows])


# name -> (the function, what stands at row i, step t)
LOOPS = {
    "full return": (own.full_return, lambda i, t, r, g: r[i].sum()),
    "reward to go": (own.reward_to_go, lambda i, t, r, g: r[i, t:].sum()),
    "batch baseline": (
        own.batch_baseline,
        lambda i, t, r, g: r[i].sum() - mean_of([j for j in range(len(g)) if j != i], lambda j: r[j].sum()),
    ),
    "leave one out": (
        own.leave_one_out,
        lambda i, t, r, g: r[i].sum() - mean_of(others(i, g), lambda j: r[j].sum()),
    ),
    "leave one out to go": (
        own.leave_one_out_to_go,
        lambda i, t, r, g: r[i, t:].sum() - mean_of(others(i, g), lambda j: r[j, t:].sum()),
    ),
    "mean baseline": (
        own.mean_baseline,
        lambda i, t, r, g: r[i].sum() - mean_of(others(i, g, True), lambda j: r[j].sum()),
    ),
    "population std": (standardised(), standard(True, 0.0)),
    "sample std": (standardised(population=False), standard(False, 0.0)),
    "std and eps": (standardised(eps=0.3), standard(True, 0.3)),
    "sample std and eps": (standardised(False, 0.3), standard(False, 0.3)),
}
VALUES = np.random.default_rng(7).normal(size=(len(GROUP), T))
ALL = {name: f for name, (f, _) in LOOPS.items()} | {"gae": gae(torch.as_tensor(VALUES), 0.5)}
SPREAD = [name for name in LOOPS if "to go" not in name]


@pytest.mark.parametrize("name", LOOPS)
def test_an_advantage_is_that_of_a_plain_loop(name):
    rewards, mask, group = case()
    advantages, (_, entry) = LOOPS[name][0](*tensors(rewards, mask, group)), LOOPS[name]
    loop = np.array([[entry(i, t, rewards, group) if mask[i, t] else 0.0 for t in range(T)] for i in range(len(group))])
    close(advantages, torch.as_tensor(loop), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_rows_in_another_order_have_the_same_advantages(name):
    rewards, mask, group = tensors(*case())
    order = torch.tensor([3, 8, 0, 5, 1, 7, 2, 6, 4])
    given = gae(torch.as_tensor(VALUES)[order], 0.5) if name == "gae" else ALL[name]
    close(given(rewards[order], mask[order], group[order]), ALL[name](rewards, mask, group)[order])


@pytest.mark.parametrize("name", ALL)
def test_advantages_are_zero_after_the_end_and_finite(name):
    rewards, mask, group = tensors(*case())
    advantages = ALL[name](rewards, mask, group)
    assert advantages.shape == rewards.shape
    assert bool((advantages[~mask] == 0).all())
    assert bool(advantages.isfinite().all())
    assert bool((advantages[mask] != 0).all())


@pytest.mark.parametrize("name", SPREAD)
def test_an_advantage_of_the_whole_return_is_one_number_a_row(name):
    rewards, mask, group = tensors(*case())
    advantages = ALL[name](rewards, mask, group)
    close(advantages, advantages[:, :1] * mask)


def textbook_gae(rewards, mask, values, gamma, lam):
    """`A_k = sum_l (gamma lam)^l delta_{k+l}`, `delta_k = r_k + gamma V_{k+1} - V_k`, in undiscounted units."""
    out = np.zeros_like(rewards)
    for i in range(len(rewards)):
        n = int(mask[i].sum())
        V = [*values[i, :n], 0.0]
        delta = [rewards[i, k] + gamma * V[k + 1] - V[k] for k in range(n)]
        for k in range(n):
            out[i, k] = sum((gamma * lam) ** (j - k) * delta[j] for j in range(k, n))
    return out


@pytest.mark.parametrize("gamma", [0.7, 1.0])
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_gae_is_the_textbook_recursion_times_the_discount_of_the_step(gamma, lam):
    rewards, mask, group = case()
    discount = gamma ** np.arange(T)
    advantages = gae(torch.as_tensor(VALUES * discount), lam)(*tensors(rewards * discount, mask, group))
    textbook = textbook_gae(rewards, mask, VALUES, gamma, lam) * discount
    close(advantages, torch.as_tensor(textbook), rtol=1e-12, atol=1e-12)


def test_gae_reads_no_value_after_the_end_of_a_row():
    rewards, mask, group = tensors(*case())
    other = torch.where(mask, torch.as_tensor(VALUES), 1e3)
    close(gae(other, 0.9)(rewards, mask, group), gae(torch.as_tensor(VALUES), 0.9)(rewards, mask, group))


def coin_updates(lam, values, rows=40_000):
    """Two tosses a row, log-odds 0.4 each, dense rewards: per-row score updates and the exact slope of the mean return.

    `R = 2 c_0 + 3 c_0 c_1`, so with p = P(c = 1) the mean is `2 p + 3 p^2` and its slope `(2 + 6 p) p (1 - p)`.
    """
    p = 1 / (1 + math.exp(-0.4))
    c = np.random.default_rng(11).random((rows, 2)) < p
    rewards = np.stack([2.0 * c[:, 0], 3.0 * c[:, 0] * c[:, 1]], 1)
    V = np.stack([np.full(rows, values[0]), np.where(c[:, 0], values[1], values[2])], 1)
    given = tensors(rewards, np.ones_like(c), np.zeros(rows, dtype=np.int64))
    A = gae(torch.as_tensor(V), lam)(*given).numpy()
    return (A * (c - p)).sum(1), (2 + 6 * p) * p * (1 - p)


def test_gae_with_lam_one_has_the_true_mean_with_any_values_and_with_lam_zero_only_the_exact_ones():
    p = 1 / (1 + math.exp(-0.4))
    exact, wrong = (2 * p + 3 * p * p, 3 * p, 0.0), (5.0, -2.0, 1.0)
    for lam, values in [(1.0, wrong), (1.0, exact), (0.0, exact), (0.5, exact)]:
        assert_mean_within(*coin_updates(lam, values))
    assert differs_by(*coin_updates(0.0, wrong)), "the control: a biased critic biases the update"


EQUAL = [name for name in LOOPS if name not in ("full return", "reward to go", "batch baseline")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [name for name in EQUAL if "std" in name])
def test_equal_rewards_divided_by_their_std_are_exactly_zero(name, dtype):
    for size in (2, 3, 6, 7, 11, 64):
        for value in (0.0, 0.1, 1 / 3, 0.7, 1e6 + 0.1, -1e6 - 0.1, 1e-30):
            given = torch.full((size, 1), value, dtype=dtype)
            advantages = ALL[name](
                given, torch.ones_like(given, dtype=torch.bool), torch.zeros(size, dtype=torch.int64)
            )
            assert bool((advantages == 0).all()), (size, value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [name for name in EQUAL if "std" not in name])
def test_equal_rewards_give_no_more_than_their_rounding(name, dtype):
    eps = torch.finfo(dtype).eps
    for size in (2, 3, 7, 11):
        for value in (0.1, 0.7, 1e6 + 0.1):
            given = torch.full((size, 1), value, dtype=dtype)
            advantages = ALL[name](
                given, torch.ones_like(given, dtype=torch.bool), torch.zeros(size, dtype=torch.int64)
            )
            assert float(advantages.abs().max()) <= 8 * eps * value, (size, value)


def test_rewards_that_differ_by_little_are_standardised_all_the_same():
    for base, step in [(0.0, 1e-9), (1.0, 1e-9), (1e6, 1e-4)]:
        rewards = torch.tensor([[base], [base + step]], dtype=torch.float64)
        advantages = standardised()(rewards, torch.ones(2, 1, dtype=torch.bool), torch.zeros(2, dtype=torch.int64))
        close(advantages, torch.tensor([[-1.0], [1.0]], dtype=torch.float64), rtol=1e-5, atol=0)


def test_the_scale_of_the_rewards_leaves_a_standardised_advantage_unchanged():
    rewards, mask, group = tensors(*case())
    close(standardised()(1e-8 * rewards, mask, group), standardised()(rewards, mask, group))
    assert not torch.allclose(standardised(eps=0.1)(1e-2 * rewards, mask, group), standardised()(rewards, mask, group))


def test_a_group_mean_is_that_of_numpy_for_tables_of_any_rank():
    rng = np.random.default_rng(3)
    for shape in [(9,), (9, 2), (9, 2, 3)]:
        x = rng.normal(size=shape)
        loop = np.stack([x[GROUP[i] == GROUP].mean(0) for i in range(9)])
        close(group_mean(*tensors(x, GROUP)), torch.as_tensor(loop))


@pytest.mark.parametrize("name", ALL)
def test_what_is_no_batch_is_refused(name):
    rewards, mask, group = tensors(*case())
    bad = rewards.clone()
    for value in (math.nan, math.inf):
        bad[0, 1] = value
        with refused("rewards"):
            ALL[name](bad, mask, group)
    with refused("mask must"):
        ALL[name](0 * rewards, mask & (torch.arange(9) > 0)[:, None], group)
    with refused("group 1"):
        ALL[name](rewards, mask, group + (group > 0))


@pytest.mark.parametrize("name", ALL)
def test_shapes_that_disagree_are_refused(name, unchecked):
    rewards, mask, group = tensors(*case())
    for given in [(rewards, mask[:, 1:], group), (rewards, mask[1:], group), (rewards, mask, group[1:])]:
        with refused("mask"):
            ALL[name](*given)


@pytest.mark.parametrize("name", [name for name in EQUAL if name != "mean baseline"])
def test_a_group_of_one_is_refused_where_two_are_needed(name):
    rewards, mask, _ = tensors(*case())
    with refused("group 3 has"):
        ALL[name](rewards, mask, torch.tensor([2, 0, 1, 1, 2, 0, 1, 3, 2]))


def test_a_group_of_one_serves_where_no_other_row_is_needed():
    rewards, mask, _ = tensors(*case())
    alone = torch.arange(9)
    close(own.full_return(rewards, mask, alone), rewards.sum(1, keepdim=True) * mask)
    assert bool((own.mean_baseline(rewards, mask, alone) == 0).all())
    own.batch_baseline(rewards, mask, alone)  # its baseline is over the batch
    with refused("group 0 has"):
        own.batch_baseline(rewards[:1], mask[:1], alone[:1])


@pytest.mark.parametrize("bad", [-0.1, math.nan])
def test_options_outside_their_range_are_refused(bad):
    with refused("eps"):
        standardised(eps=bad)
    with refused("lam"):
        gae(torch.zeros(1, 1), bad)
    with refused("lam"):
        gae(torch.zeros(1, 1), 1.1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("G", [2, 231, 1000, 4096, 65536])
@pytest.mark.parametrize("reward", [0.1, 1 / 3, 0.729, -3.3, 1e6 + 0.1])
def test_equal_rewards_of_any_number_of_rows_give_exactly_zero(reward, G, dtype):
    rewards = torch.full((G, 1), reward, dtype=dtype)
    for function in (standardised(), mean_baseline, leave_one_out):
        assert not function(rewards, rewards == rewards, torch.zeros(G, dtype=torch.int64)).any()


def test_returns_that_differ_by_the_rounding_of_their_sums_are_equal():
    rewards = torch.tensor([[0.1, 0.2, -0.3], [-0.3, 0.2, 0.1]], dtype=torch.float64)
    assert rewards.sum(1)[0] != rewards.sum(1)[1]
    assert not standardised()(rewards, rewards != 0, torch.zeros(2, dtype=torch.int64)).any()


def test_division_by_the_mean_is_that_of_a_loop_and_nothing_where_nobody_is_paid():
    dense, mask, group = case()
    paid = np.abs(dense)
    paid[np.flatnonzero(group == 0)] = 0.0
    found = mean_normalised(*tensors(paid, mask, group)).numpy()
    for i, t in np.ndindex(found.shape):
        R = paid.sum(1)
        m = R[others(i, group, itself=True)].mean()
        assert found[i, t] == pytest.approx((R[i] / m - 1) * mask[i, t] if m > 0 else 0.0, abs=1e-12)
    assert not np.allclose(found, standardised()(*tensors(paid, mask, group)).numpy()), "the control: another division"
    below = np.array([[-2.0], [1.0], [3.0], [1.0]])  # a group of mean -1/2, and one of mean 2
    found = mean_normalised(*tensors(below, below < 9, np.array([0, 0, 1, 1])))
    assert found[:, 0].tolist() == [0, 0, 0.5, -0.5]
    with refused("group"):
        mean_normalised(*tensors(paid, mask, np.arange(len(group))))
