"""TRL's GRPOTrainer and RLOOTrainer: a real trainer makes advantages and loss of rows and log-probabilities that it is given.

Replaced are its generation, its forward pass (0 where the attention mask is 0, as its own gives) and its rewards (its own are
float32, which would hide an exact mean; lower precisions become float32, as there).
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from envs.world import unknown
from figures.audit.contract import Slopes
from figures.audit.rows import Rows

PACKAGE, TRIED = "trl", "1.16.0"
OPTIONS: dict[str, Sequence[Any]] = {
    "loss_type": ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "num_iterations": (2, 1),  # with 1, TRL's default, GRPOTrainer compares with no older policy
    **{"beta": (0.0, 0.1), "epsilon": (0.2, 0.1), "epsilon_high": (None, 0.28, 5.0), "delta": (None, 1.5)},
    **{"mask_truncated_completions": (False, True), "use_bias_correction_kl": (True, False)},
    **{"entropy_coef": (0.0, 0.01), "off_policy_mask_threshold": (None, 0.1), "max_completion_length": (256, 3)},
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    **{"normalize_advantages": (False, True), "reward_clip_range": (None, (-0.5, 0.5))},
}
WORDS = {"a": 0, "b": 1, "</s>": 2}


def names() -> list[str]:
    """The trainers."""
    return ["grpo", "rloo"]


class TrainerLoss:
    """The loss of a trainer. Rows stand group after group, as it wants them; micro-batches are its accumulation steps."""

    adjacent = True

    def __init__(self, name: str, trainer: Any, beta: float):
        self.name, self.trainer, config = name, trainer, trainer.args
        trainer.beta, trainer.ref_model = beta, None if beta == 0 else "reference"  # it would load a model by its name
        asked = {"old_log_probs": name == "rloo" or config.num_iterations > 1, "ref_log_probs": beta != 0}
        asked |= {"ended": config.mask_truncated_completions, "entropy": getattr(config, "entropy_coef", 0) != 0}
        self.asks = frozenset({"log_probs", "returns"} | {k for k, x in asked.items() if x})

    def slopes(self, rows: Rows, parts: Sequence[Tensor] | None = None) -> Slopes:
        """As `figures.audit.contract.Subject` has it."""
        pieces, trainer = [torch.arange(len(rows.group))] if parts is None else parts, self.trainer
        trainer.num_generations, trainer.pad_to_multiple_of = (
            len(rows.group) // len(rows.group.unique()),
            rows.mask.shape[1],
        )
        trainer.args.gradient_accumulation_steps = trainer.args.steps_per_generation = len(pieces)
        trainer.current_gradient_accumulation_steps = len(pieces)
        inputs = self._scored(rows)
        leaves = [x.detach().clone().requires_grad_() for x in (rows.log_probs, rows.entropy)]
        loss = torch.zeros((), dtype=rows.log_probs.dtype)
        for index in pieces:
            self._says(leaves[0][index], leaves[1][index])
            part = {k: x[index] if x.ndim else x for k, x in inputs.items()}
            loss = loss + trainer._compute_loss(trainer.model, part) / (
                1 if trainer.loss_is_scaled_for_ga else len(pieces)
            )
        w, u = torch.autograd.grad(loss, leaves, allow_unused=True)
        return Slopes(float(loss.detach()), -w, None if "entropy" not in self.asks or u is None else -u)

    def _scored(self, rows: Rows) -> dict[str, Tensor]:
        """Inputs of the loss, with advantages; completions end with the end token unless they were cut."""
        lengths = zip(rows.mask.sum(1).tolist(), rows.ended.tolist(), strict=True)
        said = [[0] * (n - 1) + [2 if ended else 0] for n, ended in lengths]
        given = [[[0]] * len(said), said, ["a"] * len(said)]
        more: list[Any] = [None, {}, None, None]
        answer = (*given[:2], None, given[2], *more) if self.name == "grpo" else tuple(given)
        R = rows.returns.to(torch.promote_types(rows.rewards.dtype, torch.float32))
        self.trainer._generate = lambda prompts: answer
        self.trainer._calculate_rewards = lambda *_: R[:, None].clone()
        self._says(rows.old_log_probs, None, rows.ref_log_probs)
        return dict(self.trainer._generate_and_score_completions([{"prompt": "a"}] * len(said)))

    def _says(self, log_probs: Tensor, entropy: Tensor | None, reference: Tensor | None = None) -> None:
        """Let the forward pass of the policy, and that of the reference, give these numbers."""

        def forward(model: Any, ids: Tensor, attention: Tensor, keep: int, *_: Any, **__: Any) -> tuple[Any, Any, None]:
            there = attention[:, -keep:] > 0
            x = log_probs if model is self.trainer.model or reference is None else reference
            return torch.where(there, x, 0.0), None if entropy is None else torch.where(there, entropy, 0.0), None

        self.trainer._get_per_token_logps_and_entropies = forward


def build(name: str, **options: Any) -> TrainerLoss:
    """A trainer by name, with options of its config."""
    if name not in names():
        raise unknown("loss", name, names())
    with patch.dict(os.environ, CI="1", HF_HUB_OFFLINE="1"):  # no telemetry
        import trl
        from datasets import Dataset
        from tokenizers import Tokenizer, models
        from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

        of, config = getattr(trl, f"{name.upper()}Trainer"), getattr(trl, f"{name.upper()}Config")
        known = [option for option in OPTIONS if option in {field.name for field in fields(config)}]
        if wrong := [option for option in options if option not in known]:
            raise unknown("option", wrong[0], known)
        words = Tokenizer(models.WordLevel(WORDS, unk_token="a"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="</s>")
        size: dict[str, Any] = {
            "n_positions": 64,
            "n_embd": 4,
            "n_layer": 1,
            "n_head": 1,
            "bos_token_id": 2,
            "eos_token_id": 2,
        }
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), **size))
        usual = {"num_iterations": 2, "use_cpu": True, "bf16": False, "report_to": "none", "num_generations": 2}
        with tempfile.TemporaryDirectory() as out:
            args = config(out, **usual | {"per_device_train_batch_size": 2} | options | {"beta": 0.0})
            data = Dataset.from_list([{"prompt": "a"}])
            trainer = of(model, lambda **_: [0.0], args, data, processing_class=tokenizer)
    return TrainerLoss(name, trainer, options.get("beta", 0.0))
