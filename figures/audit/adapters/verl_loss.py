"""verl's losses, ESTIMATOR+LOSS (grpo+gspo): the trainer's `compute_advantage`, then the actor's `ppo_loss`.

Micro-batches are accumulated as verl's FSDP engine does, which adds their slopes: the factor is 1, not 1 over their number,
since a loss is divided by the tokens or rows of the whole batch. Prompts have one token; padding is left out, as there.
"""

from importlib import import_module
from inspect import signature
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from envs.world import InputError, unknown
from figures.audit.adapters.absent import empty_modules
from figures.audit.contract import Slopes
from figures.audit.rows import Rows

PACKAGE, TRIED = "verl", "0.9.1"  # without its dependencies, save omegaconf, tensordict and pyvers
ESTIMATORS = "grpo grpo_vectorized gdpo grpo_passk rloo rloo_vectorized opo gpg reinforce_plus_plus"
ESTIMATORS += " reinforce_plus_plus_baseline"
LOSSES = "vanilla dppo_tv dppo_kl gspo sapo gpg clip_cov kl_cov geo_mean dro cispo bypass_mode"
MODES = "token-mean token-sum seq-mean-token-sum seq-mean-token-mean seq-mean-token-sum-norm"
ALGO: dict[str, Any] = {"norm_adv_by_std_in_grpo": (True, False), "gamma": (1.0, 0.9)}
POLICY: dict[str, Any] = {"clip_cov_ratio": (2e-4, 0.5), "clip_cov_lb": (1.0, 0.0), "kl_cov_ratio": (2e-4, 0.5)}
POLICY |= {"clip_cov_ub": (5.0, 1.0), "ppo_kl_coef": (0.1, 1.0), "dro_beta": (0.1, 1.0)}
ACTOR: dict[str, Any] = {"loss_agg_mode": tuple(MODES.split()), "loss_scale_factor": (None, 3), "clip_ratio": (0.2, 0.1)}
ACTOR |= {"clip_ratio_low": (0.2, 0.1), "clip_ratio_high": (0.2, 0.28), "clip_ratio_c": (3.0, 1.5), "tau_neg": (1.05, 2.0)}
ACTOR |= {"kl_loss_type": ("low_var_kl", "k1", "k2", "k3", "k1+", "k3+", "abs"), "kl_loss_coef": (0.0, 0.1)}
ACTOR |= {"entropy_coeff": (0.0, 0.01), "tau_pos": (1.0, 2.0)}
ABSENT = "ray codetiming orjson datasets torchdata peft accelerate cachetools uvicorn fastapi"
OPTIONS = ACTOR | POLICY | ALGO


def names() -> list[str]:
    """Every estimator, with the vanilla loss and with each loss."""
    return [*ESTIMATORS.split(), *map("+".join, product(ESTIMATORS.split(), LOSSES.split()))]


class VerlLoss:
    """One loss; there is a KL term where kl_loss_coef is above 0."""

    adjacent = False

    def __init__(self, name: str, trainer: Any, losses: Any, **options: Any):
        own = [{k: x for k, x in ({"dro_beta": 0.1} | options).items() if k in table} for table in (ACTOR, POLICY, ALGO)]
        policy = import_module("verl.workers.config").PolicyLossConfig(name.partition("+")[2] or "vanilla", **own[1])
        usual = {"strategy": "fsdp", "rollout_n": 1, "use_dynamic_bsz": True, "use_kl_loss": options.get("kl_loss_coef", 0) > 0}
        self.actor = losses.ActorConfig(**usual, policy_loss=policy, **own[0])
        self.algo = trainer.AlgoConfig(**own[2], gdpo_reward_keys=["reward"])
        self.name, self.trainer, self.losses = name, trainer, losses
        taken = ["entropy"] * (self.actor.entropy_coeff != 0) + ["ref_log_probs"] * self.actor.use_kl_loss
        self.asks = frozenset(["log_probs", "old_log_probs", "rewards", "mask", "group", *taken])

    def slopes(self, rows: Rows, parts: Any = None) -> Slopes:
        """The loss and minus its slopes."""
        pieces = [torch.arange(len(rows.group))] if parts is None else parts
        leaves = [x.detach().clone().requires_grad_() for x in (rows.log_probs, rows.entropy)]
        advantages = self._advantages(rows)
        of_batch = {"dp_size": 1, "batch_num_tokens": int(rows.mask.sum()), "global_batch_size": len(rows.group)}
        loss = torch.zeros((), dtype=torch.float64)
        for i in pieces:
            own, there = rows.take(i), rows.mask[i].long().flip(1).cummax(1).values.flip(1).bool()
            tables = {"old_log_probs": own.old_log_probs, "ref_log_prob": own.ref_log_probs, "advantages": advantages[i]}
            tables |= {"response_mask": own.mask.long(), "responses": own.mask.long()}
            data = {k: _packed(x, there) for k, x in tables.items()} | {"prompts": _packed(there[:, :1].long(), there[:, :1])}
            said = (_packed(pad(x[i], (0, 1)), pad(there, (1, 0), value=True)) for x in leaves)
            output = dict(zip(("log_probs", "entropy")[: 1 + ("entropy" in self.asks)], said, strict=False))
            batch = self.losses.tu.get_tensordict(data, non_tensor_dict=of_batch)
            loss = loss + self.losses.ppo_loss(self.actor, output, batch)[0]
        w, u = torch.autograd.grad(loss, leaves, allow_unused=True)
        return Slopes(float(loss.detach()), -w, None if u is None else -u)

    def _advantages(self, rows: Rows) -> Tensor:
        """Of the whole batch."""
        mask, prompt = rows.mask.long(), torch.ones_like(rows.tokens[:, :1])
        tables = {"token_level_rewards": torch.where(rows.mask, rows.rewards, 0.0), "response_mask": mask}
        tables |= {"prompts": prompt, "attention_mask": torch.cat([prompt, mask], 1)}
        labels = {"uid": np.array([f"g{i}" for i in rows.group.tolist()], dtype=object), "reward": rows.returns.double().numpy()}
        data = self.trainer.DataProto.from_dict(tables, labels)
        how = {"adv_estimator": self.name.partition("+")[0], "config": self.algo}
        std = self.algo.norm_adv_by_std_in_grpo
        found: Tensor = self.trainer.compute_advantage(data, **how, norm_adv_by_std_in_grpo=std).batch["advantages"]
        return found


def _packed(x: Tensor, there: Tensor) -> Tensor:
    lengths = there.sum(1)
    known = {"min_seqlen": int(lengths.min()), "max_seqlen": int(lengths.max())}
    return torch.nested.nested_tensor_from_jagged(x[there], pad(lengths.cumsum(0), (1, 0)), **known)


def build(name: str, **options: Any) -> VerlLoss:
    """A loss by name, with options of verl's configs."""
    with empty_modules(*ABSENT.split()):
        trainer, losses = (import_module(f"verl.{x}") for x in ("trainer.ppo.ray_trainer", "workers.utils.losses"))
    return VerlLoss(name, trainer, losses, **options)
