"""Write the table of what claims cost, which `costate list` and the forecasts use, from the records of finished runs.

    costate check --preset tiny --out A; costate check --out B; python -m benchmarks.claim_costs A B

The folders must hold records of this machine: the table names its processor and today's date.
"""

import argparse
import datetime
import json
import os
import platform
import sys
from pathlib import Path

from figures.harness.costs import TABLE, Costs, measured, with_presets
from figures.harness.records import write_atomically


def machine() -> str:
    """Name of the processor, and how many cores there are."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else name}, {os.cpu_count()} cores"


def gathered(folders: list[Path]) -> Costs:
    """Everything that was measured in these folders, the later ones first where two know the same."""
    costs = Costs(machine=machine(), date=datetime.date.today().isoformat())
    for folder in folders:
        found = with_presets(measured(folder), folder)
        costs.points |= {key: round(seconds, 2) for key, seconds in found.points.items()}
        costs.drawing |= found.drawing
        for preset, claims in found.presets.items():
            costs.presets.setdefault(preset, {}).update(claims)
    return costs


def main() -> None:
    """Write the table; refuse folders without records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="OUT", help="results of `costate check`")
    parser.add_argument("--table", type=Path, default=TABLE, metavar="FILE", help="where it is written")
    options = parser.parse_args()
    costs = gathered(options.folders)
    if not costs.points:
        sys.exit("claim_costs: these folders hold no records: run `costate check` first")
    write_atomically(options.table, json.dumps(vars(costs), indent=0, sort_keys=True) + "\n")
    print(f"{len(costs.points)} settings, presets {', '.join(sorted(costs.presets))}: {options.table}")


if __name__ == "__main__":
    main()
