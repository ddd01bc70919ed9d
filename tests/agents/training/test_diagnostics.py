"""What a step says of itself, counted token by token and group by group in plain loops."""

import pytest
import torch

from agents.training.copies import Copies
from agents.training.diagnostics import StepDiagnostics
from agents.training.token_task import TokenTask
from envs.token_tasks import sum_and_stop
from tests.agents.cases import draws
from tests.theory.token_cases import transformer

STOP = sum_and_stop(3, 3, gamma=0.9)
S, GROUPS, GROUP, PASSES = 2, 4, 3, 3
PARTS = (torch.tensor([6, 7, 8, 0, 1, 2]), torch.tensor([3, 4, 5, 9, 10, 11]))  # two minibatches of two groups each


@pytest.fixture
def rows():
    noise = [torch.Generator().manual_seed(seed) for seed in range(S)]
    networks = [transformer(STOP, seed=seed) for seed in range(S)]
    drawn = TokenTask(STOP).draw(Copies(networks), GROUPS, GROUP, noise)
    assert 0 < int(drawn.mask.sum()) < drawn.mask.numel()
    return drawn


def made_up_slopes(mask):
    """(passes, S, rows, T): some tokens lose their slope later, or have none at first; two groups never had a signal.

    Copy 1 has slopes of the size of rounding, which are its signal: each copy is its own measure.
    """
    slopes = draws(PASSES, *mask.shape, seed=1) * (draws(PASSES, *mask.shape, seed=2) > -0.5) * mask
    slopes[0, 0, 3:6], slopes[0, 1, 0:3] = 1e-15 * slopes[0, 0, 3:6], 0.0
    slopes[0, :, 7] = 0.0  # one row of a group that has a signal
    slopes[:, 1] *= 1e-14
    return slopes


def summary(rows, slopes, losses, log_probs):
    diagnostics = StepDiagnostics(rows)
    for made in range(PASSES):
        for i, part in enumerate(PARTS):
            diagnostics.add(part, losses[made, i], slopes[made][:, part], log_probs[made][:, part])
    return diagnostics.summary()


def test_every_number_of_a_step_is_a_count_by_loops(rows):
    slopes, losses = made_up_slopes(rows.mask), draws(PASSES, len(PARTS), S, seed=3)
    said = summary(rows, slopes, losses, rows.old + torch.zeros(PASSES, *rows.old.shape))
    for i in range(S):
        tokens = [(j, t) for j, t in rows.mask[i].nonzero().tolist()]
        by_pass = [slopes[:, i, j, t].tolist() for j, t in tokens]
        lost = [first != 0 and 0 in later for first, *later in by_pass]
        assert float(said["clipped"][i]) == pytest.approx(sum(lost) / len(tokens), rel=1e-12)
        assert 0 < sum(lost) < len(tokens)
        largest = float(slopes[0, i].abs().max())
        silent = [float(slopes[0, i, 3 * g : 3 * g + 3].abs().max()) <= 1e-12 * largest for g in range(GROUPS)]
        assert silent == [g == (1, 0)[i] for g in range(GROUPS)]
        assert float(said["silent"][i]) == pytest.approx(1 / GROUPS, rel=1e-12)
        assert float(said["loss"][i]) == pytest.approx(float(losses[..., i].sum()) / losses[..., i].numel(), rel=1e-12)
        paid = [sum(row) for row in rows.rewards[i].tolist()]
        assert float(said["sampled"][i]) == pytest.approx(sum(paid) / len(paid), rel=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_ratios_error_is_the_largest_of_the_first_minibatch_in_both_directions_and_where_the_policy_speaks(
    rows, sign
):
    """A ratio may be below 1 as well as above; what follows the end, and what later minibatches show, has no part in it."""
    off = sign * draws(*rows.old.shape, seed=5).abs() + 5.0 * ~rows.mask
    log_probs = rows.old + torch.stack([off, 9 + off, 9 + off])
    log_probs[0, :, PARTS[1]] += 9
    said = summary(rows, made_up_slopes(rows.mask), torch.zeros(PASSES, len(PARTS), S), log_probs)
    for i in range(S):
        first = [abs(float(off[i, j, t].exp()) - 1) for j in PARTS[0].tolist() for t in range(3) if rows.mask[i, j, t]]
        assert float(said["ratio_error"][i]) == pytest.approx(max(first), rel=1e-12)
        assert (max(first) > 1) == (sign > 0)


def test_the_gradient_that_is_kept_is_the_first(rows):
    diagnostics, given = StepDiagnostics(rows), [[draws(2, seed=seed)] for seed in range(3)]
    assert [diagnostics.keep_first(gradients) is gradients for gradients in given] == [True] * 3
    assert diagnostics.gradient is given[0]
