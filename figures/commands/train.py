"""`costate train`: one recipe in one world, with a live progress bar, a log and a picture at the end."""

import argparse
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch

from agents.training.settings import Record, TrainingSettings
from envs.own_world import fingerprint, load_own_world, names_own_world
from envs.world import InputError, one_line
from figures.commands.options import add_device, add_seed, device_of, names_of, pairs, whole_number
from figures.commands.progress_bar import progress_bar
from figures.commands.teachers import named_teachers
from figures.commands.training_run import DivergedError, Run, build_trainer, summary, train
from figures.drawing.training_run import draw_run
from figures.harness.catalogue import learner_texts, world_texts
from figures.harness.records import check_writable
from figures.measures.oracles import best_return

_NUMBERS = {
    "steps": (int, 200, "updates"),
    "prompts": (int, 8, "prompts (or start states) an update"),
    "group": (int, 8, "rows drawn for each prompt"),
    "epochs": (int, 1, "passes over the rows of an update"),
    "minibatches": (int, 1, "parts that a pass is cut into, whole groups each"),
    "rate": (float, 0.002, "learning rate"),
    "critic-rate": (float, 0.01, "learning rate of a learned critic"),
    "critic-epochs": (int, 4, "fits of a learned critic to the rows of an update"),
    "max-norm": (float, 0.0, "largest norm of a gradient, 0 for none"),
    "every": (int, 10, "updates between exact answers (and checkpoints)"),
}
STOPPED = "the last checkpoint is kept, the same command goes on from here"
_SIZES = {
    "seeds": (int, 1, "policies trained at once"),
    "width": (int, 32, "of the transformer"),
    "layers": (int, 2, "of the transformer"),
    "heads": (int, 2, "of its attention"),
    "top-p": (float, 1.0, "mass of the likeliest tokens that rows are drawn from and trained within"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The recipe, the world, the run."""
    parser.epilog = names_of(learners=learner_texts(), worlds=world_texts())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--learner", required=True, metavar="NAME", help="grpo, rloo, ppo, ...: all are listed below")
    add(
        "--world",
        required=True,
        metavar="NAME",
        help="a registered world (listed below), or your own: FILE.py:FUNCTION or FILE.json",
    )
    for option, text in (("--set", "keyword of the world's builder"), ("--option", "option of the learner")):
        add(option, action="append", default=[], metavar="KEY=VALUE", help=text)
    add("--kl-reward", metavar="K:BETA", help="KL penalty in the reward, k1:0.1 for instance")
    add(
        "--kl-loss", metavar="K:BETA", help="KL penalty in the loss, k3:0.1 for instance; rho-k3:0.1 is DeepSeek-V3.2's"
    )
    text = "checkpoint that the KL penalty pulls to, in the place of the policy at the start; several with weights"
    add("--teacher", action="append", default=[], metavar="FILE[:WEIGHT]", help=text)
    add("--entropy", type=float, default=0.0, metavar="C", help="entropy bonus (default: 0)")
    for name, (kind, default, text) in (_NUMBERS | _SIZES).items():
        reader = partial(whole_number, 1) if kind is int else float
        add(f"--{name}", type=reader, default=default, metavar="N", help=f"{text} (default: {default})")
    add("--optimiser", choices=("adam", "sgd"), default="adam")
    add("--sampler", choices=("float64", "float32", "bfloat16"), default="", help="precision rows are drawn in")
    add("--dtype", choices=("float64", "float32"), default="float64")
    add_device(parser)
    add_seed(parser, "first seed")
    add("--out", type=Path, default=Path("runs/train"), metavar="DIR", help="results (default: runs/train)")


def run(options: argparse.Namespace) -> int:
    """Train with a live bar, draw the curves, print the last numbers and where the files are; exit code 1 if it diverged."""
    torch.set_num_threads(1)
    chosen = _run_of(options, device_of(options.device))
    trainer, world, reason = build_trainer(chosen)  # refuses what cannot be run before anything is written
    check_writable(options.out, ())
    folder, best = options.out / chosen.name, best_return(world)
    if reason:
        print(f"costate: nothing exact is recorded: {reason}", file=sys.stderr)
    if note := getattr(trainer.oracle, "note", ""):
        print(f"costate: {note}", file=sys.stderr)
    print(f"costate: training in {folder}", file=sys.stderr)
    bar = progress_bar(chosen.learner, chosen.setting.steps)
    diverged = None
    with warnings.catch_warnings(), bar:
        warnings.showwarning = lambda message, *_, **__: bar.write(f"costate: {message}", file=sys.stderr)
        try:
            table = train(chosen, options.out, lambda record, before: _show(bar, record, before))
            bar.update(bar.total - bar.n)  # a run that was finished before
        except DivergedError as error:
            table, diverged = error.log, error
    seeds = f"{chosen.seeds} seed{'s' * (chosen.seeds > 1)}"
    if len(table):
        draw_run(table, best, f"{chosen.learner} in {chosen.world}, {seeds}", folder / "curves")
        print(summary(table) + ("" if best is None else f" (best J {best:.4g})"))
    print(f"log.csv, curves.png, settings.json and checkpoint.pt are in {folder}")
    if diverged is not None:
        print(f"costate: {diverged}; what was before it is kept: a smaller --rate may help", file=sys.stderr)
    return 0 if diverged is None else 1


def _show(bar: Any, record: Record, before: int) -> None:
    """Move the bar on; after it the latest exact numbers, means over seeds."""
    if bar.n == 0 and before:
        bar.update(before)
    bar.update(min(1, bar.total - bar.n) if record.step < bar.total else 0)
    numbers = {"J": (record.J, ".4f"), "H": (record.entropy, ".3f"), "cos": (record.cosine, ".2f")}
    numbers["own cos"] = (record.target_cosine, ".2f")
    exact = {name: (x, digits) for name, (x, digits) in numbers.items() if not bool(x.isnan().any())}
    if "J" in exact:
        bar.set_postfix_str(" ".join(f"{name} {float(x.mean()):{digits}}" for name, (x, digits) in exact.items()))


def _run_of(options: argparse.Namespace, device: str) -> Run:
    """The run that the options describe."""
    numbers = {name.replace("-", "_"): getattr(options, name.replace("-", "_")) for name in _NUMBERS}
    sizes = {name.replace("-", "_"): getattr(options, name.replace("-", "_")) for name in _SIZES}
    built = pairs("--set", options.set)
    own = names_own_world(options.world)
    return Run(
        learner=options.learner,
        world=options.world,
        options=pairs("--option", options.option),
        world_options=built,
        world_mark=fingerprint(load_own_world(options.world, "--world", **dict(built))) if own else "",
        kl_reward=_penalty("--kl-reward", options.kl_reward),
        kl_loss=_penalty("--kl-loss", options.kl_loss),
        entropy=options.entropy,
        teachers=named_teachers(options.teacher),
        seed=options.seed,
        dtype=options.dtype,
        device=device,
        setting=TrainingSettings(**numbers, optimiser=options.optimiser, sampler=options.sampler),
        **sizes,
    )


def _penalty(option: str, text: str | None) -> tuple[str, float] | None:
    if text is None:
        return None
    kind, colon, beta = text.partition(":")
    try:
        return kind, float(beta if colon else "x")
    except ValueError:
        raise InputError(
            f"{option} {one_line(text, 80)}: give an estimator and its weight, k3:0.1 for instance"
        ) from None
