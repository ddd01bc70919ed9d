"""`costate audit`: what a loss does, property by property, and whether it is what its author declares."""

import argparse
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from envs.world import InputError
from figures.audit.adapters import LIBRARIES, adapter, installed
from figures.audit.auditor import PROPERTIES
from figures.audit.declared import DECLARATIONS, check_declared
from figures.audit.isolated import library_names
from figures.audit.record import Audit
from figures.audit.specs import Request, audits_of, check_request, same, to_file, varied
from figures.commands.options import pairs
from figures.commands.progress_bar import progress_bar
from figures.drawing.audit import save_audits
from figures.harness.records import check_writable, write_atomically
from figures.report.audit_page import audit_page

STOPPED = "nothing was written; the same command begins anew"
_COLUMNS = 80


def add_options(parser: argparse.ArgumentParser) -> None:
    """The losses, what is declared of them, and where the page goes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    known = [f"{name}: {declaration.text}" for name, declaration in DECLARATIONS.items()]
    parser.epilog = "\n".join(["what can be declared:", *(textwrap.fill(x, 78, subsequent_indent="  ") for x in known)])
    add = parser.add_argument
    text = "LIBRARY:NAME, FILE.py:FUNCTION, MODULE:FUNCTION, or an audit.json of an earlier audit"
    add("specs", nargs="*", metavar="SPEC", help=text)
    add("--advantage", metavar="FUNCTION", help="what makes the advantages of your loss: FILE.py:FUNCTION")
    text = "what should hold: unbiased, split=groups, clip=0.2,0.2 (see below)"
    add("--declare", action="append", default=[], metavar="NAME[=VALUE]", help=text)
    text = "option of a library's loss; LIBRARY:KEY=VALUE is for that library alone"
    add("--option", action="append", default=[], metavar="KEY=VALUE", help=text)
    text = "audit the loss at every value of this option, and say whether it has an effect"
    add("--vary", action="append", default=[], metavar="OPTION", help=text)
    add("--list", action="store_true", help="show the libraries; with SPEC, the losses and options of LIBRARY")
    add("--title", metavar="TEXT", help="of the page and the picture")
    add("--out", type=Path, metavar="DIR", help="write audit.csv, audit.json, audit.html and audit.png there")


def run(options: argparse.Namespace) -> int:
    """Audit every loss and print its table; 0 where all is as it should be."""
    torch.set_num_threads(1)
    if options.list:
        print(_libraries() if not options.specs else "\n".join(map(_library, options.specs)))
        return 0
    if not options.specs:
        raise InputError("audit: name a loss, LIBRARY:NAME or FILE.py:FUNCTION, or ask with --list for the libraries")
    pictures = options.out is not None or bool(options.vary)
    request = Request(options.advantage, dict(pairs("--option", options.option)), _declared(options.declare), pictures)
    check_request(options.specs, request)
    check_declared(request.declared, list(PROPERTIES))
    with _folder(options.out):
        records, said = _audited(options.specs, options.vary, request)
    if options.out is not None:
        _write(records, options.title or "", options.out)
        said.append(f"audit.csv, audit.json, audit.html and audit.png are in {options.out}")
    print("\n\n".join([*(wrapped(str(record)) for record in records), *said]))
    return 0 if all(record.ok for record in records) else 1


@contextmanager
def _folder(out: Path | None) -> Iterator[None]:
    """The folder of results, tried before any work; where a loss is refused, a folder that was made for it goes again."""
    new = out is not None and not out.exists()
    if out is not None:
        check_writable(out, ())
    try:
        yield
    except BaseException:
        if out is not None and new:
            out.rmdir()
        raise


def _declared(given: Sequence[str]) -> dict[str, Any]:
    """NAME alone means True; numbers separated by commas are a tuple."""
    texts = [text if "=" in text else f"{text}=True" for text in given]
    return {name: _tuple(value) for name, value in pairs("--declare", texts)}


def _tuple(value: Any) -> Any:
    if not isinstance(value, str) or "," not in value:
        return value
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        return value


def _audited(specs: Sequence[str], vary: Sequence[str], request: Request) -> tuple[list[Audit], list[str]]:
    """The records, and what is to be said of options that were varied."""
    records, said = list[Audit](), list[str]()
    tasks = [(spec, option) for spec in specs for option in (vary or [""])]
    with progress_bar("audits", len(tasks)) if len(tasks) > 1 else nullcontext() as bar:
        for spec, option in tasks:
            if option:
                found, refused = varied(spec, option, request)
                said += [*(f"refused: {line}" for line in refused), _effect(spec, option, found)]
            else:
                found = audits_of(spec, request)
            records += found
            if bar is not None:
                bar.update()
    return records, said


def _effect(spec: str, option: str, found: Sequence[Audit]) -> str:
    """One line on an option that was varied."""
    if len(found) == 1:
        return f"{option} of {spec}: only one value could be audited"
    if same(found):
        return f"{option} of {spec} has no effect: all {len(found)} values give the same weights and findings"
    groups = list[list[Audit]]()
    for record in found:
        alike = next((group for group in groups if same([group[0], record])), None)
        groups.append([record]) if alike is None else alike.append(record)
    equal = [" and ".join(record.name for record in group) for group in groups if len(group) > 1]
    tail = f"; no difference between {'; '.join(equal)}" if equal else ""
    return f"{option} of {spec} has an effect: {len(groups)} of {len(found)} values differ{tail}"


def _write(records: Sequence[Audit], title: str, out: Path) -> None:
    """Rows and records first; then what is drawn from them."""
    write_atomically(out / "audit.csv", pd.concat([record.frame() for record in records]).to_csv(index=False))
    write_atomically(out / "audit.json", to_file(records))
    save_audits(records, out / "audit.png", title)
    audit_page(records, out / "audit.html", title)


def wrapped(text: str) -> str:
    """A record's table in lines of 80 columns; the batch below a defect stays as it is."""
    return "\n".join(line for long in text.splitlines() for line in _wrapped(long))


def _wrapped(line: str) -> Iterator[str]:
    if line.startswith("  ") or len(line) <= _COLUMNS:
        return iter([line])
    return iter(textwrap.wrap(line, _COLUMNS, subsequent_indent=8 * " ", break_long_words=False))


def _libraries() -> str:
    """Every adapter: installed or not, the version tried and the one found."""
    lines = [f"{'library':<10} {'package':<12} {'tried':<9} {'found':<9}"]
    for library in LIBRARIES:
        module = adapter(library)
        tried, found = module.TRIED or "any", installed(library) or "not installed"
        lines.append(f"{library:<10} {module.PACKAGE or 'costate-lab':<12} {tried:<9} {found}")
    return "\n".join([*lines, "", "costate audit --list LIBRARY shows its losses and options"])


def _library(name: str) -> str:
    """The losses and options of one library."""
    library = name.partition(":")[0]
    options = [f"  {key}: {', '.join(map(str, values))}" for key, values in adapter(library).OPTIONS.items()]
    losses = textwrap.fill(", ".join(library_names(library)), 78, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([f"{library}: losses", losses, f"{library}: options, with the values of --vary", *options])
