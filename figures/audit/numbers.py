"""Groups without a signal, and numbers of any size: where a loss shouts, overflows or divides by nothing."""

from dataclasses import replace

import torch

from figures.audit.contract import Subject, reward_weights
from figures.audit.finding import Finding, example
from figures.audit.probes import of_one_length, probe, with_returns
from figures.audit.rows import Rows

_VALUES = (0.0, 1.0, 0.1, 0.3, 1 / 3, 0.7, -0.6, 1e-3, 123.4, 1e6)
_SIZES = (2, 3, 4, 6, 7, 8, 16)
SILENT = 0.01  # largest weight of a group without a signal, as a share of one with a signal


def silent_groups(subject: Subject) -> Finding:
    """Groups whose rewards are all equal: no row is better, so no weight may count beside those of a group with a signal."""
    name, worst = "silent groups", (0.0, 0.0, 0, torch.float64)
    plain = _group(2, 1.0, torch.float64)
    if bool(reward_weights(subject, plain)[: len(plain.group) // 2].any()):
        return Finding(name, "choice", "no baseline of the group: equal rewards push their rows")
    for dtype in (torch.float32, torch.float64):
        for size in _SIZES:
            for value in _VALUES:
                rows = _group(size, value, dtype)
                w = reward_weights(subject, rows).abs().double()
                share = float(w[:size].max() / w[size:].max().clamp(min=1e-300))
                if not share <= worst[0]:  # NaN is worse
                    worst = (share, value, size, dtype)
    share, value, size, dtype = worst
    if share <= SILENT:
        return Finding(
            name, "holds", f"equal rewards give at most {share:.1g} of the weights of a group with a signal", share
        )
    words = f"{size} rewards of {value:.4g} in {dtype} get weights {share:.2g} times those of a group with a signal"
    rows = _group(size, value, dtype)
    found = reward_weights(subject, rows)
    expected = torch.where(torch.arange(2 * size)[:, None] < size, 0.0, found)
    return Finding(name, "defect", words, share, example=example(rows, found, expected))


def _group(size: int, value: float, dtype: torch.dtype) -> Rows:
    """A group of equal returns, and one with successes and failures."""
    rows = of_one_length(probe(2, size)).to(dtype)
    signal = (torch.arange(size) < (size + 1) // 2).to(dtype)
    return with_returns(rows, torch.cat([torch.full((size,), value, dtype=dtype), signal]))


def finite(subject: Subject) -> Finding:
    """Log-ratios of +-100 and returns of 1e6: every weight is a finite number."""
    rows = probe(moved=0.1)
    tried = {f"a log-ratio of {shift:+g}": _shifted(rows, shift) for shift in (100.0, -100.0)}
    tried |= {f"returns times {scale:g}": with_returns(rows, scale * rows.returns) for scale in (1e6, 1e-6)}
    for what, some in tried.items():
        found = subject.slopes(some).weights
        bad = ~found.isfinite()
        if bool(bad.any()):
            share = float(bad.double().mean())
            words = f"{what}: {share:.0%} of the weights are NaN or infinite"
            return Finding("finite", "defect", words, share, example=example(some, found, torch.zeros_like(found)))
    return Finding("finite", "holds", "log-ratios of +-100 and returns from 1e-6 to 1e6 give finite weights", 0.0)


def _shifted(rows: Rows, shift: float) -> Rows:
    """One token of each sign of the advantage, and one of the reference, far from the policy."""
    far = torch.zeros_like(rows.log_probs)
    far[::3, 0] = shift
    return replace(rows, old_log_probs=rows.log_probs - far, ref_log_probs=rows.log_probs - far)


NUMBERS = {"silent groups": silent_groups, "finite": finite}
