"""`audit` describes a loss, and judges what was declared of it; `assert_loss` is the same for a test suite."""

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

from envs.world import InputError, unknown
from figures.audit.contract import NamedLoss, Subject
from figures.audit.declared import check_declared, judge
from figures.audit.descriptions import DESCRIPTIONS
from figures.audit.exact import Mean
from figures.audit.finding import Finding
from figures.audit.invariance import INVARIANCE
from figures.audit.means import climbs, means, unbiased
from figures.audit.numbers import NUMBERS
from figures.audit.penalties import PENALTIES
from figures.audit.probes import probe
from figures.audit.ratio import Scan, clip, law, scan
from figures.audit.recipes import recipe
from figures.audit.record import Audit
from figures.audit.shown import shown


class _Measured:
    """A loss, with what several properties are read from, measured once."""

    def __init__(self, subject: Subject):
        self.subject = subject

    @cached_property
    def scan(self) -> Scan | None:
        """Slopes along the ratio."""
        return scan(self.subject)

    @cached_property
    def means(self) -> dict[str, Mean]:
        """The mean update in every place."""
        return means(self.subject)


def _of_subject(judged: Callable[[Subject], Finding]) -> Callable[[_Measured], Finding]:
    return lambda measured: judged(measured.subject)


# name -> function, in the order of the table: what no loss may break, then what losses may differ in
PROPERTIES: dict[str, Callable[[_Measured], Finding]] = {
    "climbs": lambda measured: climbs(measured.means),
    **{name: _of_subject(f) for name, f in (INVARIANCE | NUMBERS).items()},
    "clip on the right side": lambda measured: clip(measured.scan),
    **{name: _of_subject(f) for name, f in PENALTIES.items()},
    "mean update": lambda measured: unbiased(measured.means, measured.subject),
    "recipe": _of_subject(recipe),
    **{name: _of_subject(f) for name, f in DESCRIPTIONS.items()},
    "law of the ratio": lambda measured: law(measured.scan),
}


def audit(
    loss: Callable[..., Any] | Subject,
    advantage: Callable[..., Any] | None = None,
    *,
    properties: Sequence[str] | None = None,
    pictures: bool = False,
    **declared: Any,
) -> Audit:
    """Describe a loss by its slopes and its exact mean, and judge what was declared of it.

    The loss is called by the names of its parameters: log_probs, old_log_probs, ref_log_probs, rewards, returns, advantages,
    mask, group, ended, entropy and whole; or logits, tokens and prompt. It returns a scalar to be minimised. Tables are
    (rows, T), returns, group and ended (rows,), logits (rows, places, V) after every place of prompt and completion; whole is
    the batch before it is cut (`figures.audit.contract.Whole`).

    Out of reach: what happens outside the function, that is a second division by an outer trainer, groups that are torn apart
    before the advantages are computed, dropout in the model, reductions over several processes, and GPU kernels.

    Args:
        loss: the function, or a subject of `figures.audit.adapters`.
        advantage: a function of the same names, `(rewards, mask, group)` for instance, that is called with the whole batch.
        properties: names of those that are looked at, as in `PROPERTIES`; by default all.
        pictures: whether the numbers behind the page's pictures are measured too.
        declared: what should hold, by name: see `figures.audit.declared.DECLARATIONS`.

    Returns:
        The findings. Without a declaration they are a description: universal properties alone are judged.

    Raises:
        InputError: the loss asks for an unknown name, returns no scalar, has no gradient, gives NaN or infinity on a plain
            batch, or changes its inputs; or a declaration or property is unknown.
    """
    looked_at = list(PROPERTIES) if properties is None else list(properties)
    for name in looked_at:
        if name not in PROPERTIES:
            raise unknown("property", name, list(PROPERTIES))
    check_declared(declared, looked_at)
    began = time.perf_counter()
    measured = _Measured(cast(Subject, loss) if hasattr(loss, "slopes") else NamedLoss(loss, advantage))
    _check(measured.subject)
    findings = judge([_tried(name, measured) for name in PROPERTIES if name in looked_at], declared)
    drawn = shown(measured.subject, measured.scan) if pictures else None
    return Audit(measured.subject.name, tuple(findings), time.perf_counter() - began, drawn)


def assert_loss(loss: Callable[..., Any], advantage: Callable[..., Any] | None = None, **declared: Any) -> None:
    """Fail where a loss breaks a universal property, or something that is declared of it; for a test suite.

    Args:
        loss: as in `audit`.
        advantage: as in `audit`.
        declared: as in `audit`; for example `unbiased=True, kappa=1, split="groups", clip=(0.2, 0.2)`.

    Raises:
        AssertionError: with the property, the number, and the smallest batch that shows it.
        InputError: as in `audit`.
    """
    found = audit(loss, advantage, **declared)
    if not found.ok:
        lines = [
            f"{found.name}: {len(found.defects)} of {len(found.findings)} properties broken",
            *map(str, found.defects),
        ]
        raise AssertionError("\n".join(lines))


def _tried(name: str, measured: _Measured) -> Finding:
    """A finding; a loss that raises an error on a batch that the property tries has a defect, with the error's words."""
    try:
        return PROPERTIES[name](measured)
    except (ArithmeticError, IndexError, RuntimeError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else "no words"
        return Finding(name, "defect", f"the loss raises {type(error).__name__} on a batch that is tried: {said}")


def _check(subject: Subject) -> None:
    """Refuse a loss that gives no finite numbers on a plain batch."""
    slopes = subject.slopes(probe())
    if not bool(slopes.weights[probe().mask].isfinite().all()):
        raise InputError("loss is not finite on a plain batch at ratio 1: a weight is NaN or infinite")
