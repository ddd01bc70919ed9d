"""torchrl's losses for language models on an actor that says given log-probabilities; advantages by its MCAdvantage.

A completion is one step of a trajectory, as in its recipes for language models, with the whole return as its reward.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from envs.world import unknown
from figures.audit.contract import Slopes
from figures.audit.rows import Rows

PACKAGE, TRIED = "torchrl", "0.14.1"
OPTIONS: dict[str, Sequence[Any]] = {
    **{"clip_epsilon": (0.2, (0.2, 0.28)), "aggregation": ("token_mean", "prompt_mean"), "reduction": ("mean", "sum")},
    **{"entropy_coeff": (0.01, 0.0), "kl_to_ref_coeff": (None, 0.1), "kl_to_inference_coeff": (None, 0.1)},
    **{"kl_mask_threshold": (None, 0.01), "clip_value": (None, 0.2), "trajectory_return": (None, "sum", "max", "mean")},
}
_CLASSES = {"grpo": "GRPOLoss", "dapo": "DAPO", "cispo": "CISPOLoss"}


def names() -> list[str]:
    """The losses."""
    return list(_CLASSES)


class _Said(torch.distributions.Distribution):
    """Given numbers as a distribution over tokens."""

    def __init__(self, log_probs: Tensor, entropies: Tensor, mask: Tensor):
        super().__init__(validate_args=False)
        self.log_probs, self.entropies, self.mask = log_probs, entropies, mask

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.where(self.mask, self.log_probs, 0.0)  # as LLMMaskedCategorical

    def entropy(self) -> Tensor:
        return torch.where(self.mask, self.entropies, 0.0)


class _Actor(nn.Module):
    in_keys, said = ("tokens",), None

    def get_dist(self, tensordict: Any, **_: Any) -> Any:
        return self.said

    _get_sft_dist = get_dist


class ModuleLoss:
    """A loss module; advantages of the whole batch, the mean over micro-batches."""

    adjacent = False

    def __init__(self, name: str, loss: Any, trajectory_return: str | None):
        self.name, self.loss, self.trajectory_return = name, loss, trajectory_return
        asked = {"ref_log_probs": loss.kl_to_ref_coeff, "entropy": loss.entropy_bonus and loss.entropy_coeff}
        self.asks = frozenset({"log_probs", "old_log_probs", "returns"} | {k for k, x in asked.items() if x})

    def slopes(self, rows: Rows, parts: Sequence[Tensor] | None = None) -> Slopes:
        """As `figures.audit.contract.Subject` has it."""
        from tensordict import TensorDict

        pieces, advantages = [torch.arange(len(rows.group))] if parts is None else parts, self.advantages(rows)
        leaves = [x.detach().clone().requires_grad_() for x in (rows.log_probs, rows.entropy)]
        total = torch.zeros((), dtype=rows.log_probs.dtype)
        for index in pieces:
            own = rows.take(index)
            self.loss.actor_network.said = _Said(leaves[0][index], leaves[1][index], own.mask)
            given: dict[str, Any] = {
                "tokens": {"full": own.tokens[:, own.prompt :]},
                "log_probs": {"full": own.old_log_probs},
            }
            given |= {"advantage": advantages[index], "next": {"ref_log_probs": {"full": own.ref_log_probs}}}
            answer = self.loss(TensorDict(given, [len(index)])).to_tensordict()
            total = total + sum(x for key, x in answer.items() if key.startswith("loss_")) / len(pieces)
        w, u = torch.autograd.grad(total, leaves, allow_unused=True)
        return Slopes(float(total.detach()), -w, None if "entropy" not in self.asks or u is None else -u)

    def advantages(self, rows: Rows) -> Tensor:
        """Of each row, (rows, 1, 1); rewards of lower precision than float32 become float32, the usual one."""
        from tensordict import TensorDict
        from torchrl.objectives.llm import MCAdvantage

        count, groups = len(rows.group), len(rows.group.unique())
        engine = MCAdvantage(count // groups, prompt_key="query", trajectory_return=self.trajectory_return)
        R = rows.returns.to(torch.promote_types(rows.rewards.dtype, torch.float32)).reshape(-1, 1, 1, 1)
        end = {"reward": R, "done": torch.ones(count, 1, 1, dtype=torch.bool)}
        steps = {"query": rows.group.reshape(-1, 1), "row": torch.arange(count).reshape(-1, 1), "next": end}
        answer = engine.inv(TensorDict(steps, [count, 1]))  # group by group, in the order of their last rows
        return torch.empty_like(R[:, 0]).index_copy_(0, answer["row"], answer["advantage"])


def build(name: str, **options: Any) -> ModuleLoss:
    """A loss by name, with the options of its class and MCAdvantage's trajectory_return."""
    if name not in names():
        raise unknown("loss", name, names())
    if wrong := [option for option in options if option not in OPTIONS]:
        raise unknown("option", wrong[0], list(OPTIONS))
    from torchrl.objectives import llm

    trajectory_return = options.pop("trajectory_return", None)
    if "clip_epsilon" in options and not isinstance(options["clip_epsilon"], float):
        options["clip_epsilon"] = tuple(options["clip_epsilon"])
    return ModuleLoss(name, getattr(llm, _CLASSES[name])(_Actor(), **options), trajectory_return)
