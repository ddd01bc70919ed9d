"""The exact diameter of clouds of points: fast for a few points, for a few hundred and for 32768.

Theory page, section 3: "The bound on the error of the attention costate".
"""

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import takes_numbers

_FEW_POINTS, _SOME_POINTS = 8, 512  # up to so many points the first and the second method are the fastest, measured
_NUMBERS, _PRODUCTS = (
    2**18,
    2**20,
)  # coordinates (first method) and inner products (second method) in one batch of clouds
_ROWS, _WALK = 128, 4  # third method: rows in one block of a large cloud; steps of the walk to a first record


@takes_numbers("w")
def diameter(w: Float[Tensor, "*batch V d"]) -> Float[Tensor, "*batch"]:
    """`D_w = max_{a,b} ||w(a) - w(b)||`, exact: find the farthest pair, then compute its distance from the points themselves.

    A few points: all pairs, row by row, in batches that stay in the cache. A few hundred: all pairs from inner products
    of the centred points, in batches of bounded size. More: cloud by cloud, only pairs whose distances from the centre
    could add up to a new record; this takes up to V^2 / 2 products where all points lie on one sphere, far fewer
    elsewhere.

    Args:
        w: clouds of V points each; the last axis holds the coordinates.

    Returns:
        One diameter per cloud; NaN for a cloud that is not finite.
    """
    V, D = w.shape[-2:]
    clouds = w.reshape(-1, V, D)
    if V <= _FEW_POINTS:
        rows = [_diameter_by_rows(chunk) for chunk in clouds.split(max(1, _NUMBERS // max(1, V * D)))]
        return torch.cat(rows).reshape(w.shape[:-2])
    if V <= _SOME_POINTS:
        pairs = [_farthest_pairs(chunk) for chunk in clouds.detach().split(max(1, _PRODUCTS // V**2))]
    else:
        pairs = [_farthest_pair(cloud) for cloud in clouds.detach()]
    ends = torch.cat(pairs) if pairs else clouds.new_zeros(0, 2, dtype=torch.int64)
    each = torch.arange(len(clouds), device=w.device)
    distances: Tensor = (clouds[each, ends[:, 0]] - clouds[each, ends[:, 1]]).norm(dim=-1)
    return (distances + 0 * clouds.sum((-2, -1))).reshape(w.shape[:-2])  # no pair of a cloud with NaN is the farthest


def _diameter_by_rows(w: Tensor) -> Tensor:
    """Diameters of clouds of a few points: the distances from each point in turn to all."""
    w = w.contiguous()  # forward-mode slopes come strided, twelve times slower here
    largest = torch.zeros(w.shape[:-2], dtype=w.dtype, device=w.device)
    for a in range(w.shape[-2]):
        largest = torch.maximum(largest, (w - w[..., a : a + 1, :]).norm(dim=-1).amax(-1))
    return largest


def _centred(w: Tensor) -> Tensor:
    """Points minus their mean; one point is subtracted first, so that a far-away cloud loses no digits in the mean."""
    x = w - w[..., :1, :]
    return x - x.mean(-2, keepdim=True)


def _farthest_pairs(w: Tensor) -> Tensor:
    """Indices (N, 2) of the farthest pair of each of N clouds, `|x - y|^2 = |x|^2 + |y|^2 - 2 x'y` about the centre."""
    x, V = _centred(w), w.shape[1]
    square = x.square().sum(-1)
    best = torch.baddbmm(square[:, :, None] + square[:, None], x, x.mT, alpha=-2).flatten(1).argmax(1)
    return torch.stack([best // V, best % V], 1)


def _farthest_pair(w: Tensor) -> Tensor:
    """Indices (1, 2) of the farthest pair of one large cloud.

    The distance of a pair is at most the sum of its distances r from the centre. With the points in falling order of r, a
    block of rows needs only the columns with `r_row + r_column > record`; the search ends where no column is left.
    """
    x = _centred(w)
    radii: Tensor = x.norm(dim=-1)
    r, order = radii.sort(descending=True)
    x = x[order]
    i, j, record = _far_pair(x)
    slack = 1 + 8 * torch.finfo(r.dtype).eps  # a pair that could win by rounding alone is no new record
    for a in range(0, len(x), _ROWS):
        width = int(torch.searchsorted(-r, r[a] - record * slack))
        if width <= a:
            break
        square = r[a : a + _ROWS, None].square() + r[a:width].square()
        best = int(torch.addmm(square, x[a : a + _ROWS], x[a:width].mT, alpha=-2).argmax())
        row, column = a + best // (width - a), a + best % (width - a)
        distance = (x[row] - x[column]).norm()
        if distance > record:
            i, j, record = row, column, distance
    return order[[i, j]][None]


def _far_pair(x: Tensor) -> tuple[int, int, Tensor]:
    """A pair that is far apart, as the first record: from a point go to the farthest point, a few times."""
    here, there, record = 0, 0, x.new_zeros(())
    for _ in range(_WALK):
        distance, farther = (x - x[there]).norm(dim=-1).max(0)
        if not distance > record:
            break
        here, there, record = there, int(farther), distance
    return here, there, record
