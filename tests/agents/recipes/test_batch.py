"""Batches: what one is made of, its parts, and everything that is none, refused in one line."""

import math

import pytest
import torch

from agents.recipes.advantages import full_return, leave_one_out
from agents.recipes.batch import Batch, check_rows
from tests.envs.refusals import refused

LENGTHS = [3, 1, 2, 3, 2]
NOTHING_PAID = {"rewards": torch.zeros(5, 3)}


def mask_of(lengths, T=3):
    return torch.tensor([[t < n for t in range(T)] for n in lengths])


def fields(**changes):
    """Five rows of two groups, everything given."""
    mask = mask_of(LENGTHS)
    table = torch.arange(15.0, dtype=torch.float64).reshape(5, 3)
    given = {
        "rewards": table * mask,
        "mask": mask,
        "group": torch.tensor([0, 1, 0, 1, 1]),
        "old": -table - 1,
        "reference": -2 * table - 1,
        "values": table / 7,
        "ended": torch.tensor([False, True, True, False, True]),
    }
    return given | changes


def spoilt(name, row, step, value):
    """A field with one entry exchanged."""
    table = fields()[name].clone()
    table[row, step] = value
    return {name: table}


def test_a_batch_keeps_what_it_was_given_and_needs_no_more_than_rewards_mask_and_group():
    given = fields()
    for name, value in given.items():
        assert getattr(Batch(**given), name) is value
    plain = Batch(given["rewards"], given["mask"], given["group"])
    assert plain.old is plain.reference is plain.values is plain.ended is None


@pytest.mark.parametrize("index", [[4, 1], [2, 0], [3, 0, 4, 2]])
def test_some_rows_are_a_batch_of_their_own_with_groups_numbered_anew(index):
    given = fields()
    chosen = Batch(**given).rows(torch.tensor(index))
    for name in ("rewards", "mask", "old", "reference", "values", "ended"):
        for here, there in enumerate(index):
            assert torch.equal(getattr(chosen, name)[here], given[name][there])
    together = [[int(given["group"][i] == given["group"][j]) for j in index] for i in index]
    assert (chosen.group[:, None] == chosen.group).int().tolist() == together
    assert sorted(set(chosen.group.tolist())) == list(range(len(set(chosen.group.tolist()))))
    assert Batch(given["rewards"], given["mask"], given["group"]).rows(slice(1, 3)).old is None


def test_the_sizes_of_groups_are_counted():
    given = fields()
    assert check_rows(given["rewards"], given["mask"], given["group"]).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("rewards", spoilt("rewards", 0, 1, math.nan)),
        ("rewards", spoilt("rewards", 3, 0, -math.inf)),
        ("mask must", spoilt("mask", 0, 1, False) | NOTHING_PAID),  # a hole
        ("mask must", spoilt("mask", 1, 0, False) | NOTHING_PAID),  # an empty row
        ("mask disagrees", spoilt("rewards", 1, 2, 0.5)),  # paid after the end
        ("old", spoilt("old", 2, 1, math.nan)),
        ("old", spoilt("old", 2, 1, -math.inf)),
        ("reference", spoilt("reference", 0, 0, math.inf)),
        ("values", spoilt("values", 4, 0, math.nan)),
        ("rewards must", {"group": torch.tensor([-1, 0, -1, 0, 0])}),
        ("group 1", {"group": torch.tensor([0, 2, 0, 2, 2])}),
        ("group 0", {"group": torch.tensor([1, 2, 1, 2, 2])}),
    ],
)
def test_numbers_that_make_no_batch_are_refused(argument, changes):
    with refused(argument):
        Batch(**fields(**changes))


@pytest.mark.parametrize("shape", [(0, 3), (0, 0), (2, 0)])
def test_a_batch_without_a_row_or_a_step_is_refused(shape):
    rewards, group = torch.zeros(shape), torch.zeros(shape[0], dtype=torch.int64)
    for take in (Batch, check_rows, full_return, leave_one_out):
        with refused("rewards must"):
            take(rewards, rewards.bool(), group)


def test_what_stands_after_the_end_of_a_row_need_not_be_finite_in_the_policies_fields():
    for name in ("old", "reference", "values"):
        Batch(**fields(**spoilt(name, 1, 2, math.nan)))


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("mask", {"mask": mask_of(LENGTHS, 4)}),
        ("mask", {"mask": mask_of(LENGTHS[:4])}),
        ("mask", {"group": torch.tensor([0, 1, 0, 1])}),
        ("old", {"old": torch.zeros(5, 2)}),
        ("reference", {"reference": torch.zeros(4, 3)}),
        ("values", {"values": torch.zeros(5, 4)}),
        ("ended", {"ended": torch.tensor([True])}),
    ],
)
def test_shapes_that_disagree_are_refused(argument, changes, unchecked):
    with refused(argument):
        Batch(**fields(**changes))


def test_groups_smaller_than_an_advantage_needs_are_refused_with_their_number():
    given = fields(group=torch.tensor([0, 2, 0, 1, 2]))
    check_rows(given["rewards"], given["mask"], given["group"], least=1)
    with refused("group 1 has"):
        check_rows(given["rewards"], given["mask"], given["group"], least=2)
