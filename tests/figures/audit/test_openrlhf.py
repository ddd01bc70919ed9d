"""The adapter for OpenRLHF, against its PolicyLoss with advantages written out here, in a process of its own."""

from importlib import import_module
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from agents.policies.prefix_table import PrefixTable
from envs.token_tasks import sum_and_stop
from envs.world import InputError
from figures.audit.adapters import build, installed
from figures.audit.auditor import audit
from figures.audit.contract import Slopes, Subject
from figures.audit.exact import mean_field
from figures.audit.isolated import audit_library
from figures.audit.rows import Rows
from tests.figures.audit.in_process import in_a_process
from tests.figures.audit.test_exact import brute_force

pytestmark = pytest.mark.skipif(not installed("openrlhf"), reason="openrlhf is not installed")
CASES: dict[str, dict[str, Any]] = {
    "group_norm": {"loss_agg_mode": "seq-mean-token-mean"},
    "rloo": {"policy_loss_type": "gspo"},
    "dr_grpo": {},
    "reinforce_baseline": {"no_std_norm": True},
}


def advantages(name: str, returns: Tensor, mask: Tensor) -> Tensor:
    """Of one group, (rows, T)."""
    above = returns - returns.mean()
    if name == "rloo":
        above = above * len(returns) / (len(returns) - 1)
    if name == "group_norm":
        above = above / (returns.std() + 1e-9)
    table = above[:, None] * mask
    return table - table.sum() / mask.sum() if name == "reinforce_baseline" else table


class Direct:
    """PolicyLoss alone, on a table with zeros as padding."""

    adjacent = True

    def __init__(self, name: str):
        build(f"openrlhf:{name}", {})  # its modules are there from now on
        self.name, self.asks, o = name, frozenset(["log_probs", "rewards", "mask"]), CASES[name]
        by_token = o.get("loss_agg_mode", "token-mean") == "token-mean"
        kind = o.get("policy_loss_type", "ppo")
        loss = import_module("openrlhf.models.loss").PolicyLoss
        self.loss = loss(token_level_loss=by_token, policy_loss_type=kind)

    def slopes(self, rows: Rows, parts: Any = None) -> Slopes:
        """The loss and minus its slopes, of one group."""
        leaf = torch.where(rows.mask, rows.log_probs, 0.0).requires_grad_()
        A = advantages(self.name, torch.where(rows.mask, rows.rewards, 0.0).sum(1), rows.mask)
        scalar = self.loss(leaf, leaf.detach(), A, action_mask=rows.mask)[0]
        return Slopes(float(scalar.detach()), -torch.autograd.grad(scalar, leaf)[0])


def gap(name: str, group: int) -> tuple[float, float]:
    world = sum_and_stop(1, 2) if group == 3 else sum_and_stop(2, 2)
    policy, direct = PrefixTable(world, seed=2), Direct(name)
    expected = brute_force(direct, world, policy, group)
    other = mean_field(build("openrlhf:flash_reinforce", {"clip_range": (-0.3, 0.3)}), world, policy, group=group)
    found = mean_field(build(f"openrlhf:{name}", CASES[name]), world, policy, group=group)
    return float((found - expected).abs().max()), float((other - expected).abs().max())


def gaps() -> dict[tuple[str, int], tuple[float, float]]:
    """How far exact means are from brute force over all ordered groups, and how far the mean of another loss is."""
    return {(name, group): gap(name, group) for name in CASES for group in (2, 3)}


def planted() -> dict[str, tuple[str, ...]]:
    """Defects that are put into OpenRLHF's functions here, by name."""
    subject: Subject = build("openrlhf:dr_grpo", {})
    loss = import_module("openrlhf.models.loss")
    sound = loss.aggregate_loss

    def local(x: Tensor, mask: Tensor, **_: Any) -> Any:  # a mean over the tokens of the micro-batch
        return sound(x, mask)

    wrong = {"against": lambda *args, **kwargs: -sound(*args, **kwargs), "local": local}
    found = dict[str, tuple[str, ...]]()
    for name, function in wrong.items():
        with patch.object(loss, "aggregate_loss", function):
            record = audit(subject, properties=["climbs", "padding", "split"], split="rows")
        found[name] = tuple(f.name for f in record.defects)
    return found


def test_the_means_are_those_over_all_ordered_groups() -> None:
    for case, (far, control) in in_a_process(gaps).items():
        assert far < 1e-9, case
        assert control > 1e-3, case


def test_planted_defects_are_named() -> None:
    assert in_a_process(planted) == {"against": ("climbs",), "local": ("split",)}


def test_a_library_is_audited_in_a_process_of_its_own() -> None:
    found = audit_library("openrlhf:rloo", properties=["recipe", "split"], split="rows")
    assert found["recipe"].facts["recipe"] == "leave one out; token mean"
    assert found.ok


@pytest.mark.parametrize("spec", ["openrlhf:gae", "openrlhf:grop"])
def test_losses_without_their_inputs_are_refused(spec: str) -> None:
    with pytest.raises(InputError, match=r"needs|unknown") as error:
        audit_library(spec)
    assert "\n" not in str(error.value)
