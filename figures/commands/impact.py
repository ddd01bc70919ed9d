"""`costate impact`: signal, headroom and predicted impact of every checkpoint in a folder, and the one to start RL from."""

import argparse
import dataclasses
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from agents.recipes.learners import grpo
from agents.training.settings import TrainingSettings
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from envs.user_files import users_code
from envs.world import InputError
from figures.commands.options import add_device, add_seed, device_of, pairs, whole_number
from figures.commands.progress_bar import progress_bar
from figures.drawing.checkpoints import draw_impact
from figures.harness.code import other_parts
from figures.harness.records import check_writable, write_atomically
from figures.impact.checkpoint_files import MODEL_FILE, WRITER, checkpoint_files, read_model
from figures.impact.checkpoints import Loaded, Source, read_checkpoints
from figures.impact.contest import CRITERION, POWER
from figures.impact.numbers import PREDICTORS, Definitions, describe_policy
from figures.impact.runs import MAIN, Recipe, gains
from figures.impact.settings import ImpactSetting

STOPPED = "nothing was written yet; the same command begins anew"
# the claim impact_product has the evidence for the first two, and against the norm
NORM = "costate x rest"
_SHOWN = {CRITERION: "score_value", POWER: "score_best", NORM: "control"}
_COLUMNS = {
    "J": "J",
    "H": "entropy",
    "pass_at_k": "pass@k",
    "costate": "|E costate|",
    "snr": "signal/noise",
    "best_of": "pass@k - J",
    "power": "power headroom",
    "predicted": "predicted",
    "gain": "gain",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The checkpoints, the definitions, and RL where it is asked for."""
    add = parser.add_argument
    add("--checkpoints", type=Path, required=True, metavar="DIR", help="folder of .pt state dicts")
    text = "a registered token world, or your own: FILE.py:FUNCTION or FILE.json (default: what model.json says)"
    add("--world", metavar="NAME", help=text)
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="keyword of its builder")
    add("--model", metavar="MODULE:FUNCTION", help="builds your network, given the world; or FILE.py:FUNCTION")
    add("--embedding", metavar="NAME", help="its table of embeddings (default: embedding.weight)")
    add("--site", metavar="PATH", help="submodule whose output is where the costate is read")
    count = partial(whole_number, 1)
    add("--heads", type=count, metavar="N", help="attention heads of this suite's transformer")
    add("--k", type=count, default=8, metavar="N", help="k of pass@k (default: 8)")
    add("--eps", type=float, default=0.5, metavar="X", help="radius of the KL ball (default: 0.5)")
    add("--alpha", type=float, default=4.0, metavar="X", help="power of p^alpha (default: 4)")
    add("--budget", type=count, metavar="N", help="also run N updates of GRPO from each and measure the gain")
    add("--group", type=count, default=8, metavar="N", help="rows of a group (default: 8)")
    add("--rows", type=count, default=64, metavar="N", help="rows an update (default: 64)")
    add("--rate", type=float, default=0.001, metavar="X", help="learning rate of RL (default: 0.001)")
    add_device(parser)
    add_seed(parser, "of RL's noise")
    add("--out", type=Path, metavar="DIR", help="results (default: the folder of checkpoints)")


def run(options: argparse.Namespace) -> int:
    """Read the checkpoints, measure them, print and draw the numbers, and name the checkpoint to start RL from."""
    torch.set_num_threads(1)
    device, definitions = device_of(options.device), Definitions(k=options.k, eps=options.eps, alpha=options.alpha)
    world = _world(options)
    setting = _rl(options, world)
    if options.embedding is not None and options.model is None:
        raise InputError("--embedding is for a network of your own: name it with --model, or leave --embedding out")
    source = Source(options.model, options.embedding or "embedding.weight", options.site, options.heads)
    loaded = read_checkpoints(options.checkpoints, world, source, device)
    _name_other_writers(loaded)
    out = options.out or options.checkpoints
    check_writable(out, ())
    table = _measured(world, loaded, definitions, setting, options)
    write_atomically(out / "impact.csv", table.to_csv(index=False))
    draw_impact(table, _SHOWN, f"{len(table)} checkpoints in {_world_name(options)}", out / "impact")
    print(_printed(table))
    print(_advice(table))
    print(f"impact.csv (all {len(table.columns)} columns) and impact.png are in {out}")
    return 0


def _rl(options: argparse.Namespace, world: TokenMDP) -> ImpactSetting | None:
    """How RL is run, None where it is not asked for. Whatever cannot be run is refused here, before anything is measured."""
    budget = options.budget or 1
    setting = ImpactSetting(budgets=(budget,), groups=(options.group,), rows=options.rows, rate=options.rate)
    training = TrainingSettings(budget, options.rows // options.group, options.group, rate=options.rate)
    training.check_size(world.horizon, world.V)
    return None if options.budget is None else setting


def _name_other_writers(loaded: list[Loaded]) -> None:
    """Say on stderr which of the suite's own checkpoints other code or other library versions wrote."""
    others = {
        checkpoint.name: other_parts(checkpoint.written_by, WRITER) for checkpoint in loaded if checkpoint.written_by
    }
    names = [name for name, parts in others.items() if parts]
    if names:
        parts = sorted({part for name in names for part in others[name]})
        which = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        print(
            f"costate: checkpoint {which} was written with other {', '.join(parts)}; it is judged all the same",
            file=sys.stderr,
        )


def _measured(
    world: TokenMDP,
    loaded: list[Loaded],
    definitions: Definitions,
    setting: ImpactSetting | None,
    options: argparse.Namespace,
) -> pd.DataFrame:
    """A row for each checkpoint, and the criterion as a share of its largest."""
    rows = []
    with progress_bar("checkpoints", len(loaded)) as bar:
        for checkpoint in loaded:
            with nullcontext() if options.model is None else users_code(options.model, "--model", measuring=True):
                rows.append(_row(world, checkpoint, definitions, setting, options.seed))
            bar.update()
    table = pd.DataFrame(rows)
    table["predicted"] = table[CRITERION] / max(table[CRITERION].max(), 1e-300)
    return table


def _world_name(options: argparse.Namespace) -> str:
    name: str | None = options.world or read_model(options.checkpoints).get("world")
    if not name:
        raise InputError(f"--world is missing, and {options.checkpoints} has no {MODEL_FILE} that names one")
    return name


def _world(options: argparse.Namespace) -> TokenMDP:
    """The world of the command line, or that of the folder's model.json."""
    checkpoint_files(options.checkpoints)
    name, model = _world_name(options), read_model(options.checkpoints)
    keywords = model.get("world_options", {}) if model.get("world") == name else {}
    world = make_world(name, **{**keywords, **dict(pairs("--set", options.set))})
    if not isinstance(world, TokenMDP):
        raise InputError(f"--world {name} has no tokens: checkpoints are judged in a token world")
    return world


def _row(
    world: TokenMDP, checkpoint: Loaded, definitions: Definitions, setting: ImpactSetting | None, seed: int
) -> dict[str, Any]:
    """Everything exact of one checkpoint, and its gain where RL is run."""
    try:
        known = describe_policy(world, checkpoint.policy, dataclasses.replace(definitions, site=checkpoint.site))
    except InputError as error:
        raise InputError(f"checkpoint {checkpoint.name}: {error}") from None
    tokens = {} if checkpoint.tokens is None else {"tokens": checkpoint.tokens}
    row = {"checkpoint": checkpoint.name, **tokens, **known}
    if setting is None:
        return row
    recipe = Recipe(MAIN, grpo(), setting.groups[0], "adam", setting.rate)
    by_budget = gains(world, [checkpoint.policy], recipe, setting, seed)
    return row | {name: float(values[0]) for name, values in by_budget[setting.budgets[0]].items()}


def _printed(table: pd.DataFrame) -> str:
    shown = table[["checkpoint", *(name for name in ("tokens", *_COLUMNS) if name in table)]].rename(columns=_COLUMNS)
    return str(shown.to_string(index=False, float_format=lambda x: f"{x:.4f}"))


def _advice(table: pd.DataFrame) -> str:
    """The checkpoint to start from, by the criterion; where other criteria choose otherwise; what was measured."""
    chosen = _largest(table, CRITERION)
    lines = [f"start RL from: {chosen} (largest {PREDICTORS[CRITERION]})"]
    if float(table[CRITERION].max()) <= 0:
        lines = ["no checkpoint has a signal and a headroom: RL would gain nothing from any of them"]
    for name in (POWER, NORM):
        other = _largest(table, name)
        lines.append(f"  {PREDICTORS[name]} {'agrees' if other == chosen else 'would take ' + other}")
    if "gain" in table:
        best, own = table["gain"].max(), float(table.loc[table[CRITERION].idxmax(), "gain"])
        lines += [
            f"  measured: {_largest(table, 'gain')} gained most, {best:.4f}; the one named gained {own:.4f}",
            "  (one run of RL from each: a gain carries the noise of its run; other --seed values show how much)",
        ]
    return "\n".join(lines)


def _largest(table: pd.DataFrame, name: str) -> str:
    """The checkpoint where a column is largest."""
    return str(table.loc[table[name].idxmax(), "checkpoint"])
