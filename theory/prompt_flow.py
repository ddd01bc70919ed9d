"""Value-gradient flow of the hidden state at a prompt, exact, and how much of the KL ball's headroom it uses.

`delta <- delta + rate * grad_delta V` at the prompt's last position, each prompt by itself. The *efficiency* of a shifted
policy is its gain in value over the largest gain that any law of completions has within the same KL divergence from the policy
(`theory.impact.kl_headroom`). For small steps it is `|g|^2 / (sd(R) sqrt(g'F g))`, g the value gradient and F the Fisher
matrix of the scores psi: the cosine between R - V and g'psi, at most 1.

Theory page, section 6: "Value gradient flow".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import whole
from envs.policy import TokenPolicy
from envs.record import short_repr
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.impact import kl_headroom, word_scores
from theory.tokens.completions import Words, words
from theory.tokens.prefix_tree import Roots, Tree, grow
from theory.tokens.shifted_prompt import ShiftedPrompt
from theory.tokens.tree_gradients import total_surrogate
from theory.tokens.tree_size import DEFAULT_BUDGET

_SMALL = 1e-10  # nats
_RANK = 1e-10  # singular values below this share of the largest one count as 0


@short_repr
@dataclass(frozen=True)
class PromptFlow:
    """What the flow does to every prompt, from step 0 (nothing moved) on.

    Attributes:
        delta: the shift of the hidden state after every step.
        value: V of the shifted policy, in return units.
        kl: KL divergence of its completions from those of the policy, in nats.
        headroom: largest gain in value within this divergence, in return units.
        first_order: efficiency of an infinitesimal step along the value gradient; NaN where the return has no spread.
        best: the largest efficiency that an infinitesimal shift of this state can have, 1 if and only if R - V is a linear
            function of the scores; NaN where the return has no spread.
    """

    delta: Float[Tensor, "steps prompts D"]
    value: Float[Tensor, "steps prompts"]
    kl: Float[Tensor, "steps prompts"]
    headroom: Float[Tensor, "steps prompts"]
    first_order: Float[Tensor, "prompts"]
    best: Float[Tensor, "prompts"]

    @property
    def gain(self) -> Float[Tensor, "steps prompts"]:
        """`V(delta) - V(0)`, in return units."""
        return self.value - self.value[0]

    @property
    def efficiency(self) -> Float[Tensor, "steps prompts"]:
        """Gain over headroom, at most 1; where nothing has moved yet it is the limit of small steps."""
        moved = self.headroom > 0
        return torch.where(moved, self.gain / torch.where(moved, self.headroom, 1.0), self.first_order)

    def frame(self) -> pd.DataFrame:
        """One row for each step and prompt.

        Returns:
            Columns `step`, `prompt`, `value`, `gain`, `kl`, `headroom` and `efficiency`.
        """
        steps, prompts = self.value.shape
        columns = {name: getattr(self, name).flatten().cpu().numpy() for name in _COLUMNS}
        places = {"step": [k for k in range(steps) for _ in range(prompts)], "prompt": [*range(prompts)] * steps}
        return pd.DataFrame(places | columns)


_COLUMNS = ("value", "gain", "kl", "headroom", "efficiency")


def prompt_flow(
    world: TokenMDP,
    policy: TokenPolicy,
    site: str = "embedding",
    rate: float = 0.1,
    steps: int = 10,
    surrogate: Callable[[Tree], Tensor] = total_surrogate,
    budget: int = DEFAULT_BUDGET,
) -> PromptFlow:
    """Run the flow at every prompt by exact value gradients, and compare each step with the KL ball.

    Args:
        world: a token world small enough for its prefix tree, paid by tables.
        policy: whose prompts are moved; it is not changed.
        site: where in the network delta is added, "embedding" or a layer.
        rate: what the value gradient is multiplied by in every step (a negative one descends).
        steps: number of steps.
        surrogate: whose slope drives the flow; `path_surrogate` in its place is the costate E1 alone, which does not move at
            all where tokens are paid by tables.
        budget: bytes that the enumeration may need.

    Returns:
        Values, divergences, headrooms and efficiencies.

    Raises:
        InputError: the site does not exist, the rate is no finite number, steps < 1, or the world is too large or pays a
            hidden readout.
    """
    check_site(policy, site)
    if isinstance(rate, bool) or not math.isfinite(rate):
        raise InputError(f"rate must be a finite number, what the value gradient is multiplied by; got {rate!r}")
    roots, reference = _roots(world, policy), None
    delta = torch.zeros_like(roots.x[:, -1])
    deltas, values, kls = [delta], list[Tensor](), list[Tensor]()
    for k in range(whole("steps", steps, 1) + 1):
        moved = delta.clone().requires_grad_()
        tree = grow(world, ShiftedPrompt(policy, site, moved[:, None]), roots=roots, budget=budget)
        spoken = words(tree)
        reference = reference or spoken
        values.append(tree.V[0].detach())
        kls.append(divergence(spoken, reference))
        if k < steps:
            delta = delta + rate * slope_of(surrogate(tree), moved)
            deltas.append(delta)
    assert reference is not None  # for the type checker: there is at least one step
    value, kl = torch.stack(values), torch.stack(kls)
    first, best = step_efficiency(world, policy, site, budget)
    return PromptFlow(torch.stack(deltas), value, kl, _headrooms(reference, kl), first, best)


def step_efficiency(
    world: TokenMDP, policy: TokenPolicy, site: str, budget: int = DEFAULT_BUDGET
) -> tuple[Float[Tensor, "prompts"], Float[Tensor, "prompts"]]:
    """Efficiency of an infinitesimal shift: along the value gradient, and along the best direction.

    `|g|^2 / (sd(R) sqrt(g'F g))` and `sqrt(g'F^+ g) / sd(R)`. With `u = (R - V) sqrt(p)` and the scores times `sqrt(p)` as
    columns, the first is the cosine between u and one combination of the columns, the second that between u and their span.

    Args:
        world: a token world small enough for its prefix tree, paid by tables.
        policy: whose prompts are moved.
        site: where in the network delta is added.
        budget: bytes that the enumeration may need.

    Returns:
        Both for every prompt, in [0, 1]; NaN where the return has no spread.

    Raises:
        InputError: the site does not exist, or the world is too large or pays a hidden readout.
    """
    check_site(policy, site)
    tree = grow(world, policy, roots=_roots(world, policy), budget=budget)
    spoken = words(tree)
    root = (spoken.p / spoken.p.sum(-1, keepdim=True)).sqrt()
    mean = (root.square() * spoken.returns).sum(-1, keepdim=True)
    u = root * (spoken.returns - mean)
    columns = root[..., None] * word_scores(tree, policy, site, budget).detach()
    g = torch.einsum("iw,iwd->id", u, columns)
    along = torch.einsum("iwd,id->iw", columns, g).norm(dim=-1)
    sd = u.norm(dim=-1)
    U, sizes, _ = torch.linalg.svd(columns, full_matrices=False)
    kept = sizes > _RANK * sizes[:, :1]
    within = (torch.einsum("iw,iwk->ik", u, U) * kept).norm(dim=-1)
    spread = sd > 1e-12 * spoken.returns.abs().amax(-1)
    first = g.square().sum(-1) / torch.where(along > 0, sd * along, 1.0)
    nothing = torch.full_like(sd, torch.nan)
    return torch.where(spread, first, nothing), torch.where(spread, (within / sd).clamp(max=1.0), nothing)


def divergence(spoken: Words, reference: Words) -> Float[Tensor, "prompts"]:
    """KL divergence of completions at every prompt, the policy's own tokens alone.

    Args:
        spoken: words of the policy.
        reference: words of the reference, at the same prompts.

    Returns:
        The divergence in nats.
    """
    own = torch.where(spoken.mask, spoken.log_probs, 0.0).sum(-1)
    ratio = own - torch.where(spoken.mask, reference.log_probs, 0.0).sum(-1)
    said = ~own.isneginf()
    terms = torch.where(
        said, spoken.p * (ratio + torch.expm1(-ratio)), reference.p
    )  # none is negative or cancels another
    return terms.sum(-1)


def _headrooms(reference: Words, kl: Float[Tensor, "steps prompts"]) -> Float[Tensor, "steps prompts"]:
    """Headroom within every divergence; in the limit `sd(R) sqrt(2 KL)` where rounding would decide."""
    p, R = reference.p / reference.p.sum(-1, keepdim=True), reference.returns
    mean = (p * R).sum(-1, keepdim=True)
    limit = (p * (R - mean).square()).sum(-1).sqrt() * (2 * kl).sqrt()
    within = [[kl_headroom(p[i], R[i], max(float(x), _SMALL)) for i, x in enumerate(row)] for row in kl]
    return torch.where(kl > _SMALL, torch.tensor(within).to(limit), limit)


def slope_of(value: Tensor, delta: Tensor) -> Tensor:
    """Slope of a scalar in delta, 0 where it does not depend on it.

    Args:
        value: a scalar.
        delta: what it may depend on.

    Returns:
        A tensor like delta.
    """
    if not value.requires_grad:
        return torch.zeros_like(delta)
    (slope,) = torch.autograd.grad(value, [delta], allow_unused=True, materialize_grads=True)
    return slope


def check_site(policy: TokenPolicy, site: str) -> None:
    """Refuse a site that the policy does not have.

    Args:
        policy: a policy over tokens.
        site: name of the site.

    Raises:
        InputError: there is none of this name.
    """
    if site not in policy.sites:
        raise InputError(f"site {site!r} does not exist in this policy; it has {', '.join(policy.sites) or 'none'}")


def _roots(world: TokenMDP, policy: TokenPolicy) -> Roots:
    """The prompts as roots of probability 1, so that the slope at each is that of its own value, whatever its weight."""
    like = next(policy.parameters())
    world = world.to(str(like.device), like.dtype)
    belief = world.start_belief(torch.arange(len(world.prompts), device=like.device))
    return Roots(policy.embed(world.prompts).detach(), belief, torch.ones_like(belief[:, 0]))
