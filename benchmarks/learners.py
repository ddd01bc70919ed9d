"""A GRPO step against a bare one, exact means against the exact gradient, 16 seeds at once.

A step is sampling, rewards, advantages, loss, backward and Adam, float32: vocabulary 16, 8 prompts of 4 tokens, 8 samples of 8
tokens each, 2 layers, width 64. The bare step samples with cached keys and values and checks nothing; the trainer's adds
checks, ratios, clip and the log. All else is float64. Seeds at once are one call, vmapped over stacked parameters
(torch.func), from sampling to Adam; one by one they are as many trainers.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from agents.policies.transformer import Transformer
from agents.recipes.learners import build_learner
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from benchmarks.timing import interleave, median_ratio, report
from envs.token_mdp import TokenMDP
from envs.token_tasks import garnet, sequence_task, sum_and_stop
from theory.groups.expected_update import expected_update
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_gradients import total_surrogate

V, PROMPTS, GROUP, H = 16, 8, 8, 8


def large_world(prompt: int) -> TokenMDP:
    """Eight prompts of so many tokens, answers of eight, dense."""
    rng = torch.Generator().manual_seed(0)
    answers = torch.randint(V, (PROMPTS, H), generator=rng).tolist()
    return sequence_task(V, [[i] * prompt for i in range(PROMPTS)], answers, sparse=False)


def step_rivals() -> dict[str, Callable[[], object]]:
    """A step of the trainer with its sampling, and the same written out bare; float32."""
    world, setting = large_world(prompt=4), TrainingSettings(prompts=PROMPTS, group=GROUP, every=10**9)
    network = Transformer(V, width=64, layers=2, heads=4, length=H + 4, dtype=torch.float32)
    trainer = Trainer(TokenTask(world), build_learner("grpo"), [network], [0], setting)
    trainer.taken = 1  # no exact answers
    bare, rng = BareStep(world, network), torch.Generator().manual_seed(0)
    return {"bare": lambda: bare.step(rng), "step": trainer.step}


class BareStep:
    """GRPO without the suite: sampling with keys and values cached, one loss, one backward pass, Adam; nothing is checked."""

    def __init__(self, world: TokenMDP, network: Transformer):
        self.world, self.network = world, copy.deepcopy(network)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=0.002)

    def step(self, rng: torch.Generator) -> None:
        """One update."""
        which = torch.randint(len(self.world.prompts), (PROMPTS,), generator=rng).repeat_interleave(GROUP)
        prompts = self.world.prompts[which]
        tokens = self.sample(prompts, rng)
        R = self.rewards(which, tokens).reshape(PROMPTS, GROUP)
        A = ((R - R.mean(1, keepdim=True)) / (R.std(1, keepdim=True) + 1e-4)).reshape(-1, 1)
        contexts = torch.cat([prompts, tokens], 1)
        log_pi = torch.log_softmax(self.network(self.network.embed(contexts[:, :-1]))[:, -H:], -1)
        log_probs = log_pi.gather(-1, tokens[..., None])[..., 0]
        ratio = (log_probs - log_probs.detach()).exp()
        loss = -torch.minimum(ratio * A, ratio.clamp(0.8, 1.2) * A).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    @torch.no_grad()
    def sample(self, prompts: Tensor, rng: torch.Generator) -> Tensor:
        """H tokens after every prompt."""
        x, cache, tokens = self.network.embed(prompts), None, list[Tensor]()
        for _ in range(H):
            logits, cache = self.network.extend(x, cache)
            tokens.append(torch.multinomial(torch.softmax(logits, -1), 1, generator=rng))
            x = self.network.embed(tokens[-1])
        return torch.cat(tokens, 1)

    def rewards(self, which: Tensor, tokens: Tensor) -> Tensor:
        """Share of right tokens: in this world of dense rewards one table look-up a token."""
        steps = torch.arange(H)
        paid: Tensor = self.world.r[steps, self.world.starts[which][:, None], tokens]
        return paid.sum(1).float()


def expectation_rivals(world: TokenMDP, learner: str, group: int) -> dict[str, Callable[[], object]]:
    """The exact policy gradient and the exact mean of a recipe (which computes the true gradient besides)."""
    policy, recipe = Transformer(world.V, width=16, layers=2, heads=2, length=32), build_learner(learner)

    def gradient() -> None:
        torch.autograd.grad(total_surrogate(grow(world, policy)), list(policy.parameters()))

    return {"gradient": gradient, "mean": lambda: expected_update(world, policy, recipe, group)}


def seed_rivals(width: int, prompts: int, group: int) -> dict[str, Callable[[], object]]:
    """Sixteen seeds in one trainer and in sixteen."""
    world, setting = sum_and_stop(3, 4), TrainingSettings(prompts=prompts, group=group, every=10**9)

    def trainer(seeds: range) -> Trainer:
        policies = [Transformer(world.V, width=width, layers=2, heads=2, length=8, seed=s) for s in seeds]
        made = Trainer(TokenTask(world), build_learner("grpo"), policies, list(seeds), setting)
        made.taken = 1
        return made

    together, alone = trainer(range(16)), [trainer(range(s, s + 1)) for s in range(16)]
    return {"together": together.step, "one by one": lambda: [one.step() for one in alone]}


def main() -> None:
    """Measure and print."""
    seconds = interleave(step_rivals(), 41)
    report(
        "GRPO step with its sampling against the bare step", median_ratio(seconds, "step", "bare"), 1.1, at_most=True
    )
    for name, world, learner, group in (
        ("binary (3,6), grpo, G=8", sequence_task(3, [[0]], [[1] * 6]), "grpo", 8),
        ("end token (3,6), dapo, G=4", sum_and_stop(2, 6), "dapo", 4),
        ("dense (2,4), grpo, G=4", garnet(V=2, horizon=4), "grpo", 4),
        ("dense (2,6), rloo, G=2", garnet(V=2, horizon=6), "rloo", 2),
    ):
        seconds = interleave(expectation_rivals(world, learner, group), 9)
        report(f"exact mean against exact gradient: {name}", median_ratio(seconds, "mean", "gradient"), 3, at_most=True)
    for width, prompts, group in ((16, 2, 4), (16, 8, 8), (64, 8, 8)):
        seconds = interleave(seed_rivals(width, prompts, group), 7)
        ratio = median_ratio(seconds, "one by one", "together")
        report(f"16 seeds at once against one by one: width {width}, {prompts} x {group} rows", ratio, 3)


if __name__ == "__main__":
    main()
