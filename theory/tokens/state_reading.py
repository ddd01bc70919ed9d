"""The error of the attention costate for a vocabulary of any size: state-reading policies, exact at alpha = 1.

The context of a state-reading policy is the prompt followed by the token of the current abstract state: the generated tokens
enter only through that state. There are then H x S contexts per prompt, and value, value gradient and all bounds follow by
dynamic programming. The cost is linear in V, except for the exact diameter.

Theory page, section 3: "Large vocabulary".
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacfwd
from torch.nn.attention import SDPBackend, sdpa_kernel

from envs.record import short_repr
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.tokens.diameter import diameter
from theory.tokens.dynamic_programming import tables, with_speech
from theory.tokens.softmax_bounds import (
    covariance,
    entropy,
    gini,
    gini_entropy_bound,
    jacobian_norm,
    oscillation,
    spread_factor,
)

DEFAULT_BUDGET = 8 * 2**30
_COPIES = 6  # of one step's slopes that are in use at a time; the tests compare it with a measurement
_SUMS = ("tier1", "tier2", "tier3", "spread", "naive", "reach", "spectral", "dealt")  # discounted sums over the steps
_MEANS = ("entropy", "gini", "jacobian_norm", "diameter", "oscillation")  # means over the steps


@short_repr
@dataclass(frozen=True)
class StateReadingSplit:
    """Value gradient of one prompt under a state-reading policy at alpha = 1, its bounds, and their factors.

    With a token reward and alpha = 1 the attention costate E1 is 0, so the error is the norm of the value gradient,
    which is the sum of the covariances. `tiers` as in `theory.tokens.error_split`. The other sums, all
    `sum_k gamma^k E[...]`:

    | field    | summand                                  | what it is                                                |
    |----------|------------------------------------------|-----------------------------------------------------------|
    | spread   | `sd(Q) max_{|v|=1} sd(v'w)`, sd under pi | a bound between tiers 1 and 2                             |
    | naive    | `||w||_2 ||J||_2 ||Q||_2`                | a bound, by composing linear maps                         |
    | reach    | `D_w osc(Q)`                             | tier 2 without its factor `min(1/4, G/2)`                 |
    | spectral | `D_w osc(Q) ||J||_2`                     | *no* bound: `||J||_2` in the place of that factor         |
    | dealt    | `sd_V(Q) |p (w - E w)|_F`                | root mean square of `||Cov||` if Q were dealt to the      |
    |          |                                          | tokens at random; sd_V over tokens alike, divisor V - 1   |

    Spread bounds tier 1 by Cauchy and Schwarz, `v'Cov(w, Q) <= sd(v'w) sd(Q)`, and is at most tier 2 because
    `2 var(q) <= osc(q)^2 G` and `4 var(q) <= osc(q)^2`. Dealt is exact over all orders of Q, because the coefficients
    `p (w - E w)` of Q in the covariance sum to zero. The rest are means over states and
    steps of a rollout, those steps at which the policy speaks.

    Attributes:
        J: expected return of the prompt.
        value_gradient: gradient of J in delta, a shift at the prompt.
        tiers: as in `theory.tokens.error_split.ErrorSplit`, for this prompt.
        spread: see the table.
        naive: see the table.
        reach: see the table.
        spectral: see the table.
        dealt: see the table.
        entropy: mean entropy of the policy, in nats.
        gini: mean Gini index.
        jacobian_norm: mean of `||J||_2`.
        diameter: mean of D_w.
        oscillation: mean of osc(Q), in return units.
    """

    J: Float[Tensor, ""]
    value_gradient: Float[Tensor, "D"]
    tiers: Float[Tensor, "tiers"]
    spread: Float[Tensor, ""]
    naive: Float[Tensor, ""]
    reach: Float[Tensor, ""]
    spectral: Float[Tensor, ""]
    dealt: Float[Tensor, ""]
    entropy: Float[Tensor, ""]
    gini: Float[Tensor, ""]
    jacobian_norm: Float[Tensor, ""]
    diameter: Float[Tensor, ""]
    oscillation: Float[Tensor, ""]

    @property
    def error(self) -> Float[Tensor, ""]:
        """`|| grad V - E[E1] ||` with `E[E1] = 0`."""
        return self.tiers[0]


@short_repr
@dataclass(frozen=True)
class StateReadingSlopes:
    """A state-reading policy at delta = 0, with its slopes in delta.

    Attributes:
        pi: probabilities of the tokens in every abstract state at every step.
        w: slopes `w_k(z, a) = d logits / d delta`.
        D: diameters of the slopes.
    """

    pi: Float[Tensor, "H S V"]
    w: Float[Tensor, "H S V D"]
    D: Float[Tensor, "H S"]


def state_reading_slopes(
    world: TokenMDP, logits: Callable[[Tensor, int], Tensor], width: int, budget: int = DEFAULT_BUDGET
) -> StateReadingSlopes:
    """Slopes by forward mode: all that a split needs of the policy, whatever the rewards and the start state are.

    Args:
        world: the token world.
        logits: `logits(delta, k)` gives the (S, V) logits at step k with `delta` (width,) added at the prompt.
        width: size of delta.
        budget: bytes that the slopes may need.

    Returns:
        Probabilities, slopes and diameters.

    Raises:
        InputError: logits of another shape or, before allocating, slopes that need more than the budget.
    """
    _check_size(world, width, budget)
    delta = world.P.new_zeros(width)
    pi, w = torch.zeros_like(world.r), delta.new_zeros(*world.r.shape, width)
    for k in range(world.horizon):
        z = logits(delta, k).detach()
        if z.shape != pi[k].shape:
            raise InputError(f"logits must have shape {tuple(pi[k].shape)}, one row per state; got {tuple(z.shape)}")
        pi[k] = with_speech(world, torch.softmax(z, -1))
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no forward mode
            w[k] = jacfwd(lambda x, k=k: logits(x, k))(delta).detach() * ~world.speaking[:, None, None]
    return StateReadingSlopes(pi, w, diameter(w))


def split_of_slopes(world: TokenMDP, slopes: StateReadingSlopes, prompt: int = 0) -> StateReadingSplit:
    """`grad V = sum_k gamma^k sum_z d_k(z) Cov_{pi_k(z)}(w_k(z), Q_k(z))` and its bounds, over H x S contexts.

    Args:
        world: the token world.
        slopes: of a policy, as `state_reading_slopes` gives them.
        prompt: index of the prompt.

    Returns:
        The split at this prompt.
    """
    exact, d = tables(world, slopes.pi), world.start_belief(prompt)
    J = exact.V[0] @ d
    gradient = torch.zeros_like(slopes.w[0, 0, 0])
    sums, means = d.new_zeros(len(_SUMS)), d.new_zeros(len(_MEANS))
    steps = _own_steps(world, slopes.pi, d)
    for k, (pi, w) in enumerate(zip(slopes.pi, slopes.w, strict=True)):
        cov, terms = _state_terms(pi, w, slopes.D[k], exact.Q[k])
        gradient += world.gamma**k * d @ cov
        sums += world.gamma**k * torch.stack([d @ terms[name] for name in _SUMS])
        means += torch.stack([(d * ~world.speaking) @ terms[name] for name in _MEANS]) / steps
        d = torch.einsum("z,za,zay->y", d, pi, world.P)
    tiers = torch.cat([gradient.norm()[None], sums[:3]])
    named = dict(zip((*_SUMS[3:], *_MEANS), torch.cat([sums[3:], means]), strict=True))
    return StateReadingSplit(J, gradient, tiers, **named)


def _own_steps(world: TokenMDP, pi: Float[Tensor, "H S V"], d: Float[Tensor, "S"]) -> float:
    """Expected number of the steps at which the policy speaks."""
    if world.speech is None:
        return world.horizon
    total = 0.0
    for law in pi:
        total += float(d @ (~world.speaking).to(d))
        d = torch.einsum("z,za,zay->y", d, law, world.P)
    return total


def state_reading_split(
    world: TokenMDP, logits: Callable[[Tensor, int], Tensor], width: int, prompt: int = 0, budget: int = DEFAULT_BUDGET
) -> StateReadingSplit:
    """The split of one world under one policy: `state_reading_slopes`, then `split_of_slopes`.

    Args:
        world: the token world.
        logits: `logits(delta, k)` gives the (S, V) logits at step k with `delta` (width,) added at the prompt.
        width: size of delta.
        prompt: index of the prompt.
        budget: bytes that the slopes may need.

    Returns:
        The split at this prompt.

    Raises:
        InputError: as in `state_reading_slopes`.
    """
    return split_of_slopes(world, state_reading_slopes(world, logits, width, budget), prompt)


def _state_terms(p: Tensor, w: Tensor, D: Tensor, Q: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Covariances (S, D) and, by name, every summand and mean of the split, (S,)."""
    cov, H, G, norm = covariance(p, w, Q), entropy(p), gini(p), jacobian_norm(p)
    osc = oscillation(Q)
    length = _largest_singular_value(w)
    centred = w - (p[:, None] @ w)
    slope_sd = _largest_singular_value(p.sqrt()[..., None] * centred)
    value_sd = (p * (Q - (p * Q).sum(-1, keepdim=True)).square()).sum(-1).sqrt()
    return cov, {
        "tier1": cov.norm(dim=-1),
        "tier2": D * osc * spread_factor(G),
        "tier3": D * osc * spread_factor(gini_entropy_bound(H)),
        "spread": slope_sd * value_sd,
        "naive": length * norm * Q.norm(dim=-1),
        "reach": D * osc,
        "spectral": D * osc * norm,
        "dealt": Q.std(-1) * torch.linalg.matrix_norm(p[..., None] * centred),
        "entropy": H,
        "gini": G,
        "jacobian_norm": norm,
        "diameter": D,
        "oscillation": osc,
    }


def _largest_singular_value(w: Tensor) -> Tensor:
    """`||w||_2` of tall matrices (S, V, D) by the eigenvalues of `w'w`, (D, D)."""
    eigenvalues: Tensor = torch.linalg.eigvalsh(w.mT @ w)
    return eigenvalues[..., -1].clamp(min=0).sqrt()


def _check_size(world: TokenMDP, width: int, budget: int) -> None:
    """Raise InputError if all slopes, the copies of one step's slopes in use at a time, and the tables need too much."""
    needed = 8 * world.S * world.V * ((world.horizon + _COPIES) * width + 4 * world.horizon + world.S)
    if needed > budget:
        raise InputError(
            f"V={world.V} with S={world.S}, horizon={world.horizon} and width={width} needs about {needed / 2**30:.3g} GiB "
            f"of {budget / 2**30:.3g} allowed: take fewer tokens or states"
        )
