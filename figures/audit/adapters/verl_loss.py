"""verl's losses, ESTIMATOR+LOSS (grpo+gspo): a registered advantage estimator, then the actor's `ppo_loss`.

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
_PLUS = "reinforce_plus_plus"
ESTIMATORS = f"grpo grpo_vectorized gdpo grpo_passk rloo rloo_vectorized opo gpg {_PLUS} {_PLUS}_baseline".split()
_CLIPPED, _COVARIANCE = ("vanilla", "gspo", "cispo", "geo_mean", "dppo_tv", "dppo_kl"), ("clip_cov", "kl_cov")
LOSSES = [*_CLIPPED, *_COVARIANCE, "sapo", "gpg", "dro", "bypass_mode"]
MODES = ["token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"]
_KL = ("low_var_kl", "k1", "k2", "k1+", "k3+", "abs")
_ALGO: dict[str, Any] = {"norm_adv_by_std_in_grpo": (True, False), "gamma": (1.0, 0.9)}
_POLICY: dict[str, Any] = {"clip_cov_ratio": (2e-4, 0.5), "clip_cov_lb": (1.0, 0.0), "clip_cov_ub": (5.0, 1.0)}
_POLICY |= {"kl_cov_ratio": (2e-4, 0.5), "ppo_kl_coef": (0.1, 1.0), "dro_beta": (0.1, 1.0)}
_ACTOR: dict[str, Any] = {"loss_agg_mode": MODES, "loss_scale_factor": (None, 3), "clip_ratio": (0.2, 0.1)}
_ACTOR |= {"clip_ratio_low": (0.2, 0.1), "clip_ratio_high": (0.2, 0.28), "clip_ratio_c": (3.0, 1.5)}
_ACTOR |= {"kl_loss_coef": (0.0, 0.1), "kl_loss_type": _KL, "entropy_coeff": (0.0, 0.01)}
_ACTOR |= {"tau_pos": (1.0, 2.0), "tau_neg": (1.05, 2.0)}
OPTIONS = _ACTOR | _POLICY | _ALGO


def names() -> list[str]:
    """Every estimator, with the vanilla loss and with each loss."""
    return [*ESTIMATORS, *map("+".join, product(ESTIMATORS, LOSSES))]


class VerlLoss:
    """One loss; there is a KL term where kl_loss_coef is above 0."""

    adjacent = False

    def __init__(self, name: str, estimator: Any, losses: Any, actor: Any, algo: Any):
        self.name, self.estimator, self.losses, self.actor, self.algo = name, estimator, losses, actor, algo
        taken = ["entropy"] * (actor.entropy_coeff != 0) + ["ref_log_probs"] * actor.use_kl_loss
        self.asks = frozenset(["log_probs", "old_log_probs", "rewards", "mask", "group", *taken])

    def slopes(self, rows: Rows, parts: Any = None) -> Slopes:
        """The loss and minus its slopes."""
        pieces = [torch.arange(len(rows.group))] if parts is None else parts
        leaves = [x.detach().clone().requires_grad_() for x in (rows.log_probs, rows.entropy)]
        tables = {
            "old_log_probs": rows.old_log_probs,
            "ref_log_prob": rows.ref_log_probs,
            "response_mask": rows.mask.long(),
        }
        tables |= {"responses": rows.mask.long(), "advantages": self._advantages(rows)}
        of_batch = {"dp_size": 1, "batch_num_tokens": int(rows.mask.sum()), "global_batch_size": len(rows.group)}
        loss, place = torch.zeros((), dtype=torch.float64), rows.mask.long().flip(1).cummax(1).values.flip(1).bool()
        for i in pieces:
            data = {k: _packed(x[i], place[i]) for k, x in tables.items()} | {
                "prompts": _packed(place[i, :1], place[i, :1])
            }
            said = [_packed(pad(x[i], (0, 1)), pad(place[i], (1, 0), value=True)) for x in leaves]
            output = {"log_probs": said[0]} | ({"entropy": said[1]} if "entropy" in self.asks else {})
            batch = self.losses.tu.get_tensordict(data, non_tensor_dict=of_batch)
            loss = loss + self.losses.ppo_loss(self.actor, output, batch)[0]
        w, u = torch.autograd.grad(loss, leaves, allow_unused=True)
        return Slopes(float(loss.detach()), -w, None if u is None else -u)

    def _advantages(self, rows: Rows) -> Tensor:
        """Of the whole batch; as in `compute_advantage`, grpo alone is told of norm_adv_by_std_in_grpo."""
        told = (
            {"norm_adv_by_std_in_grpo": self.algo.norm_adv_by_std_in_grpo} if self.name.split("+")[0] == "grpo" else {}
        )
        index = np.array([f"g{i}" for i in rows.group.tolist()], dtype=object)
        tables = {"token_level_rewards": torch.where(rows.mask, rows.rewards, 0.0), "response_mask": rows.mask.long()}
        found: Tensor = self.estimator(**tables, index=index, config=self.algo, **told)[0]
        return found


def _packed(x: Tensor, place: Tensor) -> Tensor:
    lengths = place.sum(1)
    known: dict[str, Any] = {"min_seqlen": int(lengths.min()), "max_seqlen": int(lengths.max())}
    return torch.nested.nested_tensor_from_jagged(x[place], pad(lengths.cumsum(0), (1, 0)), **known)


def build(name: str, **options: Any) -> VerlLoss:
    """A loss by name, with options of verl's configs."""
    with empty_modules("ray", "codetiming", "orjson", "datasets"):
        core, losses, config = (
            import_module(f"verl.{x}") for x in ("trainer.ppo.core_algos", "workers.utils.losses", "workers.config")
        )
    estimator, _, loss = name.partition("+")
    if estimator not in core.ADV_ESTIMATOR_REGISTRY or (loss or "vanilla") not in core.POLICY_LOSS_REGISTRY:
        raise unknown("loss", name, names())
    for option in options:
        if option not in OPTIONS:
            raise unknown("option", option, list(OPTIONS))
    function = core.get_adv_estimator_fn(estimator)
    needs = {k for k, p in signature(function).parameters.items() if p.default is p.empty and p.kind != p.VAR_KEYWORD}
    if missing := needs - {"token_level_rewards", "response_mask", "index"}:
        raise InputError(f"{estimator} needs {', '.join(sorted(missing))}: choose one of {', '.join(ESTIMATORS)}")
    of = [{k: x for k, x in ({"dro_beta": 0.1} | options).items() if k in table} for table in (_POLICY, _ACTOR, _ALGO)]
    usual = {
        "strategy": "fsdp",
        "rollout_n": 1,
        "use_dynamic_bsz": True,
        "use_kl_loss": options.get("kl_loss_coef", 0) > 0,
    }
    actor = config.ActorConfig(
        **usual, policy_loss=config.PolicyLossConfig(loss_mode=loss or "vanilla", **of[0]), **of[1]
    )
    return VerlLoss(name, function, losses, actor, core.AlgoConfig(**of[2]))
