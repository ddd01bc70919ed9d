"""The adapter for verl, against its registered functions called on padded tables, in a process of its own."""

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

from agents.policies.prefix_table import PrefixTable
from envs.token_tasks import sum_and_stop
from envs.world import InputError
from figures.audit.adapters import build, installed, verl_loss
from figures.audit.auditor import audit
from figures.audit.contract import Slopes
from figures.audit.exact import mean_field
from figures.audit.isolated import audit_library
from figures.audit.rows import Rows
from tests.figures.audit.in_process import in_a_process
from tests.figures.audit.test_exact import brute_force

pytestmark = pytest.mark.skipif(not installed("verl"), reason="verl is not installed")
CASES: dict[str, dict[str, Any]] = {
    "grpo": {"norm_adv_by_std_in_grpo": False},
    "grpo+gspo": {"loss_agg_mode": "seq-mean-token-mean"},
    "rloo": {"loss_agg_mode": "seq-mean-token-sum"},
    "opo+cispo": {"loss_agg_mode": "seq-mean-token-sum-norm"},
    "reinforce_plus_plus_baseline+sapo": {},
    "gpg+geo_mean": {},
}


class Direct:
    """verl's functions, called one by one: an estimator, and a policy loss on a table with zeros as padding."""

    adjacent = False

    def __init__(self, name: str, of: verl_loss.VerlLoss):
        self.name, self.asks, self.of = name, of.asks, of
        self.core = import_module("verl.trainer.ppo.core_algos")

    def slopes(self, rows: Rows, parts: Any = None) -> Slopes:
        """The loss and minus its slopes, of one group."""
        estimator, _, loss = self.name.partition("+")
        own, mask = rows.take(slice(None)), rows.mask[:, : int(rows.mask.sum(1).max())]  # to its longest row
        width, index = mask.shape[1], np.array(["x"] * len(mask), dtype=object)
        told = {"norm_adv_by_std_in_grpo": False} if estimator == "grpo" and "gspo" not in loss else {}
        function = self.core.get_adv_estimator_fn(estimator)
        rewards = torch.where(own.mask, own.rewards, 0.0)[:, :width]
        advantages = function(rewards, response_mask=mask.long(), index=index, config=self.of.algo, **told)[0]
        leaf = torch.where(mask, own.log_probs[:, :width], 0.0).requires_grad_()
        self.of.actor.global_batch_info.clear()
        how = (mask, self.of.actor.loss_agg_mode, self.of.actor)
        scalar = self.core.get_policy_loss_fn(loss or "vanilla")(leaf.detach(), leaf, advantages, *how)[0]
        w = torch.zeros_like(rows.log_probs)
        w[:, :width] = -torch.autograd.grad(scalar, leaf)[0]
        return Slopes(float(scalar.detach()), w)


def gap(name: str, group: int) -> tuple[float, float]:
    world = sum_and_stop(1, 2) if group == 3 else sum_and_stop(2, 2)
    policy, subject = PrefixTable(world, seed=2), build(f"verl:{name}", CASES[name])
    assert isinstance(subject, verl_loss.VerlLoss)
    expected = brute_force(Direct(name, subject), world, policy, group)
    other = mean_field(build("verl:rloo", {"loss_agg_mode": "token-sum"}), world, policy, group=group)
    found = mean_field(subject, world, policy, group=group)
    return float((found - expected).abs().max()), float((other - expected).abs().max())


def gaps() -> dict[tuple[str, int], tuple[float, float]]:
    """How far exact means are from brute force over all ordered groups, and how far the mean of another loss is."""
    return {(name, group): gap(name, group) for name in CASES for group in (2, 3)}


def planted() -> dict[str, tuple[str, ...]]:
    """Defects of policy losses that are registered with verl here, by name of the loss."""
    build("verl:grpo", {})
    core = import_module("verl.trainer.ppo.core_algos")
    vanilla = core.get_policy_loss_fn("vanilla")

    def against(old_log_prob: Any, log_prob: Any, advantages: Any, *more: Any, **options: Any) -> Any:
        return vanilla(old_log_prob, log_prob, -advantages, *more, **options)

    def local(config: Any, response_mask: Any, **options: Any) -> Any:
        config.global_batch_info["batch_num_tokens"] = response_mask.sum()
        return vanilla(config=config, response_mask=response_mask, **options)

    def by_keywords(**x: Any) -> Any:
        return against(x.pop("old_log_prob"), x.pop("log_prob"), x.pop("advantages"), **x)

    found = dict[str, tuple[str, ...]]()
    for name, loss in {"against": by_keywords, "local": local}.items():
        core.register_policy_loss(name)(loss)
        looked_at = ["climbs", "padding", "split"]
        subject = build(f"verl:grpo_passk+{name}", {})
        found[name] = tuple(f.name for f in audit(subject, properties=looked_at, split="rows").defects)
    return found


def test_the_means_are_those_over_all_ordered_groups() -> None:
    for case, (far, control) in in_a_process(gaps).items():
        assert far < 1e-9, case
        assert control > 1e-3, case


def test_planted_defects_are_named() -> None:
    assert in_a_process(planted) == {"against": ("climbs",), "local": ("split",)}


def test_a_library_is_audited_in_a_process_of_its_own() -> None:
    found = audit_library(
        "verl:rloo", {"loss_agg_mode": "seq-mean-token-sum"}, properties=["recipe", "split"], split="rows"
    )
    assert found["recipe"].facts["recipe"] == "leave one out; row sum"
    assert found.ok


@pytest.mark.parametrize("spec", ["verl:gae", "verl:remax", "verl:grop", "verl:grpo+vanila"])
def test_losses_without_their_inputs_are_refused(spec: str) -> None:
    with pytest.raises(InputError, match=r"needs|unknown") as error:
        audit_library(spec)
    assert "\n" not in str(error.value)
