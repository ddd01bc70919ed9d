"""One audit in a process of its own: reads a request as JSON from stdin, writes the record as JSON to stdout.

Libraries are imported here and nowhere else, because what one of them replaces in another breaks a third.
"""

import json
import sys
from contextlib import redirect_stdout
from dataclasses import replace

from envs.world import InputError
from figures.audit.adapters import build, installed
from figures.audit.auditor import audit


def main() -> int:
    """Audit what the request names; exit with 2 and one line on stderr where that cannot be done."""
    request = json.loads(sys.stdin.read())
    try:
        with redirect_stdout(sys.stderr):  # libraries print
            subject = build(request["spec"], request["options"])
            record = replace(
                audit(subject, pictures=request["pictures"], properties=request["properties"], **request["declared"]),
                version=installed(request["spec"].partition(":")[0]),
            )
    except InputError as error:
        print(f"REFUSED {error}", file=sys.stderr)
        return 2
    print(record.to_json())
    return 0


sys.exit(main())
