"""What the auditor cannot take is refused in one line."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.world import InputError
from figures.audit.adapters import build
from figures.audit.auditor import assert_loss, audit
from figures.audit.isolated import audit_library
from figures.audit.record import Audit
from tests.figures.audit.parts import SOUND, leave_one_out
from tests.figures.audit.parts import build as loss_of


def in_place(log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    advantages.mul_(2)
    return -(log_probs * mask * advantages[:, None]).sum()


LOSSES: dict[str, tuple[Callable[..., Any], Any, str]] = {
    "no scalar": (lambda log_probs: log_probs, None, "scalar"),
    "a number": (lambda log_probs: 1.0, None, "scalar"),
    "unknown name": (lambda log_prob, mask: log_prob.sum(), None, "log_probs"),
    "no gradient": (lambda log_probs: log_probs.detach().sum(), None, "no gradient"),
    "nothing with a gradient": (lambda rewards: rewards.sum(), None, "neither log_probs nor logits"),
    "not finite": (lambda log_probs: (log_probs / 0).sum(), None, "not finite"),
    "changes its input": (in_place, leave_one_out, "changes its input advantages"),
    "no second function": (lambda log_probs, advantages: log_probs.sum(), None, "advantage"),
    "second function for nothing": (lambda log_probs: log_probs.sum(), leave_one_out, "advantages"),
    "advantages of another size": (
        lambda log_probs, advantages: log_probs.sum(),
        lambda rewards: rewards[:1],
        "advantage must give",
    ),
    "no function": (3, None, "function"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_refused_in_one_line(name: str, unchecked: Any) -> None:
    loss, advantage, words = LOSSES[name]
    with pytest.raises(InputError, match=words) as error:
        audit(loss, advantage)
    assert "\n" not in str(error.value)


def test_unknown_declarations_and_properties() -> None:
    with pytest.raises(InputError, match="kappa"):
        audit(loss_of(), leave_one_out, kapa=1)
    with pytest.raises(InputError, match="padding"):
        audit(loss_of(), leave_one_out, properties=["paddin"])
    with pytest.raises(InputError, match="mean update"):
        audit(loss_of(), leave_one_out, properties=["padding"], kappa=1)


def test_unknown_libraries_and_names() -> None:
    with pytest.raises(InputError, match="library"):
        build("tlr:grpo", {})
    with pytest.raises(InputError, match="recipe"):
        build("suite:grop", {})


def test_a_failure_prints_property_number_and_batch() -> None:
    halved = loss_of(norm=lambda terms, mask: -(terms * mask).sum() / len(mask) / 2)
    with pytest.raises(AssertionError) as error:
        assert_loss(halved, leave_one_out, properties=["mean update", "padding"], kappa=1)
    said = str(error.value)
    assert "mean update" in said
    assert "kappa is 0.5" in said
    long = loss_of(norm=lambda terms, mask: -((terms * mask).sum(1) / mask.sum(1)).mean())
    with pytest.raises(
        AssertionError, match=r"(?s)mean update: declared unbiased=True.*weights found.*weights expected"
    ):
        assert_loss(long, leave_one_out, properties=["mean update"], unbiased=True)
    late = loss_of(norm=lambda terms, mask: -((terms * mask).mean(1)).mean())
    with pytest.raises(AssertionError, match=r"(?s)padding.*weights found.*weights expected"):
        assert_loss(late, leave_one_out, properties=["padding"])


def test_the_record_survives_json() -> None:
    found = audit(loss_of(), leave_one_out, properties=["padding", "recipe", "climbs"], recipe=SOUND["recipe"])
    again = Audit.from_json(found.to_json())
    assert again == found
    assert list(again.frame()["status"]) == ["holds", "holds", "holds"]


def test_an_audit_in_a_process_of_its_own_is_the_same() -> None:
    there = audit_library("suite:rloo", properties=["recipe", "mean update"], kappa=1)
    assert there.ok
    assert there["mean update"].declared == "kappa=1"
    with pytest.raises(InputError, match="recipe"):
        audit_library("suite:none")


def test_torch_default_dtype_is_left_alone() -> None:
    before = torch.get_default_dtype()
    audit(loss_of(), leave_one_out, properties=["precision"])
    assert torch.get_default_dtype() == before


def test_a_two_sided_clip_is_a_choice() -> None:
    """Rows with A < 0 are silent above a second bound, far from the first: another law, and no clip without min."""

    def bounded(log_probs: Tensor, old: Tensor, A: Tensor, mask: Tensor) -> Tensor:
        rho = (log_probs - old).exp().clamp(max=2.0)
        return torch.minimum(rho * A, rho.clamp(0.8, 1.28) * A)

    found = audit(loss_of(bounded), leave_one_out, properties=["clip on the right side"])["clip on the right side"]
    assert found.status == "choice"
    assert "second bound" in found.words
