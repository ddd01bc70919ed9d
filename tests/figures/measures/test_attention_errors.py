"""Errors of the attention costates: named after what they are, one constant each, E1b left out where it is exact."""

import torch

from envs.token_tasks import garnet
from figures.measures.attention_errors import COSTATES, attention_errors, constant_of, smallest_constants
from figures.measures.token_systems import build_policy, build_world
from theory.tokens.costates import expected_costates


def test_every_error_is_that_of_the_costate_it_is_named_after():
    world = build_world("lock (2,3)")
    policy = build_policy(world, 1)
    for alpha, first in ((0.5, "E1"), (1.0, "E1 = 0")):
        splits = attention_errors(world, policy, alpha, "layer1")
        assert list(splits) == [first, "E1b", "hidden readout"]
        truth = expected_costates(world, policy, "total", "layer1", alpha)[0][:, -1]
        for name in (first, "E1b"):
            costate = expected_costates(world, policy, name.split()[0], "layer1", alpha)[0][:, -1]
            torch.testing.assert_close(splits[name].error, (truth - costate).norm(dim=-1))
        assert (
            bool((splits["E1 = 0"].error == splits["E1 = 0"].value_gradient.norm(dim=-1)).all()) if alpha == 1 else True
        )
        assert float(splits["hidden readout"].attention.norm()) > 0.01


def test_e1b_is_left_out_where_one_token_decides_and_nowhere_else():
    for horizon, kept in ((1, False), (2, True)):
        world = garnet(V=3, horizon=horizon, seed=3)
        assert ("E1b" in attention_errors(world, build_policy(world, 0), 1.0, "layer1")) == kept


def test_constants_are_the_largest_ratios_and_e1_has_one():
    def point(error, alone):
        return {"error": error, "alone": alone}

    points = [{"E1": point(1.0, 2.0), "E1b": point(3.0, 1.0)}, {"E1 = 0": point(4.0, 1.0)}, {"E1b": point(1.0, 1.0)}]
    assert smallest_constants(points) == {"E1": 4.0, "E1b": 3.0}
    assert [constant_of(name) for name in (*COSTATES, "E1 = 0")] == [*COSTATES, "E1"]
