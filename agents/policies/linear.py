"""Linear policies: on the current state, on the history through position-only attention, and a constant command."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from envs.policy import Policy
from envs.world import InputError


class LinearPolicy(nn.Module):
    """`u_t = -K s_t - k`, or `-K_t s_t - k_t` where they carry a leading time dimension; without k there is no offset.

    K and k are the parameters.

    Args:
        K: the gain, (m, n), or (T, m, n) to change in time.
        k: the offset, (m,), or (T, m) to change in time; None for none.

    Raises:
        InputError: K or k has another shape, or an entry is not finite.
    """

    window = 1

    def __init__(self, K: Any, k: Any = None):
        super().__init__()
        gain = torch.as_tensor(K, dtype=torch.float64).detach().clone()
        if gain.ndim not in (2, 3) or not bool(gain.isfinite().all()):
            raise InputError(f"K must be a finite array of shape (m, n) or (T, m, n); got {tuple(gain.shape)}")
        self.K = nn.Parameter(gain)
        offset = None if k is None else torch.as_tensor(k, dtype=torch.float64).detach().clone()
        if offset is not None and (offset.ndim not in (1, 2) or not bool(offset.isfinite().all())):
            raise InputError(f"k must be a finite array of shape (m,) or (T, m); got {tuple(offset.shape)}")
        if offset is not None and offset.shape[-1] != gain.shape[-2]:
            raise InputError(
                f"k must have one number for each of the {gain.shape[-2]} rows of K; got {tuple(offset.shape)}"
            )
        self.k = None if offset is None else nn.Parameter(offset)

    def forward(self, history: Float[Tensor, "batch seen n"], t: int) -> Float[Tensor, "batch m"]:
        """Command for the last state.

        Args:
            history: states so far, oldest first.
            t: the time of the last of them.

        Returns:
            One command for each row.
        """
        K = self.K[t] if self.K.ndim == 3 else self.K
        command = -history[:, -1] @ K.mT
        if self.k is None:
            return command
        return command - (self.k[t] if self.k.ndim == 2 else self.k)


class PositionAttention(nn.Module):
    """Causal attention with position-only weights: `u_t = -sum_h sum_j softmax(b_h)_j W_h s_{t-j}`, j < window.

    The softmax over lags j runs over the states that exist (a causal mask), so the policy is linear in the history and
    its value is a closed-form quadratic; `gains(T)` gives the equivalent `K_{t,j}`.

    Args:
        scores: b, (heads, window), lag 0 first.
        W: (heads, m, n).

    Raises:
        InputError: the shapes do not fit, or an entry is not finite.
    """

    def __init__(self, scores: Any, W: Any):
        super().__init__()
        b = torch.as_tensor(scores, dtype=torch.float64).detach().clone()
        maps = torch.as_tensor(W, dtype=torch.float64).detach().clone()
        if b.ndim != 2 or maps.ndim != 3 or len(b) != len(maps) or b.numel() == 0:
            raise InputError(
                f"scores must be (heads, window) and W (heads, m, n); got {tuple(b.shape)} and {tuple(maps.shape)}"
            )
        if not bool(b.isfinite().all() and maps.isfinite().all()):
            raise InputError("scores or W holds NaN or infinity; every entry must be a finite number")
        self.scores, self.W = nn.Parameter(b), nn.Parameter(maps)
        self.window = b.shape[1]

    def weights(self, seen: int) -> Float[Tensor, "heads seen"]:
        """Attention over lags 0..seen-1.

        Args:
            seen: number of states so far, at most the window.

        Returns:
            One weight for each head and lag; those of a head sum to 1.
        """
        return torch.softmax(self.scores[:, :seen], -1)

    def gains(self, T: int) -> Float[Tensor, "T window m n"]:
        """`K_{t,j} = sum_h weight_{h,j} W_h` for every step; zero for states before the start.

        Args:
            T: number of steps.

        Returns:
            The gain of every step and lag.
        """
        rows = []
        for t in range(T):
            weights = self.weights(min(t + 1, self.window))
            padded = nn.functional.pad(weights, (0, self.window - weights.shape[1]))
            rows.append(torch.einsum("hj,hmn->jmn", padded, self.W))
        return torch.stack(rows)

    def forward(self, history: Float[Tensor, "batch seen n"], t: int) -> Float[Tensor, "batch m"]:
        """Attend to the last `window` states.

        Args:
            history: states so far, oldest first.
            t: the time of the last of them.

        Returns:
            One command for each row.
        """
        recent = history[:, -self.window :].flip(1)
        return -torch.einsum("hj,hmn,bjn->bm", self.weights(recent.shape[1]), self.W, recent)


class ConstantPolicy(nn.Module):
    """`u_t = theta` whatever the state: the policy of the chaotic map.

    Args:
        theta: the command, (m,).

    Raises:
        InputError: theta has another shape, or an entry is not finite.
    """

    window = 1

    def __init__(self, theta: Any):
        super().__init__()
        command = torch.as_tensor(theta, dtype=torch.float64).detach().clone()
        if command.ndim != 1 or not bool(command.isfinite().all()):
            raise InputError(f"theta must be a finite array of shape (m,); got shape {tuple(command.shape)}")
        self.theta = nn.Parameter(command)

    def forward(self, history: Float[Tensor, "batch seen n"], t: int) -> Float[Tensor, "batch m"]:
        """Return theta for every sample.

        Args:
            history: states so far; only their number of rows counts.
            t: without effect.

        Returns:
            theta in every row.
        """
        return self.theta.expand(history.shape[0], -1)


class ClosedPath(nn.Module):
    """A policy with one of its paths hidden from autograd: the same commands with other gradients (a negative control).

    Args:
        policy: any policy.
        path: "past" detaches all states but the current one (attention closed), "all" detaches the whole history.

    Raises:
        InputError: there is no such path.
    """

    def __init__(self, policy: Policy, path: str):
        super().__init__()
        if path not in ("past", "all"):
            raise InputError(f"path must be 'past' or 'all'; got {path!r}")
        self.policy, self.path, self.window = policy, path, policy.window

    def forward(self, history: Float[Tensor, "batch seen n"], t: int) -> Float[Tensor, "batch m"]:
        """The policy's command, with the path closed.

        Args:
            history: states so far, oldest first.
            t: the time of the last of them.

        Returns:
            One command for each row.
        """
        if self.path == "all":
            return self.policy(history.detach(), t)
        return self.policy(torch.cat([history[:, :-1].detach(), history[:, -1:]], 1), t)
