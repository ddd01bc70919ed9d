"""OpenRLHF's losses by advantage estimator: its `compute_advantages_and_returns`, then its `ActorPPOTrainer.training_step`.

Micro-batches have the normalisers of `iter_grad_accum_global_norm`, and DeepSpeed divides by their number: the answer is their
mean. Places without a token hold 0, as its actor gives them. Its casts to float32 leave float64 as it is, for exact means.
"""

from importlib import import_module
from types import SimpleNamespace as Space
from typing import Any
from unittest.mock import MagicMock, patch

import torch
from torch import Tensor

from envs.world import InputError, unknown
from figures.audit.adapters.absent import empty_modules
from figures.audit.contract import Slopes
from figures.audit.rows import Rows

PACKAGE, TRIED = "openrlhf", "0.11.2"  # without its dependencies
ESTIMATORS = ("reinforce", "rloo", "reinforce_baseline", "group_norm", "dr_grpo", "flash_reinforce")
ABSENT = "ray peft flash_attn deepspeed pylatexenc vllm aiohttp torchdata"
OPTIONS: dict[str, Any] = {"loss_agg_mode": ("token-mean", "seq-mean-token-mean"), "policy_loss_type": ("ppo", "gspo")}
OPTIONS |= {"eps_clip_low": (0.2, 0.1), "eps_clip_high": (0.2, 0.28), "dual_clip": (None, 3.0)}
OPTIONS |= {"entropy_coef": (None, 0.01), "clip_range": ((-10, 10), None)}
OPTIONS |= {"kl_coef": (0.0, 0.1), "kl_use_loss": (True, False), "kl_estimator": ("k1", "k2", "k3")}
OPTIONS |= {"kl_unbiased_gradient": (False, True), "no_std_norm": (False, True), "gamma": (1.0, 0.9)}


def names() -> list[str]:
    """The estimators that need no critic."""
    return list(ESTIMATORS)


class OpenRLHFLoss:
    """One loss; there is a KL term where kl_coef is above 0."""

    adjacent = True

    def __init__(self, name: str, maker: Any, actor: Any, o: dict[str, Any]):
        self.name, self.maker, self.actor, self.kl = name, maker, actor, o["kl_coef"]
        taken = ["entropy"] * (o["entropy_coef"] is not None) + ["ref_log_probs"] * (self.kl > 0)
        self.asks = frozenset(["log_probs", "old_log_probs", "rewards", "mask", "group", *taken])
        kl = Space(use_loss=o["kl_use_loss"] and self.kl > 0, init_coef=self.kl, estimator=o["kl_estimator"])
        kl.unbiased_gradient = o["kl_unbiased_gradient"]
        advantage = Space(estimator=name, gamma=o["gamma"], lambd=1.0, no_std_norm=o["no_std_norm"])
        self.args = Space(
            algo=Space(kl=kl, advantage=advantage), actor=Space(entropy_coef=o["entropy_coef"]), rollout=Space()
        )
        self.args.train, self.args.reward = Space(dynamic_batch_enable=False), Space(clip_range=o["clip_range"])
        clips = (o["eps_clip_low"], o["eps_clip_high"], o["dual_clip"], o["loss_agg_mode"] == "token-mean")
        self.function = actor.PolicyLoss(*clips, policy_loss_type=o["policy_loss_type"])

    def slopes(self, rows: Rows, parts: Any = None) -> Slopes:
        """The loss and minus its slopes."""
        pieces = [torch.arange(len(rows.group))] if parts is None else parts
        leaves = [x.detach().clone().requires_grad_() for x in (rows.log_probs, rows.entropy)]
        losses = list[Tensor]()
        strategy = Space(
            backward=lambda loss, *_: losses.append(loss), ring_attn_group=None, get_grad_norm=lambda *_: 0.0
        )
        strategy.optimizer_step = lambda *_, **__: None
        me = Space(strategy=strategy, args=self.args, actor_loss_fn=self.function, aux_loss=False, ema_model=None)
        me.actor_optim, me.actor_scheduler = None, Space(get_last_lr=lambda: [0.0])
        with patch.object(Tensor, "float", lambda x: x.to(torch.promote_types(x.dtype, torch.float32))):
            batch = self._experience(rows)
            info = self.actor.iter_grad_accum_global_norm(pieces, None, len(pieces), lambda i: rows.mask[i])
            for i, normalisers in info:
                part = self.maker.Experience(
                    **{k: x[i] for k, x in vars(batch).items() if isinstance(x, Tensor)}, info={}
                )
                said = [torch.where(rows.mask[i], x[i], 0.0) for x in leaves]
                me.actor = MagicMock(return_value=(said[0], Space(entropy=said[1])))
                self.actor.ActorPPOTrainer.training_step(me, part, self.kl, 0, normalisers)
        loss = torch.stack(losses).mean()
        w, u = torch.autograd.grad(loss, leaves, allow_unused=True)
        return Slopes(float(loss.detach()), -w, None if u is None else -u)

    def _experience(self, rows: Rows) -> Any:
        self.args.rollout.n_samples_per_prompt = len(rows.group) // len(rows.group.unique())
        old, ref = (torch.where(rows.mask, x, 0.0) for x in (rows.old_log_probs, rows.ref_log_probs))
        in_reward = self.kl > 0 and not self.args.algo.kl.use_loss
        kl = self.maker.compute_approx_kl(old, ref, kl_estimator=self.args.algo.kl.estimator) if in_reward else 0 * old
        tables = {"action_log_probs": old, "base_action_log_probs": ref, "kl": kl, "rewards": rows.returns}
        e = self.maker.Experience(**tables, action_mask=rows.mask, sequences=rows.tokens, index=list(range(len(old))))
        me = Space(strategy=Space(args=self.args), advantage_estimator=self.name, kl_ctl=Space(value=self.kl))
        me.get_cumulative_returns = lambda *x: self.maker.RemoteExperienceMaker.get_cumulative_returns(me, *x)
        return self.maker.RemoteExperienceMaker.compute_advantages_and_returns(me, [e])[0]


def build(name: str, **options: Any) -> OpenRLHFLoss:
    """A loss by name, with options of OpenRLHF's command line."""
    if name == "gae":
        raise InputError(f"gae needs the values of a critic: choose one of {', '.join(ESTIMATORS)}")
    if name not in ESTIMATORS:
        raise unknown("loss", name, names())
    for option in options:
        if option not in OPTIONS:
            raise unknown("option", option, list(OPTIONS))
    with empty_modules(*ABSENT.split()):
        maker = import_module("openrlhf.trainer.ppo_utils.experience_maker")
        actor = import_module("openrlhf.trainer.ray.ppo_actor")
    return OpenRLHFLoss(name, maker, actor, {k: x[0] for k, x in OPTIONS.items()} | options)
