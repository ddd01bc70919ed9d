"""The batch that an update is computed from: rows of T steps, drawn in groups, all constants."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from envs.record import short_repr
from envs.world import InputError


@short_repr
@dataclass(frozen=True)
class Batch:
    """Sampled completions, one in each row.

    Attributes:
        rewards: what each step adds to the return, `gamma^k r_k`, so that a return is their plain sum; 0 after the completion.
        mask: True for the steps that the policy took. Where the environment speaks between them, the mask has holes.
        group: number of the row's group, 0 ... groups - 1; the rows of a group share a prompt or start state.
        old: log pi of the policy that drew the rows; None means the current policy's.
        reference: log pi_ref of the same tokens, for a KL penalty.
        values: a critic's `gamma^k V_k` before each step.
        ended: False for completions that were cut at the horizon.
        span: True for the steps of the completion, from the first to the last, the environment's among them; it may speak
            first and last. None where the policy takes all steps, which then run from the first to the end token.
        extras: further numbers of every row by name, such as "accuracy": what an advantage may see beside the rewards.

    Raises:
        InputError: naming the field: shapes disagree, a reward or log-probability is not finite, a row of the mask is
            empty, the mask has a hole and there is no span, a reward lies outside the completion, or the groups are not
            numbered from 0 without gaps.
    """

    rewards: Float[Tensor, "rows T"]
    mask: Bool[Tensor, "rows T"]
    group: Int[Tensor, "rows"]
    old: Float[Tensor, "rows T"] | None = None
    reference: Float[Tensor, "rows T"] | None = None
    values: Float[Tensor, "rows T"] | None = None
    ended: Bool[Tensor, "rows"] | None = None
    span: Bool[Tensor, "rows T"] | None = None
    extras: dict[str, Tensor] | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        check_rows(self.rewards, self.mask, self.group)
        _check_span(self.rewards, self.mask, self.mask if self.span is None else self.span)
        for name in ("old", "reference", "values"):
            table = getattr(self, name)
            if table is not None and (table.shape != self.rewards.shape or not bool(table[self.mask].isfinite().all())):
                raise InputError(f"{name} must be finite, of the rewards' shape {tuple(self.rewards.shape)}")
        if self.ended is not None and self.ended.shape != self.group.shape:
            raise InputError(f"ended must have one entry per row, {len(self.group)}; got {tuple(self.ended.shape)}")
        for name, x in (self.extras or {}).items():
            if x.shape != self.group.shape or not bool(x.isfinite().all()):
                raise InputError(
                    f"extras must be finite, one entry per row, {len(self.group)}; {name} has {tuple(x.shape)}"
                )

    def rows(self, index: Tensor | slice) -> "Batch":
        """The rows at `index` as a batch of their own, their groups numbered anew.

        Args:
            index: numbers of rows, booleans, or a slice.

        Returns:
            The smaller batch.
        """
        tables = {name: x for name, x in self.__dict__.items() if name != "extras"}
        chosen: dict[str, Any] = {name: None if x is None else x[index] for name, x in tables.items()}
        extras = None if self.extras is None else {name: x[index] for name, x in self.extras.items()}
        return Batch(**chosen | {"group": torch.unique(chosen["group"], return_inverse=True)[1]}, extras=extras)


def _check_span(rewards: Tensor, mask: Tensor, span: Tensor) -> None:
    """Refuse steps of the policy, or rewards, outside the completion."""
    if (
        span.shape != mask.shape
        or span.dtype != torch.bool
        or not bool(span[:, 0].all() and (span[:, 1:] <= span[:, :-1]).all() and (mask <= span).all())
    ):
        raise InputError(
            "mask must be True from a row's first step to its last and False after it; where the environment speaks in "
            "between, give span, True from first to last, and the mask within it"
        )
    if bool(rewards[~span].any()):
        raise InputError("mask disagrees with the rewards: a reward is paid after a completion has ended")


def check_rows(
    rewards: Float[Tensor, "rows T"], mask: Bool[Tensor, "rows T"], group: Int[Tensor, "rows"], least: int = 1
) -> Int[Tensor, "groups"]:
    """Check rewards, mask and group, and return the sizes of the groups.

    Args:
        rewards: what each step adds to the return.
        mask: True for the policy's steps.
        group: number of each row's group.
        least: the smallest group that is allowed.

    Returns:
        The number of rows of each group.

    Raises:
        InputError: as for `Batch`, or a group has fewer than `least` rows.
    """
    if mask.shape != rewards.shape or group.shape != rewards.shape[:1]:
        raise InputError(
            f"mask must have the rewards' shape and group one entry per row; got rewards {tuple(rewards.shape)}, "
            f"mask {tuple(mask.shape)}, group {tuple(group.shape)}"
        )
    if mask.dtype != torch.bool or group.is_floating_point() or not rewards.is_floating_point():
        raise InputError(
            f"rewards must be floats, mask booleans, group whole numbers; got {rewards.dtype}, {mask.dtype}, {group.dtype}"
        )
    if not rewards.numel() or bool((group < 0).any()):
        raise InputError("rewards must hold at least one row and one step, and groups be numbered from 0")
    if not bool(rewards.isfinite().all()):
        raise InputError("rewards hold NaN or infinity; every entry must be a finite number")
    if not bool(mask.any(1).all()):
        raise InputError("mask must be True somewhere in every row: no row may be empty")
    sizes = torch.bincount(group)
    if int(sizes.min()) < least:
        small = int(sizes.argmin())
        wanted = f"{least} rows or more" if least > 1 else "a row: number groups from 0 without gaps"
        raise InputError(f"group {small} has {int(sizes[small])} rows; this advantage needs {wanted} in every group")
    return sizes
