"""`audit` describes a loss, and judges what was declared of it; `assert_loss` is the same for a test suite."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from envs.world import InputError
from figures.audit.contract import NamedLoss, Subject
from figures.audit.declared import DECLARATIONS, judge
from figures.audit.descriptions import DESCRIPTIONS
from figures.audit.finding import Finding
from figures.audit.invariance import INVARIANCE
from figures.audit.means import climbs, means, unbiased
from figures.audit.numbers import NUMBERS
from figures.audit.penalties import PENALTIES
from figures.audit.probes import probe
from figures.audit.ratio import clip, law, scan
from figures.audit.recipes import recipe
from figures.audit.record import Audit
from figures.audit.shown import shown


def audit(loss: Callable[..., Any] | Subject, advantage: Callable[..., Any] | None = None, **declared: Any) -> Audit:
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
        declared: what should hold, by name: see `figures.audit.declared.DECLARATIONS`.

    Returns:
        The findings. Without a declaration they are a description: universal properties alone are judged.

    Raises:
        InputError: the loss asks for an unknown name, returns no scalar, has no gradient, gives NaN or infinity on a plain
            batch, or changes its inputs; or a declaration is unknown.
    """
    unknown = sorted(set(declared) - set(DECLARATIONS))
    if unknown:
        raise InputError(f"{unknown[0]} is no declaration; there are {', '.join(DECLARATIONS)}")
    began = time.perf_counter()
    subject = NamedLoss(loss, advantage) if callable(loss) else loss
    _check(subject)
    along, found = scan(subject), means(subject)
    universal = [climbs(found), *_all(INVARIANCE | NUMBERS, subject), clip(along), *_all(PENALTIES, subject)]
    described = [unbiased(found), *_all({"recipe": recipe} | DESCRIPTIONS, subject), law(along)]
    findings = judge([*universal, *described], declared)
    seconds = time.perf_counter() - began
    return Audit(subject.name, tuple(findings), seconds, shown(subject, along))


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
        lines = [f"{found.name}: {len(found.defects)} properties broken", *map(str, found.defects)]
        raise AssertionError("\n".join(lines))


def _all(properties: Mapping[str, Callable[[Subject], Finding]], subject: Subject) -> list[Finding]:
    """Findings by name; a loss that raises an error on a batch that a property tries has a defect, with the error's words."""
    findings = list[Finding]()
    for name, judged in properties.items():
        try:
            findings.append(judged(subject))
        except (ArithmeticError, IndexError, RuntimeError, ValueError) as error:
            said = str(error).splitlines()[0] if str(error) else "no words"
            words = f"the loss raises {type(error).__name__} on a batch that is tried: {said}"
            findings.append(Finding(name, "defect", words))
    return findings


def _check(subject: Subject) -> None:
    """Refuse a loss that gives no finite numbers on a plain batch."""
    slopes = subject.slopes(probe())
    if not bool(slopes.weights[probe().mask].isfinite().all()):
        raise InputError("loss is not finite on a plain batch at ratio 1: a weight is NaN or infinite")
