"""How a loss's slope depends on the ratio pi / pi_old: where the clip silences it, on which side, and by which law."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from figures.audit.contract import Subject, reward_weights
from figures.audit.finding import Finding, example
from figures.audit.probes import of_one_length, probe
from figures.audit.rows import Rows

_GRID = torch.linspace(-2.0, 2.0, 41, dtype=torch.float64)
_ROUNDING = 1e-7


@dataclass(frozen=True)
class Scan:
    """Slopes along the ratio, each over the slope at ratio 1, of a row with A > 0 and of one with A < 0.

    Attributes:
        log_ratio: log(pi / pi_old).
        row: by the sign of A the slope of a token when all tokens of its row have this ratio.
        near: log-ratios near 0, where neither a clip nor a truncation acts.
        own: there the slope of a token that alone has this ratio.
        others: there the slope of another token of its row.
        low: 1 minus the ratio below which a row with A < 0 is silent; infinite without a clip.
        high: the ratio above which a row with A > 0 is silent, minus 1.
        rows: the batch at ratio 1.
        places: by the sign of A the number of its row.
    """

    log_ratio: Float[Tensor, "R"]
    row: dict[str, Float[Tensor, "R"]]
    near: Float[Tensor, "N"]
    own: dict[str, Float[Tensor, "N"]]
    others: dict[str, Float[Tensor, "N"]]
    low: float
    high: float
    rows: Rows
    places: dict[str, int]


def scan(subject: Subject) -> Scan | None:
    """Move the old log-probabilities of one row with A > 0, and of one with A < 0, and read the slopes.

    Args:
        subject: the loss.

    Returns:
        The slopes; None where the loss does not take old log-probabilities, or no row of some sign has a weight.
    """
    if "old_log_probs" not in subject.asks:
        return None
    rows = of_one_length(probe(2, 4))
    start = reward_weights(subject, rows)[:, 0]
    places = {"A > 0": int(start.argmax()), "A < 0": int(start.argmin())}
    if not (start.max() > 0 > start.min()):
        return None
    row = {
        sign: torch.stack([_slopes(subject, rows, i, x, whole=True)[0] for x in _GRID]) / start[i]
        for sign, i in places.items()
    }
    high = _edge(subject, rows, places["A > 0"], row["A > 0"], upwards=True)
    low = _edge(subject, rows, places["A < 0"], row["A < 0"], upwards=False)
    edge = 0.5 * min(0.1, math.log(high), -math.log(low) if low > 0 else math.inf)
    near = edge * torch.linspace(-1.0, 1.0, 9, dtype=torch.float64)
    own, others = dict[str, Tensor](), dict[str, Tensor]()
    for sign, i in places.items():
        alone = torch.stack([_slopes(subject, rows, i, x, whole=False) for x in near]) / start[i]
        own[sign], others[sign] = alone[:, 0], alone[:, 1]
    return Scan(_GRID, row, near, own, others, 1 - low, high - 1, rows, places)


def _slopes(subject: Subject, rows: Rows, i: int, x: Tensor, whole: bool) -> Float[Tensor, "T"]:
    """Weights of row i where its tokens, or its first one alone, have this log-ratio."""
    old = rows.log_probs.clone()
    old[i, slice(None) if whole else 0] -= x
    return reward_weights(subject, replace(rows, old_log_probs=old))[i]


def _edge(subject: Subject, rows: Rows, i: int, slopes: Tensor, upwards: bool) -> float:
    """The ratio beyond which the slope is 0 to the end of the grid, by bisection; infinite (below 1, -infinite) without one."""
    silent = slopes.abs() <= _ROUNDING
    order = _GRID if upwards else -_GRID
    beyond = [bool(silent[order >= x].all()) and bool((order >= x).any()) for x in order]
    if not any(beyond):
        return math.inf if upwards else -math.inf
    first = min(float(order[k]) for k, is_silent in enumerate(beyond) if is_silent)
    inside, outside = first - 0.1, first
    if not bool((order <= inside + 1e-12).any()):
        return math.exp(first if upwards else -first)
    for _ in range(45):
        middle = (inside + outside) / 2
        w = _slopes(subject, rows, i, torch.tensor(middle if upwards else -middle, dtype=torch.float64), whole=True)[0]
        inside, outside = (inside, middle) if float(w.abs()) <= 1e-12 else (middle, outside)
    return math.exp(outside if upwards else -outside)


def clip(found: Scan | None) -> Finding:
    """A row that should be said more often is silenced above ratio 1 only, one that should be said less often below it only."""
    name = "clip on the right side"
    if found is None:
        return Finding(name, "choice", "no ratio: the loss does not compare with the policy that drew the rows")
    above = found.row["A < 0"][_GRID > 1e-9].abs() <= _ROUNDING
    second = float(_GRID[_GRID > 1e-9][above][0]) if bool(above.any()) else math.inf  # of a two-sided clip
    wrong = {"A > 0 and a ratio below 1": found.row["A > 0"][_GRID < -1e-9].abs() <= _ROUNDING}
    if math.isfinite(found.high) and math.exp(second) < 1.2 + found.high:  # no second bound of its own
        wrong["A < 0 and a ratio above 1"] = above
    for side, silent in wrong.items():
        if bool(silent.any()):
            at = int(silent.nonzero()[0, 0]) + (0 if "below" in side else len(_GRID) - len(silent))
            share = float(silent.double().mean())
            words = (
                f"rows with {side} get no weight ({share:.0%} of the ratios from e^-2 to e^2): they do not move back"
            )
            return _shown(found, name, words, share, side, at)
    for side, slopes in found.row.items():
        if bool((slopes < -_ROUNDING).any()):
            words = f"rows with {side} are pushed the wrong way at some ratio"
            return _shown(found, name, words, float(slopes.min()), side, int(slopes.argmin()))
    if math.isinf(found.low) and math.isinf(found.high) and math.isinf(second):
        return Finding(name, "choice", "no clip: no ratio from e^-2 to e^2 silences a row", facts=_bounds(found))
    words = f"silent above {1 + found.high:.6g} for A > 0 and below {1 - found.low:.6g} for A < 0"
    if second < math.inf:
        words += f"; a second bound silences rows with A < 0 from about {math.exp(second):.3g} on"
        return Finding(name, "choice", words, facts=_bounds(found))
    return Finding(name, "holds", words, facts=_bounds(found))


def _bounds(found: Scan) -> dict[str, float]:
    return {"low": found.low, "high": found.high}


def _shown(found: Scan, name: str, words: str, value: float, side: str, k: int) -> Finding:
    """A defect with the group of the row, at weights of ratio 1 beside those at ratio number k."""
    i = found.places[side[:5]]
    slopes = found.row[side[:5]]
    base = torch.ones_like(found.rows.log_probs[i : i + 1])
    row = found.rows.take(torch.tensor([i]))
    words += f"; at ratio {math.exp(float(found.log_ratio[k])):.3g} its slope over that at ratio 1 is"
    return Finding(
        name, "defect", f"{words} {float(slopes[k]):.3g}", value, example=example(row, slopes[k] * base, base)
    )


_LAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "ratio": lambda x: x.exp(),
    "1": lambda x: torch.ones_like(x),
    "1/ratio": lambda x: (-x).exp(),
    "ratio^2": lambda x: (2 * x).exp(),
    "ratio^(1/T)": lambda x: (x / 3).exp(),
}


def law(found: Scan | None) -> Finding:
    """By which law the slope of a token follows its own ratio, and that of another token of its row, inside the clip."""
    name = "law of the ratio"
    if found is None:
        return Finding(name, "choice", "no ratio", facts={"own": "none", "others": "none"})
    own, others = (_law(found.near, slopes) for slopes in (found.own, found.others))
    words = f"a token's slope goes with {own}; that of the row's other tokens with {others}"
    return Finding(name, "choice", words, facts={"own": own, "others": others})


def _law(x: Tensor, slopes: dict[str, Tensor]) -> str:
    """The law that both signs of A follow, to a millionth of how much a ratio varies here."""
    for name, f in _LAWS.items():
        if all(float((s - f(x)).abs().max()) < 1e-6 * float(x.abs().max()) for s in slopes.values()):
            return name
    return "another law"


def truncation(found: Scan) -> float:
    """The ratio above which a slope that grew with it no longer grows, for A > 0; infinite where it always grows.

    Args:
        found: of the loss.

    Returns:
        The ratio.
    """
    slopes = found.row["A > 0"]
    grows = (slopes[1:] - slopes[:-1]).abs() > 1e-9
    if bool(grows[-1]) or not bool(grows.any()):
        return math.inf
    return float(slopes.max())
