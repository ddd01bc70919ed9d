"""Records of many numbers show their shapes, not their numbers."""

import dataclasses
from typing import Any, TypeVar

Record = TypeVar("Record", bound=type)
_LONGEST = 12  # entries of a list or dictionary that are named one by one


def short_repr(record: Record) -> Record:
    """Give a dataclass a repr of one line: numbers as they are, arrays by their shapes, fields that are None left out.

    Args:
        record: the class.

    Returns:
        The same class.
    """
    made: Any = record
    made.__repr__ = _repr
    return record


def _repr(self: Any) -> str:
    values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.repr}
    shown = ", ".join(
        f"{name}{_shown(value)}"
        for name, value in values.items()
        if value is not None and not (isinstance(value, dict) and not value)
    )
    return f"{type(self).__name__}({shown})"


def _shown(value: Any) -> str:
    """What stands behind a field's name: "=" and its value, or the shape."""
    shape = getattr(value, "shape", None)
    if shape is not None and len(shape):
        return f" {tuple(shape)}"
    if shape is not None or isinstance(value, float):
        return f"={float(value):.4g}"
    if isinstance(value, dict):
        return f"={{{', '.join(map(str, value))}}}" if len(value) <= _LONGEST else f" of {len(value)}"
    if (
        isinstance(value, list | tuple)
        and len(value)
        and (hasattr(value[0], "shape") or dataclasses.is_dataclass(value[0]))
    ):
        return f" of {len(value)}"
    return f"={value!r}"
