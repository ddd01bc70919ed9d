"""A linear-quadratic world seen through its last states: what a policy with a memory sees is a state there."""

import numpy as np
import torch

from envs.arguments import check_bytes, whole
from envs.linear_quadratic import LinearQuadratic
from envs.world import InputError


def stack_history(world: LinearQuadratic, window: int) -> LinearQuadratic:
    """The same world seen through its last `window` states: state `[s_t, s_{t-1}, ..., s_{t-window+1}]`.

    A policy that attends to `window` past states is a plain linear policy here, so that every closed form applies to
    it. The first block evolves as before, the others shift down; the blocks before time 0 are zero.

    Args:
        world: a plain linear-quadratic world.
        window: how many states the policy sees.

    Returns:
        The stacked world, with `window * n` states.

    Raises:
        InputError: window is below 1 or too large, or the world is a variant, whose changes a plain stacked world would
            lose.
    """
    whole("window", window, 1)
    if type(world) is not LinearQuadratic:
        raise InputError(f"world must be a plain LinearQuadratic to be stacked; got a {type(world).__name__}")
    n, size = world.n, world.n * window
    check_bytes(8 * 5 * size**2, f"window={window} makes matrices of {size} x {size}", "take a shorter one")
    lifted = {}
    for name in ("Q", "Q_f", "S_w", "S_0", "A"):
        block = np.zeros((size, size))
        block[:n, :n] = np.asarray(getattr(world.numpy(), name))
        lifted[name] = block
    lifted["A"][n:, :-n] += np.eye(size - n) if window > 1 else 0
    for name in ("B", "N", "m_0", "q", "q_f"):
        block = np.asarray(getattr(world.numpy(), name))
        lifted[name] = np.concatenate([block, np.zeros((size - n, *block.shape[1:]))])
    plain = LinearQuadratic(
        R=world.numpy().R,
        S_x=world.numpy().S_x,
        q_a=world.numpy().q_a,
        **lifted,
        gamma=world.gamma,
        horizon=world.horizon,
        noise=world.noise,
    )
    return plain.to(str(world.A.device), world.A.dtype) if isinstance(world.A, torch.Tensor) else plain
