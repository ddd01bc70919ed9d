"""Value gradients by forward mode against the score costates, which a backward pass gives."""

import torch

from figures.measures.token_systems import build_policy, build_world
from theory.tokens.costates import expected_costates
from theory.tokens.forward_mode import forward_gradients


def test_forward_gradients_are_the_score_costates():
    world = build_world("arithmetic (3,2)")
    policy = build_policy(world, 3)
    scores = expected_costates(world, policy, "score", "layer2")
    for gradient, score in zip(forward_gradients(world, policy, "layer2"), scores, strict=True):
        assert torch.allclose(gradient, score[:, -1], atol=1e-13)
