"""Signal and headroom of a policy before RL: what the impact law multiplies. All definitions are ours.

For one prompt the completions o have probabilities p(o), returns R(o) as they are drawn, and scores
`s(o) = sum_t grad_h log pi(c_t)` in the hidden state h at the prompt's last position (the costate's place). Then
`grad_h V = E[(R - V) s]`, and by Cauchy-Schwarz `|grad_h V| <= sd(R) sqrt(lambda_max(F_h))` with the Fisher matrix
`F_h = E[s s']`: signal is capped by reward spread.

Theory page, section 5: "RL impact along a pretraining trajectory".
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from envs.arguments import takes_numbers, whole
from envs.policy import TokenPolicy
from envs.record import short_repr
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.groups.targets import expected_maximum
from theory.tokens.completions import completions, words
from theory.tokens.forward_mode import logit_slopes
from theory.tokens.prefix_tree import Tree, grow
from theory.tokens.tree_gradients import score_surrogate
from theory.tokens.tree_size import DEFAULT_BUDGET

Chances = Float[Tensor, "*batch L"]


@short_repr
@dataclass(frozen=True)
class Signal:
    """How strong the value gradient is at the prompts, against the noise of one sample and against its largest possible size.

    `snr` is costate over noise (one completion, exact value as baseline), `alignment` costate over cap, in [0, 1]. Both are 0
    where the reward has no spread.

    Attributes:
        costate: `|grad_h V|` of every prompt, in return units per unit of the hidden state.
        noise: standard deviation of one completion's `(R - V) s`, the root of the covariance's trace, in the same unit.
        cap: `sd(R) sqrt(lambda_max(F_h))`, which the costate cannot exceed, in the same unit.
        gradient: `|grad_theta J|`, over all prompts and parameters.
    """

    costate: Float[Tensor, "prompts"]
    noise: Float[Tensor, "prompts"]
    cap: Float[Tensor, "prompts"]
    gradient: float

    @property
    def snr(self) -> Float[Tensor, "prompts"]:
        """Signal-to-noise ratio of one completion."""
        return _ratio(self.costate, self.noise)

    @property
    def alignment(self) -> Float[Tensor, "prompts"]:
        """Share of the cap that is used."""
        return _ratio(self.costate, self.cap)


def _ratio(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(y > 0, x / torch.where(y > 0, y, 1.0), 0.0)


def signal(world: TokenMDP, policy: TokenPolicy, site: str, budget: int = DEFAULT_BUDGET) -> Signal:
    """Exact signal at the prompts, by enumeration.

    Args:
        world: a token world small enough for its prefix tree.
        policy: the policy before RL.
        site: where in the network the hidden state h is.
        budget: bytes that the enumeration may need.

    Returns:
        Costate, noise, cap and parameter gradient.

    Raises:
        InputError: the world is too large or pays a hidden readout, or the logits have no finite derivatives at the
            site.
    """
    tree = grow(world, policy, budget=budget)
    rows, s = completions(tree, budget), word_scores(tree, policy, site, budget)
    if not bool(s.isfinite().all()):
        raise InputError(f"policy has logits whose derivatives at {site} are NaN or infinite: it has no signal there")
    p, R, of_row = words(tree).p, rows.returns, s[:, rows.word]
    spread = R - (rows.p * R).sum(-1, keepdim=True)
    mean = torch.einsum("il,ild->id", rows.p * spread, of_row)
    fisher = torch.einsum("iw,iwd,iwe->ide", p, s, s)
    square = (rows.p * spread**2 * of_row.square().sum(-1)).sum(-1)
    noise = (square - mean.square().sum(-1)).clamp(min=0).sqrt()
    cap = ((rows.p * spread**2).sum(-1) * torch.linalg.eigvalsh(fisher)[:, -1].clamp(min=0)).sqrt()
    parameters = torch.autograd.grad(
        score_surrogate(tree), list(policy.parameters()), allow_unused=True, materialize_grads=True
    )
    size = float(torch.stack([g.square().sum() for g in parameters]).sum().sqrt())
    return Signal(mean.norm(dim=-1), noise, cap, size)


def word_scores(
    tree: Tree, policy: TokenPolicy, site: str, budget: int = DEFAULT_BUDGET
) -> Float[Tensor, "prompts W D"]:
    """`s(o) = sum_t grad_h log pi(c_t)` of every word, from the forward-mode slopes of all logits of a tree.

    `grad_h log pi(a) = w(a) - sum_b pi(b) w(b)` at every node on the way; what follows an end token counts nothing.

    Args:
        tree: prefix tree with every token followed.
        policy: the policy that the tree was grown with.
        site: where in the network the hidden state h is.
        budget: bytes that forward mode may need.

    Returns:
        The score of every word in the D numbers of h at the prompt's last position.
    """
    world, prompts = tree.world, len(tree.levels[0].reach)
    mask, count = words(tree).mask, tree.levels[-1].tokens.numel()
    total = torch.zeros((), dtype=tree.J.dtype, device=tree.J.device)
    for k, w in enumerate(logit_slopes(world, policy, 1.0, site, budget=budget)):
        centred = w - torch.einsum("nv,nvd->nd", tree.levels[k].pi.detach(), w)[:, None]
        along = centred.flatten(0, 1).repeat_interleave(count // centred[..., 0].numel(), 0)
        total = total + along.unflatten(0, (prompts, -1)) * mask[..., k, None]
    return total


@takes_numbers("p", "R")
def best_of(p: Chances, R: Chances, k: int) -> Float[Tensor, "*batch"]:
    """`E max(R_1 ... R_k)` of k independent completions; for returns of 0 and 1 this is pass@k, `1 - (1 - P)^k`.

    As `theory.groups.targets.expected_maximum`, probabilities divided by their sum.

    Args:
        p: probabilities of the completions; their sum is divided out.
        R: their returns.
        k: how many independent completions.

    Returns:
        The expected best return, in return units.

    Raises:
        InputError: k < 1.
    """
    return expected_maximum(p / p.sum(-1, keepdim=True), R, whole("k", k, 1))


@takes_numbers("p", "R")
def best_of_headroom(p: Chances, R: Chances, k: int) -> Float[Tensor, "*batch"]:
    """`pass@k - pass@1`, in general `E max of k - E R`.

    Args:
        p: probabilities of the completions; their sum is divided out.
        R: their returns.
        k: how many independent completions.

    Returns:
        The gain, in return units.

    Raises:
        InputError: k < 1.
    """
    return best_of(p, R, k) - best_of(p, R, 1)


@takes_numbers("p", "R")
def power_headroom(p: Chances, R: Chances, alpha: float) -> Float[Tensor, "*batch"]:
    """`E_q R - E_p R` with `q = p^alpha / sum p^alpha` (power sampling, arXiv:2510.14901); may be negative.

    Args:
        p: probabilities of the completions.
        R: their returns.
        alpha: exponent of the probabilities, > 0.

    Returns:
        The gain, in return units.

    Raises:
        InputError: alpha is not > 0.
    """
    if not alpha > 0:
        raise InputError(f"alpha must be > 0; got {alpha!r}")
    q = torch.softmax(alpha * p.clamp(min=torch.finfo(p.dtype).tiny).log(), -1) * (p > 0)
    q = q / q.sum(-1, keepdim=True)
    return ((q - p / p.sum(-1, keepdim=True)) * R).sum(-1)


@takes_numbers("p", "R")
def kl_headroom(p: Float[Tensor, "L"], R: Float[Tensor, "L"], eps: float) -> float:
    """`max { E_q R - E_p R : KL(q || p) <= eps }` of one prompt.

    The maximiser is `q = p exp(R / beta) / Z`; beta solves KL = eps. For returns of 0 and 1 this is the q that solves
    `q ln(q/p) + (1-q) ln((1-q)/(1-p)) = eps`. Where all of the best completions lie within the ball, it is `max R - E R`.

    Args:
        p: probabilities of the completions of one prompt.
        R: their returns.
        eps: radius of the KL ball, in nats.

    Returns:
        The largest gain, in return units.

    Raises:
        InputError: eps is not > 0.
    """
    if not eps > 0:
        raise InputError(f"eps must be > 0, the radius of the KL ball; got {eps!r}")
    p, R = p[p > 0] / p.sum(), R[p > 0]
    gap = R - R.max()
    best = gap >= -1e-12 * R.abs().max()
    if float(-p[best].sum().log()) <= eps * (1 + 1e-9):  # at the rim rounding would decide
        return float(R.max() - p @ R)

    def tilted(t: float) -> tuple[Tensor, float]:
        log_q = torch.log_softmax(p.log() + t * gap, -1)
        return log_q.exp(), float((log_q.exp() * (log_q - p.log())).sum())

    top = 1.0 / float(-gap[~best].max())
    while tilted(top)[1] < eps:
        top *= 2
    q, _ = tilted(float(brentq(lambda t: tilted(t)[1] - eps, 0.0, top, xtol=1e-14, rtol=1e-14)))
    return float((q - p) @ R)


@takes_numbers("p", "R", "H")
def null_models(p: Chances, R: Chances, H: Float[Tensor, "*batch"]) -> dict[str, Float[Tensor, "*batch"]]:
    """What a prediction of RL's impact must beat: numbers that take no costate.

    Standard deviation and variance of R (for returns of 0 and 1 `sqrt(P(1-P))`, GRPO's own scale, and `P(1-P)`), J
    alone, entropy H alone, and headroom alone (the best completion's return less J). None but J moves when R is
    shifted.

    Args:
        p: probabilities of the completions.
        R: their returns.
        H: entropy of the policy, in nats.

    Returns:
        Each number by its name.
    """
    J = (p * R).sum(-1)
    spread = (p * (R - J[..., None]) ** 2).sum(-1)
    return {"sqrt(P(1-P))": spread.sqrt(), "P(1-P)": spread, "J": J, "H": H, "headroom": R.amax(-1) - J}


@takes_numbers("H", "R")
def entropy_law(H: Float[Tensor, "points"], R: Float[Tensor, "points"]) -> tuple[float, float]:
    """Least-squares a, b of the entropy law `R = -a exp(H) + b`.

    Args:
        H: entropies of the points, in nats.
        R: their returns.

    Returns:
        a and b.

    Raises:
        InputError: there are fewer than two different entropies.
    """
    x = -H.exp()
    centred = x - x.mean()
    if len(H) < 2 or float(centred.abs().max()) <= 1e-12 * float(x.abs().max()):
        raise InputError("H must hold at least two different entropies: a line needs two points")
    a = float(centred @ R / (centred @ centred))
    return a, float(R.mean()) - a * float(x.mean())
