"""Surrogates, normalisers and KL estimators: slopes, where the clip acts, papers' formulas, exact means."""

import math

import numpy as np
import pytest
import torch

from agents.recipes.surrogates import (
    KL_ESTIMATORS,
    clipped,
    group_token_mean,
    importance,
    k1,
    k2,
    k3,
    off_policy_mask,
    row_mean,
    row_sum,
    score,
    sequence_clipped,
    token_mean,
    truncated_importance,
)
from tests.agents.cases import draws
from tests.envs.refusals import refused
from tests.oracles import numerical_gradient

close = torch.testing.assert_close
LENGTHS = [3, 1, 2, 4, 2]
MASK = torch.tensor([[t < n for t in range(4)] for n in LENGTHS])
GROUP = torch.tensor([1, 0, 1, 1, 0])
ROW = torch.tensor([0.7, 0.3, -0.6, 0.2, -0.5], dtype=torch.float64)  # one advantage a row, of both signs
ADVANTAGES = ROW[:, None] * MASK
OLD = -draws(5, 4, seed=2).abs() - 0.1
BY_TOKEN = {
    "score": score,
    "importance": importance,
    "clipped": clipped(0.2, 0.3),
    "truncated importance": truncated_importance(0.3),
}


def slope(surrogate, log_probs, old=OLD, advantages=ADVANTAGES):
    """Slope of the sum of all terms, by autograd."""
    log_probs = log_probs.clone().requires_grad_()
    return torch.autograd.grad(surrogate(log_probs, old, advantages, MASK).sum(), log_probs)[0]


def differences(surrogate, log_probs):
    """The same by central differences; a weight that is a constant is held by hand."""
    f = lambda x: surrogate(torch.as_tensor(x), OLD, ADVANTAGES, MASK).sum()  # noqa: E731
    return torch.as_tensor(numerical_gradient(f, log_probs.numpy(), 1e-6))


@pytest.mark.parametrize("name", BY_TOKEN)
def test_where_nothing_has_changed_the_slope_is_the_advantage(name):
    close(slope(BY_TOKEN[name], OLD), ADVANTAGES)
    if name != "truncated importance":  # its weight moves with log_probs, and no gradient is to be seen of that
        close(differences(BY_TOKEN[name], OLD), ADVANTAGES, rtol=1e-7, atol=1e-8)


def test_gspo_shares_the_advantage_out_over_the_row():
    """One term's slope is A / |o|; the |o| terms of a row together give A at each of its steps."""
    surrogate = sequence_clipped(0.1, 0.1)
    close(slope(lambda *given: surrogate(*given) * MASK, OLD), ADVANTAGES)
    close(differences(surrogate, OLD), slope(surrogate, OLD), rtol=1e-7, atol=1e-8)
    for row, length in enumerate(LENGTHS):
        term = lambda x, row=row: surrogate(torch.as_tensor(x), OLD, ADVANTAGES, MASK)[row, 0]  # noqa: E731
        one = torch.as_tensor(numerical_gradient(term, OLD.numpy(), 1e-6))
        close(one[row], ROW[row] / length * MASK[row], rtol=1e-7, atol=1e-8)
        assert float(one.abs().sum() - one[row].abs().sum()) == 0, "no row's term depends on another row"


def ratios(values):
    """log_probs with the given ratios to OLD, row by row."""
    return OLD + torch.tensor(values, dtype=torch.float64).log()[:, None]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_clip_silences_tokens_outside_its_range_on_the_advantages_own_side_only(sign):
    surrogate, values = clipped(0.2, 0.5), [0.5, 0.79, 0.81, 1.49, 1.51]
    A = sign * torch.ones(5, 4, dtype=torch.float64)
    slopes = slope(surrogate, ratios(values), advantages=A)[:, 0]
    alive = [v < 1.5 if sign > 0 else v > 0.8 for v in values]
    close(slopes, torch.tensor([sign * v * a for v, a in zip(values, alive, strict=True)], dtype=torch.float64))
    value = surrogate(ratios(values), OLD, A, MASK)[:, 0]
    paper = [min(v * sign, min(max(v, 0.8), 1.5) * sign) for v in values]
    close(value, torch.tensor(paper, dtype=torch.float64))


def test_ppos_value_is_that_of_its_formula_with_ratios_all_over():
    log_probs = OLD + 0.4 * draws(5, 4, seed=4)
    terms = clipped(0.2, 0.28)(log_probs, OLD, ADVANTAGES, MASK)
    for i, t in np.ndindex(5, 4):
        rho, A = math.exp(float(log_probs[i, t] - OLD[i, t])), float(ADVANTAGES[i, t])
        assert float(terms[i, t]) == pytest.approx(min(rho * A, float(np.clip(rho, 0.8, 1.28)) * A), abs=1e-14)
    assert float((terms - importance(log_probs, OLD, ADVANTAGES, MASK)).abs().max()) > 1e-2, "the control: it clips"


def test_importance_and_score_are_their_formulas_off_the_policy():
    log_probs = OLD + 0.4 * draws(5, 4, seed=4)
    for i, t in np.ndindex(5, 4):
        A, new, old = (float(x[i, t]) for x in (ADVANTAGES, log_probs, OLD))
        assert float(importance(log_probs, OLD, ADVANTAGES, MASK)[i, t]) == pytest.approx(
            A * math.exp(new) / math.exp(old)
        )
        assert float(score(log_probs, OLD, ADVANTAGES, MASK)[i, t]) == pytest.approx(A * new)


def gspo_of_the_paper(log_probs, old, A, low, high):
    """arXiv:2507.18071, eq. 5 and 7 for one group: mean over rows of min(s A, clip(s) A), s = (pi / pi_old)^(1/|o|)."""
    total = 0.0
    for i, n in enumerate(LENGTHS):
        new, before = np.prod(np.exp(log_probs[i, :n])), np.prod(np.exp(old[i, :n]))
        s = (new / before) ** (1 / n)
        total += min(s * A[i], float(np.clip(s, 1 - low, 1 + high)) * A[i])
    return total / len(LENGTHS)


@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_gspo_with_the_row_mean_is_its_papers_formula_and_so_is_its_slope(spread):
    low, high = 0.03, 0.05
    moved = torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0], dtype=torch.float64)[:, None] + 0.3 * draws(5, 4, seed=5)
    log_probs = OLD + spread * moved
    weights = row_mean(MASK, torch.zeros(5, dtype=torch.int64))
    whole = lambda lp, old, A, mask: sequence_clipped(low, high)(lp, old, A, mask) * mask * weights  # noqa: E731
    paper = lambda x: gspo_of_the_paper(x, OLD.numpy(), ROW.numpy(), low, high)  # noqa: E731
    assert float(whole(log_probs, OLD, ADVANTAGES, MASK).sum()) == pytest.approx(paper(log_probs.numpy()), rel=1e-12)
    by_paper = torch.as_tensor(numerical_gradient(paper, log_probs.numpy(), 1e-6))
    close(slope(whole, log_probs), by_paper, rtol=1e-6, atol=1e-9)
    assert (by_paper.abs() < 1e-8).all(1).tolist() == [True, False, True, True, False], "which rows the clip silences"


@pytest.mark.parametrize("high", [0.0, 0.28])
def test_cispos_weight_is_truncated_from_above_and_carries_no_gradient(high):
    values = [0.3, 0.9, 1.0, 1.2, 3.0]
    slopes = slope(truncated_importance(high), ratios(values))
    weights = torch.tensor([min(v, 1 + high) for v in values], dtype=torch.float64)
    close(slopes, weights[:, None] * ADVANTAGES)
    assert bool((slopes[MASK] != 0).all()), "no token is silenced"
    terms = truncated_importance(high)(ratios(values), OLD, ADVANTAGES, MASK)
    close(terms, weights[:, None] * ADVANTAGES * ratios(values))


@pytest.mark.parametrize("bad", [-0.1, math.nan])
def test_a_clip_below_zero_is_refused(bad):
    for build in (clipped, sequence_clipped):
        with refused("low"):
            build(low=bad)
        with refused("high"):
            build(high=bad)
    with refused("high"):
        truncated_importance(bad)


def weights_by_loop(share):
    """`share(row's length, its group's rows, its group's tokens, groups, all tokens)` at every step of the mask."""
    weights = torch.zeros(5, 4, dtype=torch.float64)
    for i, n in enumerate(LENGTHS):
        together = [j for j in range(5) if GROUP[j] == GROUP[i]]
        weights[i, :n] = share(n, len(together), sum(LENGTHS[j] for j in together), 2, sum(LENGTHS))
    return weights


@pytest.mark.parametrize(
    ("normalise", "share"),
    [
        (row_sum, lambda n, rows, tokens, groups, whole: 1 / (rows * groups)),
        (row_mean, lambda n, rows, tokens, groups, whole: 1 / (n * rows * groups)),
        (group_token_mean, lambda n, rows, tokens, groups, whole: 1 / (tokens * groups)),
        (token_mean, lambda n, rows, tokens, groups, whole: 1 / whole),
    ],
)
def test_a_normaliser_is_that_of_a_loop(normalise, share):
    close(normalise(MASK, GROUP).double(), weights_by_loop(share))


def test_every_group_counts_alike_but_in_the_token_mean():
    per_group = lambda normalise: [float(normalise(MASK, GROUP)[g == GROUP].sum()) for g in (0, 1)]  # noqa: E731
    assert per_group(row_mean) == pytest.approx([0.5, 0.5])
    assert per_group(group_token_mean) == pytest.approx([0.5, 0.5])
    assert per_group(token_mean) == pytest.approx([3 / 12, 9 / 12])
    assert per_group(row_sum) == pytest.approx([3 / 4, 9 / 6]), "its tokens, each a row's share"
    alone = torch.zeros_like(GROUP)
    close(token_mean(MASK, alone).double(), group_token_mean(MASK, alone).double())


LOGITS, REFERENCE = np.array([0.3, -1.0, 0.8, 0.1, -0.4]), np.array([-0.5, 0.2, 0.4, -0.9, 1.0])


def softmax(z):
    return np.exp(z) / np.exp(z).sum()


def kl(p, q):
    return float((p * np.log(p / q)).sum())


def mean_estimate(estimator, logits, drawn):
    """`E_{a ~ drawn} k(log pi(a) - log pi_ref(a))`."""
    ratio = np.log(softmax(logits)) - np.log(softmax(REFERENCE))
    return float(drawn @ estimator(torch.as_tensor(ratio)[None])[0].numpy())


def test_k1_and_k3_estimate_the_kl_without_bias_and_k2_does_not():
    pi, ref = softmax(LOGITS), softmax(REFERENCE)
    estimates = {name: mean_estimate(k, LOGITS, pi) for name, k in KL_ESTIMATORS.items()}
    assert estimates["k1"] == pytest.approx(kl(pi, ref), rel=1e-12)
    assert estimates["k3"] == pytest.approx(kl(pi, ref), rel=1e-12)
    half_square = sum(p * math.log(p / q) ** 2 / 2 for p, q in zip(pi, ref, strict=True))
    assert estimates["k2"] == pytest.approx(half_square, rel=1e-12)
    assert abs(estimates["k2"] - kl(pi, ref)) > 0.02 * kl(pi, ref)


@pytest.mark.parametrize(
    ("estimator", "divergence"),
    [(k1, lambda p, q: 0.0), (k2, lambda p, q: kl(p, q)), (k3, lambda p, q: kl(q, p))],
)
def test_as_a_loss_an_estimators_mean_slope_is_that_of_no_divergence_the_reverse_or_the_forward_one(
    estimator, divergence
):
    """Samples are drawn first, so their probabilities stand still under the slope."""
    still = softmax(LOGITS)
    mean_slope = numerical_gradient(lambda z: mean_estimate(estimator, z, still), LOGITS)
    truth = numerical_gradient(lambda z: divergence(softmax(z), softmax(REFERENCE)), LOGITS)
    np.testing.assert_allclose(mean_slope, truth, rtol=1e-6, atol=1e-9)
    other = {k1: kl(still, softmax(REFERENCE))}.get(estimator, 0.0)
    assert other > 0.1 or np.abs(mean_slope).max() > 0.1, "the slopes compared are not all 0"


def test_k3_is_never_negative_keeps_its_digits_near_zero_and_k1_is_of_either_sign():
    ratio = torch.tensor([[-2.0, -1e-6, 0.0, 1e-6, 2.0]], dtype=torch.float64)
    estimates = k3(ratio)[0]
    assert bool((estimates >= 0).all())
    assert float(estimates[1]) == pytest.approx(5e-13, rel=1e-3)
    assert float(estimates[4]) == pytest.approx(math.exp(-2) - 1 + 2, rel=1e-12)
    assert k1(ratio)[0].sign().tolist() == [-1, -1, 0, 1, 1]


def test_the_off_policy_mask_drops_what_a_loop_over_rows_and_steps_drops():
    log_probs = OLD + 0.3 * draws(5, 4, seed=7)
    log_probs[~MASK] = torch.nan  # padding
    mixed = torch.where(torch.arange(4) == 1, -ADVANTAGES, ADVANTAGES)  # of both signs within a row
    seen, by_sum = set(), 0
    for delta in (0.01, 0.02, 0.05, 0.1, 0.2, 0.3):
        kept = off_policy_mask(delta)(log_probs, OLD, mixed, MASK)
        for i, n in enumerate(LENGTHS):
            away = sum(float(OLD[i, t] - log_probs[i, t]) for t in range(n)) / n
            for t in range(n):
                dropped = float(mixed[i, t]) < 0 and away > delta
                assert bool(kept[i, t]) == (not dropped)
                seen.add((dropped, float(mixed[i, t]) < 0, away > delta))
                by_sum += dropped != (float(mixed[i, t]) < 0 and n * away > delta)
    assert seen == {(True, True, True), (False, True, False), (False, False, True), (False, False, False)}
    assert by_sum, "the control: a sum over the row in the place of its mean drops others"
    assert bool(off_policy_mask(math.inf)(log_probs, OLD, mixed, MASK).all())
    assert bool(off_policy_mask(1e-9)(OLD, OLD, mixed, MASK).all()), "fresh rows"


@pytest.mark.parametrize("delta", [0.0, -0.1, math.nan])
def test_a_limit_of_the_mask_that_is_not_positive_is_refused(delta):
    with refused("off_policy_delta"):
        off_policy_mask(delta)
