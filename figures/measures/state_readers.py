"""Transformers that read the prompt and the current abstract state, with a vocabulary of any size, and worlds for them.

What was generated enters such a policy only through the state, so `theory.tokens.state_reading` knows its exact error.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from agents.policies.transformer import Transformer
from envs.token_mdp import TokenMDP
from theory.tokens.state_reading import StateReadingSplit, split_of_slopes, state_reading_slopes, state_reading_split

STATES, HORIZON, WIDTH, GAMMA = 4, 3, 16, 0.9
PROMPT = (0, 1)
POLICIES = {"near uniform": 0.1, "Zipf": 1.0, "peaked": 1.0}  # standard deviation of the logits before the offset
REWARDS = ("related", "unrelated")
QUANTITIES = {  # name -> field of a split
    "H": "entropy",
    "G": "gini",
    "||J||": "jacobian_norm",
    "D": "diameter",
    "osc(Q)": "oscillation",
    "D osc(Q)": "reach",
    "D osc(Q) ||J||": "spectral",
    "naive product": "naive",
    "sd(w) sd(Q)": "spread",
    "Q dealt at random": "dealt",
}
_SITE = "layer1"


def reader_policy(V: int, kind: str, tied: bool, seed: int) -> Transformer:
    """A random transformer whose logits `h'e_a / temperature` have the kind's standard deviation, plus the kind's offset.

    The head reads h with `|h| = sqrt(width)`; the law of its rows, `e_a ~ N(0, 1)` (tied) or `U(-1, 1) / sqrt(width)`, then
    gives the temperature.

    Args:
        V: size of the vocabulary.
        kind: "near uniform" has no offset; "Zipf" adds `-ln rank`; "peaked" adds to token 0 what would lift it to
            probability 0.9 over V - 1 equal tokens, at any V.
        tied: whether the head shares the embeddings.
        seed: of the parameters.
    """
    head_sd = 1.0 if tied else (3 * WIDTH) ** -0.5
    temperature = math.sqrt(WIDTH) * head_sd / POLICIES[kind]
    offset = torch.zeros(V, dtype=torch.float64)
    if kind == "Zipf":
        offset = -torch.arange(1, V + 1, dtype=torch.float64).log()
    elif kind == "peaked":
        offset[0] = math.log(9 * (V - 1))
    return Transformer(
        V,
        width=WIDTH,
        layers=2,
        heads=2,
        length=len(PROMPT) + HORIZON,
        temperature=temperature,
        offset=temperature * offset,
        tied=tied,
        seed=seed,
    )


def state_logits(policy: Transformer) -> Callable[[Tensor, int], Tensor]:
    """`logits(delta, k)`, (S, V): the policy reads the prompt, with delta at its last position, then the state's token.

    The state's token stands at position T + k, where a rollout would have it. `extend` gives it position T, so the
    difference of the two position embeddings is added.
    """
    T = len(PROMPT)
    position = policy.position.detach()
    tokens = torch.tensor([*PROMPT, *range(STATES)], device=position.device)
    prompt, states = policy.embed(tokens).detach().split([T, STATES])

    def logits(delta: Tensor, k: int) -> Tensor:
        state = states + position[T + k] - position[T]
        x = torch.cat([prompt.expand(STATES, -1, -1), state[:, None]], 1)
        return policy.extend(x, None, {_SITE: pad(delta[None], (0, 0, T - 1, 1)).expand_as(x)})[0]

    return logits


def reader_world(scores: Float[Tensor, "H S V"], rng: torch.Generator) -> TokenMDP:
    """Random transitions, the same for the same generator; `r[k, z, a]` is the rank of `scores[k, z, a]` among tokens, over V.

    Every reward table is thus a permutation of the same V numbers in (0, 1).
    """
    V = scores.shape[-1]
    chance = -torch.rand(STATES, V, STATES, generator=rng, dtype=torch.float64).clamp(min=1e-300).log()
    r = (scores.argsort(-1).argsort(-1) + 0.5) / V
    return TokenMDP(chance / chance.sum(-1, keepdim=True), r.double(), [PROMPT], [0], HORIZON, GAMMA)


def token_scores(policy: Transformer, rewards: str, rng: torch.Generator) -> Float[Tensor, "H S V"]:
    """What the rewards rank: "related", a random direction of the head's rows per step and state; "unrelated", noise."""
    head = policy.head.weight.detach()
    if rewards == "unrelated":
        return torch.randn(HORIZON, STATES, len(head), generator=rng, dtype=torch.float64)
    directions = torch.randn(HORIZON, STATES, WIDTH, generator=rng, dtype=torch.float64)
    return directions @ head.cpu().mT


def splits_by_rewards(
    V: int, kind: str, tied: bool, rng: torch.Generator, device: str = "cpu"
) -> dict[str, StateReadingSplit]:
    """Splits of one policy and one set of transitions under both `REWARDS`.

    The token probabilities are the same in both, and so are the rewards: only which token gets which reward differs.
    """
    policy_seed, world_seed = torch.randint(2**31, (2,), generator=rng).tolist()
    policy, slopes, splits = reader_policy(V, kind, tied, policy_seed).to(device), None, {}
    for rewards in REWARDS:
        scores = token_scores(policy, rewards, rng)
        world = reader_world(scores, torch.Generator().manual_seed(world_seed)).to(device)
        slopes = slopes or state_reading_slopes(world, state_logits(policy), WIDTH)
        splits[rewards] = split_of_slopes(world, slopes)
    return splits


def two_clusters(V: int, rng: torch.Generator, device: str = "cpu") -> StateReadingSplit:
    """Split where even and odd tokens differ, in slope and in reward, and in nothing else: it attains tier 2 at any V."""
    sign = (torch.arange(V) % 2).double() - 0.5
    direction = torch.randn(WIDTH, generator=rng, dtype=torch.float64).to(device)
    P = reader_world(torch.zeros(HORIZON, STATES, V), rng).P
    world = TokenMDP(P, (sign + 0.5).expand(STATES, V), [PROMPT], [0], HORIZON, GAMMA).to(device)
    sign = sign.to(device)
    return state_reading_split(world, lambda delta, k: (sign * (direction @ delta)).expand(STATES, V), WIDTH)


def quantities(split: StateReadingSplit) -> dict[str, float]:
    """What the error may depend on, by the names of `QUANTITIES`."""
    return {name: float(getattr(split, field)) for name, field in QUANTITIES.items()}
