"""`costate list`: the claims with their cost and verdict, the assumptions, the worlds and the learners, in 80 columns.

Everything is read from source and result files, so that the answer comes at once.
"""

import argparse
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figures.commands.defaults import DEFAULT_OUT
from figures.harness.catalogue import (
    BuilderText,
    ClaimText,
    assumption_texts,
    claim_texts,
    learner_texts,
    world_texts,
)
from figures.harness.costs import Costs, in_words, presets_of, shipped, stored_verdicts
from figures.harness.registry import CLAIMS, TITLES

_COLUMNS = 80
_PRESET = "quick"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is listed, and where results are looked for."""
    text = f"{', '.join(_SECTIONS)} (default: all)"
    parser.add_argument("kind", nargs="?", choices=tuple(_SECTIONS), metavar="KIND", help=text)
    text = "results whose verdicts and costs are shown (default: runs)"
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help=text)


def run(options: argparse.Namespace) -> int:
    """Print them."""
    kinds = list(_SECTIONS) if options.kind is None else [options.kind]
    print("\n\n".join("\n".join(_SECTIONS[kind](options.out)) for kind in kinds))
    return 0


def _claims(out: Path) -> list[str]:
    """Part by part, then the assumptions, then where costs and verdicts come from."""
    verdicts = {verdict.get("claim"): verdict for verdict in stored_verdicts(out)}
    here, table, known = presets_of(out).get(_PRESET, {}), shipped(), claim_texts()
    costs = table.presets.get(_PRESET, {}) | here
    lines = list[str]()
    for part in CLAIMS:
        lines += [f"{TITLES[part]:<32}  documented verdict         cost assumes"]
        for claim in [claim for claim in known if claim.part == part]:
            lines += _claim(claim, verdicts.get(claim.name), costs.get(claim.name))
        lines += [""]
    lines += [
        "assumptions",
        *(line for key, text in assumption_texts().items() for line in _wrapped(text, 6, f"  {key}")),
    ]
    presets = sorted({str(verdict.get("run", {}).get("preset")) for verdict in verdicts.values() if verdict.get("run")})
    return [*lines, "", *_sources(out, presets, [c.name for c in known if c.name in costs], here, table)]


def _claim(claim: ClaimText, verdict: dict[str, Any] | None, seconds: float | None) -> list[str]:
    """Name, documented outcome, verdict and cost in one line; the statement below."""
    shown = "-"
    if verdict is not None:
        outcome = verdict.get("outcome")
        shown = f"{outcome}{'' if verdict.get('as_documented') or outcome == 'not judged' else ' NO'}"
    cost = "-" if seconds is None else in_words(seconds) + ("*" if claim.study else "")
    line = f"  {claim.name:<30}  {claim.documented:<10} {shown:<12} {cost:>7} {' '.join(claim.assumptions)}"
    return [line.rstrip(), *_wrapped(claim.statement, 4)]


def _sources(out: Path, presets: list[str], priced: list[str], here: dict[str, float], table: Costs) -> list[str]:
    """Where verdicts and costs come from; `presets` are those of the verdicts."""
    kinds = " and ".join(presets)
    notes = [f"verdict: from {out} ({kinds})" if presets else f"verdict: none in {out} yet; `costate check` makes them"]
    if here:
        notes.append(f"cost: of one core at the preset {_PRESET}, as measured in {out}")
    if set(priced) - set(here):
        others = "; the others" if here else ""
        notes.append(f"cost{others}: of one core at the preset {_PRESET}, measured on {table.date} ({table.machine})")
    if priced:
        notes.append("* one study for the claims on impact: its cost is paid once for all of them")
    return [line for note in notes for line in _wrapped(note, 0)]


def _builders(kind: str, texts: dict[str, BuilderText]) -> list[str]:
    """Worlds or learners: what each is, and its options."""
    lines = [kind]
    for name, text in texts.items():
        lines += _wrapped(text.description, 23, f"  {name}")
        lines += _wrapped(", ".join(text.options), 23) if text.options else []
    return lines


def _wrapped(text: str, indent: int, start: str = "") -> list[str]:
    """A text in lines of at most 80 columns, indented, the first behind `start`."""
    return textwrap.wrap(
        text,
        _COLUMNS,
        initial_indent=f"{start} ".ljust(indent) if start else " " * indent,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )


_SECTIONS: dict[str, Callable[[Path], list[str]]] = {
    "claims": _claims,
    "worlds": lambda _: _builders("worlds", world_texts()),
    "learners": lambda _: _builders("learners", learner_texts()),
}
