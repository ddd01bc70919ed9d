"""A world with additive noise, under a policy of commands, as the training loop sees it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from agents.sampling.rollout import rollout
from agents.sampling.score_function import check_additive
from agents.training.copies import Copies
from agents.training.tasks import Rollouts
from envs.noise import Noise, draw_noise, log_density, noise_family
from envs.policy import Policy
from envs.world import InputError, World


class CommandTask:
    """A world with additive noise and a finite horizon under a policy of commands; a prompt is a start state.

    The terminal reward is counted with the last step. Copies are run one after the other.

    Args:
        world: with additive noise and a finite horizon.

    Raises:
        InputError: the world is endless, it does not execute a = u + xi (A2: its actions have no density in the
            policy's command), or the density of its noise jumps (A3: the score function is then wrong).
    """

    any_precision = False
    signals: Sequence[str] = ()
    may_cost = True

    def __init__(self, world: World):
        if world.horizon is None:
            raise InputError("horizon must be finite for training in a linear-quadratic world: give it one")
        check_additive(world, torch.ones(1, world.n, dtype=torch.float64), torch.zeros(1, world.m, dtype=torch.float64))
        if not noise_family(world.noise).differentiable:
            raise InputError(
                f"noise {world.noise!r} has a density that jumps (A3): score-function learners are wrong there"
            )
        self.world, self.steps, self.features = world, world.horizon, world.n

    def draw(
        self, actor: Copies, prompts: int, group: int, noise: list[torch.Generator], signals: Sequence[str] = ()
    ) -> Rollouts:
        """Noisy rollouts; `old` is the density of the noise that was drawn. There are no signals.

        Args:
            actor: the policies.
            prompts: groups of each copy.
            group: rows of a group.
            noise: one generator for each copy.
            signals: names of what is asked for beside the rewards.

        Returns:
            The rows.
        """
        device, parts = str(actor.like.device), []
        for i, g in enumerate(noise):
            drawn = draw_noise(self.world, prompts * group, self.steps, g).to(device)
            start = drawn.s_0[:prompts].repeat_interleave(group, 0)
            parts.append(self._paths(actor.network_of(i), drawn, start))
        states, actions, rewards = (torch.stack(x) for x in zip(*parts, strict=True))
        network = [self.log_probs(actor.network_of(i), states[i], actions[i])[0].detach() for i in range(actor.count)]
        mask = torch.ones_like(rewards, dtype=torch.bool)
        slots = torch.arange(prompts, device=device).repeat_interleave(group)
        return Rollouts(
            (states, actions),
            states,
            rewards,
            mask,
            torch.stack(network),
            slots,
            mask[..., 0],
            slots.expand(actor.count, -1),
            mask,
        )

    def _paths(self, network: Policy, noise: Noise, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            path = rollout(self.world, network, noise, start)
        discount = path.gamma ** torch.arange(self.steps + 1, dtype=start.dtype, device=start.device)
        rewards = path.rewards * discount
        rewards = torch.cat([rewards[:, :-2], rewards[:, -2:].sum(1, keepdim=True)], 1)
        return path.states[:, :-1], path.actions, rewards

    def log_probs(self, network: Policy, *seen: Tensor) -> tuple[Tensor, Tensor]:
        """`log p(a_t - mu(history_t))`; the entropy is that of the noise, which no parameter moves: its slope is 0.

        Args:
            network: one policy.
            seen: what `Rollouts.seen` holds of its rows.

        Returns:
            Log-probabilities and entropies, in nats.
        """
        (states, actions), window = seen, network.window or self.steps
        histories = [states[:, max(0, t + 1 - window) : t + 1] for t in range(self.steps)]
        commands = torch.stack([network(history, t) for t, history in enumerate(histories)], 1)
        density = log_density(self.world.to(str(states.device), states.dtype), actions - commands)
        return density, torch.zeros_like(density)

    def log_probs_of_all(self, actor: Copies, group: int, *seen: Tensor) -> tuple[Tensor, Tensor]:
        """`log_probs` of every copy.

        Args:
            actor: the policies.
            group: rows of a group.
            seen: what `Rollouts.seen` holds of the rows.

        Returns:
            Log-probabilities and entropies, in nats.
        """
        log_probs, entropy = actor.run(self.log_probs, *seen)
        return log_probs, entropy
