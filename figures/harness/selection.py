"""Which settings of a claim a sweep runs: some of them, or the same with other values."""

import dataclasses
import itertools
import math
import re
import types
from collections.abc import Callable
from typing import Any, get_args, get_origin, get_type_hints

from envs.world import InputError, one_line, unknown


def select(
    settings: list[Any], only: list[str], changes: list[str], convert: Callable[[str, str], str] = lambda _, text: text
) -> list[Any]:
    """The settings whose fields match every `only` ("field=value"), with every change ("field=value") made; each once.

    Several `only` of one field are alternatives; several changes of one field are made in turn, a setting for each. Lists are
    separated by commas. `convert` (field, text) may replace the text of a change, a file by what it holds for instance. Raises
    InputError for a field that the settings do not have, a value that none of them has, and a value that cannot be read.
    """
    wanted: dict[str, list[str]] = {}
    for text in only:
        name, value = _split("--only", text, settings[0])
        if value not in {text_of(getattr(s, name)) for s in settings}:
            have = dict.fromkeys(text_of(getattr(s, name)) for s in settings)
            raise unknown(f"--only {one_line(text, 80)}: {name}", value, have)
        wanted.setdefault(name, []).append(value)
    kept = [s for s in settings if all(text_of(getattr(s, name)) in values for name, values in wanted.items())]
    if not kept:
        raise InputError(f"--only {' --only '.join(only)}: no setting has all of these together")
    new, kinds = dict[str, list[Any]](), get_type_hints(type(settings[0]))
    for name, value in (_split("--set", text, settings[0]) for text in changes):
        read = _read(convert(name, value), kinds[name], f"--set {one_line(f'{name}={value}', 80)}")
        new.setdefault(name, []).append(read)
    grid = [dict(zip(new, values, strict=True)) for values in itertools.product(*new.values())]
    return list(dict.fromkeys(dataclasses.replace(s, **values) for s in kept for values in grid))


def _split(option: str, text: str, example: Any) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    fields = [field.name for field in dataclasses.fields(example)]
    if not equals:
        raise InputError(f"{option} {one_line(text, 80)}: give FIELD=VALUE, FIELD one of {', '.join(fields)}")
    if name not in fields:
        raise unknown(f"{option} {one_line(text, 80)}: field", name, fields)
    return name, value


def text_of(value: Any) -> str:
    """A field's value as a user writes it: a float with all of its digits and no more, several values with commas."""
    if isinstance(value, tuple | list):
        return ",".join(text_of(v) for v in value)
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _read(text: str, kind: Any, where: str) -> Any:
    """`text` as what a field of that type holds."""
    if isinstance(kind, types.UnionType):  # a number or None
        (kind,) = (each for each in get_args(kind) if each is not types.NoneType)
        return None if text == "None" else _read(text, kind, where)
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if get_origin(item) is tuple:
            raise InputError(f"{where}: this field cannot be set from the command line")
        parts = re.split(r",(?![^(]*\))", text) if text else []  # a comma in "stop (2,4)" separates nothing
        return tuple(_read(part, item, where) for part in parts)
    if kind is bool and text not in ("True", "False"):
        raise InputError(f"{where}: must be True or False")
    try:
        value = text == "True" if kind is bool else kind(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
    except ValueError:
        raise InputError(f"{where}: must be {'a finite number' if kind is float else 'a whole number'}") from None
    return value
