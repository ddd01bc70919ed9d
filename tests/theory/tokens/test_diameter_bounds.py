"""The bounds that carry embeddings, slopes and returns: they hold, two points attain them, nothing smaller would do."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.cases import tensor
from tests.theory.distributions import ROUNDING, dirichlet, logits, some, special, two_point
from theory.tokens import softmax_bounds as bounds

close = torch.testing.assert_close


def sides(p, w, Q, E):
    """name -> (small, large) of the bounds that carry embeddings or slopes."""
    return {
        "covariance": (bounds.covariance(p, w, Q).norm(), bounds.covariance_bound(p, w, Q)),
        "embedding": bounds.embedding_spread_bound(p, E),
        "sandwich": bounds.sandwich_bound(p, E, w),
    }


@pytest.mark.parametrize("V", [2, 3, 5, 20, 300])
def test_diameter_bounds_hold(V, rng):
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)  # noqa: E731
    for p in torch.cat([special(V), dirichlet(V, 5)]):
        for small, large in sides(p, draw(V, 3), draw(V), draw(V, 2)).values():
            assert float(small) <= float(large) + ROUNDING


@given(logits, st.integers(0, 2**31), st.sampled_from([1.0, 3.0]))
@some
def test_diameter_bounds_hold_for_any_logits(z, seed, power):
    draw = np.random.default_rng(seed).standard_normal
    p, V = torch.softmax(tensor(z), -1), len(z)
    for small, large in sides(
        p, tensor(draw((V, 2)) ** power), tensor(draw(V) ** power), tensor(draw((V, 3)))
    ).values():
        assert float(small) <= float(large) * (1 + 1e-9) + ROUNDING


def two_clusters(p):
    """Two values of embedding, slope and return, unequal in size, shared evenly by the tokens."""
    half = (torch.arange(len(p)) % 2).to(p)
    return half[:, None] * tensor([3.0, -4.0]), 7 * half - 2, half[:, None] * tensor([1.0, 2.0, 2.0])


@pytest.mark.parametrize("p1", [0.5, 0.8, 0.99])
def test_diameter_bounds_are_attained_by_two_points(p1):
    p = two_point(p1)
    for small, large in sides(p, *two_clusters(p)).values():
        assert float(small) == pytest.approx(float(large), rel=1e-12)
        assert float(small) > 0.01


def test_the_quarter_is_attained_by_two_even_clusters_of_any_vocabulary():
    p = tensor([1 / 300] * 300)
    pairs = sides(p, *two_clusters(p))
    for name in ("covariance", "sandwich"):
        assert float(pairs[name][0]) == pytest.approx(float(pairs[name][1]), rel=1e-12)
    assert float(pairs["embedding"][0]) < 0.6 * float(pairs["embedding"][1])


def test_covariance_and_diameter_by_their_definitions(rng):
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)  # noqa: E731
    p, w, Q = torch.softmax(draw(4, 6), -1), draw(4, 6, 3), draw(4, 6)
    mean = lambda f: (p[..., None] * f).sum(1)  # noqa: E731
    close(bounds.covariance(p, w, Q), mean(w * Q[..., None]) - mean(w) * mean(Q[..., None]))
    pairs = (w[:, :, None] - w[:, None]).norm(dim=-1)
    close(bounds.diameter(w), pairs.flatten(1).amax(1))
    close(bounds.diameter(w + 1e7), pairs.flatten(1).amax(1), rtol=1e-6, atol=0)
