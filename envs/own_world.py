"""A user's own world: a function in a Python file that builds it, or a JSON file with its matrices or tables."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from envs.arguments import short
from envs.linear_quadratic import LinearQuadratic
from envs.own_tables import TOKEN_FIELDS, TOKEN_FORMS, holds_tokens, token_world_of
from envs.token_mdp import TokenMDP
from envs.user_files import check_file, load_user_function
from envs.world import InputError, World, one_line, unknown

SYSTEM_FIELDS = (
    *("A", "B", "Q", "R", "Q_f", "N", "q", "q_a", "q_f"),
    *("S_w", "S_x", "m_0", "S_0", "gamma", "horizon", "noise"),
)
_NEEDED = SYSTEM_FIELDS[:4]
_SYSTEM = f"A, B, Q, R and any of {', '.join((*SYSTEM_FIELDS[4:], 'K', 'k'))}"


def names_own_world(name: str) -> bool:
    """Whether a name means a file or function of the user's, and not a world of the suite.

    Args:
        name: what the user wrote.

    Returns:
        True for a name with a colon, or one that ends in .json, marked or not.
    """
    return ":" in name or name.endswith(".json") or ".json#" in name


def load_own_world(spec: str, what: str = "world", **options: Any) -> Any:
    """Build a user's world.

    Args:
        spec: `my_world.py:build`, `package.module:build`, or `my.json`.
        what: what named it; every error begins with it.
        options: keywords of the function; a JSON file takes none.

    Returns:
        What the function returns, a `TokenMDP` or a `World`; of a JSON file the `TokenMDP` of its tables (`envs.own_tables`) or
        the `LinearQuadratic` of its matrices (its fields K and k are left out).

    Raises:
        InputError: in one line, why there is no such world.
    """
    if spec.endswith(".json"):
        if options:
            raise InputError(f"{what} {one_line(spec, 200)} takes no options: {', '.join(options)}")
        return _of_fields(read_fields(Path(spec), what), f"{what} {one_line(spec, 200)}")
    world = load_user_function(spec, what, "the options of its world as keywords")(**options)
    if not isinstance(world, TokenMDP | World):
        kind = type(world).__name__
        raise InputError(f"{what} {one_line(spec, 200)} must return a TokenMDP or a World (envs.world); got {kind}")
    return world


def read_fields(path: Path, what: str) -> dict[str, Any]:
    """The fields of a world in a JSON file, those of one kind.

    Args:
        path: of the file.
        what: what named it; the error begins with it.

    Returns:
        The fields by name.

    Raises:
        InputError: the file cannot be read or holds no such world.
    """
    check_file(path, what)
    try:
        return parse_fields(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{what} {path}: it is not a text in UTF-8") from None
    except InputError as error:
        raise InputError(f"{what} {path}: {error}") from None


def parse_fields(text: str) -> dict[str, Any]:
    """The fields that a JSON text holds.

    These are A, B, Q, R, any other of `SYSTEM_FIELDS`, and a policy's K and k; or those of a token world
    (`envs.own_tables.TOKEN_FIELDS`).

    Args:
        text: JSON.

    Returns:
        The fields by name.

    Raises:
        InputError: the text is no JSON, lacks a field, holds an unknown one, or a number that is not finite.
    """
    fields = _parsed(text)
    if not isinstance(fields, dict):
        raise InputError(f"it must hold an object: {_SYSTEM}, or {TOKEN_FORMS}; got a {type(fields).__name__}")
    tokens = holds_tokens(fields)
    known = TOKEN_FIELDS if tokens else (*SYSTEM_FIELDS, "K", "k")
    for name in [name for name in _NEEDED if not tokens and name not in fields]:
        raise InputError(f"{name} is missing: it must hold {_SYSTEM} (a token world has {TOKEN_FORMS})")
    for name, x in fields.items():
        if name not in known:
            raise unknown("field", name, known)
        if "Infinity" in json.dumps(x):
            raise InputError(f"{name} holds a number beyond floating-point range; every entry must be a finite number")
    return fields


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except InputError:
        raise
    except RecursionError:
        raise InputError("it is not JSON: its brackets are nested too deeply") from None
    except ValueError as error:
        raise InputError(f"it is not JSON: {short(str(error))}") from None


def _of_fields(fields: dict[str, Any], where: str) -> TokenMDP | LinearQuadratic:
    if holds_tokens(fields):
        return token_world_of(fields, where)
    return system_of({name: x for name, x in fields.items() if name in SYSTEM_FIELDS}, where)


def _refuse_constant(name: str) -> NoReturn:
    raise InputError(f"it holds {name}; every entry must be a finite number")


def system_of(fields: dict[str, Any], where: str = "") -> LinearQuadratic:
    """The linear-quadratic system with these fields; errors begin with `where`.

    Args:
        fields: by name.
        where: where they come from; errors begin with it.

    Returns:
        The system, on torch tensors.

    Raises:
        InputError: the fields do not make a system.
    """
    begin = f"{where}: " if where else ""
    try:
        return LinearQuadratic(**fields).to()
    except InputError as error:
        raise InputError(f"{begin}{error}") from None
    except (TypeError, OverflowError) as error:
        raise InputError(f"{begin}a field is no number: {short(str(error))}") from None


def system_text(world: LinearQuadratic) -> str:
    """A system as canonical JSON text.

    Args:
        world: a plain linear-quadratic world.

    Returns:
        The text, the same for equal systems.

    Raises:
        InputError: the world is a variant, whose fields say too little.
    """
    if type(world) is not LinearQuadratic:
        raise InputError(f"world must be a plain LinearQuadratic here; got {type(world).__name__}")
    values = {name: getattr(world, name) for name in SYSTEM_FIELDS}
    plain = {
        name: np.asarray(x).tolist() if isinstance(x, torch.Tensor | np.ndarray) else x for name, x in values.items()
    }
    return json.dumps({name: x for name, x in plain.items() if x is not None}, sort_keys=True)


def fingerprint(world: Any) -> str:
    """Eight letters that differ where two worlds do: a digest of their kind, numbers and tables.

    Args:
        world: of any kind.

    Returns:
        Eight hexadecimal digits.
    """
    content, known = hashlib.sha256(type(world).__name__.encode()), vars(world)
    if dataclasses.is_dataclass(world):  # without what it has computed of its fields
        known = {field.name: getattr(world, field.name) for field in dataclasses.fields(world)}
    for name, value in sorted(known.items()):
        tables = value.items() if isinstance(value, dict) else [("", value)]
        for key, x in tables:
            plain = np.asarray(x.cpu()) if isinstance(x, torch.Tensor) else x
            data = plain.tobytes() if isinstance(plain, np.ndarray) else repr(plain).encode()
            content.update(f"{name} {key} ".encode() + data)
    return content.hexdigest()[:8]


def marked(spec: str, what: str = "world") -> str:
    """`spec#digest`: a name under which records are kept, so that a changed file is another world.

    Args:
        spec: as in `load_own_world`.
        what: what named it; every error begins with it.

    Returns:
        The marked name.

    Raises:
        InputError: as in `load_own_world`.
    """
    return f"{spec}#{fingerprint(load_own_world(spec, what))}"


def load_marked(name: str, what: str = "world") -> Any:
    """The world of a marked name.

    Args:
        name: as `marked` gives it, or without a mark.
        what: what named it; every error begins with it.

    Returns:
        The world.

    Raises:
        InputError: the file builds another world by now, or as in `load_own_world`.
    """
    spec, _, mark = name.rpartition("#")
    world = load_own_world(spec or name, what)
    if spec and fingerprint(world) != mark:
        raise InputError(f"{what} {one_line(spec, 200)} builds another world at every call, or was changed meanwhile")
    return world
