"""The softmax table: its probabilities by hand, its two knobs, its slope, what it refuses."""

import math

import numpy as np
import pytest
import torch

from agents.policies.tabular import TabularPolicy
from tests.agents.cases import draws
from tests.envs.refusals import refused

LOGITS = draws(2, 3)


def by_hand(logits, temperature=1.0, offset=(0.0, 0.0, 0.0)):
    out = np.empty(logits.shape)
    for index in np.ndindex(*logits.shape[:-1]):
        weights = [math.exp((float(z) + o) / temperature) for z, o in zip(logits[index], offset, strict=True)]
        out[index] = np.array(weights) / sum(weights)
    return torch.from_numpy(out)


@pytest.mark.parametrize("shape", [(2, 3), (4, 2, 3)])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (2.0, 0.0, -1.0)])
def test_probabilities_are_the_softmax_of_the_table(shape, temperature, offset):
    policy = TabularPolicy(draws(*shape), temperature, offset)
    torch.testing.assert_close(policy.probabilities().detach(), by_hand(draws(*shape), temperature, offset))


def test_an_offset_of_one_number_goes_to_token_0():
    lifted = TabularPolicy(LOGITS, offset=1.5).probabilities()
    assert torch.equal(lifted, TabularPolicy(LOGITS, offset=[1.5, 0.0, 0.0]).probabilities())
    assert (lifted[:, 0] > TabularPolicy(LOGITS).probabilities()[:, 0]).all()


def test_tables_of_python_numbers_will_do_and_are_copied():
    given = torch.zeros(2, 2, dtype=torch.float64)
    policy = TabularPolicy(given)
    given[0, 0] = 5.0
    assert (policy.probabilities() == 0.5).all()
    assert torch.equal(TabularPolicy([[0, 0], [0, 0]]).probabilities(), policy.probabilities())


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_its_slope_is_the_softmax_jacobian_over_the_temperature(temperature):
    policy = TabularPolicy(LOGITS, temperature, [0.5, 0.0, 0.0])
    p, q = policy.probabilities(), draws(2, 3, seed=4)
    (slope,) = torch.autograd.grad((p * q).sum(), list(policy.parameters()))
    p = p.detach()
    torch.testing.assert_close(slope, p * (q - (p * q).sum(-1, keepdim=True)) / temperature)


def test_the_knobs_are_no_parameters_but_travel_with_the_policy():
    policy = TabularPolicy(LOGITS, offset=[1.0, 0.0, 0.0])
    assert [name for name, _ in policy.named_parameters()] == ["logits"]
    assert policy.to(torch.float32).probabilities().dtype == torch.float32


@pytest.mark.parametrize("logits", [[0.0, 1.0], [[[[0.0]]]], [[0.0, float("nan")]], [[0.0, float("inf")]]])
def test_bad_tables_are_refused(logits):
    with refused("logits"):
        TabularPolicy(logits)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_temperatures_are_refused(temperature):
    with refused("temperature"):
        TabularPolicy(LOGITS, temperature)


@pytest.mark.parametrize("offset", [[1.0, 2.0], [[1.0], [2.0]], float("nan"), [0.0, float("inf"), 0.0], "high"])
def test_bad_offsets_are_refused(offset):
    with refused("offset"):
        TabularPolicy(LOGITS, offset=offset)
