"""Distributions to hold inequalities against: named ones, random ones, and any that hypothesis can think of."""

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

from tests.theory.cases import tensor

ROUNDING = 1e-12


def two_point(p1, V=2):
    return tensor([p1, 1 - p1] + [0.0] * (V - 2))


def peaked(p1, V):
    return tensor([p1] + [(1 - p1) / (V - 1)] * (V - 1))


def special(V):
    """Uniform, one-hot, two-point, Zipf and peaked, (rows, V)."""
    zipf = 1 / np.arange(1, V + 1)
    rows = [np.full(V, 1 / V), np.roll(two_point(1.0, V), V // 2), zipf / zipf.sum(), zipf**3 / (zipf**3).sum()]
    rows += [two_point(p, V) for p in (0.5, 0.6, 0.99, 1 - 1e-9)] + [peaked(p, V) for p in (0.5, 0.9, 1 - 1e-9)]
    return torch.stack([tensor(row) for row in rows])


def dirichlet(V, rows=100):
    rng = np.random.default_rng(V)
    return tensor(np.concatenate([rng.dirichlet(np.full(V, c), rows) for c in (0.05, 0.3, 1.0, 20.0)]))


logits = st.lists(st.floats(-30, 30), min_size=2, max_size=12)
some = settings(deadline=None, derandomize=True, max_examples=100)
