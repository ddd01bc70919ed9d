"""Audits of libraries' losses, each in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from envs.world import InputError
from figures.audit.adapters import adapter, installed
from figures.audit.record import Audit

_SECONDS = 600


def audit_library(
    spec: str,
    options: Mapping[str, Any] | None = None,
    pictures: bool = False,
    properties: Sequence[str] | None = None,
    **declared: Any,
) -> Audit:
    """Audit the loss that LIBRARY:NAME means, in a process of its own.

    Args:
        spec: library and name, `trl:grpo` for instance.
        options: of the loss.
        pictures: as in `figures.audit.auditor.audit`.
        properties: as there.
        declared: as in `figures.audit.auditor.audit`.

    Returns:
        The record.

    Raises:
        InputError: as `figures.audit.adapters.build` and `audit`, or the process failed.
    """
    request = json.dumps(
        {
            "spec": spec,
            "options": dict(options or {}),
            "pictures": pictures,
            "properties": properties,
            "declared": declared,
        }
    )
    return Audit.from_json(_answer(request, spec))


def library_names(library: str) -> list[str]:
    """The losses of an installed library, found in a process of its own.

    Args:
        library: its name.

    Returns:
        The names.

    Raises:
        InputError: there is no adapter for it, it is not installed, or the process failed.
    """
    module = adapter(library)
    if not installed(library):
        raise InputError(f"{library} is not installed: pip install {module.PACKAGE}=={module.TRIED}")
    names: list[str] = json.loads(_answer(json.dumps({"library": library}), library))
    return names


def _answer(request: str, spec: str) -> str:
    """The line that the process prints last."""
    command = [sys.executable, "-m", "figures.audit.adapters"]
    try:
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(f"{spec} cannot be audited: it took more than {_SECONDS} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        refused = [line.removeprefix("REFUSED ") for line in lines if line.startswith("REFUSED ")]
        raise InputError(refused[-1] if refused else f"{spec} cannot be audited: {lines[-1]}")
    return done.stdout.splitlines()[-1]
