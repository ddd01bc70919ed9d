"""`costate pretrain`: one network from its first draw, with checkpoints on a log grid and the exact numbers of each."""

import argparse
import io
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from agents.policies.transformer import Transformer
from agents.training.noise import noise_of
from agents.training.pretraining import Checkpoint, log_grid, pretrain
from envs.corpus import Corpus
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from envs.world import InputError
from figures.commands.options import add_device, add_seed, device_of, pairs, whole_number
from figures.commands.progress_bar import progress_bar
from figures.drawing.checkpoints import draw_pretraining
from figures.harness.code import writer
from figures.harness.records import check_writable, write_atomically
from figures.impact.checkpoint_files import MODEL_FILE, WRITER
from figures.impact.numbers import describe_policy, reader_return
from theory.tokens.dynamic_programming import best_words

STOPPED = "the checkpoints written so far are kept; the same command begins anew"
_CORPUS = {
    "quality": (1.0, "chance that an answer of the corpus is right, else it is guessed"),
    "noise": (0.0, "chance that a token of an answer is replaced by any token"),
    "coverage": (1.0, "share of each skill's prompts that the corpus shows"),
}
_SIZES = {
    "updates": (512, "updates of pretraining"),
    "checkpoints": (10, "checkpoints after the first draw, even in the logarithm"),
    "batch": (64, "documents an update"),
    "width": (16, "of the transformer"),
    "layers": (2, "of the transformer"),
    "heads": (2, "of its attention"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The corpus, the network, the run."""
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="where the checkpoints go")
    text = "a registered token world, or your own: FILE.py:FUNCTION or FILE.json (default: TokenSkills)"
    add("--world", default="TokenSkills", metavar="NAME", help=text)
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="keyword of its builder")
    for name, (share, text) in _CORPUS.items():
        add(f"--{name}", type=float, default=share, metavar="X", help=f"{text} (default: {share})")
    for name, (size, text) in _SIZES.items():
        add(f"--{name}", type=partial(whole_number, 1), default=size, metavar="N", help=f"{text} (default: {size})")
    add("--rate", type=float, default=0.005, metavar="X", help="learning rate (default: 0.005)")
    add_device(parser)
    add_seed(parser, "of the network and the documents")


def run(options: argparse.Namespace) -> int:
    """Train, write every checkpoint when it is reached, and show its exact numbers in a table and a picture.

    Exit code 1 where a number was no longer finite; what was before that is kept and shown.
    """
    torch.set_num_threads(1)
    device = device_of(options.device)
    corpus = _corpus(options)
    sizes = (options.width, options.layers, options.heads, corpus.length)
    network = Transformer(corpus.world.V, None, *sizes, seed=options.seed).to(device)
    grid = log_grid(min(4, options.updates), options.updates, options.checkpoints)
    noise = noise_of("documents", options.seed)
    points = pretrain([network], corpus, grid, [noise], options.batch, options.rate)
    describe_policy(corpus.world, network)  # a world too large is refused before earlier checkpoints are removed
    earlier = _earlier(options.out)
    check_writable(options.out, ())
    _write_model(options, earlier)
    rows = list[dict[str, Any]]()
    diverged = _measure(points, corpus, options, rows)
    _report(pd.DataFrame(rows), corpus, options)
    if diverged is not None:
        where, remedy = f"pretraining diverged after update {rows[-1]['updates']}", "a smaller --rate may help"
        print(f"costate: {where}: {diverged}; what was before it is kept: {remedy}", file=sys.stderr)
    return 0 if diverged is None else 1


def _measure(
    points: Iterator[Checkpoint], corpus: Corpus, options: argparse.Namespace, rows: list[dict[str, Any]]
) -> InputError | None:
    """Write and describe every checkpoint when it is reached; the error of a run that diverged after the first."""
    with progress_bar("pretraining", options.updates) as bar:
        try:
            for point in points:
                bar.update(point.updates - bar.n)
                known = describe_policy(corpus.world, point.networks[0])
                _save(options.out, point)
                rows.append({"updates": point.updates, "tokens": point.tokens, "loss": float(point.loss[0]), **known})
                bar.set_postfix_str(f"J {known['J']:.4f} H {known['H']:.3f}")
        except InputError as error:
            if not rows:
                raise
            return error
    return None


def _corpus(options: argparse.Namespace) -> Corpus:
    world = make_world(options.world, **dict(pairs("--set", options.set)))
    if not isinstance(world, TokenMDP):
        raise InputError(f"--world {options.world} has no tokens: pretraining needs a token world")
    return Corpus(world, best_words(world), options.quality, options.noise, options.coverage)


def _earlier(out: Path) -> list[Path]:
    """The checkpoints of an earlier run, which this one replaces. Raises InputError for files that no such run wrote."""
    earlier = sorted(out.glob("update-*.pt"))
    foreign = [path for path in earlier if not path.is_file() or not (out / MODEL_FILE).is_file()]
    if foreign:
        raise InputError(
            f"--out {out} holds {foreign[0].name}, which is no checkpoint of an earlier run (without {MODEL_FILE}): "
            "it would be lost; name another folder"
        )
    return earlier


def _write_model(options: argparse.Namespace, earlier: list[Path]) -> None:
    """Write model.json, which `costate impact` reads, and remove the checkpoints of an earlier run."""
    world = {"world": options.world, "world_options": dict(pairs("--set", options.set))}
    knobs = {name: getattr(options, name) for name in ("seed", *_CORPUS, *_SIZES, "rate")}
    for old in earlier:
        old.unlink()
    write_atomically(options.out / MODEL_FILE, json.dumps({**world, **knobs}, indent=1))


def _save(out: Path, point: Checkpoint) -> None:
    buffer = io.BytesIO()
    state = {name: p.detach().cpu() for name, p in point.networks[0].state_dict().items()}
    kept = {"state": state, "updates": point.updates, "tokens": point.tokens, "written by": writer(WRITER)}
    torch.save(kept, buffer)
    write_atomically(out / f"update-{point.updates:06d}.pt", buffer.getvalue())


def _report(table: pd.DataFrame, corpus: Corpus, options: argparse.Namespace) -> None:
    """Write the table as CSV, draw it, print it."""
    write_atomically(options.out / "pretraining.csv", table.to_csv(index=False))
    knobs = ", ".join(f"{name} {getattr(options, name):g}" for name in _CORPUS)
    title = f"Pretraining in {options.world}: {knobs}"
    draw_pretraining(table, reader_return(corpus), title, options.out / "pretraining")
    shown = ["updates", "tokens", "loss", "J", "H", "pass_at_k", *(name for name in table if name.startswith("skill "))]
    print(table[shown].to_string(index=False, float_format=lambda x: f"{x:.4f}"))
    print(f"{len(table)} checkpoints, pretraining.csv and pretraining.png are in {options.out}")
