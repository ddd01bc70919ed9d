"""Audits of libraries' losses, each in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from envs.world import InputError
from figures.audit.record import Audit

_SECONDS = 600


def audit_library(
    spec: str, options: Mapping[str, Any] | None = None, pictures: bool = False, **declared: Any
) -> Audit:
    """Audit the loss that LIBRARY:NAME means, in a process of its own.

    Args:
        spec: library and name, `trl:grpo` for instance.
        options: of the loss.
        pictures: as in `figures.audit.auditor.audit`.
        declared: as in `figures.audit.auditor.audit`.

    Returns:
        The record.

    Raises:
        InputError: as `figures.audit.adapters.build` and `audit`, or the process failed.
    """
    request = json.dumps({"spec": spec, "options": dict(options or {}), "pictures": pictures, "declared": declared})
    command = [sys.executable, "-m", "figures.audit.adapters"]
    done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        refused = [line.removeprefix("REFUSED ") for line in lines if line.startswith("REFUSED ")]
        raise InputError(refused[-1] if refused else f"{spec} cannot be audited: {lines[-1]}")
    return Audit.from_json(done.stdout.splitlines()[-1])
