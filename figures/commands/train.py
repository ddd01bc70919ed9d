"""`costate train`: one recipe in one world, with a live progress bar, a log and a picture at the end."""

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

_NUMBERS = {
    "steps": (int, 200, "updates"),
    "prompts": (int, 8, "prompts (or start states) an update"),
    "group": (int, 8, "rows drawn for each prompt"),
    "epochs": (int, 1, "passes over the rows of an update"),
    "minibatches": (int, 1, "parts that a pass is cut into, whole groups each"),
    "rate": (float, 0.002, "learning rate"),
    "critic-rate": (float, 0.01, "learning rate of a learned critic"),
    "max-norm": (float, 0.0, "largest norm of a gradient, 0 for none"),
    "every": (int, 10, "updates between exact answers (and checkpoints)"),
}
_SIZES = {"seeds": (int, 1, "policies trained at once"), "width": (int, 32, "of the transformer"),
          "layers": (int, 2, "of the transformer"), "heads": (int, 2, "of its attention")}  # fmt: skip


def add_parser(commands: Any, seed: Any) -> None:
    """The subcommand's options."""
    train = commands.add_parser("train", help="train one learner in one world, exact answers along the way")
    train.add_argument(
        "--learner", required=True, metavar="NAME", help="grpo, rloo, ppo, ... (a wrong name lists them)"
    )
    train.add_argument("--world", required=True, metavar="NAME", help="a registered world, TokenArithmetic or LQScalar")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="keyword of the world's builder")
    train.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="option of the learner")
    train.add_argument("--kl-reward", metavar="K:BETA", help="KL penalty in the reward, k1:0.1 for instance")
    train.add_argument("--kl-loss", metavar="K:BETA", help="KL penalty in the loss, k3:0.1 for instance")
    train.add_argument("--entropy", type=float, default=0.0, metavar="C", help="entropy bonus (default: 0)")
    for name, (kind, default, text) in (_NUMBERS | _SIZES).items():
        train.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=f"{text} (default: {default})")
    train.add_argument("--optimiser", choices=("adam", "sgd"), default="adam")
    train.add_argument(
        "--sampler", choices=("float64", "float32", "bfloat16"), default="", help="precision rows are drawn in"
    )
    train.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    train.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: CUDA where there is one"
    )
    train.add_argument("--seed", type=seed, default=0, metavar="S", help="first seed (default: 0)")
    train.add_argument(
        "--out", type=Path, default=Path("runs/train"), metavar="DIR", help="results (default: runs/train)"
    )


def run(options: argparse.Namespace, device: str) -> int:
    """Train, draw, say where it lies."""
    import torch
    from tqdm import tqdm

    from figures.commands.training_run import build_trainer, summary, train
    from figures.drawing.training_run import draw_run
    from figures.harness.records import check_writable
    from figures.measures.oracles import best_return

    torch.set_num_threads(1)
    asked = _run_of(options, device)
    _, world, why = build_trainer(asked)  # refuses what is wrong before anything is written
    check_writable(options.out, ())
    if why:
        print(f"costate: nothing exact is recorded: {why}", file=sys.stderr)
    with (
        warnings.catch_warnings(),
        tqdm(total=asked.setting.steps, desc=asked.name, unit="step", file=sys.stderr, ncols=110) as bar,
    ):
        warnings.showwarning = lambda message, *_, **__: bar.write(f"costate: {message}", file=sys.stderr)
        table = train(asked, options.out, lambda record, before: _show(bar, record, before))
        bar.update(bar.total - bar.n)  # a run that was finished before
    folder, best = options.out / asked.name, best_return(world)
    draw_run(
        table, best, f"{asked.learner} in {asked.world}, {asked.seeds} seed{'s' * (asked.seeds > 1)}", folder / "curves"
    )
    print(summary(table) + ("" if best is None else f" (best J {best:.4g})"))
    print(f"log.csv, curves.png, settings.json and checkpoint.pt are in {folder}")
    return 0


def _show(bar: Any, record: Any, before: int) -> None:
    """The bar, and the latest exact numbers beside it."""
    if bar.n == 0 and before:
        bar.update(before)
    bar.update(min(1, bar.total - bar.n) if record.step < bar.total else 0)
    if not bool(record.J.isnan().any()):
        shown = f"J {float(record.J.mean()):.4f} H {float(record.entropy.mean()):.3f}"
        bar.set_postfix_str(
            shown if bool(record.cosine.isnan().any()) else f"{shown} cos {float(record.cosine.mean()):.2f}"
        )


def _run_of(options: argparse.Namespace, device: str) -> Any:
    """The run that the options describe."""
    from agents.training.settings import TrainingSettings
    from figures.commands.training_run import Run

    numbers = {name.replace("-", "_"): getattr(options, name.replace("-", "_")) for name in _NUMBERS}
    sizes = {name: getattr(options, name) for name in _SIZES}
    _at_least_one(sizes)
    setting = TrainingSettings(**numbers, optimiser=options.optimiser, sampler=options.sampler)
    return Run(
        options.learner, options.world, pairs("--option", options.option), pairs("--set", options.set),
        _penalty("--kl-reward", options.kl_reward), _penalty("--kl-loss", options.kl_loss), options.entropy,
        seed=options.seed, dtype=options.dtype, device=device, setting=setting, **sizes,
    )  # fmt: skip


def _at_least_one(sizes: dict[str, int]) -> None:
    from envs.world import InputError

    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"--{name} must be a whole number >= 1; got {size}")


def pairs(option: str, given: list[str]) -> tuple[tuple[str, Any], ...]:
    """KEY=VALUE with the value read as JSON where it is some, else as text."""
    from envs.world import InputError

    pairs = []
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"{option} {text}: give KEY=VALUE")
        try:
            pairs.append((key, json.loads(value.lower() if value in ("True", "False") else value)))
        except ValueError:
            pairs.append((key, value))
    return tuple(sorted(dict(pairs).items()))  # of a key that comes twice the last value counts


def _penalty(option: str, text: str | None) -> tuple[str, float] | None:
    from envs.world import InputError

    if text is None:
        return None
    kind, colon, beta = text.partition(":")
    try:
        return kind, float(beta if colon else "x")
    except ValueError:
        raise InputError(f"{option} {text}: give an estimator and its weight, k3:0.1 for instance") from None
