"""Reinforcement pre-training: at every place of a document tokens are sampled, and those that name the next one are paid.

Every place is a prompt of its own with a group of G rows; thoughts, where there are any, are said before the next token and
paid nothing. The mean update is `sum q kappa(P) grad P` over pairs of context and next token (theory page, section 6:
"Next-token reward").
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agents.recipes.advantages import Advantage, leave_one_out, mean_normalised, standardised
from agents.training.copies import Copies
from envs.arguments import check_bytes, whole
from envs.corpus import Corpus
from envs.policy import ContextPolicy
from envs.world import unknown

# name -> advantage; kappa is 1, c_G and (1 - (1-P)^{G-1}) / P
OBJECTIVES: dict[str, Advantage] = {"rpt": leave_one_out, "grpo": standardised(), "mean": mean_normalised}


@dataclass(frozen=True)
class NextTokenReward:
    """What is climbed in the place of the likelihood.

    Attributes:
        objective: "rpt" (the reward less the mean of the group's other rows, so that the update's mean is the gradient of the
            chance to be right), "grpo" (divided by the group's standard deviation) or "mean" (by its mean).
        group: G, rows at every place.
        thoughts: tokens that are said before the next token is named.

    Raises:
        InputError: the objective is unknown, group < 2 or thoughts < 0.
    """

    objective: str
    group: int = 8
    thoughts: int = 0

    def __post_init__(self) -> None:
        """Check the choices."""
        if self.objective not in OBJECTIVES:
            raise unknown("objective", self.objective, OBJECTIVES)
        whole("group", self.group, 2, "one row alone has nothing to be compared with")
        whole("thoughts", self.thoughts, 0)

    def check(self, networks: int, batch: int, corpus: Corpus) -> None:
        """Refuse a batch that does not fit in memory.

        Args:
            networks: how many are trained at once.
            batch: documents of an update.
            corpus: what is read.

        Raises:
            InputError: the rows of a batch need too much memory.
        """
        rows = networks * batch * self.group * (corpus.length + self.thoughts)
        check_bytes(8 * rows * corpus.world.V, f"batch={batch} and group={self.group} make rows", "take fewer")

    def losses(
        self, learning: Copies, documents: Int[Tensor, "S rows length"], noise: list[torch.Generator]
    ) -> tuple[Float[Tensor, "S"], Float[Tensor, "S"]]:
        """The loss of every network, whose slope is minus the update, and the share of its samples that were wrong.

        Args:
            learning: the networks.
            documents: read by each.
            noise: one generator for each network, on the CPU.

        Returns:
            Two numbers for each network; the first carries the gradient.
        """
        places = _with_thoughts if self.thoughts else _without
        log_probs, right = places(learning, documents, noise, self.group, self.thoughts)
        rewards = right.to(log_probs).reshape(-1, 1)
        of = torch.arange(len(rewards) // self.group, device=rewards.device).repeat_interleave(self.group)
        A = OBJECTIVES[self.objective](rewards, torch.ones_like(rewards, dtype=torch.bool), of)
        weighted = A.reshape(log_probs.shape) * log_probs
        return -weighted.flatten(1).mean(1), 1 - right.double().flatten(1).mean(1)


def _without(
    learning: Copies, documents: Tensor, noise: list[torch.Generator], group: int, thoughts: int
) -> tuple[Float[Tensor, "S places G"], Tensor]:
    """`log pi` of G samples at every place, and whether each is the next token; one pass for all places."""
    log_pi = learning.run(_log_pi, documents[..., :-1]).flatten(1, 2)
    sampled = _draw(log_pi, noise, group)
    return log_pi.gather(-1, sampled), sampled == documents[..., 1:].flatten(1, 2)[..., None]


def _with_thoughts(
    learning: Copies, documents: Tensor, noise: list[torch.Generator], group: int, thoughts: int
) -> tuple[Float[Tensor, "S places G"], Tensor]:
    """The same for rows of thoughts and a prediction: `log pi` of the whole row."""
    log_probs, right = list[Tensor](), list[Tensor]()
    for place in range(1, documents.shape[-1]):
        rows = documents[..., :place].repeat_interleave(group, 1)
        for _ in range(thoughts + 1):
            with torch.no_grad():
                log_pi = torch.log_softmax(learning.logits(rows, 1, group if rows.shape[-1] == place else 1), -1)
            rows = torch.cat([rows, _draw(log_pi.flatten(1, 2), noise, 1)], -1)
        logits = learning.logits(rows[..., :-1], thoughts + 1, group)
        said = torch.log_softmax(logits, -1).gather(-1, rows[..., place:, None])[..., 0].sum(-1)
        learning.refuse_nan(said)
        log_probs.append(said.unflatten(1, (-1, group)))
        right.append(rows[..., -1].unflatten(1, (-1, group)) == documents[..., place, None])
    return torch.cat(log_probs, 1), torch.cat(right, 1)


def _log_pi(network: ContextPolicy, tokens: Tensor) -> Tensor:
    return torch.log_softmax(network(network.embed(tokens)), -1)


def _draw(
    log_pi: Float[Tensor, "S places V"], noise: list[torch.Generator], count: int
) -> Int[Tensor, "S places count"]:
    """`count` tokens of every law, by the inverse of its distribution function; every network has its own noise."""
    below = log_pi.detach().double().exp().cumsum(-1)
    u = torch.stack([torch.rand(log_pi.shape[1], count, generator=rng, dtype=torch.float64) for rng in noise]).to(below)
    return torch.searchsorted(below, u * below[..., -1:], right=True).clamp(max=log_pi.shape[-1] - 1)
