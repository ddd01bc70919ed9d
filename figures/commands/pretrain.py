"""`costate pretrain`: one network from its first draw, with checkpoints on a log grid and the exact numbers of each.

Where next tokens are rewarded, a network that follows the likelihood is trained beside it, from the same first draw.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from agents.policies.transformer import Transformer
from agents.training.next_token_reward import OBJECTIVES, NextTokenReward
from agents.training.noise import noise_of
from agents.training.pretraining import Checkpoint, log_grid, pretrain
from envs.corpus import Corpus, next_token_world
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from envs.world import InputError
from figures.commands.options import add_device, add_seed, device_of, pairs, whole_number
from figures.commands.pretraining_files import earlier_checkpoints, resumed, save_checkpoint, write_model
from figures.commands.progress_bar import progress_bar
from figures.drawing.checkpoints import draw_objectives, draw_pretraining
from figures.harness.records import check_writable, write_atomically
from figures.impact.numbers import describe_policy, reader_return
from theory.tokens.dynamic_programming import best_words
from theory.tokens.next_token import corpus_nats, least_nats

STOPPED = "the checkpoints written so far are kept; the same command begins anew, with --resume it goes on"
_LIKELIHOOD = "likelihood"
_GROUP, _THOUGHTS = 8, 0
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
    text = "what is climbed: the likelihood of the corpus, or a reward of sampled next tokens"
    add("--objective", choices=(_LIKELIHOOD, *OBJECTIVES), default=_LIKELIHOOD, help=f"{text} (default: {_LIKELIHOOD})")
    text = f"rows sampled at every place, for a reward (default: {_GROUP})"
    add("--group", type=partial(whole_number, 2), metavar="N", help=text)
    text = f"tokens said before the next one is named, for a reward (default: {_THOUGHTS})"
    add("--thoughts", type=partial(whole_number, 0), metavar="N", help=text)
    add("--resume", action="store_true", help="go on from the last checkpoint in --out of the same command")
    add("--rate", type=float, default=0.005, metavar="X", help="learning rate (default: 0.005)")
    add_device(parser)
    add_seed(parser, "of the network and the documents")


def run(options: argparse.Namespace) -> int:
    """Train, write every checkpoint when it is reached, and show its exact numbers in a table and a picture.

    Exit code 1 where a number was no longer finite; what was before that is kept and shown.
    """
    torch.set_num_threads(1)
    corpus, reward = _corpus(options), _reward(options)
    thoughts = 0 if reward is None else reward.thoughts
    sizes = (options.width, options.layers, options.heads, corpus.length + thoughts)
    network = Transformer(corpus.world.V, None, *sizes, seed=options.seed).to(device_of(options.device))
    grid, worlds = log_grid(min(4, options.updates), options.updates, options.checkpoints), list[TokenMDP]()
    given: tuple[Any, ...] = (corpus, grid, [noise_of("documents", options.seed)], options.batch, options.rate)
    beside = None if reward is None else pretrain([network], *given)  # from the same first draw
    rows, progress = resumed(options.out, _model(options, reward), network) if options.resume else ([], None)
    reached = rows[-1]["updates"] if rows else grid[0]
    given = (
        corpus,
        [n for n in grid if n >= reached],
        [noise_of("documents", options.seed)],
        options.batch,
        options.rate,
    )
    points = pretrain([network], *given, reward, progress)
    describe_policy(corpus.world, network)  # a world too large is refused before earlier checkpoints are removed
    if reward is not None:
        worlds = [next_token_world(corpus, place, thoughts) for place in range(1, corpus.length)]
        corpus_nats(worlds, network)
    if not options.resume:
        earlier = earlier_checkpoints(options.out)
        check_writable(options.out, ())
        write_model(options.out, _model(options, reward), earlier)
    diverged = _measure(points, beside, corpus, worlds, options, rows)
    _report(pd.DataFrame(rows), corpus, worlds, options)
    if diverged is not None:
        where, remedy = f"pretraining diverged after update {rows[-1]['updates']}", "a smaller --rate may help"
        print(f"costate: {where}: {diverged}; what was before it is kept: {remedy}", file=sys.stderr)
    return 0 if diverged is None else 1


def _measure(
    points: Iterator[Checkpoint],
    beside: Iterator[Checkpoint] | None,
    corpus: Corpus,
    worlds: Sequence[TokenMDP],
    options: argparse.Namespace,
    rows: list[dict[str, Any]],
) -> InputError | None:
    """Write and describe every checkpoint when it is reached; the error of a run that diverged after the first."""
    reached = rows[-1]["updates"] if rows else -1
    with progress_bar("pretraining", options.updates) as bar:
        try:
            for point in points:
                bar.update(point.updates - bar.n)
                if point.updates <= reached:
                    continue
                known = describe_policy(corpus.world, point.networks[0])
                row = {"updates": point.updates, "tokens": point.tokens, "loss": float(point.loss[0]), **known}
                if beside is not None:
                    row |= _against(next(p for p in beside if p.updates == point.updates), corpus, worlds)
                    row["nats"] = corpus_nats(worlds, point.networks[0])
                save_checkpoint(options.out, point, row)
                rows.append(row)
                bar.set_postfix_str(f"J {known['J']:.4f} H {known['H']:.3f}")
        except InputError as error:
            if not rows:
                raise
            return error
    return None


def _against(point: Checkpoint, corpus: Corpus, worlds: Sequence[TokenMDP]) -> dict[str, float]:
    """J and exact loss of the network that follows the likelihood."""
    (network,) = point.networks
    return {
        "likelihood J": describe_policy(corpus.world, network)["J"],
        "likelihood nats": corpus_nats(worlds, network),
    }


def _reward(options: argparse.Namespace) -> NextTokenReward | None:
    """What is rewarded; None for the likelihood. Raises InputError for an option that the likelihood has no use for."""
    if options.objective != _LIKELIHOOD:
        group = _GROUP if options.group is None else options.group
        return NextTokenReward(options.objective, group, options.thoughts or _THOUGHTS)
    for name in ("group", "thoughts"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name} is for a reward of next tokens: add --objective rpt, grpo or mean")
    return None


def _corpus(options: argparse.Namespace) -> Corpus:
    world = make_world(options.world, **dict(pairs("--set", options.set)))
    if not isinstance(world, TokenMDP):
        raise InputError(f"--world {options.world} has no tokens: pretraining needs a token world")
    return Corpus(world, best_words(world), options.quality, options.noise, options.coverage)


def _model(options: argparse.Namespace, reward: NextTokenReward | None) -> dict[str, Any]:
    """What the run was asked for."""
    world = {"world": options.world, "world_options": dict(pairs("--set", options.set))}
    knobs = {name: getattr(options, name) for name in ("seed", *_CORPUS, *_SIZES, "rate")}
    return {**world, **knobs} | ({} if reward is None else vars(reward))


def _report(table: pd.DataFrame, corpus: Corpus, worlds: Sequence[TokenMDP], options: argparse.Namespace) -> None:
    """Write the table as CSV, draw it, print it."""
    write_atomically(options.out / "pretraining.csv", table.to_csv(index=False))
    knobs = ", ".join(f"{name} {getattr(options, name):g}" for name in _CORPUS)
    climbed = f" by {options.objective}" if worlds else ""
    title = f"Pretraining in {options.world}{climbed}: {knobs}"
    reader, stem = reader_return(corpus), options.out / "pretraining"
    shown = ["updates", "tokens", "loss", "J", "H", "pass_at_k"]
    if worlds:
        draw_objectives(table, options.objective, least_nats(worlds), reader, title, stem)
        shown += ["nats", "likelihood nats", "likelihood J"]
    else:
        draw_pretraining(table, reader, title, stem)
    shown += [name for name in table if name.startswith("skill ")]
    print(table[shown].to_string(index=False, float_format=lambda x: f"{x:.4f}"))
    print(f"{len(table)} checkpoints, pretraining.csv and pretraining.png are in {options.out}")
