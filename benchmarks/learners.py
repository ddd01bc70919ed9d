"""A GRPO step against the bare step of its network, exact means against the exact gradient, 16 seeds at once.

Float64. The bare step is forward, mean log-likelihood of the same tokens, backward and Adam, same network and batch:
vocabulary 16, 8 prompts x 8 samples x 8 tokens after prompts of 2, 2 layers, width 64. The update adds ratios, advantages,
clip, checks and log; a whole step draws its rows first. Seeds at once are one call, vmapped over stacked parameters
(torch.func), from sampling to Adam; one by one they are as many trainers.
"""

import torch

from agents.policies.transformer import Transformer
from agents.recipes.learners import build_learner
from agents.training.settings import TrainingSettings
from agents.training.tasks import TokenTask
from agents.training.trainer import Trainer, _StepDiagnostics
from benchmarks.timing import interleave, median_ratio, report
from envs.token_mdp import TokenMDP
from envs.token_tasks import garnet, sequence_task, sum_and_stop
from theory.groups.expected_update import expected_update
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_gradients import total_surrogate

V, PROMPTS, GROUP, H = 16, 8, 8, 8


def large_world() -> TokenMDP:
    """Eight prompts of two tokens, answers of eight, dense."""
    rng = torch.Generator().manual_seed(0)
    answers = torch.randint(V, (PROMPTS, H), generator=rng).tolist()
    return sequence_task(V, [[i, i] for i in range(PROMPTS)], answers, sparse=False)


def step_rivals() -> dict:
    """The bare step, the update of rows that are there, and a step with its sampling."""
    world, setting = large_world(), TrainingSettings(prompts=PROMPTS, group=GROUP, every=10**9)
    policies = [Transformer(V, width=64, layers=2, heads=4, length=H + 2) for _ in range(2)]
    trainer = Trainer(TokenTask(world), build_learner("grpo"), policies[:1], [0], setting)
    trainer.taken = 1
    rows, bare = trainer._draw(), policies[1]
    optimiser, contexts = torch.optim.Adam(bare.parameters(), lr=0.01), rows.seen[0][0]

    def bare_step() -> None:
        optimiser.zero_grad()
        logits = bare(bare.embed(contexts[:, :-1]))[:, -H:]
        chosen = torch.log_softmax(logits, -1).gather(-1, contexts[:, -H:, None])
        (-chosen.mean()).backward()
        optimiser.step()

    def update() -> None:
        seen = _StepDiagnostics(rows)
        trainer._move(seen.first(trainer._update(rows, slice(None), {}, seen)))
        seen.summary()

    return {"bare": bare_step, "update": update, "step": trainer.step}


def expectation_rivals(world: TokenMDP, learner: str, group: int) -> dict:
    """The exact policy gradient and the exact mean of a recipe (which computes the true gradient besides)."""
    policy, recipe = Transformer(world.V, width=16, layers=2, heads=2, length=32), build_learner(learner)

    def gradient() -> None:
        torch.autograd.grad(total_surrogate(grow(world, policy)), list(policy.parameters()))

    return {"gradient": gradient, "mean": lambda: expected_update(world, policy, recipe, group)}


def seed_rivals(width: int, prompts: int, group: int) -> dict:
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
        "GRPO update of drawn rows against the bare step", median_ratio(seconds, "update", "bare"), 1.15, at_most=True
    )
    print(f"GRPO step, its sampling included, against the bare step: {median_ratio(seconds, 'step', 'bare'):.2f}x")
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
