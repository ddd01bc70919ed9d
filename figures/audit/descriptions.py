"""What losses may differ in: how a batch is cut, whether groups are coupled, what a shift of the rewards or a copy does."""

from dataclasses import replace

import torch

from figures.audit.contract import Subject, reward_weights
from figures.audit.exact import groups_over
from figures.audit.finding import Finding, distance, example
from figures.audit.probes import probe, with_returns

_ROUNDING = 1e-9
_CUTS = {"groups": 4, "rows": 1}  # rows of a micro-batch, of a batch of three groups of four


def split(subject: Subject) -> Finding:
    """The mean over micro-batches of whole groups, and over single rows, beside the batch in one piece."""
    rows = probe(3, 4, moved=0.1)
    whole, how, gaps = subject.slopes(rows).weights, dict[str, str](), dict[str, float]()
    shown = None
    for name, size in _CUTS.items():
        parts = list(torch.arange(12).split(size))
        try:
            found = subject.slopes(rows, parts).weights
        except (IndexError, RuntimeError, ValueError):
            how[name], gaps[name] = "refused", 0.0
            continue
        how[name], gaps[name] = "same", distance(found, whole)
        if gaps[name] > _ROUNDING:
            how[name] = "sum" if distance(len(parts) * found, whole) <= _ROUNDING else "changes"
        if how[name] == "changes" and shown is None:
            shown = example(rows, found, whole)
    said = {
        "same": "the mean over them is the batch's",
        "sum": "their sum is the batch's",
        "changes": "they change the update",
        "refused": "refused",
    }
    words = "; ".join(f"micro-batches of {name}: {said[x]}" for name, x in how.items())
    words += "".join(f" (by {gaps[name]:.2g}, {name})" for name, x in how.items() if x == "changes")
    return Finding("split", "choice", words, max(gaps.values()), facts=how, example=shown)


def coupling(subject: Subject) -> Finding:
    """Whether the weights of a group depend on the other groups of the batch."""
    over = groups_over(subject)
    said = {
        "mean": "groups do not mix; a batch is their mean",
        "sum": "groups do not mix; a batch is their sum",
        "coupled": "groups mix: what a group does depends on the rest of the batch",
    }
    return Finding("coupling", "choice", said[over], facts={"groups": over})


def shift(subject: Subject) -> Finding:
    """All returns larger by 0.7: whether the weights stay."""
    rows = probe(2, 4)
    plain = reward_weights(subject, rows)
    gap = distance(reward_weights(subject, with_returns(rows, rows.returns + 0.7)), plain)
    words = (
        "a constant added to all returns changes nothing" if gap <= _ROUNDING else "a constant in the returns counts"
    )
    return Finding("shift of rewards", "choice", words, gap, facts={"invariant": gap <= _ROUNDING})


def twice(subject: Subject) -> Finding:
    """The batch given twice, as other groups: half the weights each in a mean, the same in a sum."""
    rows = probe(2, 4)
    plain = subject.slopes(rows).weights
    both = rows.take(torch.arange(16) % 8)
    found = subject.slopes(replace(both, group=torch.arange(16) // 4)).weights[:8]
    for name, factor, words in (("mean", 2, "a mean over rows"), ("sum", 1, "a sum over rows")):
        if distance(factor * found, plain) <= _ROUNDING:
            return Finding("batch twice", "choice", words, 0.0, facts={"over": name})
    return Finding("batch twice", "choice", "neither a mean nor a sum over rows", facts={"over": "neither"})


DESCRIPTIONS = {"split": split, "coupling": coupling, "shift of rewards": shift, "batch twice": twice}
