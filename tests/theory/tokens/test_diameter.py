"""The exact diameter by every road that it takes, against all pairs: degenerate clouds, batches, precisions, refusals."""

import time

import pytest
import torch

from theory.tokens import diameter as module
from theory.tokens.diameter import diameter

close = torch.testing.assert_close
SIZES = [1, 2, 5, 8, 9, 60, 512, 513, 700]  # row by row up to 8, whole products up to 512, cloud by cloud beyond


def all_pairs(w):
    """The definition: every pair's distance at once."""
    return (w[..., :, None, :] - w[..., None, :, :]).norm(dim=-1).flatten(-2).amax(-1)


def normal(rng, *shape):
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def some_equal(x):
    """Every point up to twenty times."""
    return x[torch.arange(len(x)) // 20]


CLOUDS = {
    "normal": lambda x: x,
    "sphere": unit,
    "sphere far from the origin": lambda x: unit(x) + 1e6,
    "heavy tails": lambda x: x**3,
    "one outlier": lambda x: torch.cat([x[:-1], x[-1:] + 50]),
    "duplicates": some_equal,
    "two points": lambda x: x[torch.arange(len(x)) % 2],
    "collinear": lambda x: x[:, :1] * x[0],
    "collinear, even steps": lambda x: torch.arange(len(x), dtype=x.dtype)[:, None] * x[0],
    "two far clusters": lambda x: 1e-3 * x + (torch.arange(len(x), dtype=x.dtype) % 2)[:, None] * 100,
    "one dimension counts": lambda x: x * 1e-8 ** torch.arange(x.shape[1], dtype=x.dtype),
    "tiny": lambda x: 1e-30 * x,
    "far away": lambda x: x + 1e8,
}


@pytest.mark.parametrize("V", SIZES)
@pytest.mark.parametrize("cloud", CLOUDS)
def test_it_is_the_largest_of_all_distances(cloud, V, rng):
    w = CLOUDS[cloud](normal(rng, V, 5))
    close(diameter(w), all_pairs(w), rtol=1e-13, atol=0)
    if V > 1 and not (cloud == "duplicates" and V <= 20):
        assert float(diameter(w)) > 0


@pytest.mark.parametrize("V", SIZES)
@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_equal_points_have_no_diameter(V, offset):
    assert float(diameter(torch.full((V, 3), offset, dtype=torch.float64))) == 0


@pytest.mark.parametrize("cloud", ["normal", "sphere", "heavy tails", "collinear", "duplicates"])
@pytest.mark.parametrize(("rows", "walk"), [(1, 0), (7, 0), (7, 1), (700, 0)])
def test_the_search_finds_the_pair_without_help_and_in_blocks_of_any_size(cloud, rows, walk, rng, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", rows)
    monkeypatch.setattr(module, "_WALK", walk)
    w = CLOUDS[cloud](normal(rng, 700, 3))
    close(diameter(w), all_pairs(w), rtol=1e-13, atol=0)


def test_the_farthest_pair_need_not_hold_the_point_farthest_from_the_centre(rng):
    """Three points on a circle of radius 1 and one at 1.05: walking from it misses the longest side."""
    angles = torch.tensor([0.0, 0.61, 1.39], dtype=torch.float64) * torch.pi
    ring = torch.stack([angles.cos(), angles.sin()], 1)
    crowd = 0.1 * normal(rng, 700, 2).clamp(-3, 3)
    w = torch.cat([crowd, ring, torch.tensor([[-1.05, 0.0]], dtype=torch.float64)])
    close(diameter(w), all_pairs(w), rtol=1e-13, atol=0)


@pytest.mark.parametrize("V", [3, 12, 520])
@pytest.mark.parametrize("batch", [(), (1,), (7,), (2, 3), (0,), (2, 0)])
def test_batches_cloud_by_cloud(V, batch, rng, monkeypatch):
    monkeypatch.setattr(module, "_PRODUCTS", 4 * V**2)  # four clouds at a time
    monkeypatch.setattr(module, "_NUMBERS", 4 * V * 4)
    w = normal(rng, *batch, V, 4) * normal(rng, *batch, 1, 1)
    diameters = diameter(w)
    assert diameters.shape == batch
    close(diameters, all_pairs(w), rtol=1e-13, atol=0)


@pytest.mark.parametrize("V", [4, 60, 700])
def test_single_precision_strides_and_slopes(V, rng):
    w = normal(rng, 3, V, 6)
    single = diameter(w.float())
    assert single.dtype == torch.float32
    close(single.double(), diameter(w), rtol=1e-6, atol=0)
    strided = w.movedim(0, -1).contiguous().movedim(-1, 0)
    close(diameter(strided), diameter(w), rtol=1e-15, atol=0)
    slopes = []
    for f in (diameter, all_pairs):
        x = w.clone().requires_grad_()
        slopes.append(torch.autograd.grad(f(x).sum(), x)[0])
    close(*slopes)


@pytest.mark.parametrize("V", [3, 60, 700])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_cloud_that_is_not_finite_has_no_diameter_and_its_neighbours_keep_theirs(V, bad, rng):
    w = normal(rng, 3, V, 4)
    whole = diameter(w)
    w[1, V // 2, 2] = bad
    diameters = diameter(w)
    assert not diameters[1].isfinite()
    close(diameters[[0, 2]], whole[[0, 2]], rtol=1e-15, atol=0)


@pytest.fixture
def sizes(monkeypatch):
    """Numbers of inner products in every block that is looked at."""
    counts, product = [], torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda a, *rest, **more: counts.append(a.numel()) or product(a, *rest, **more))
    return counts


@pytest.mark.parametrize("cloud", ["two points", "collinear", "two far clusters", "duplicates", "one outlier"])
def test_clouds_with_a_long_side_are_done_after_few_products(cloud, rng, sizes):
    """Two repeated points lie at one distance from their centre: all pairs across tie, and none is a new record."""
    diameter(CLOUDS[cloud](normal(rng, 20000, 5)))
    assert sum(sizes) < 0.01 * 20000**2


def test_a_large_vocabulary_takes_little_time_and_bounded_products(rng, sizes):
    began = time.process_time()
    w = normal(rng, 32768, 16)
    widest = diameter(w)
    assert time.process_time() - began < 3
    assert max(sizes) <= 128 * 32768
    assert sum(sizes) < 0.02 * 32768**2, "pairs that cannot be farthest are left out"
    far = w[w.norm(dim=-1).topk(2000).indices]  # nearly all mass of far pairs; the claim is only a lower bound
    assert float(widest) >= float(diameter(far)) > 0
