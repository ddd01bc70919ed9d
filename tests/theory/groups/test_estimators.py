"""The catalogue of estimators against all ordered draws, loops over the published formulas, draws in standard errors."""

import itertools
import math

import numpy as np
import pytest
import torch

from envs.world import InputError
from tests.envs.refusals import refused
from tests.typecheck import unchecked
from theory.groups.estimators import ESTIMATORS, moments, pair_second_moments
from theory.groups.variance import hoeffding

close = torch.testing.assert_close


def softmax_case(seed, count=5, spread=1.5, parameters=None):
    """A softmax over outcomes: p, f and the scores in its logits, or in parameters that these are linear in."""
    rng = np.random.default_rng(seed)
    z = spread * rng.standard_normal(count)
    p = np.exp(z - z.max())
    p /= p.sum()
    s = np.eye(count) - p
    if parameters is not None:
        s = s @ rng.standard_normal((count, parameters))
    return p, rng.standard_normal(count) + 1.0, s


def ratio(p, S, first, out=()):
    """Kool's `R^{D without out}(S, first) = P(S without first | first drawn, from D without out) / P(S | from D without out)`.

    The chance of an unordered set is the sum over the orders in which it can be drawn without replacement.
    """

    def chance(some, taken):
        total, left = 0.0, 1 - sum(p[i] for i in taken)
        if not some:
            return 1.0
        for order in itertools.permutations(some):
            rest, product = left, 1.0
            for i in order:
                product *= p[i] / rest
                rest -= p[i]
            total += product
        return total

    own = [i for i in S if i != first and i not in out]
    return chance(own, (*out, first)) / chance([i for i in S if i not in out], out)


def kool(p, f, s, S, baseline):
    """Unordered set estimator of arXiv:2002.06043: sum over S of `p R(S, a) (f_a - B_a) s_a`, `R^{D-a}(S, a) = 1` in B."""
    total = np.zeros(s.shape[1])
    for a in S:
        B = sum(p[i] * (1.0 if i == a else ratio(p, S, i, (a,))) * f[i] for i in S) if baseline else 0.0
        total += p[a] * ratio(p, S, a) * (f[a] - B) * s[a]
    return total


def by_ordered_draws(name, p, f, s):
    """All ordered pairs with their chance and what the estimator gives there, one by one."""
    c, V, both = int(p.argmax()), float(p @ f), range(len(p))
    for a, b in itertools.product(both, both):
        if name in ("REINFORCE", "value baseline"):
            shift = V if name == "value baseline" else 0.0
            yield p[a] * p[b], ((f[a] - shift) * s[a] + (f[b] - shift) * s[b]) / 2
        elif name == "RLOO":
            yield p[a] * p[b], ((f[a] - f[b]) * s[a] + (f[b] - f[a]) * s[b]) / 2
        elif name.startswith("unordered set") and a != b:
            yield p[a] * p[b] / (1 - p[a]), kool(p, f, s, (a, b), name.endswith("baseline"))
        elif name.startswith("sum and sample") and a == c and b != c:
            shift = f[c] if name.endswith("baseline") else 0.0
            yield p[b] / (1 - p[c]), p[c] * (f[c] - shift) * s[c] + (1 - p[c]) * (f[b] - shift) * s[b]


def by_loops(name, p, f, s):
    """Mean and variance over the ordered draws."""
    chances, gradients = map(np.array, zip(*by_ordered_draws(name, p, f, s), strict=True))
    mean = chances @ gradients
    return chances.sum(), mean, float(chances @ ((gradients - mean) ** 2).sum(1))


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("case", [(0, 5, 1.5), (1, 7, 0.0), (2, 3, 4.0), (3, 2, 1.0), (4, 6, 1.5, 3)])
def test_moments_are_those_of_all_ordered_draws_and_the_mean_is_the_gradient(name, case):
    p, f, s = softmax_case(*case)
    chances, gradients = ESTIMATORS[name](p, f, s)
    mean, variance = moments(chances, gradients)
    total, by_hand, its_variance = by_loops(name, p, f, s)
    assert total == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(mean, by_hand, rtol=0, atol=1e-13)
    assert variance == pytest.approx(its_variance, rel=1e-10)
    np.testing.assert_allclose(mean, (p * f) @ s, rtol=0, atol=1e-13)
    assert float(chances.sum()) == pytest.approx(1.0, abs=1e-12)
    wrong = moments(chances, 1.01 * gradients).mean
    assert np.abs(wrong.numpy() - (p * f) @ s).max() > 1e-3 * np.abs((p * f) @ s).max(), (
        "the control: a mean that is one percent off"
    )


def test_the_gradient_is_the_slope_of_the_expectation():
    p, f, s = softmax_case(5)
    z, step = np.log(p), 1e-5

    def expectation(shift):
        q = np.exp(z + shift)
        return float(q @ f / q.sum())

    slopes = [(expectation(step * e) - expectation(-step * e)) / (2 * step) for e in np.eye(len(p))]
    for name, estimator in ESTIMATORS.items():
        np.testing.assert_allclose(moments(*estimator(p, f, s)).mean, slopes, atol=1e-9, err_msg=name)


def test_the_set_never_varies_more_than_rloo_and_both_closed_forms_hold():
    ratios = []
    for seed in range(300):
        rng = np.random.default_rng(1000 + seed)
        case = softmax_case(seed, int(rng.integers(2, 8)), float(rng.choice([0.0, 1.0, 3.0, 6.0])), 4)
        rloo, pair = (moments(*ESTIMATORS[name](*case)).variance for name in ("RLOO", "unordered set, baseline"))
        size = float((case[0] * case[1]) @ case[2] @ ((case[0] * case[1]) @ case[2]))
        exact = pair_second_moments(*map(torch.as_tensor, case))
        assert (rloo + size, pair + size) == pytest.approx(exact, rel=1e-9)
        assert rloo == pytest.approx(sum(hoeffding(*map(torch.as_tensor, case), 2)), rel=1e-9, abs=1e-12)
        ratios.append(pair / rloo)
    assert max(ratios) < 1
    assert min(ratios) < 1e-3
    plain = [
        moments(*ESTIMATORS["unordered set"](*softmax_case(s))).variance
        / moments(*ESTIMATORS["RLOO"](*softmax_case(s))).variance
        for s in range(40)
    ]
    assert max(plain) > 1.5, "the control: without the baseline there is no such bound"


def test_drawn_pairs_have_these_moments_in_standard_errors():
    """The two largest of log p plus Gumbel noise are a pair without replacement."""
    (p, f, s), count = softmax_case(7), 200_000
    rng = np.random.default_rng(0)
    order = np.argsort(-(np.log(p) + rng.gumbel(size=(count, len(p)))), axis=1)[:, :2]
    every = {(a, b): kool(p, f, s, (a, b), True) for a, b in itertools.permutations(range(len(p)), 2)}
    drawn = np.array([every[tuple(pair)] for pair in order.tolist()])
    mean, variance = moments(*ESTIMATORS["unordered set, baseline"](p, f, s))
    gaps = np.abs(drawn.mean(0) - mean.numpy()) * math.sqrt(count) / drawn.std(0)
    assert gaps.max() < 4.5
    squares = ((drawn - mean.numpy()) ** 2).sum(1)
    error = squares.std() / math.sqrt(count)
    assert abs(squares.mean() - variance) < 4.5 * error
    other = moments(*ESTIMATORS["RLOO"](p, f, s)).variance
    assert abs(squares.mean() - other) > 20 * error, "the control: RLOO's variance"


def test_the_set_is_the_average_of_what_its_draws_would_give_in_either_order():
    """Rao and Blackwell: given the pair, `p_a f_a s_a + (1 - p_a) f_b s_b` over the two orders."""
    p, f, s = softmax_case(8)
    for a, b in itertools.combinations(range(len(p)), 2):
        orders = {(i, j): p[i] * p[j] / (1 - p[i]) for i, j in ((a, b), (b, a))}
        mean = sum(x * (p[i] * f[i] * s[i] + (1 - p[i]) * f[j] * s[j]) for (i, j), x in orders.items())
        np.testing.assert_allclose(kool(p, f, s, (a, b), False), mean / sum(orders.values()), atol=1e-13)


def test_one_outcome_impossible_outcomes_and_a_dominant_one():
    for name, estimator in ESTIMATORS.items():
        mean, variance = moments(*estimator([1.0], [2.0], [[0.0, 0.0]]))
        assert (mean.tolist(), variance) == ([0.0, 0.0], 0.0), name
        p, f, s = softmax_case(9, 4)
        more = np.append(p, 0.0), np.append(f, 99.0), np.vstack([s, np.full(4, 99.0)])
        close(moments(*estimator(*more)).mean, moments(*estimator(p, f, s)).mean)
    small = 1e-18  # 1 - p is 0 for the other outcome
    p = torch.tensor([small, 3 * small, 1.0]).double()
    s, f = torch.eye(3).double() - p, [1.0, 2.0, 0.0]
    exact = p @ (torch.tensor(f).double()[:, None] * s)
    for name in ("unordered set", "unordered set, baseline", "sum and sample", "sum and sample, baseline"):
        mean, variance = moments(*ESTIMATORS[name](p, f, s))
        close(mean, exact, rtol=1e-9, atol=1e-30)
        assert variance < 1e-30, name


def test_float32_input_is_judged_in_float64():
    case = [torch.tensor(x).float() for x in softmax_case(10)]
    for estimator in ESTIMATORS.values():
        mean, variance = moments(*estimator(*case))
        assert mean.dtype == torch.float64
        assert variance == pytest.approx(moments(*estimator(*(x.double() for x in case))).variance, rel=1e-6)


@unchecked()
def test_bad_input_is_refused_in_one_line():
    p, f, s = softmax_case(11)
    with refused("p"):
        ESTIMATORS["RLOO"](p * 1.1, f, s)
    with refused("p"):
        pair_second_moments(-p, f, s)
    with pytest.raises(InputError, match=r"^p, f and s must have one entry for each outcome"):
        ESTIMATORS["REINFORCE"](p, f[:-1], s)
    with pytest.raises(InputError, match=r"^p, f and s must"):
        ESTIMATORS["REINFORCE"](p, f, s[:, 0])
    with refused("f"):
        ESTIMATORS["REINFORCE"](p, ["a"] * len(p), s)
    with refused("chances"):
        moments([0.5, 0.6], [[1.0], [2.0]])
    with refused("gradients"):
        moments([0.5, 0.5], [1.0, 2.0])
    with refused("gradients"):
        moments([0.5, 0.5], [[1.0], [math.nan]])
