"""Audits of what a command names: a function of a user's file, an installed library's loss, or records of earlier audits."""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from envs.user_files import check_file, load_user_function
from envs.world import InputError, one_line, unknown
from figures.audit.adapters import LIBRARIES, adapter
from figures.audit.auditor import audit
from figures.audit.isolated import audit_library
from figures.audit.record import Audit

_DIGITS = 8  # to which two records are compared


@dataclass(frozen=True)
class Request:
    """What is asked of every spec.

    Attributes:
        advantage: FILE.py:FUNCTION of a user's function that makes advantages; None without one.
        options: of libraries' losses. `LIBRARY:KEY` is for the losses of this library alone.
        declared: as in `audit`.
        pictures: as in `audit`.
    """

    advantage: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    declared: Mapping[str, Any] = field(default_factory=dict)
    pictures: bool = False


def kind_of(spec: str) -> str:
    """What a spec names.

    Args:
        spec: `trl:grpo`, `my.py:loss`, `package.module:loss` or `audit.json`.

    Returns:
        "library", "function" or "records".

    Raises:
        InputError: it names none of them.
    """
    place, colon, _ = spec.rpartition(":")
    if spec.endswith(".json"):
        return "records"
    if not colon:
        raise InputError(
            f"{one_line(spec, 80)} names no loss: give LIBRARY:NAME, FILE.py:FUNCTION or a file audit.json"
        )
    if place in LIBRARIES:
        return "library"
    here = (Path(f"{place}.py").exists(), Path(place).is_dir(), place.endswith(".py"), "." in place)
    if any(here) or (place.isidentifier() and importlib.util.find_spec(place) is not None):
        return "function"
    raise unknown("library", place, LIBRARIES)


def check_request(specs: Sequence[str], request: Request) -> None:
    """Refuse options that concern none of the specs.

    Args:
        specs: what is audited.
        request: what is asked of each.

    Raises:
        InputError: as said, or a spec names nothing.
    """
    kinds = [kind_of(spec) for spec in specs]
    if request.advantage is not None and "function" not in kinds:
        raise InputError("--advantage is for a function of your own: name one as FILE.py:FUNCTION, or leave it out")
    libraries = {spec.partition(":")[0] for spec, kind in zip(specs, kinds, strict=True) if kind == "library"}
    for key in request.options:
        owner, colon, _ = key.rpartition(":")
        if not libraries or (colon and owner not in libraries):
            raise InputError(f"--option {key} is for a library's loss: name one as LIBRARY:NAME, or leave it out")


def audits_of(spec: str, request: Request) -> list[Audit]:
    """The audit of a spec; of a file of records all that it holds.

    Args:
        spec: as in `kind_of`.
        request: what is asked.

    Returns:
        Records, each named by its spec and options.

    Raises:
        InputError: as `audit`, `audit_library` and `load_user_function`, or a file holds no records.
    """
    kind = kind_of(spec)
    if kind == "records":
        return read_records(Path(spec))
    if kind == "library":
        options = _options_of(spec, request.options)
        record = audit_library(spec, options, pictures=request.pictures, **request.declared)
        return [replace(record, name=" ".join([spec, *(f"{key}={value}" for key, value in options.items())]))]
    takes = "the names of its parameters"
    loss = load_user_function(spec, "loss", takes)
    advantage = None if request.advantage is None else load_user_function(request.advantage, "--advantage", takes)
    record = audit(loss, advantage, pictures=request.pictures, **request.declared)
    place, _, name = spec.rpartition(":")
    return [replace(record, name=f"{Path(place).name}:{name}")]


def _options_of(spec: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that all libraries get, and those of this one."""
    library = spec.partition(":")[0]
    split = {key: key.rpartition(":") for key in options}
    return {name: options[key] for key, (owner, _, name) in split.items() if owner in ("", library)}


def varied(spec: str, option: str, request: Request) -> tuple[list[Audit], list[str]]:
    """A library's loss at every value of an option.

    Args:
        spec: of the loss.
        option: of the library.
        request: what is asked.

    Returns:
        The audits, and what was refused, a line each.

    Raises:
        InputError: the spec is no library's, the option is unknown, or every value is refused.
    """
    if kind_of(spec) != "library":
        raise InputError(f"--vary is for a library's loss; {one_line(spec, 80)} is none")
    values = adapter(spec.partition(":")[0]).OPTIONS
    if option not in values:
        raise unknown(f"--vary: option of {spec}", option, list(values))
    audits, refused = list[Audit](), list[str]()
    for value in values[option]:
        try:
            audits += audits_of(spec, replace(request, options={**request.options, option: value}))
        except InputError as error:
            refused.append(f"{spec} {option}={value}: {error}")
    if not audits:
        raise InputError(f"--vary {option}: every value is refused; the last: {refused[-1]}")
    return audits, refused


def same(audits: Sequence[Audit]) -> bool:
    """Whether audits found the same: status, numbers, weights and slopes; names, words and times aside.

    Args:
        audits: records with pictures, so that there are weights to compare.

    Returns:
        Whether all are alike.
    """
    return len({_fingerprint(record) for record in audits}) == 1


def _fingerprint(record: Audit) -> str:
    findings = [(f.name, f.status, f.value, f.facts, f.example and asdict(f.example)) for f in record.findings]
    return json.dumps(_rounded([findings, record.shown and asdict(record.shown)]), sort_keys=True)


def _rounded(x: Any) -> Any:
    """Numbers to so many digits, and those that are only rounding as 0."""
    if isinstance(x, float):
        return 0.0 if abs(x) < 10**-_DIGITS else float(f"{x:.{_DIGITS}g}")
    if isinstance(x, Mapping):
        return {key: _rounded(value) for key, value in x.items()}
    return [_rounded(value) for value in x] if isinstance(x, list | tuple) else x


def to_file(audits: Sequence[Audit]) -> str:
    """The text of a file of records, which `read_records` reads.

    Args:
        audits: the records.

    Returns:
        JSON, one record a line.
    """
    return "[\n" + ",\n".join(record.to_json() for record in audits) + "\n]\n"


def read_records(path: Path) -> list[Audit]:
    """The records of a file that `costate audit --out` wrote.

    Args:
        path: of audit.json.

    Returns:
        The records.

    Raises:
        InputError: it cannot be read, or holds none.
    """
    check_file(path, "records")
    try:
        records = [Audit.from_json(json.dumps(given)) for given in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, KeyError, TypeError, AttributeError):
        records = []
    if not records:
        raise InputError(f"records {one_line(str(path), 200)}: no audit.json that `costate audit --out` wrote")
    return records
