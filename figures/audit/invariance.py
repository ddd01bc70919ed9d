"""What must not change a loss: padding, the order of rows and groups, their labels, a second call, the precision."""

from dataclasses import replace

import torch
from torch import Tensor

from figures.audit.contract import Slopes, Subject
from figures.audit.finding import Finding, distance, example
from figures.audit.probes import probe
from figures.audit.rows import Rows

_ROUNDING = 1e-9
_FILLS = {"other numbers": 3.0, "-infinity": -torch.inf, "NaN": torch.nan}
_PRECISIONS = {torch.float32: 1e-3, torch.bfloat16: 0.2}  # largest relative error of the weights


def padding(subject: Subject) -> Finding:
    """Two more columns, and other numbers, -infinity or NaN where no token is: the weights of the tokens stay, others are 0."""
    rows = probe(moved=0.1)
    plain, wrong = subject.slopes(rows), dict[str, tuple[float, Rows, Slopes, Slopes]]()
    for name, columns, fill in [("more columns", 2, 0.0), *((name, 0, fill) for name, fill in _FILLS.items())]:
        wide = rows.padded(columns, fill)
        found, expected = subject.slopes(wide), _widened(plain, rows, columns)
        gap = _gap(found, expected)
        if gap > _ROUNDING:
            wrong[name] = (gap, wide, found, expected)
    if not wrong:
        return Finding("padding", "holds", "places without a token change nothing", 0.0)
    gap, wide, found, expected = next(iter(wrong.values()))
    words = f"{' and '.join(wrong)} in places without a token change the weights" + (
        f" by {gap:.2g} of the largest" if gap < torch.inf else ": they become NaN or infinite"
    )
    return Finding("padding", "defect", words, gap, example=example(wide, found.weights, expected.weights))


def _widened(slopes: Slopes, rows: Rows, columns: int) -> Slopes:
    """What is expected after padding: the same on the tokens, 0 elsewhere."""
    w, u = (None if x is None else _wide(torch.where(rows.mask, x, 0.0), columns) for x in slopes[1:3])
    assert w is not None
    return Slopes(slopes.loss, w, u)


def _wide(x: Tensor, columns: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, columns))


def _gap(found: Slopes, expected: Slopes) -> float:
    gaps = [distance(found.weights, expected.weights)]
    if found.entropy is not None and expected.entropy is not None and bool(expected.entropy.any()):
        gaps.append(distance(found.entropy, expected.entropy))
    return max(gaps)


def order(subject: Subject) -> Finding:
    """Rows in another order, groups in another order, other labels: each row keeps its weights."""
    rows = probe(moved=0.1)
    expected, rng = subject.slopes(rows).weights, torch.Generator().manual_seed(1)
    inside = torch.tensor([3, 1, 0, 2, 6, 4, 7, 5])
    orders = {"rows of a group in another order": inside, "groups in another order": torch.arange(8).roll(4)}
    labels = {"other labels of the groups": 7 * (1 - rows.group) + 3}
    if not subject.adjacent:
        orders["rows of two groups mixed"] = torch.randperm(8, generator=rng)
    gaps = dict[str, tuple[float, Rows, Tensor, Tensor]]()
    for name, index in orders.items():
        some = rows.take(index)
        found = subject.slopes(some).weights
        gaps[name] = distance(found, expected[index]), some, found, expected[index]
    for name, label in labels.items():
        some = replace(rows, group=label)
        gaps[name] = _relabelled(subject, some, expected)
    worst = max(gaps, key=lambda name: gaps[name][0])
    gap, some, found, wanted = gaps[worst]
    if gap <= _ROUNDING:
        return Finding("order", "holds", "order and labels of rows and groups change nothing", gap)
    words = f"{worst}: a weight changes by {gap:.2g} of the largest"
    return Finding("order", "defect", words, gap, example=example(some, found, wanted))


def _relabelled(subject: Subject, rows: Rows, expected: Tensor) -> tuple[float, Rows, Tensor, Tensor]:
    """Labels with gaps; a loss that refuses them does not give wrong numbers, so this counts as the same."""
    try:
        found = subject.slopes(rows).weights
    except (IndexError, ValueError, RuntimeError):
        found = expected
    return distance(found, expected), rows, found, expected


def repeated(subject: Subject) -> Finding:
    """Two calls on one batch: the same numbers."""
    rows = probe(moved=0.1)
    first, second = subject.slopes(rows), subject.slopes(rows)
    gap = _gap(second, first)
    if gap == 0:
        return Finding("two calls agree", "holds", "the same numbers twice", 0.0)
    return Finding(
        "two calls agree",
        "defect",
        f"a second call changes a weight by {gap:.2g} of the largest: it keeps a state or draws numbers",
        gap,
        example=example(rows, second.weights, first.weights),
    )


def precision(subject: Subject) -> Finding:
    """float32 and bfloat16 inputs give the weights of float64 to their own rounding, and float64 is computed as such."""
    rows, gaps, name = probe(moved=0.1), dict[torch.dtype, float](), "precision"
    exact = subject.slopes(rows).weights
    for dtype in _PRECISIONS:
        rounded = rows.to(dtype)
        wanted = subject.slopes(rounded.to(torch.float64)).weights if dtype == torch.bfloat16 else exact
        gaps[dtype] = distance(subject.slopes(rounded).weights.double(), wanted)
    for dtype, gap in gaps.items():
        if gap > _PRECISIONS[dtype]:
            words = f"{dtype} inputs give weights that are off by {gap:.2g} of the largest"
            return Finding(name, "defect", words, gap)
    steps = _levels(subject, rows)
    if steps is not None and steps < 24:
        words = (
            f"32 different log-probabilities within 1 % give {steps} different losses: float64 is not computed as such"
        )
        return Finding(name, "defect", words, float(steps))
    worst = max(gaps.values())
    return Finding(name, "holds", "float32 and bfloat16 differ from float64 by their own rounding", worst)


def _levels(subject: Subject, rows: Rows) -> int | None:
    """Different values of the weights along 32 small changes of the old log-probabilities; None where these do not count."""
    moves = [replace(rows, old_log_probs=rows.old_log_probs + 0.01 * k / 32 * rows.mask) for k in range(32)]
    if subject.asks & {"logits"}:
        moves = [replace(rows, logits=rows.logits * (1 + 0.01 * k / 32)) for k in range(32)]
    elif not subject.asks & {"old_log_probs"}:
        return None
    seen = {float(subject.slopes(x).weights.abs().sum()) for x in moves}
    return len(seen) if len(seen) > 1 else None


INVARIANCE = {"padding": padding, "order": order, "two calls agree": repeated, "precision": precision}
