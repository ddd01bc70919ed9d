"""Every planted mistake is named by its property, and sound losses get no complaint."""

from typing import Any

import pytest
import torch

from agents.recipes.learners import Penalty, build_learner
from figures.audit.adapters import suite_loss
from figures.audit.auditor import assert_loss, audit
from figures.audit.contract import NamedLoss
from figures.audit.declared import DECLARATIONS
from figures.audit.finding import Finding
from figures.audit.probes import probe
from figures.audit.recipes import learner_loss
from tests.figures.audit.parts import build, leave_one_out, row_sum
from tests.figures.audit.planted import PLANTED, SOUND_ONES


@pytest.mark.parametrize("name", PLANTED)
def test_a_mistake_is_named(name: str) -> None:
    case = PLANTED[name]
    declared = {k: x for k, x in case.declared.items() if DECLARATIONS[k].about in case.names}
    found = audit(case.loss, case.advantage, properties=case.names, **declared).defects
    assert found, f"none of {case.names} names the mistake"


@pytest.mark.parametrize("name", SOUND_ONES)
def test_sound_losses_get_no_complaint(name: str) -> None:
    case = SOUND_ONES[name]
    assert_loss(case.loss, case.advantage, **case.declared)


OPTIONS: dict[str, dict[str, Any]] = {
    "grpo, sample std": {"std": "sample", "length": "row sum", "eps": 1e-4},
    "grpo, without std": {"std": "none", "length": "token mean"},
    "dapo, truncated rows left out": {"drop_truncated": True},
    "dapo, truncated rows counted": {"drop_truncated": True, "count_dropped": True},
    "reinforce_pp, mean": {"baseline": True},
    "pkpo, 3": {"k": 3},
}
ITSELF = {
    "reinforce": "return; row sum",
    "rloo": "leave one out; row sum",
    "dr_grpo": "mean; row sum",
    "grpo": "population std; row mean",
    "grpo, sample std": "sample std + 0.0001; row sum",
    "grpo, without std": "mean; token mean",
    "maxrl": "divided by the mean; row sum",
    "dapo": "population std; group token mean",
    "dapo, truncated rows left out": "population std; group token mean; without truncated rows",
    "dapo, truncated rows counted": "population std; group token mean; truncated rows counted",
    "reinforce_pp": "whitened; token mean",
    "reinforce_pp, mean": "whitened, mean; token mean",
    "gspo": "population std; row mean",
    "cispo": "population std; group token mean",
    "pkpo": "best of 2; row sum",
    "pkpo, 3": "best of 3; row sum",
    "pass_k_training": "best of 2, standardised; row sum",
}


@pytest.mark.parametrize("name", ITSELF)
def test_a_recipe_of_this_suite_is_identified_as_itself(name: str) -> None:
    subject = suite_loss.build(name.split(",")[0], **OPTIONS.get(name, {}))
    finding = audit(subject, properties=("recipe",), recipe=ITSELF[name], factor=1)["recipe"]
    assert finding.status == "holds", finding.words


def test_every_recipe_of_the_suite_is_among_them() -> None:
    assert {name.split(",")[0] for name in ITSELF} == set(suite_loss.names())


@pytest.mark.parametrize("name", ["grpo", "reinforce_pp", "gspo"])
def test_recipes_of_this_suite_break_nothing(name: str) -> None:
    penalty = Penalty("k2", 0.1)
    built = build_learner(name, kl_loss=penalty, entropy=0.01)
    assert_loss(learner_loss(built))


def length(norm: Any) -> Finding:
    """What is found of the mean update of a loss with this normaliser."""
    return audit(build(norm=norm), leave_one_out, properties=["mean update"])["mean update"]


def test_the_bias_of_a_factor_of_length_is_found_and_none_without_it() -> None:
    biased, sound = length(lambda t, m: -((t * m).sum(1) / m.sum(1)).mean()), length(row_sum)
    assert biased.facts["bias"] == biased.value > 0.1
    assert not biased.facts["unbiased"]
    assert sound.facts["bias"] == sound.value < 1e-12
    assert sound.facts["unbiased"]
    judged = {
        value: audit(build(), leave_one_out, properties=["mean update"], unbiased=value) for value in (True, False)
    }
    assert judged[True].ok
    assert not judged[False].ok, "a declaration of bias is refuted as well"


@pytest.mark.parametrize(("name", "sign"), [("RLOO, k2", 1), ("KL of the wrong sign", -1)])
def test_a_kl_terms_weight_has_its_sign_and_size_in_number_and_words(name: str, sign: int) -> None:
    case = {**SOUND_ONES, **PLANTED}[name]
    finding = audit(case.loss, case.advantage, properties=["KL term"])["KL term"]
    assert finding.value == pytest.approx(0.1 * sign, rel=1e-6)
    assert finding.words.startswith("lowers" if sign > 0 else "raises")
    assert "times 0.1" in finding.words


def test_the_loss_over_micro_batches_is_their_mean() -> None:
    subject, rows = NamedLoss(build(), leave_one_out), probe(2, 4, moved=0.3)
    parts = [torch.arange(4), torch.arange(4, 8)]
    each = [subject.slopes(rows.take(part)).loss for part in parts]  # whole groups have their own advantages
    assert subject.slopes(rows, parts).loss == pytest.approx(sum(each) / 2, rel=1e-12)
    assert abs(each[0]) > 1e-3
