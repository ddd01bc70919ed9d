"""Which settings of a claim a sweep runs: some of them, or the same with other values."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from envs.world import InputError, one_line


def select(
    settings: list[Any], only: list[str], changes: list[str], convert: Callable[[str, str], str] = lambda _, text: text
) -> list[Any]:
    """The settings whose fields match every `only` ("field=value"), with every change ("field=value") made; each once.

    Several `only` of one field are alternatives. Lists are separated by commas. `convert` (field, text) may replace the text
    of a change, a file by what it holds for instance. Raises InputError for a field that the
    settings do not have, a value that none of them has, and a value that cannot be read.
    """
    wanted: dict[str, list[str]] = {}
    for text in only:
        name, value = _split("--only", text, settings[0])
        if value not in {text_of(getattr(s, name)) for s in settings}:
            have = dict.fromkeys(text_of(getattr(s, name)) for s in settings)
            raise InputError(f"--only {one_line(text, 80)}: no setting has it; {name} is one of {' | '.join(have)}")
        wanted.setdefault(name, []).append(value)
    kept = [s for s in settings if all(text_of(getattr(s, name)) in values for name, values in wanted.items())]
    if not kept:
        raise InputError(f"--only {' --only '.join(only)}: no setting has all of these together")
    new = [(name, convert(name, value)) for name, value in (_split("--set", text, settings[0]) for text in changes)]
    changed = [
        dataclasses.replace(s, **{n: _read(v, getattr(s, n), f"--set {one_line(f'{n}={v}', 80)}") for n, v in new})
        for s in kept
    ]
    return list(dict.fromkeys(changed))


def _split(option: str, text: str, example: Any) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    fields = [field.name for field in dataclasses.fields(example)]
    if not equals or name not in fields:
        raise InputError(f"{option} {one_line(text, 80)}: give FIELD=VALUE, FIELD one of {', '.join(fields)}")
    return name, value


def text_of(value: Any) -> str:
    """A field's value as a user writes it: a float with all of its digits and no more, several values with commas."""
    if isinstance(value, tuple | list):
        return ",".join(text_of(v) for v in value)
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _read(text: str, old: Any, where: str) -> Any:
    """`text` as what the field holds."""
    if isinstance(old, bool):
        if text not in ("True", "False"):
            raise InputError(f"{where}: must be True or False")
        return text == "True"
    if isinstance(old, tuple):
        if not old or isinstance(old[0], tuple):
            raise InputError(f"{where}: this field cannot be set from the command line")
        return tuple(_read(part, old[0], where) for part in text.split(","))
    try:
        value = type(old)(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
    except ValueError:
        raise InputError(
            f"{where}: must be {'a finite number' if isinstance(old, float) else 'a whole number'}"
        ) from None
    return value
