"""What the passes over one draw of rows show: losses, the first gradient, ratios, tokens and groups without a signal."""

import torch
from torch import Tensor

from agents.training.tasks import Rollouts

SAMPLED = (
    "loss",
    "sampled",
    "clipped",
    "silent",
    "ratio_error",
)  # fields of a record that a step without rows leaves open


class StepDiagnostics:
    """Collects one step's minibatches; `summary` gives one number for each copy.

    Attributes:
        gradient: of the step's first loss.
        ratio_error: largest |ratio - 1| of each copy before the first update.

    Args:
        rows: what the step has drawn.
    """

    def __init__(self, rows: Rollouts):
        self.rows, self.losses = rows, list[Tensor]()
        self.weights: Tensor = torch.full_like(rows.old, torch.nan)
        self.silenced = torch.zeros_like(rows.mask)
        self.gradient: list[Tensor] = []

    def add(self, part: Tensor | slice, losses: Tensor, slopes: Tensor, log_probs: Tensor) -> None:
        """Count one minibatch.

        Args:
            part: which rows it holds.
            losses: of the copies, (S,).
            slopes: of the surrogate in the log-probabilities, (S, rows, T).
            log_probs: before the update, (S, rows, T).
        """
        if not self.losses:
            off = ((log_probs - self.rows.old[:, part]).exp() - 1).abs() * self.rows.mask[:, part]
            self.ratio_error = off.double().amax((1, 2))
        before = self.weights[:, part]
        self.silenced[:, part] |= (slopes == 0) & before.isfinite() & (before != 0)
        self.weights[:, part] = torch.where(before.isnan(), slopes.double(), before)
        self.losses.append(losses)

    def keep_first(self, gradients: list[Tensor]) -> list[Tensor]:
        """Keep the first gradient of the step.

        Args:
            gradients: one for each parameter.

        Returns:
            The gradients as they are.
        """
        self.gradient = self.gradient or gradients
        return gradients

    def summary(self) -> dict[str, Tensor]:
        """The fields `SAMPLED` of a record.

        Returns:
            By name one number for each copy.
        """
        mask, groups = self.rows.mask, self.rows.groups
        size = self.weights.abs()
        alive = (size > 1e-12 * size.amax((1, 2), keepdim=True)).any(2).unflatten(1, (groups, -1)).any(2)
        values = {
            "loss": torch.stack(self.losses).double().mean(0),
            "sampled": self.rows.rewards.sum(2).mean(1),
            "clipped": self.silenced.double().sum((1, 2)) / mask.sum((1, 2)),
            "silent": 1 - alive.double().mean(1),
            "ratio_error": self.ratio_error,
        }
        return {name: x.double().cpu() for name, x in values.items()}
