"""Answers by listing all groups of rewards of 0 and 1: the second road of several exercises."""

import itertools
import math

import numpy as np


def kappa_by_listing(p, G, advantage):
    """`Cov(A_1, R_1) / Var(R_1)` over all 2^G groups of rewards of 0 and 1."""
    total = 0.0
    for rewards in itertools.product((0.0, 1.0), repeat=G):
        R = np.array(rewards)
        total += math.prod(p if r else 1 - p for r in rewards) * (R[0] - p) * advantage(R)
    return total / (p * (1 - p))
