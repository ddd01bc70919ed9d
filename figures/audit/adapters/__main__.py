"""One audit in a process of its own: reads a request as JSON from stdin, writes the record as JSON to stdout.

A request that names a library alone is answered with the names of its losses.

Libraries are imported here and nowhere else, because what one of them replaces in another breaks a third.
"""

import json
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

from envs.world import InputError
from figures.audit.adapters import adapter, build, installed
from figures.audit.auditor import audit


def main() -> int:
    """Audit what the request names; exit with 2 and one line on stderr where that cannot be done."""
    request = json.loads(sys.stdin.read())
    try:
        with redirect_stdout(sys.stderr):  # libraries print
            answer = _audited(request) if "spec" in request else json.dumps(adapter(request["library"]).names())
    except InputError as error:
        print(f"REFUSED {error}", file=sys.stderr)
        return 2
    print(answer)
    return 0


def _audited(request: dict[str, Any]) -> str:
    subject = build(request["spec"], request["options"])
    record = audit(subject, properties=request["properties"], pictures=request["pictures"], **request["declared"])
    return replace(record, version=installed(request["spec"].partition(":")[0])).to_json()


sys.exit(main())
